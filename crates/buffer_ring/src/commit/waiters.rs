//! Those that wait for durability, ordered by the address that they wait for, each to be woken alone.
//!
//! A batch that has become durable wakes those that it covers, in the order of the log, and no others: a thread that
//! sleeps on would pay two switches of thread for nothing. When there is work that no thread has claimed, one of
//! those that wait is *elected* to do it.
//!
//! No wake-up is lost, for the reason given in [`eventcount`](crate::commit::eventcount): a thread that parks is
//! counted before it looks for the last time, a waker looks at the count after the change, and both do so by a
//! read-modify-write. A thread that was elected but leaves without having done anything passes that on.

use core::ops::Bound;
use core::task::Waker;
use std::collections::BTreeMap;

use crate::sync::Ordering::AcqRel;
use crate::sync::{AtomicUsize, Mutex};

#[derive(Debug)]
pub(crate) struct CommitWaiters {
    /// How many there are.
    count: AtomicUsize,
    waiting: Mutex<WaiterMap>,
}

#[derive(Debug, Default)]
struct WaiterMap {
    waiters: BTreeMap<Key, Waiter>,
    /// Of threads that do nothing but wait: they are never elected.
    followers: BTreeMap<Key, Waker>,
    arrivals: u64,
}

/// An address that a thread waits for, and a number that distinguishes it from others that wait for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    address: u64,
    arrival: u64,
}

#[derive(Debug)]
struct Waiter {
    waker: Waker,
    elected: bool,
}

impl CommitWaiters {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0), waiting: Mutex::new(WaiterMap::default()) }
    }

    /// Adds a thread that waits for `address`. The caller then looks once more, before it sleeps.
    pub(crate) fn add(&self, address: u64, waker: Waker) -> Key {
        let mut waiting = self.waiting.lock();
        waiting.arrivals += 1;
        let key = Key { address, arrival: waiting.arrivals };
        waiting.waiters.insert(key, Waiter { waker, elected: false });
        // ordering: acquire half of R13.
        self.count.fetch_add(1, AcqRel);
        key
    }

    /// Adds a thread that does nothing but wait, and is never elected.
    pub(crate) fn add_follower(&self, address: u64, waker: Waker) -> Key {
        let mut waiting = self.waiting.lock();
        waiting.arrivals += 1;
        let key = Key { address, arrival: waiting.arrivals };
        waiting.followers.insert(key, waker);
        // ordering: acquire half of R13.
        self.count.fetch_add(1, AcqRel);
        key
    }

    /// Removes a follower, if it is still there.
    pub(crate) fn remove_follower(&self, key: Key) {
        let waker = self.waiting.lock().followers.remove(&key);
        if waker.is_some() {
            // ordering: a removal stays in the order of all changes of the count (R13).
            self.count.fetch_sub(1, AcqRel);
        }
    }

    /// Removes a waiter, if it is still there. Answers whether it was elected, and so has to look what there is to do.
    pub(crate) fn remove(&self, key: Key) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(waiter) = waiting.waiters.remove(&key) else { return false };
        // ordering: a removal stays in the order of all changes of the count (R13).
        self.count.fetch_sub(1, AcqRel);
        waiter.elected
    }

    /// Whether no thread waits. After a change: a thread that is not counted by now will see it.
    pub(crate) fn is_empty(&self) -> bool {
        // An addition of nothing: the read-modify-write is the point.
        // ordering: release half of R13.
        self.count.fetch_add(0, AcqRel) == 0
    }

    /// Wakes all that wait for addresses up to `address`, in their order. They are removed.
    pub(crate) fn wake_up_to(&self, address: u64) {
        let mut covered = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            while let Some(first) = waiting.first()
                && first.address <= address
            {
                covered.extend(waiting.waiters.remove(&first).map(|waiter| waiter.waker));
                covered.extend(waiting.followers.remove(&first));
            }
            // ordering: a removal stays in the order of all changes of the count (R13).
            self.count.fetch_sub(covered.len(), AcqRel);
        }
        covered.into_iter().for_each(Waker::wake);
    }

    /// Wakes all that do nothing but wait. They are removed.
    pub(crate) fn wake_followers(&self) {
        let followers = {
            let mut waiting = self.waiting.lock();
            let followers = core::mem::take(&mut waiting.followers);
            // ordering: a removal stays in the order of all changes of the count (R13).
            self.count.fetch_sub(followers.len(), AcqRel);
            followers
        };
        followers.into_values().for_each(Waker::wake);
    }

    /// Elects all that wait for `address` itself.
    pub(crate) fn elect_at(&self, address: u64) {
        let mut waiting = self.waiting.lock();
        let all = Key { address, arrival: 0 }..=Key { address, arrival: u64::MAX };
        let wakers: Vec<_> = waiting.waiters.range_mut(all).filter_map(Waiter::elect).collect();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Elects the first of those that wait for addresses up to `address`.
    pub(crate) fn elect_up_to(&self, address: u64) {
        let mut waiting = self.waiting.lock();
        let waker = waiting.waiters.range_mut(..=Key { address, arrival: u64::MAX }).next().and_then(Waiter::elect);
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Elects the first of those that wait for addresses beyond `address`.
    pub(crate) fn elect_beyond(&self, address: u64) {
        let mut waiting = self.waiting.lock();
        let beyond = (Bound::Excluded(Key { address, arrival: u64::MAX }), Bound::Unbounded);
        let waker = waiting.waiters.range_mut(beyond).next().and_then(Waiter::elect);
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl WaiterMap {
    /// The waiter with the lowest address.
    fn first(&self) -> Option<Key> {
        let firsts = [self.waiters.keys().next(), self.followers.keys().next()];
        firsts.into_iter().flatten().min().copied()
    }
}

impl Waiter {
    /// Its waker, unless it was elected before: when it comes it looks at everything.
    fn elect((_, waiter): (&Key, &mut Self)) -> Option<Waker> {
        (!core::mem::replace(&mut waiter.elected, true)).then(|| waiter.waker.clone())
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    /// Writes its name into a list when it is woken.
    struct Named(u64, Arc<Mutex<Vec<u64>>>);

    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().push(self.0);
        }
    }

    fn parked(addresses: &[u64]) -> (CommitWaiters, Vec<Key>, Arc<Mutex<Vec<u64>>>) {
        let (waiters, woken) = (CommitWaiters::new(), Arc::new(Mutex::new(Vec::new())));
        let waker = |address| Waker::from(Arc::new(Named(address, Arc::clone(&woken))));
        let places = addresses.iter().map(|&address| waiters.add(address, waker(address))).collect();
        (waiters, places, woken)
    }

    #[test]
    fn a_batch_wakes_exactly_its_own_in_the_order_of_the_log() {
        let (waiters, places, woken) = parked(&[300, 100, 200, 400, 200]);
        waiters.wake_up_to(50);
        assert!(woken.lock().is_empty());
        waiters.wake_up_to(300);
        assert_eq!(*woken.lock(), [100, 200, 200, 300]);
        assert!(!waiters.is_empty());
        assert!(!waiters.remove(places[0]), "a place that was given away");
        waiters.wake_up_to(u64::MAX);
        assert_eq!(woken.lock().last(), Some(&400));
        assert!(waiters.is_empty());
    }

    #[test]
    fn followers_are_woken_like_the_others_and_never_elected() {
        let (waiters, _, woken) = parked(&[100, 300]);
        let follow = |address| waiters.add_follower(address, Waker::from(Arc::new(Named(address, Arc::clone(&woken)))));
        let gone = follow(50);
        follow(200);
        waiters.remove_follower(gone);
        waiters.elect_up_to(1000);
        waiters.elect_beyond(100);
        assert_eq!(*woken.lock(), [100, 300]);
        waiters.wake_up_to(1000);
        assert_eq!(*woken.lock(), [100, 300, 100, 200, 300]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn an_election_goes_to_the_first_that_was_not_elected_and_is_owed() {
        let (waiters, places, woken) = parked(&[100, 200, 300]);
        waiters.elect_up_to(99);
        waiters.elect_beyond(300);
        assert!(woken.lock().is_empty());
        waiters.elect_beyond(100);
        waiters.elect_beyond(100);
        waiters.elect_up_to(1000);
        assert_eq!(*woken.lock(), [200, 100], "a thread that was elected and has not come yet is not elected again");
        assert!(waiters.remove(places[1]) && waiters.remove(places[0]) && !waiters.remove(places[2]));
        assert!(waiters.is_empty());
    }

    #[test]
    fn an_election_at_an_address_goes_to_all_that_wait_for_it() {
        let (waiters, places, woken) = parked(&[100, 200, 200, 300]);
        waiters.elect_at(150);
        assert!(woken.lock().is_empty());
        waiters.elect_at(200);
        assert_eq!(*woken.lock(), [200, 200]);
        let elected: Vec<_> = places.into_iter().map(|key| waiters.remove(key)).collect();
        assert_eq!(elected, [false, true, true, false]);
    }
}
