//! Tasks: producers, a live follower of what is only staged, and a consumer that goes on where it was.
//!
//! ```text
//! cargo run --release --features async --example live -- /tmp/live       # and again
//! ```

use core::time::Duration;
use std::env;

use ringlog::{Log, SyncPolicy, Upto};

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    let folder = env::args_os().nth(1).unwrap_or_else(|| env::temp_dir().join("ringlog-live").into());
    let (log, _) = Log::options().sync(SyncPolicy::Every(Duration::from_millis(2))).open(folder)?;
    let mut newest = log.follow(log.end(), Upto::Staged);
    let newest = tokio::spawn(async move {
        let mut staged = 0_u64;
        while newest.next_async().await?.is_some() {
            staged += 1;
        }
        Ok::<_, ringlog::Error>(staged)
    });
    for producer in 0..4 {
        let mut writer = log.writer();
        tokio::spawn(async move {
            for event in 0..10_000_u64 {
                writer.append_async(producer, &event.to_le_bytes()).await.expect("a working log");
            }
        });
    }
    let cursor = log.cursor("mailer")?;
    println!("goes on at {}", cursor.position());
    let (mut follow, mut seen) = (cursor.follow(Upto::Durable), 0);
    // Without the last ones: they come first the next time.
    while seen < 39_000 {
        let Some(record) = follow.next_async().await? else { break };
        let end = record.end;
        seen += 1;
        if seen % 1000 == 0 {
            cursor.advance(end)?;
            log.trim(end)?;
        }
    }
    log.close()?;
    println!("{seen} events seen, up to {}; {} shown live", cursor.position(), newest.await??);
    Ok(())
}
