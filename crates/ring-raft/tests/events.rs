//! What is reported through `tracing`. The only test of its program: no other one sees the events first.

use std::sync::{Arc, Mutex};

use ring_raft::{EntryId, RaftLogs};
use ring_testing::events::OnEvent;

#[test]
fn events_name_the_group_and_the_index() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let subscriber = OnEvent::new(move |line: &str| note.lock().expect("no panic").push(line.to_owned()));
    tracing::subscriber::with_default(subscriber, || {
        let (logs, _) = RaftLogs::open_blocking("", ringlog::Log::options().in_memory()).expect("logs");
        let group = logs.group_log(42);
        let mut batch = group.batch().expect("a batch");
        (0..3).for_each(|index| batch.push(index, b"a", 1, |_| Ok(())).expect("room"));
        batch.finish();
        group.truncate(2).expect("room");
        group.purge(EntryId { index: 0, leader: (*b"a").into() }).expect("room");
    });
    let seen = seen.lock().expect("no panic");
    for (what, index) in [("appended", 0), ("truncated", 2), ("purged", 0)] {
        let named = format!("group=42 index={index}");
        assert!(seen.iter().any(|line| line.contains(what) && line.contains(&named)), "{what}: {seen:?}");
    }
}
