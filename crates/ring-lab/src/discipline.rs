//! How the ring may use the disk, whatever happens: rules on the log itself, before any power cut.

use crate::log::{Event, Log};
use crate::oracle::Oracle;
use crate::record::is_preallocated;

struct Write {
    offset: usize,
    end: usize,
    /// Whether it writes no log, but preallocates space for it.
    prepares: bool,
    /// How it completed, when it did: how many bytes are in the file.
    outcome: Option<usize>,
}

/// The first rule that is broken: the position in the log, and what is wrong there.
pub(crate) fn broken(log: &Log, oracle: &Oracle) -> Option<(usize, String)> {
    let mut writes: Vec<Write> = Vec::new();
    let mut call: Option<Call> = None;
    // The key of the markers, and whether it is on stable storage.
    let mut key = (log.key, true);
    for (position, event) in log.events.iter().enumerate() {
        let rule = match event {
            Event::Arrived { write, offset, bytes, .. } => {
                let (offset, end) = (*offset as usize, *offset as usize + bytes.len());
                let mut rule = arrival(log, oracle, &writes, offset, bytes);
                if matches!(key, (Some(_), false)) && prepares(oracle, offset, bytes) {
                    rule = Err(format!("markers at {offset}..{end} under a key that a power cut would lose"));
                }
                debug_assert_eq!(*write, writes.len(), "writes are counted");
                let prepares = is_preallocated(bytes, offset as u64);
                writes.push(Write { offset, end, prepares, outcome: None });
                rule
            }
            Event::Completed { write, written } => {
                writes[*write].outcome = Some(*written);
                Ok(())
            }
            Event::Failed { write } => {
                writes[*write].outcome = Some(0);
                Ok(())
            }
            Event::KeyChanged { key: changed } => {
                key = (*changed, false);
                Ok(())
            }
            Event::KeySynced { key: synced } => {
                key.1 |= key.0 == *synced;
                Ok(())
            }
            Event::Changed { write } => {
                Err(format!("the bytes of write {write} changed while the disk was reading them"))
            }
            _ => Ok(()),
        };
        if let Err(what) = rule.and_then(|()| one_at_a_time(&mut call, event)) {
            return Some((position, what));
        }
    }
    None
}

/// An operation that makes the disk flush its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    SyncedWrite(usize),
    Flush(usize),
}

/// An error is reported to one of the calls that it may concern. So no other one may be in flight that might succeed
/// meanwhile.
fn one_at_a_time(under_way: &mut Option<Call>, event: &Event) -> Result<(), String> {
    let begins = match *event {
        Event::Arrived { write, synced: true, .. } => Some(Call::SyncedWrite(write)),
        Event::FlushBegan { flush } => Some(Call::Flush(flush)),
        _ => None,
    };
    let ends = match *event {
        Event::Completed { write, .. } | Event::Failed { write } => Some(Call::SyncedWrite(write)),
        Event::FlushEnded { flush, .. } => Some(Call::Flush(flush)),
        _ => None,
    };
    if let (Some(second), Some(first)) = (begins, *under_way) {
        return Err(format!("{second:?} while {first:?} is in flight"));
    }
    match ends {
        Some(_) if ends == *under_way => *under_way = None,
        _ => *under_way = under_way.or(begins),
    }
    Ok(())
}

/// Whether this write is the queue's own, not a payload that looks like one.
fn prepares(oracle: &Oracle, offset: usize, bytes: &[u8]) -> bool {
    is_preallocated(bytes, offset as u64) && oracle.expected().get(offset..offset + bytes.len()) != Some(bytes)
}

fn arrival(log: &Log, oracle: &Oracle, writes: &[Write], offset: usize, bytes: &[u8]) -> Result<(), String> {
    let end = offset + bytes.len();
    if offset < log.start as usize {
        return Err(format!("a write of {offset}..{end}, below the start of the log at {}", log.start));
    }
    for earlier in writes.iter().filter(|earlier| earlier.offset < end && offset < earlier.end) {
        let Write { offset: from, end: to, prepares, outcome } = earlier;
        match outcome {
            Some(_) if *prepares => {}
            None => return Err(format!("a write of {offset}..{end} while that of {from}..{to} is at the disk")),
            Some(written) if from + written == *to => {
                return Err(format!("a write of {offset}..{end} once more: {from}..{to} is written"));
            }
            Some(_) => {}
        }
    }
    if is_preallocated(bytes, offset as u64) {
        return Ok(());
    }
    if log.serialized && writes.iter().any(|earlier| !earlier.prepares && earlier.outcome.is_none()) {
        return Err(format!("a write of {offset}..{end} while another is at the disk, in a serialized log"));
    }
    if oracle.is_complete() {
        let should = oracle.expected().get(offset..).unwrap_or_default();
        let should = &should[..should.len().min(bytes.len())];
        let (data, rest) = bytes.split_at(should.len());
        if data != should || rest.iter().any(|&byte| byte != 0) {
            return Err(format!("a write of {offset}..{end} is not what was appended there"));
        }
    }
    Ok(())
}
