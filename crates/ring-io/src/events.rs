//! Events for the subscribers of `tracing`, and a shield against the panics of foreign code. Shared with the ring
//! above.
//!
//! A subscriber is foreign code: it may panic, block, or use the very ring that an event is about. So a thread that
//! owes something to others, because it holds a lock or a role, or is inside a buffer, first [holds back](hold) what it
//! has to say, and emits it when nothing is owed any more. Held back are the values, in the order of the events.
//!
//! What a subscriber itself causes, by using the ring during an event, emits nothing: it would call itself without end.

use core::cell::{Cell, RefCell};
use core::marker::PhantomData;
use core::mem;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use tracing::Level;
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};

thread_local! {
    // Without a destructor, so that a look costs one load, also while the thread ends.
    static HOLDS: Cell<usize> = const { Cell::new(0) };
    static HAS_HELD: Cell<bool> = const { Cell::new(false) };
    static EMITTING: Cell<bool> = const { Cell::new(false) };
    static HELD: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// Holds back the events of its thread while it lives. The outermost one emits them when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold(PhantomData<*const ()>);

/// Holds back the events of this thread until the returned value is dropped.
#[inline]
pub fn hold() -> Hold {
    HOLDS.set(HOLDS.get() + 1);
    Hold(PhantomData)
}

impl Hold {
    /// Ends the hold, and leaves what is held back to the next one of this thread.
    pub fn keep(self) {
        HOLDS.set(HOLDS.get() - 1);
        mem::forget(self);
    }
}

/// Emits the events of `body` at once, before those that are held back.
pub fn at_once(body: impl FnOnce()) {
    let holds = HOLDS.replace(0);
    body();
    HOLDS.set(holds);
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        let left = HOLDS.get() - 1;
        HOLDS.set(left);
        if left == 0 && HAS_HELD.get() && !EMITTING.get() {
            emit_held();
        }
    }
}

#[cold]
fn emit_held() {
    HAS_HELD.set(false);
    let held = HELD.try_with(RefCell::take).unwrap_or_default();
    held.into_iter().for_each(emit_now);
}

/// Returns whether there may be a subscriber for events of this `level`. One comparison while there is none.
#[inline]
#[must_use]
pub fn is_wanted(level: Level) -> bool {
    level <= STATIC_MAX_LEVEL && level <= LevelFilter::current() && !EMITTING.get()
}

/// Calls `event`, which emits one, now or when nothing is held back any more.
pub fn emit(event: impl FnOnce() + 'static) {
    if HOLDS.get() == 0 {
        return emit_now(event);
    }
    let event: Box<dyn FnOnce()> = Box::new(event);
    // A thread that is ending has nowhere to keep it.
    if HELD.try_with(|held| held.borrow_mut().push(event)).is_ok() {
        HAS_HELD.set(true);
    }
}

fn emit_now(event: impl FnOnce()) {
    if !EMITTING.replace(true) {
        // Its panic has been reported by the panic hook; another event about it would go to the same subscriber.
        let _panicked = shield(event);
        EMITTING.set(false);
    }
}

/// Calls foreign code, and keeps its panic from the caller. Returns whether there was one.
pub fn shield(foreign: impl FnOnce()) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(foreign)) else { return false };
    // The payload is foreign, too.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
    true
}

/// Emits an event of `tracing` when nothing is held back. Its values must own what they show: `clone(name)` makes those
/// of references.
#[doc(hidden)]
#[macro_export]
macro_rules! event {
    ($level:ident, clone($($value:ident),+), $($fields:tt)+) => {
        if $crate::events::is_wanted(tracing::Level::$level) {
            $(let $value = $value.clone();)+
            $crate::events::emit(move || tracing::event!(tracing::Level::$level, $($fields)+));
        }
    };
    ($level:ident, $($fields:tt)+) => {
        if $crate::events::is_wanted(tracing::Level::$level) {
            $crate::events::emit(move || tracing::event!(tracing::Level::$level, $($fields)+));
        }
    };
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_is_held_back_is_emitted_though_a_subscriber_holds_back_during_another_event() {
        let emitted = Rc::new(RefCell::new(Vec::new()));
        let note = |what| {
            let emitted = Rc::clone(&emitted);
            move || emitted.borrow_mut().push(what)
        };
        let outermost = hold();
        emit(note("first"));
        let urgent = note("urgent");
        // As the subscriber would that uses the ring.
        at_once(|| {
            emit(move || {
                urgent();
                let outer = hold();
                drop(hold());
                drop(outer);
            });
        });
        emit(note("second"));
        assert_eq!(*emitted.borrow(), ["urgent"]);
        drop(outermost);
        assert_eq!(*emitted.borrow(), ["urgent", "first", "second"]);
    }

    #[test]
    fn what_is_held_back_waits_for_the_outermost_hold_or_for_the_next_one() {
        let emitted = Rc::new(RefCell::new(Vec::new()));
        let note = |what| {
            let emitted = Rc::clone(&emitted);
            move || emitted.borrow_mut().push(what)
        };
        let outer = hold();
        emit(note("first"));
        let inner = hold();
        emit(note("second"));
        drop(inner);
        assert!(emitted.borrow().is_empty(), "the outer one holds on");
        drop(outer);
        assert_eq!(*emitted.borrow(), ["first", "second"]);
        let kept = hold();
        emit(note("third"));
        kept.keep();
        assert_eq!(emitted.borrow().len(), 2, "it is left to the next hold");
        emit(note("at once"));
        drop(hold());
        assert_eq!(*emitted.borrow(), ["first", "second", "at once", "third"]);
    }
}
