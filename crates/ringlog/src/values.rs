//! What a log keeps by name, values and positions: small, written into it in order, and never lost by trimming.

use core::mem;
use std::collections::BTreeMap;

/// Bytes of all names of a log and what they stand for, together, at most.
pub(crate) const MAX_VALUES: usize = 64 << 10;

/// Named values and cursors, or the changes of a part of a log to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    /// The newest snapshot, which says all: what was before it does not matter.
    snapshot: Option<u64>,
    pub(crate) metas: Names<Vec<u8>>,
    pub(crate) cursors: Names<u64>,
}

impl Values {
    /// A snapshot begins at `at`: what it does not say is not there.
    pub(crate) fn restart(&mut self, at: u64) {
        *self = Self { snapshot: Some(at), ..Self::default() };
    }

    /// Adds the changes of what follows.
    pub(crate) fn join(&mut self, later: &Self) {
        if later.snapshot.is_some() {
            self.clone_from(later);
        } else {
            self.metas.join(&later.metas);
            self.cursors.join(&later.cursors);
        }
        if self.snapshot.is_some() {
            // Nothing that is said before, by what this will be joined to, matters.
            self.forget_removed(u64::MAX);
        }
    }

    pub(crate) fn snapshot(&self) -> Option<u64> {
        self.snapshot
    }

    /// Leaves out the names that stand for nothing.
    pub(crate) fn settled(mut self) -> Self {
        self.forget_removed(u64::MAX);
        self
    }

    fn forget_removed(&mut self, durable: u64) {
        self.metas.forget_removed(durable);
        self.cursors.forget_removed(durable);
    }

    /// A snapshot at `at` says all of it again.
    pub(crate) fn repeat(&mut self, at: u64, durable: u64) {
        // Names that come and go are not kept for ever.
        self.forget_removed(durable);
        self.metas.repeat(at);
        self.cursors.repeat(at);
    }

    /// Bytes of all names, and of what they stand for.
    pub(crate) fn len(&self) -> usize {
        self.metas.len + self.cursors.len
    }
}

/// What a name can stand for.
pub(crate) trait Kept: Clone {
    /// Bytes of it.
    fn len(&self) -> usize;
}

impl Kept for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }
}

impl Kept for u64 {
    fn len(&self) -> usize {
        mem::size_of::<Self>()
    }
}

/// By name, what a crash may go back to, in order: what the newest record says that is known to be durable, and what
/// all later ones say. Never nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names<V> {
    names: BTreeMap<Vec<u8>, Vec<Said<V>>>,
    /// Bytes of the names that stand for something, and of what they stand for.
    len: usize,
}

/// What the record at an address says that a name stands for, if for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said<V> {
    at: u64,
    value: Option<V>,
}

/// What a trim would lose.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endangered<V> {
    /// A name and its value, which has to be said again.
    Value(Vec<u8>, V),
    /// What was said of a name at this address, which has to be durable first.
    Staged(u64),
}

impl<V> Default for Names<V> {
    fn default() -> Self {
        Self { names: BTreeMap::new(), len: 0 }
    }
}

fn prune<V>(said: &mut Vec<Said<V>>, durable: u64) {
    let known = said.partition_point(|said| said.at < durable);
    said.drain(..known.saturating_sub(1));
}

fn newest<V>(said: &[Said<V>]) -> Option<&V> {
    said.last().and_then(|said| said.value.as_ref())
}

impl<V: Kept> Names<V> {
    /// The record at `at` says what a name stands for; `None`: nothing. `durable` is the log's watermark.
    pub(crate) fn set(&mut self, name: &[u8], value: Option<V>, at: u64, durable: u64) {
        self.len -= self.len_of(name);
        self.len += value.as_ref().map_or(0, |value| name.len() + value.len());
        let said = Said { at, value };
        if let Some(known) = self.names.get_mut(name) {
            known.push(said);
            prune(known, durable);
        } else {
            self.names.insert(name.to_vec(), vec![said]);
        }
    }

    fn join(&mut self, later: &Self) {
        self.names.extend(later.names.iter().map(|(name, said)| (name.clone(), said.clone())));
        self.len = self.iter().map(|(name, value)| name.len() + value.len()).sum();
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&V> {
        self.names.get(name).and_then(|said| newest(said))
    }

    /// Names and what they stand for, in the order of the names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.names.iter().filter_map(|(name, said)| Some((&**name, newest(said)?)))
    }

    /// Leaves out the names that stand for nothing, and for which a crash goes back to nothing either.
    fn forget_removed(&mut self, durable: u64) {
        self.names.values_mut().for_each(|said| prune(said, durable));
        self.names.retain(|_, said| said.iter().any(|said| said.value.is_some()));
    }

    /// What is lost if all below `address`, which is at most the watermark, goes.
    pub(crate) fn endangered(&mut self, address: u64, durable: u64) -> Vec<Endangered<V>> {
        self.forget_removed(durable);
        // Those that a crash goes back to a record of that goes, too; if it goes back to nothing, nothing is lost.
        let goes = |said: &[Said<V>]| said.first().is_some_and(|first| first.at < address);
        let endangered = self.names.iter().filter(|(_, said)| goes(said));
        let what = |(name, said): (&Vec<u8>, &Vec<Said<V>>)| match said.last()? {
            Said { at, value: Some(value) } if *at < durable => Some(Endangered::Value(name.clone(), value.clone())),
            Said { at, .. } => Some(Endangered::Staged(*at)),
        };
        endangered.filter_map(what).collect()
    }

    fn repeat(&mut self, at: u64) {
        for said in self.names.values_mut() {
            if let value @ Some(_) = newest(said).cloned() {
                said.push(Said { at, value });
            }
        }
    }

    /// Bytes that a name and what it stands for take.
    pub(crate) fn len_of(&self, name: &[u8]) -> usize {
        self.get(name).map_or(0, |value| name.len() + value.len())
    }
}

impl Names<u64> {
    /// The lowest position that a cursor has, or has again after a crash; and the cursor's name.
    pub(crate) fn lowest(&mut self, durable: u64) -> Option<(u64, &[u8])> {
        self.names.values_mut().for_each(|said| prune(said, durable));
        let positions = |name, said: &[Said<u64>]| said.iter().filter_map(|said| said.value).min().map(|at| (at, name));
        self.names.iter().filter_map(|(name, said)| positions(&**name, said)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_later_holds_and_a_snapshot_says_all() {
        let mut values = Values::default();
        values.metas.set(b"a", Some(b"1".to_vec()), 8, 0);
        values.metas.set(b"b", Some(b"2".to_vec()), 16, 0);
        let mut later = Values::default();
        later.metas.set(b"a", None, 24, 0);
        later.metas.set(b"c", Some(b"33".to_vec()), 32, 0);
        values.join(&later);
        let get = |name: &[u8]| values.metas.get(name).map(|value| &value[..]);
        assert_eq!((get(b"a"), get(b"b"), get(b"c")), (None, Some(&b"2"[..]), Some(&b"33"[..])));
        assert_eq!((values.len(), values.snapshot()), (5, None));
        let mut snapshot = Values::default();
        snapshot.metas.set(b"old", Some(b"gone".to_vec()), 48, 0);
        snapshot.restart(52);
        snapshot.metas.set(b"b", Some(b"4".to_vec()), 56, 0);
        values.join(&snapshot);
        assert_eq!(values.metas.iter().collect::<Vec<_>>(), [(&b"b"[..], &b"4".to_vec())]);
        assert_eq!(values.snapshot(), Some(52));
    }

    #[test]
    fn a_trim_must_not_lose_what_a_crash_goes_back_to() {
        let mut values = Names::default();
        values.set(b"a", Some(b"1".to_vec()), 100, 50);
        // Nothing was there before.
        assert_eq!(values.endangered(60, 60), []);
        // Durable, and kept or not.
        assert_eq!(values.endangered(100, 200), []);
        assert_eq!(values.endangered(150, 200), [Endangered::Value(b"a".to_vec(), b"1".to_vec())]);
        // Said again, but not durable yet; a crash goes back to 100.
        values.repeat(300);
        assert_eq!(values.endangered(100, 200), []);
        assert_eq!(values.endangered(150, 200), [Endangered::Staged(300)]);
        assert_eq!(values.endangered(150, 400), []);
        // Twice, and still not durable.
        values.set(b"a", Some(b"2".to_vec()), 500, 200);
        values.set(b"a", Some(b"3".to_vec()), 600, 200);
        assert_eq!(values.endangered(100, 200), []);
        assert_eq!(values.endangered(350, 400), [Endangered::Staged(600)]);
        values.set(b"a", None, 700, 650);
        assert_eq!(values.endangered(600, 650), []);
        assert_eq!(values.endangered(620, 650), [Endangered::Staged(700)]);
        assert_eq!((values.endangered(620, 800), values.names.len()), (vec![], 0));
    }

    #[test]
    fn a_value_that_became_durable_after_it_was_replaced_is_what_a_crash_goes_back_to() {
        let mut values = Names::default();
        values.set(b"b", Some(b"1".to_vec()), 450, 200);
        values.set(b"b", Some(b"2".to_vec()), 550, 200);
        assert_eq!(values.endangered(440, 500), []);
        assert_eq!(values.endangered(460, 500), [Endangered::Staged(550)]);
        values.set(b"b", None, 650, 600);
        assert_eq!(values.endangered(460, 600), []);
    }

    #[test]
    fn the_lowest_position_is_one_that_a_crash_may_go_back_to() {
        let mut cursors = Names::default();
        assert_eq!(cursors.lowest(0), None);
        cursors.set(b"a", Some(100), 1000, 900);
        cursors.set(b"b", Some(300), 1100, 900);
        // Staged, it holds already.
        assert_eq!(cursors.lowest(900), Some((100, &b"a"[..])));
        cursors.set(b"a", Some(500), 1200, 1150);
        cursors.set(b"a", Some(400), 1300, 1150);
        assert_eq!(cursors.lowest(1150), Some((100, &b"a"[..])));
        assert_eq!(cursors.get(b"a"), Some(&400));
        assert_eq!(cursors.lowest(1250), Some((300, &b"b"[..])));
        cursors.set(b"b", None, 1400, 1350);
        assert_eq!(cursors.get(b"b"), None);
        assert_eq!(cursors.lowest(1350), Some((300, &b"b"[..])));
        assert_eq!(cursors.lowest(1500), Some((400, &b"a"[..])));
        // Backwards.
        cursors.set(b"a", Some(200), 1600, 1500);
        assert_eq!(cursors.lowest(1500), Some((200, &b"a"[..])));
    }

    #[test]
    fn positions_that_are_durable_and_names_that_are_gone_take_no_memory() {
        let mut values = Values::default();
        for n in 0..1000 {
            values.cursors.set(b"a", Some(n), 8 * n, u64::MAX);
            values.cursors.set(&n.to_le_bytes(), Some(n), 8 * n, u64::MAX);
            values.cursors.set(&n.to_le_bytes(), None, 8 * n, u64::MAX);
        }
        assert_eq!((values.cursors.names[&b"a"[..]].len(), values.len()), (1, 9));
        values.repeat(8000, 8000);
        assert_eq!((values.cursors.names.len(), values.cursors.get(b"a")), (1, Some(&999)));
    }
}
