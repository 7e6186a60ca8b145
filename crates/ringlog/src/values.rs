//! Named values of a log: small, written into it in order, and never lost by trimming.

use std::collections::BTreeMap;

/// Bytes of all names and values of a log, together, at most.
pub(crate) const MAX_VALUES: usize = 64 << 10;

/// Named values, or the changes of a part of a log to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    /// The newest snapshot, which says all: what was before it does not matter.
    snapshot: Option<u64>,
    values: BTreeMap<Vec<u8>, Value>,
}

/// What a name stands for; or that it does no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    value: Option<Vec<u8>>,
    /// The records that a crash may go back to, in order: the newest one that is known to be durable, and all later
    /// ones.
    at: Vec<u64>,
}

impl Value {
    fn place(&mut self, at: u64, durable: u64) {
        self.prune(durable);
        self.at.push(at);
    }

    fn prune(&mut self, durable: u64) {
        let known = self.at.partition_point(|at| *at < durable);
        self.at.drain(..known.saturating_sub(1));
    }
}

/// What a trim would lose.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endangered {
    /// A name and its value, which has to be said again.
    Value(Vec<u8>, Vec<u8>),
    /// What was said of a name at this address, which has to be durable first.
    Staged(u64),
}

impl Values {
    /// The record at `at` says what a name stands for; `None`: nothing. `durable` is the log's watermark.
    pub(crate) fn set(&mut self, name: &[u8], value: Option<&[u8]>, at: u64, durable: u64) {
        let known = self.values.entry(name.to_vec()).or_insert(Value { value: None, at: Vec::new() });
        known.place(at, durable);
        known.value = value.map(<[u8]>::to_vec);
    }

    /// A snapshot begins at `at`: what it does not say is not there.
    pub(crate) fn restart(&mut self, at: u64) {
        *self = Self { snapshot: Some(at), values: BTreeMap::new() };
    }

    /// Adds the changes of what follows.
    pub(crate) fn join(&mut self, later: &Self) {
        if later.snapshot.is_some() {
            self.clone_from(later);
        } else {
            self.values.extend(later.values.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    pub(crate) fn snapshot(&self) -> Option<u64> {
        self.snapshot
    }

    /// Leaves out the names that stand for nothing.
    pub(crate) fn settled(mut self) -> Self {
        self.values.retain(|_, value| value.value.is_some());
        self
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.values.get(name).and_then(|value| value.value.as_deref())
    }

    /// Names and what they stand for, in the order of the names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().filter_map(|(name, value)| Some((&**name, value.value.as_deref()?)))
    }

    /// What is lost if all below `address`, which is at most the watermark, goes.
    pub(crate) fn endangered(&mut self, address: u64, durable: u64) -> Vec<Endangered> {
        self.values.values_mut().for_each(|value| value.prune(durable));
        let is_durable = |value: &Value| value.at.last().is_none_or(|at| *at < durable);
        self.values.retain(|_, value| value.value.is_some() || !is_durable(value));
        // Those that a crash goes back to a record of that goes, too; if it goes back to nothing, nothing is lost.
        let goes = |value: &Value| value.at.first().is_some_and(|at| *at < address);
        let endangered = self.values.iter().filter(|(_, value)| goes(value));
        let what = |(name, value): (&Vec<u8>, &Value)| match (&value.value, value.at.last()) {
            (Some(bytes), _) if is_durable(value) => Endangered::Value(name.clone(), bytes.clone()),
            (_, newest) => Endangered::Staged(newest.copied().unwrap_or_default()),
        };
        endangered.map(what).collect()
    }

    /// A snapshot at `at` says all of it again.
    pub(crate) fn repeat(&mut self, at: u64, durable: u64) {
        self.values.values_mut().filter(|value| value.value.is_some()).for_each(|value| value.place(at, durable));
    }

    /// Bytes of all names and values.
    pub(crate) fn len(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_later_holds_and_a_snapshot_says_all() {
        let mut values = Values::default();
        values.set(b"a", Some(b"1"), 8, 0);
        values.set(b"b", Some(b"2"), 16, 0);
        let mut later = Values::default();
        later.set(b"a", None, 24, 0);
        later.set(b"c", Some(b"33"), 32, 0);
        values.join(&later);
        assert_eq!((values.get(b"a"), values.get(b"b"), values.get(b"c")), (None, Some(&b"2"[..]), Some(&b"33"[..])));
        assert_eq!((values.len(), values.snapshot()), (5, None));
        let mut snapshot = Values::default();
        snapshot.set(b"old", Some(b"gone"), 48, 0);
        snapshot.restart(52);
        snapshot.set(b"b", Some(b"4"), 56, 0);
        values.join(&snapshot);
        assert_eq!(values.iter().collect::<Vec<_>>(), [(&b"b"[..], &b"4"[..])]);
        assert_eq!(values.snapshot(), Some(52));
    }

    #[test]
    fn a_trim_must_not_lose_what_a_crash_goes_back_to() {
        let mut values = Values::default();
        values.set(b"a", Some(b"1"), 100, 50);
        // Nothing was there before.
        assert_eq!(values.endangered(60, 60), []);
        // Durable, and kept or not.
        assert_eq!(values.endangered(100, 200), []);
        assert_eq!(values.endangered(150, 200), [Endangered::Value(b"a".to_vec(), b"1".to_vec())]);
        // Said again, but not durable yet; a crash goes back to 100.
        values.repeat(300, 200);
        assert_eq!(values.endangered(100, 200), []);
        assert_eq!(values.endangered(150, 200), [Endangered::Staged(300)]);
        assert_eq!(values.endangered(150, 400), []);
        // Twice, and still not durable.
        values.set(b"a", Some(b"2"), 500, 200);
        values.set(b"a", Some(b"3"), 600, 200);
        assert_eq!(values.endangered(100, 200), []);
        assert_eq!(values.endangered(350, 400), [Endangered::Staged(600)]);
        values.set(b"a", None, 700, 650);
        assert_eq!(values.endangered(600, 650), []);
        assert_eq!(values.endangered(620, 650), [Endangered::Staged(700)]);
        assert_eq!((values.endangered(620, 800), values.values.len()), (vec![], 0));
    }

    #[test]
    fn a_value_that_became_durable_after_it_was_replaced_is_what_a_crash_goes_back_to() {
        let mut values = Values::default();
        values.set(b"b", Some(b"1"), 450, 200);
        values.set(b"b", Some(b"2"), 550, 200);
        assert_eq!(values.endangered(440, 500), []);
        assert_eq!(values.endangered(460, 500), [Endangered::Staged(550)]);
        values.set(b"b", None, 650, 600);
        assert_eq!(values.endangered(460, 600), []);
    }
}
