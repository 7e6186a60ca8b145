//! A role: one holder at a time, who sees what the one before did, and whom others have done who came in vain.

use super::*;
use crate::role::Role;
use crate::sync::AtomicUsize;
use crate::sync::Ordering;

#[test]
fn a_role_has_one_holder_at_a_time() {
    static BOTH: Count = Count::new(0);
    model("a_role_has_one_holder_at_a_time", Bound::None, || {
        let parts = Arc::new((Role::new(), cell()));
        let act = |(role, cell): &(Role, Shadow)| {
            let holder = role.take();
            if holder.is_some() {
                cell.write(0..512);
            }
            holder.is_some()
        };
        let other = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || act(&parts))
        };
        let mine = act(&parts);
        if other.join().unwrap() && mine {
            hit(&BOTH);
        }
    });
    assert!(BOTH.load(Relaxed) > 0);
}

/// Three come, so that one can come in vain while another has the role, and the third after that.
#[test]
fn coming_in_vain_takes_nothing_from_the_holder() {
    static IN_VAIN: Count = Count::new(0);
    model("coming_in_vain_takes_nothing_from_the_holder", Bound::None, || {
        let parts = Arc::new((Role::new(), cell()));
        let other = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (role, cell) = &*parts;
                for _ in 0..2 {
                    match role.take() {
                        Some(_holder) => cell.write(0..512),
                        None => hit(&IN_VAIN),
                    }
                }
            })
        };
        let (role, cell) = &*parts;
        let holder = role.take();
        if holder.is_some() {
            cell.write(0..512);
        }
        drop(holder);
        other.join().unwrap();
    });
    assert!(IN_VAIN.load(Relaxed) > 0);
}

/// As those do who wait until nothing is in flight, and nobody is at work on what was.
#[test]
fn who_sees_the_role_free_sees_what_its_holder_did() {
    static FREE: Count = Count::new(0);
    model("who_sees_the_role_free_sees_what_its_holder_did", Bound::None, || {
        let parts = Arc::new((Role::new(), cell(), AtomicUsize::new(1)));
        let holder = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (role, cell, in_flight) = &*parts;
                let holder = role.take();
                in_flight.fetch_sub(1, Ordering::AcqRel);
                cell.write(0..512);
                drop(holder);
            })
        };
        let (role, cell, in_flight) = &*parts;
        if in_flight.load(Ordering::Acquire) == 0 && !role.is_taken() {
            hit(&FREE);
            cell.read(0..512);
        }
        holder.join().unwrap();
    });
    assert!(FREE.load(Relaxed) > 0);
}

/// Why a submitter that does not get the role need not wake anybody: the holder wakes them, and has seen the write by then.
#[test]
fn who_gives_the_role_up_sees_what_was_done_by_those_who_came_in_vain() {
    static IN_VAIN: Count = Count::new(0);
    model("who_gives_the_role_up_sees_what_was_done_by_those_who_came_in_vain", Bound::None, || {
        let parts = Arc::new((Role::new(), AtomicUsize::new(0)));
        let (role, in_flight) = &*parts;
        let holder = role.take();
        let submitter = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (role, in_flight) = &*parts;
                in_flight.fetch_add(1, Ordering::Relaxed);
                role.take().is_some()
            })
        };
        drop(holder);
        let seen = in_flight.load(Ordering::Relaxed) > 0;
        let got = submitter.join().unwrap();
        assert!(got || seen, "a write that nobody would wait for");
        if !got {
            hit(&IN_VAIN);
        }
    });
    assert!(IN_VAIN.load(Relaxed) > 0);
}
