//! Those who wait for durability, ordered by the address that they wait for, each to be woken alone.
//!
//! A batch that has become durable wakes those whom it covers, in the order of the log, and nobody else: who sleeps on would pay two
//! switches of thread for nothing. When there is something to do that nobody is at, one of those who wait is *called* to do it.
//!
//! Nothing is lost between who parks and who wakes, for the reason that is told in [`eventcount`](crate::eventcount): who parks is counted
//! before it looks for the last time, who wakes looks at the count after the change, and both do so by a read-modify-write. Somebody who
//! was called but leaves without having done anything passes the call on.

use core::ops::Bound;
use core::task::Waker;
use std::collections::BTreeMap;

use crate::sync::Ordering::AcqRel;
use crate::sync::{AtomicUsize, Mutex};

#[derive(Debug)]
pub(crate) struct Parking {
    /// How many there are in the lot.
    count: AtomicUsize,
    lot: Mutex<Lot>,
}

#[derive(Debug, Default)]
struct Lot {
    places: BTreeMap<Place, Parked>,
    /// Of those that do nothing but wait: they are never called.
    followers: BTreeMap<Place, Waker>,
    arrivals: u64,
}

/// An address that somebody waits for, and a number that tells it from others who wait for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    address: u64,
    arrival: u64,
}

#[derive(Debug)]
struct Parked {
    waker: Waker,
    called: bool,
}

impl Parking {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0), lot: Mutex::new(Lot::default()) }
    }

    /// Takes a place for somebody who waits for `address`. The caller then looks once more, before it sleeps.
    pub(crate) fn enter(&self, address: u64, waker: Waker) -> Place {
        let mut lot = self.lot.lock();
        lot.arrivals += 1;
        let place = Place { address, arrival: lot.arrivals };
        lot.places.insert(place, Parked { waker, called: false });
        self.count.fetch_add(1, AcqRel);
        place
    }

    /// The same for somebody who can do nothing but wait, and is never called.
    pub(crate) fn follow(&self, address: u64, waker: Waker) -> Place {
        let mut lot = self.lot.lock();
        lot.arrivals += 1;
        let place = Place { address, arrival: lot.arrivals };
        lot.followers.insert(place, waker);
        self.count.fetch_add(1, AcqRel);
        place
    }

    /// Gives a follower's place up, if it is still there.
    pub(crate) fn unfollow(&self, place: Place) {
        let waker = self.lot.lock().followers.remove(&place);
        if waker.is_some() {
            self.count.fetch_sub(1, AcqRel);
        }
    }

    /// Gives the place up, if it is still there. Answers whether its owner was called, and so owes to look what there is to do.
    pub(crate) fn leave(&self, place: Place) -> bool {
        let mut lot = self.lot.lock();
        let Some(parked) = lot.places.remove(&place) else { return false };
        self.count.fetch_sub(1, AcqRel);
        parked.called
    }

    /// Whether nobody is there. After a change: who is not counted by now will see it.
    pub(crate) fn is_empty(&self) -> bool {
        // An addition of nothing: the read-modify-write is the point.
        self.count.fetch_add(0, AcqRel) == 0
    }

    /// Wakes all who wait for addresses up to `address`, in their order. They have no place any more.
    pub(crate) fn wake_up_to(&self, address: u64) {
        let mut covered = Vec::new();
        {
            let mut lot = self.lot.lock();
            while let Some(first) = lot.first()
                && first.address <= address
            {
                covered.extend(lot.places.remove(&first).map(|parked| parked.waker));
                covered.extend(lot.followers.remove(&first));
            }
            self.count.fetch_sub(covered.len(), AcqRel);
        }
        covered.into_iter().for_each(Waker::wake);
    }

    /// Wakes all that do nothing but wait. They have no place any more.
    pub(crate) fn wake_followers(&self) {
        let followers = {
            let mut lot = self.lot.lock();
            let followers = core::mem::take(&mut lot.followers);
            self.count.fetch_sub(followers.len(), AcqRel);
            followers
        };
        followers.into_values().for_each(Waker::wake);
    }

    /// Calls all who wait for `address` itself.
    pub(crate) fn call_at(&self, address: u64) {
        let mut lot = self.lot.lock();
        let all = Place { address, arrival: 0 }..=Place { address, arrival: u64::MAX };
        let wakers: Vec<_> = lot.places.range_mut(all).filter_map(Parked::call).collect();
        drop(lot);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Calls the first of those who wait for addresses up to `address`.
    pub(crate) fn call_up_to(&self, address: u64) {
        let mut lot = self.lot.lock();
        let waker = lot.places.range_mut(..=Place { address, arrival: u64::MAX }).next().and_then(Parked::call);
        drop(lot);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Calls the first of those who wait for addresses beyond `address`.
    pub(crate) fn call_beyond(&self, address: u64) {
        let mut lot = self.lot.lock();
        let beyond = (Bound::Excluded(Place { address, arrival: u64::MAX }), Bound::Unbounded);
        let waker = lot.places.range_mut(beyond).next().and_then(Parked::call);
        drop(lot);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Lot {
    /// The place with the lowest address.
    fn first(&self) -> Option<Place> {
        let firsts = [self.places.keys().next(), self.followers.keys().next()];
        firsts.into_iter().flatten().min().copied()
    }
}

impl Parked {
    /// Its waker, unless it was called before: when it comes it looks at everything.
    fn call((_, parked): (&Place, &mut Self)) -> Option<Waker> {
        (!core::mem::replace(&mut parked.called, true)).then(|| parked.waker.clone())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
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

    fn parked(addresses: &[u64]) -> (Parking, Vec<Place>, Arc<Mutex<Vec<u64>>>) {
        let (parking, woken) = (Parking::new(), Arc::new(Mutex::new(Vec::new())));
        let waker = |address| Waker::from(Arc::new(Named(address, Arc::clone(&woken))));
        let places = addresses.iter().map(|&address| parking.enter(address, waker(address))).collect();
        (parking, places, woken)
    }

    #[test]
    fn a_batch_wakes_exactly_its_own_in_the_order_of_the_log() {
        let (parking, places, woken) = parked(&[300, 100, 200, 400, 200]);
        parking.wake_up_to(50);
        assert!(woken.lock().is_empty());
        parking.wake_up_to(300);
        assert_eq!(*woken.lock(), [100, 200, 200, 300]);
        assert!(!parking.is_empty());
        assert!(!parking.leave(places[0]), "a place that was given away");
        parking.wake_up_to(u64::MAX);
        assert_eq!(woken.lock().last(), Some(&400));
        assert!(parking.is_empty());
    }

    #[test]
    fn followers_are_woken_like_the_others_and_never_called() {
        let (parking, _, woken) = parked(&[100, 300]);
        let follow = |address| parking.follow(address, Waker::from(Arc::new(Named(address, Arc::clone(&woken)))));
        let gone = follow(50);
        follow(200);
        parking.unfollow(gone);
        parking.call_up_to(1000);
        parking.call_beyond(100);
        assert_eq!(*woken.lock(), [100, 300]);
        parking.wake_up_to(1000);
        assert_eq!(*woken.lock(), [100, 300, 100, 200, 300]);
        assert!(parking.is_empty());
    }

    #[test]
    fn a_call_goes_to_the_first_that_was_not_called_and_is_owed() {
        let (parking, places, woken) = parked(&[100, 200, 300]);
        parking.call_up_to(99);
        parking.call_beyond(300);
        assert!(woken.lock().is_empty());
        parking.call_beyond(100);
        parking.call_beyond(100);
        parking.call_up_to(1000);
        assert_eq!(*woken.lock(), [200, 100], "who was called and has not come yet is not called again");
        assert!(parking.leave(places[1]) && parking.leave(places[0]) && !parking.leave(places[2]));
        assert!(parking.is_empty());
    }

    #[test]
    fn a_call_to_an_address_goes_to_all_who_wait_for_it() {
        let (parking, places, woken) = parked(&[100, 200, 200, 300]);
        parking.call_at(150);
        assert!(woken.lock().is_empty());
        parking.call_at(200);
        assert_eq!(*woken.lock(), [200, 200]);
        let called: Vec<_> = places.into_iter().map(|place| parking.leave(place)).collect();
        assert_eq!(called, [false, true, true, false]);
    }
}
