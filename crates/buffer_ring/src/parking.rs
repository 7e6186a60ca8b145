//! Those who wait for durability, ordered by the address that they wait for, each to be woken alone.
//!
//! A batch that has become durable wakes those whom it covers, in the order of the log, and nobody else: who sleeps on would pay two
//! switches of thread for nothing. When there is something to do that nobody is at, one of those who wait is *called* to do it.
//!
//! Nothing is lost between who parks and who wakes, for the reason that is told in [`waiters`](crate::waiters): who parks is counted
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

#[derive(Debug)]
struct Lot {
    places: BTreeMap<Place, Parked>,
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
        Self { count: AtomicUsize::new(0), lot: Mutex::new(Lot { places: BTreeMap::new(), arrivals: 0 }) }
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
            while let Some(first) = lot.places.first_entry()
                && first.key().address <= address
            {
                covered.push(first.remove().waker);
            }
            self.count.fetch_sub(covered.len(), AcqRel);
        }
        covered.into_iter().for_each(Waker::wake);
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

impl Parked {
    /// Its waker, unless it was called before: when it comes it looks at everything.
    fn call((_, parked): (&Place, &mut Self)) -> Option<Waker> {
        (!core::mem::replace(&mut parked.called, true)).then(|| parked.waker.clone())
    }
}
