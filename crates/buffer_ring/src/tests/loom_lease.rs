//! Leases over one slot: their owner, those that take them back, the sealer, and the next owner of a cell.

use super::*;
use crate::staging::lease::Lease;
use crate::{staging::lease_registry::LeaseRegistry, sync::fence::Barrier};

const RECORD: usize = 512;

/// What the records of the second generation are filled with.
const MARK: u8 = 2;

/// The second generation of a slot with one record, the cells of two writers, and the bytes once they are ready for the
/// device.
struct LeaseFixture {
    slot: Slot,
    registry: LeaseRegistry,
    bytes: std::sync::Mutex<Option<Frozen>>,
}

impl LeaseFixture {
    /// With a first chunk of cells.
    fn new() -> Arc<Self> {
        let fixture = Self::without_cells();
        fixture.registry.enroll().leave();
        fixture
    }

    fn without_cells() -> Arc<Self> {
        let arena = Arc::new(Arena::new(1, BUFFER).expect("a valid arena"));
        let slot = Slot::plain(&arena, 0);
        // What is not written must not show what was there before.
        assert!(slot.open(1, 0));
        assert_eq!(granted(&slot, BUFFER).release(), Released::Pending);
        let Seized::Sealed(pin) = slot.reserve(BUFFER as u32) else { panic!("it is full") };
        slot.complete(flush(&slot, pin.release()));
        assert!(slot.open(2, BUFFER as u64));
        assert_eq!(granted(&slot, RECORD).release(), Released::Pending);
        Arc::new(Self { slot, registry: LeaseRegistry::new(1), bytes: Default::default() })
    }

    fn spawn<T: 'static>(self: &Arc<Self>, body: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let fixture = Arc::clone(self);
        thread::spawn(move || body(&fixture))
    }

    /// Takes back what is leased, and says how much of it this thread has ended.
    fn revoke(&self, sealed: bool) -> usize {
        let leased = self.registry.leased(&self.slot, sealed);
        let revoked: Vec<_> = leased.filter_map(|cell| Some((cell, cell.revoke(&self.slot)?))).collect();
        assert!(Barrier::probe().heavy());
        let rests = revoked.into_iter().filter_map(|(cell, number)| cell.claim(&self.slot, number));
        rests.map(|rest| self.put_back(rest)).count()
    }

    /// Seals the buffer as its sealer would.
    fn seal(&self) -> usize {
        let pin = self.slot.pin().expect("no thread has flushed it");
        assert!(matches!(pin.seal(), Seal::Sealed { .. }));
        let ended = self.revoke(true);
        self.flush_if_drained(pin.release());
        ended
    }

    fn put_back(&self, mut rest: Grant<'_>) {
        rest.bytes_mut().fill(0);
        self.flush_if_drained(rest.release());
    }

    fn flush_if_drained(&self, released: Released) {
        if let Some(flush) = self.slot.try_take_flush(released) {
            *self.bytes.lock().unwrap() = Some(flush.freeze(0).expect("no framing"));
        }
    }

    /// Ends the lease, and says whether this thread had the rest.
    fn end(&self, lease: &mut Lease<'_>) -> bool {
        let rest = lease.end().and_then(|end| end.rest);
        let mine = rest.is_some();
        rest.into_iter().for_each(|rest| self.put_back(rest));
        mine
    }

    /// A writer with a lease of two records.
    fn lease(&self) -> Option<Lease<'_>> {
        let place = self.registry.enroll();
        let mut lease = Lease::new(place.cell(), Barrier::probe());
        let Seized::Granted(grant) = self.slot.reserve(2 * RECORD as u32) else { return None };
        lease.begin(grant);
        place.announce(&self.slot);
        Some(lease)
    }

    /// Whether the device would write so many records of the writer, behind the first one. No thread is inside.
    fn check(&self, records: usize) {
        self.check_each(&vec![true; records]);
    }

    /// The same for records that are there and some that are not.
    fn check_each(&self, records: &[bool]) {
        assert_eq!(self.slot.snapshot().writers(), 0, "a writer still holds the buffer");
        let bytes = self.bytes.lock().unwrap().take().expect("the last writer has taken the flush");
        let there = |index: usize| index == 0 || records.get(index - 1).is_some_and(|there| *there);
        for (index, byte) in bytes.iter().enumerate() {
            assert_eq!(*byte, if there(index / RECORD) { MARK } else { 0 }, "at {index}");
        }
    }
}

fn write(lease: &mut Lease<'_>) -> Option<bool> {
    lease.write(RECORD, |target| target.fill(MARK)).map(|written| written.revoked)
}

/// Either the record is there before the lease is taken back, or it is refused; one of the two ends it, and then no
/// thread writes.
#[test]
fn a_lease_is_ended_by_its_owner_or_by_a_revoker() {
    static REFUSED: Count = Count::new(0);
    static REVOKED: Count = Count::new(0);
    static ENDED_BY: [Count; 2] = [const { Count::new(0) }; 2];
    model("a_lease_is_ended_by_its_owner_or_by_a_revoker", Bound::None, || {
        let fixture = LeaseFixture::new();
        let owner = fixture.spawn(|fixture| {
            let mut lease = fixture.lease().expect("the buffer is open");
            let written = write(&mut lease);
            if written == Some(false) {
                return (true, false);
            }
            hit(if written.is_some() { &REVOKED } else { &REFUSED });
            (written.is_some(), fixture.end(&mut lease))
        });
        let mut ended = fixture.revoke(false);
        let (written, by_owner) = owner.join().unwrap();
        if !by_owner && ended == 0 {
            // There was nothing to take back yet, and the writer has gone idle.
            ended = fixture.revoke(false);
        }
        assert_eq!(usize::from(by_owner) + ended, 1, "ended by both, or by none");
        hit(&ENDED_BY[ended]);
        assert_eq!(fixture.seal(), 0);
        fixture.check(usize::from(written));
    });
    assert!(REFUSED.load(Relaxed) > 0 && REVOKED.load(Relaxed) > 0);
    assert!(ENDED_BY.iter().all(|by| by.load(Relaxed) > 0));
}

/// A writer whose first lease begins beside the seal: the sealer finds it, or the writer finds the seal. No record is
/// torn. Counts that came late and found the seal, or that was found.
fn begin_beside_the_seal(fixture: &Arc<LeaseFixture>, [late, sealed, taken_back]: [&'static Count; 3]) {
    let sealer = fixture.spawn(|fixture| fixture.seal());
    let mut records = 0;
    if let Some(mut lease) = fixture.lease() {
        let is_sealed = fixture.slot.snapshot().is_sealed();
        let written = write(&mut lease);
        records = usize::from(written.is_some());
        if is_sealed || written != Some(false) {
            hit(sealed);
            fixture.end(&mut lease);
        }
    } else {
        hit(late);
    }
    if sealer.join().unwrap() == 1 {
        hit(taken_back);
    }
    fixture.check(records);
}

#[test]
fn a_lease_that_begins_beside_the_seal_is_ended() {
    static MET: [Count; 3] = [const { Count::new(0) }; 3];
    model("a_lease_that_begins_beside_the_seal_is_ended", Bound::None, || {
        begin_beside_the_seal(&LeaseFixture::new(), MET.each_ref());
    });
    assert!(MET.iter().all(|met| met.load(Relaxed) > 0), "{MET:?}");
}

/// The same with the first writer of all, whose chunk of cells the sealer may not find.
#[test]
fn a_lease_in_a_new_chunk_of_cells_is_ended() {
    static MET: [Count; 3] = [const { Count::new(0) }; 3];
    model("a_lease_in_a_new_chunk_of_cells_is_ended", Bound::None, || {
        begin_beside_the_seal(&LeaseFixture::without_cells(), MET.each_ref());
    });
    assert!(MET.iter().all(|met| met.load(Relaxed) > 0), "{MET:?}");
}

/// An idle writer's lease, and two threads that need its buffer.
#[test]
fn two_revokers_of_the_same_lease_end_it_once() {
    static ENDED_BY: [Count; 2] = [const { Count::new(0) }; 2];
    model("two_revokers_of_the_same_lease_end_it_once", Bound::None, || {
        let fixture = LeaseFixture::new();
        let mut lease = fixture.lease().expect("the buffer is open");
        assert_eq!(write(&mut lease), Some(false));
        let sealer = fixture.spawn(|fixture| fixture.seal());
        let by_reader = fixture.revoke(false);
        let by_sealer = sealer.join().unwrap();
        assert_eq!(by_reader + by_sealer, 1, "ended by both, or by none");
        hit(&ENDED_BY[by_sealer]);
        assert!(!fixture.end(&mut lease));
        fixture.check(1);
    });
    assert!(ENDED_BY.iter().all(|by| by.load(Relaxed) > 0));
}

#[test]
fn a_writer_that_is_dropped_and_a_revoker_end_the_lease_once() {
    static ENDED_BY: [Count; 2] = [const { Count::new(0) }; 2];
    model("a_writer_that_is_dropped_and_a_revoker_end_the_lease_once", Bound::None, || {
        let fixture = LeaseFixture::new();
        let mut lease = fixture.lease().expect("the buffer is open");
        assert_eq!(write(&mut lease), Some(false));
        let sealer = fixture.spawn(|fixture| fixture.seal());
        let by_owner = fixture.end(&mut lease);
        let by_sealer = sealer.join().unwrap();
        assert_eq!(usize::from(by_owner) + by_sealer, 1, "ended by both, or by none");
        hit(&ENDED_BY[by_sealer]);
        fixture.check(1);
    });
    assert!(ENDED_BY.iter().all(|by| by.load(Relaxed) > 0));
}

/// A writer that goes from one lease to the next beside a revoker, which must know them apart.
#[test]
fn a_lease_is_taken_back_as_what_it_is() {
    static TAKEN_BACK: [Count; 2] = [const { Count::new(0) }; 2];
    static REFUSED: Count = Count::new(0);
    model("a_lease_is_taken_back_as_what_it_is", Bound::None, || {
        let fixture = LeaseFixture::new();
        let revoker = fixture.spawn(|fixture| fixture.revoke(false));
        let place = fixture.registry.enroll();
        let mut lease = Lease::new(place.cell(), Barrier::probe());
        let mut ended = 0;
        let records = [(); 2].map(|()| {
            let Seized::Granted(grant) = fixture.slot.reserve(RECORD as u32) else { panic!("there is room") };
            lease.begin(grant);
            place.announce(&fixture.slot);
            let written = write(&mut lease).is_some();
            ended += usize::from(fixture.end(&mut lease));
            written
        });
        let by_revoker = revoker.join().unwrap();
        assert_eq!(ended + by_revoker, 2, "each lease ends once");
        hit(&TAKEN_BACK[by_revoker]);
        if records.contains(&false) {
            hit(&REFUSED);
        }
        fixture.seal();
        fixture.check_each(&records);
    });
    assert!(REFUSED.load(Relaxed) > 0 && TAKEN_BACK.iter().all(|count| count.load(Relaxed) > 0));
}

/// A revoker that sleeps between its two steps: meanwhile the owner has ended the lease, and has the next one, which
/// another thread takes back.
#[test]
fn a_revoker_that_is_late_leaves_the_next_lease_alone() {
    static TAKEN_BACK: [Count; 2] = [const { Count::new(0) }; 2];
    static LATE: Count = Count::new(0);
    model("a_revoker_that_is_late_leaves_the_next_lease_alone", Bound::Preemptions(3), || {
        let fixture = LeaseFixture::new();
        let mut lease = fixture.lease().expect("the buffer is open");
        let slot = &fixture.slot;
        let cell = fixture.registry.leased(slot, false).next().expect("the only one");
        let number = cell.revoke(slot).expect("there is a lease");
        let late = fixture.spawn(move |fixture| {
            let cell = fixture.registry.leased(&fixture.slot, false).next().expect("the only one");
            assert!(Barrier::probe().heavy());
            cell.claim(&fixture.slot, number).map(|rest| fixture.put_back(rest)).is_some()
        });
        let revoker = fixture.spawn(|fixture| fixture.revoke(false));
        let by_owner = fixture.end(&mut lease);
        let Seized::Granted(grant) = slot.reserve(RECORD as u32) else { panic!("there is room") };
        lease.begin(grant);
        let by_late = late.join().unwrap();
        assert_ne!(by_owner, by_late, "the first lease ends once");
        hit(&TAKEN_BACK[revoker.join().unwrap()]);
        if !by_late {
            hit(&LATE);
        }
        fixture.end(&mut lease);
        fixture.seal();
        fixture.check(0);
    });
    assert!(LATE.load(Relaxed) > 0 && TAKEN_BACK.iter().all(|count| count.load(Relaxed) > 0));
}

/// What a revoker reads of a lease, it reads before the next one begins. Loom runs reads in the order of the program,
/// and would never show one that finds what comes later; so a cell stands for what is read. It is looked at before the
/// claim, and counts only if that succeeds.
#[test]
fn a_revoker_has_read_what_a_lease_is_before_the_next_one_begins() {
    static TAKEN_BACK: Count = Count::new(0);
    model("a_revoker_has_read_what_a_lease_is_before_the_next_one_begins", Bound::None, || {
        let fixture = LeaseFixture::new();
        let mut lease = fixture.lease().expect("the buffer is open");
        let read = Arc::new(std::sync::Mutex::new(None));
        let revoker = fixture.spawn({
            let read = Arc::clone(&read);
            move |fixture| {
                let leased = fixture.registry.leased(&fixture.slot, false).next().expect("the only one");
                let Some(number) = leased.revoke(&fixture.slot) else { return false };
                let what = cell();
                what.read(0..512);
                let Some(rest) = leased.claim(&fixture.slot, number) else { return false };
                *read.lock().unwrap() = Some(what);
                fixture.put_back(rest);
                true
            }
        });
        let by_owner = fixture.end(&mut lease);
        if !by_owner {
            hit(&TAKEN_BACK);
            // As the next lease would be.
            read.lock().unwrap().take().expect("it has been claimed").write(0..512);
        }
        assert_ne!(revoker.join().unwrap(), by_owner, "ended by both, or by none");
    });
    assert!(TAKEN_BACK.load(Relaxed) > 0);
}

/// The bit of an old lease leads a revoker to a writer that has its next lease elsewhere.
#[test]
fn a_lease_in_another_buffer_is_left_alone() {
    static IN_THE_OTHER: Count = Count::new(0);
    model("a_lease_in_another_buffer_is_left_alone", Bound::None, || {
        let fixture = LeaseFixture::new();
        let other = Slot::plain(&Arc::new(Arena::new(2, BUFFER).expect("a valid arena")), 1);
        assert!(other.open(3, 2 * BUFFER as u64));
        let mut lease = fixture.lease().expect("the buffer is open");
        assert!(fixture.end(&mut lease));
        let revoker = fixture.spawn(|fixture| fixture.revoke(false));
        let Seized::Granted(grant) = other.reserve(RECORD as u32) else { panic!("there is room") };
        lease.begin(grant);
        if write(&mut lease) == Some(false) {
            hit(&IN_THE_OTHER);
        }
        assert_eq!(revoker.join().unwrap(), 0);
        let end = lease.end().expect("there is one");
        assert!(!end.was_revoked && end.rest.is_some_and(|rest| rest.release() == Released::Pending));
    });
    assert!(IN_THE_OTHER.load(Relaxed) > 0);
}

/// A cell that goes from one writer to the next goes on numbering its leases. No record is written: that would pass a
/// fence, which writers have none of where the kernel has barriers.
#[test]
fn the_next_writer_in_a_cell_goes_on_where_the_one_before_ended() {
    static SAME: Count = Count::new(0);
    model("the_next_writer_in_a_cell_goes_on_where_the_one_before_ended", Bound::None, || {
        let fixture = LeaseFixture::new();
        let writer = |fixture: &LeaseFixture| {
            let place = fixture.registry.enroll();
            let mut lease = Lease::new(place.cell(), Barrier::probe());
            let Seized::Granted(grant) = fixture.slot.reserve(RECORD as u32) else { panic!("there is room") };
            lease.begin(grant);
            let number = place.cell().revoke(&fixture.slot).expect("there is a lease");
            assert!(fixture.end(&mut lease));
            let cell = core::ptr::from_ref(place.cell()).addr();
            place.leave();
            (cell, number)
        };
        let other = fixture.spawn(writer);
        let mine = writer(&fixture);
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs, "two leases of one number");
        if mine.0 == theirs.0 {
            hit(&SAME);
        }
    });
    assert!(SAME.load(Relaxed) > 0);
}
