use std::io::Write as _;

fn append(ring: &BufferRing, payload: &[u8]) -> Result<()> {
    let extent = ring.append_with(HEADER + payload.len(), |placement, bytes| encode(*placement, payload, bytes))?;
    Ok(ring.wait_durable(extent.end())?)
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log");
    let ring = reopen(&path, 4, 65536, |_, _| unreachable!("the log is new"))?;
    append(&ring, b"first")?;
    append(&ring, b"second")?;
    drop(ring);
    // What a crash may have left behind: half a record, and a whole one that was in flight.
    let end = std::fs::metadata(&path)?.len();
    let mut record = [0; HEADER + 8];
    encode(Extent::new(end + 4096, 28), b"unwanted", &mut record);
    std::fs::OpenOptions::new().append(true).open(&path)?.write_all(&[&[7; 4096], &record[..]].concat())?;

    let mut records = Vec::new();
    let ring = reopen(&path, 4, 65536, |_, payload| records.push(payload.to_vec()))?;
    assert_eq!(records, [&b"first"[..], b"second"]);
    append(&ring, b"third")?;
    drop(ring);

    records.clear();
    scan(&QuikIO::open(&path)?, |_, payload| records.push(payload.to_vec()))?;
    assert_eq!(records, [&b"first"[..], b"second", b"third"]);
    Ok(())
}
