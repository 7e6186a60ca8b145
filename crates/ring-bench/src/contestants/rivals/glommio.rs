//! glommio's stream writer: direct I/O from one thread, as many buffers behind as the ring has in flight.

use std::time::Instant;

use futures_lite::AsyncWriteExt;
use glommio::LocalExecutorBuilder;
use glommio::io::{DmaStreamWriterBuilder, OpenOptions};

use crate::contestants::{prepared, scan_file};
use crate::log::{Contestant, Family, Outcome};
use crate::measure::{Job, Meters, Sample};
use crate::stamp::{Record, Tally};

pub const GLOMMIO: Contestant = Contestant::program(Family::Rival, "glommio stream writer", glommio);

fn glommio(job: &Job) -> Outcome<Sample> {
    let place = job.place.clone();
    let path = place.folder.join("glommio");
    drop(prepared(&path, place.expected)?);
    let count = place.expected / place.size as u64;
    let executor = LocalExecutorBuilder::default().make().map_err(|error| format!("{error}"))?;
    let sample = executor.run(async {
        let file = OpenOptions::new().write(true).dma_open(&path).await.map_err(|error| format!("{error}"))?;
        let mut writer = DmaStreamWriterBuilder::new(file).with_buffer_size(1 << 20).with_write_behind(4).build();
        let mut record = Record::new(0, place.size);
        let meters = Meters::read(&place);
        let start = Instant::now();
        for _ in 0..count {
            writer.write_all(record.next()).await?;
        }
        writer.close().await?;
        Outcome::Ok(meters.sample(&place, start, count))
    })?;
    let verdict = place.checked.then(|| {
        let mut tally = Tally::new(&[count], place.size);
        scan_file(&path, count * place.size as u64, &mut tally).map_err(|error| error.to_string())?;
        tally.verdict()
    });
    Ok(Sample { verdict, ..sample })
}
