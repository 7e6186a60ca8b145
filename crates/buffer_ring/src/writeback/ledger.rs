//! Which generations are written, and which of them are durable: pure book-keeping, in which no thread waits.
//!
//! A generation is durable if its own write was, or if a sync that began after that write had completed has succeeded.
//! Writes complete in any order; both answers stop before the first generation that is missing. What is remembered does
//! not grow with the log: two addresses, and the generations beyond a gap, at most as many as there are buffers.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Ledger {
    /// All generations up to this one are written, and the log up to this address.
    generation: u64,
    written: u64,
    /// Lives that are written beyond a gap.
    ahead: BTreeMap<u64, WrittenBatch>,
    /// Where the first generation begins that was not durable by itself, and that no sync was begun for.
    unsynced: Option<u64>,
    /// The same of the generations that the sync under way is for.
    syncing: Option<u64>,
}

/// A generation that is written.
#[derive(Clone, Copy, Debug)]
struct WrittenBatch {
    end: u64,
    durable: bool,
}

impl Ledger {
    /// A log that begins at `start`; everything before is durable.
    pub(crate) fn new(start: u64) -> Self {
        Self { generation: 0, written: start, ahead: BTreeMap::new(), unsynced: None, syncing: None }
    }

    /// The end of what is written without a gap.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The end of what is durable without a gap.
    pub(crate) fn durable(&self) -> u64 {
        self.syncing.or(self.unsynced).unwrap_or(self.written)
    }

    /// The buffer `generation`, which ends at `end`, has been written, and perhaps is `durable`.
    pub(crate) fn complete(&mut self, generation: u64, end: u64, durable: bool) {
        self.ahead.insert(generation, WrittenBatch { end, durable });
        while let Some(batch) = self.ahead.remove(&(self.generation + 1)) {
            if !batch.durable {
                self.unsynced.get_or_insert(self.written);
            }
            self.generation += 1;
            self.written = batch.end;
        }
    }

    /// A sync is about to begin: it is for the generations that are written now. `false` if all of them are durable.
    /// One at a time.
    #[must_use]
    pub(crate) fn begin_sync(&mut self) -> bool {
        debug_assert!(self.syncing.is_none(), "two syncs at once");
        self.syncing = self.unsynced.take();
        self.syncing.is_some()
    }

    /// The sync has succeeded.
    pub(crate) fn end_sync(&mut self) {
        self.syncing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both answers, in blocks.
    fn marks(ledger: &Ledger) -> (u64, u64) {
        (ledger.written() / 4096, ledger.durable() / 4096)
    }

    /// The buffer `generation` of one block.
    fn complete(ledger: &mut Ledger, generation: u64, durable: bool) {
        ledger.complete(generation, generation * 4096, durable);
    }

    #[test]
    fn durable_writes_need_no_sync_and_stop_at_a_gap() {
        let mut ledger = Ledger::new(0);
        complete(&mut ledger, 1, true);
        complete(&mut ledger, 3, true);
        assert_eq!(marks(&ledger), (1, 1));
        assert!(!ledger.begin_sync());
        complete(&mut ledger, 2, true);
        assert_eq!(marks(&ledger), (3, 3));
    }

    #[test]
    fn a_plain_write_holds_back_the_durable_ones_behind_it_until_it_is_synced() {
        let mut ledger = Ledger::new(0);
        complete(&mut ledger, 1, true);
        complete(&mut ledger, 2, false);
        complete(&mut ledger, 3, true);
        assert_eq!(marks(&ledger), (3, 1));
        assert!(ledger.begin_sync());
        assert_eq!(marks(&ledger), (3, 1), "only its success counts");
        ledger.end_sync();
        assert_eq!(marks(&ledger), (3, 3));
    }

    #[test]
    fn a_sync_covers_nothing_that_was_written_after_it_began() {
        let mut ledger = Ledger::new(0);
        complete(&mut ledger, 1, false);
        assert!(ledger.begin_sync());
        complete(&mut ledger, 2, true);
        complete(&mut ledger, 3, false);
        complete(&mut ledger, 4, true);
        ledger.end_sync();
        assert_eq!(marks(&ledger), (4, 2));
        assert!(ledger.begin_sync());
        ledger.end_sync();
        assert_eq!(marks(&ledger), (4, 4));
    }

    /// All orders of completion of four generations, each plain or durable, with a sync that begins and ends at any
    /// moment: compared with a list of what is durable.
    #[test]
    fn it_never_says_more_than_a_list_of_what_happened() {
        for order in orders(&[1, 2, 3, 4]) {
            for durable in 0..16_u64 {
                for (begin, end) in (0..=4).flat_map(|begin| (begin..=4).map(move |end| (begin, end))) {
                    let mut ledger = Ledger::new(0);
                    let mut truth = [None; 5];
                    let mut syncing = false;
                    let mut covered = Vec::new();
                    for step in 0..=4 {
                        if step == begin {
                            syncing = ledger.begin_sync();
                            covered = (1..5).filter(|&generation| truth[generation as usize].is_some()).collect();
                        }
                        if step == end && syncing {
                            ledger.end_sync();
                            covered.iter().for_each(|&generation: &u64| truth[generation as usize] = Some(true));
                        }
                        check(&ledger, &truth);
                        if let Some(&generation) = order.get(step) {
                            let durable = durable >> (generation - 1) & 1 == 1;
                            complete(&mut ledger, generation, durable);
                            truth[generation as usize] = Some(durable);
                            check(&ledger, &truth);
                        }
                    }
                    // With one more sync everything is durable: nothing is stuck.
                    if ledger.begin_sync() {
                        ledger.end_sync();
                    }
                    assert_eq!(marks(&ledger), (4, 4));
                }
            }
        }
    }

    fn check(ledger: &Ledger, truth: &[Option<bool>; 5]) {
        let run = |holds: fn(&Option<bool>) -> bool| {
            truth[1..].iter().take_while(|generation| holds(generation)).count() as u64
        };
        let (written, durable) = marks(ledger);
        assert_eq!(written, run(Option::is_some));
        assert!(durable <= run(|generation| *generation == Some(true)), "{ledger:?} of {truth:?}");
    }

    fn orders(generations: &[u64]) -> Vec<Vec<u64>> {
        let Some((&first, rest)) = generations.split_first() else { return vec![Vec::new()] };
        let insert = |order: Vec<u64>| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, first);
                order
            })
        };
        orders(rest).into_iter().flat_map(insert).collect()
    }
}
