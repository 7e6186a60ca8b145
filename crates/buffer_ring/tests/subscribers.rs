//! A subscriber of `tracing` is foreign code: it uses the ring that an event is about, blocks on it, or panics, at
//! every event there is.

mod common;

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Once};
use std::thread;

use buffer_ring::{AppendError, BufferRing, MemoryDevice, QuikIO, RingError};
use common::{EIO, LIMIT, current, direct_file, disk, in_memory, options, pattern, ring_on, within};
use ring_testing::events::OnEvent;

/// The message of an event, and what to do then.
type Reaction = (&'static str, Rc<dyn Fn()>);

type Fault = fn(&MemoryDevice);

thread_local! {
    /// What the subscriber does in this thread at events with this message, and how often that was.
    static ACTION: RefCell<Option<Reaction>> = const { RefCell::new(None) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// Does `body`, and `action` at each event with `message` in this thread. Returns how many there were.
///
/// The subscriber is that of the whole process: `tracing` keeps only those of single threads from being called by
/// themselves.
fn during(message: &'static str, action: impl Fn() + 'static, body: impl FnOnce()) -> usize {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(OnEvent::new(react)).expect("the only one"));
    ACTION.set(Some((message, Rc::new(action))));
    CALLS.set(0);
    body();
    ACTION.set(None);
    CALLS.get()
}

/// `event` begins with its level, in five characters, and a blank.
fn react(event: &str) {
    let wanted = ACTION.with_borrow(|action| action.clone().filter(|(wanted, _)| event[6..].starts_with(wanted)));
    if let Some((_, action)) = wanted {
        CALLS.set(CALLS.get() + 1);
        action();
    }
}

type Action = fn(&BufferRing);

/// What a subscriber may do with the ring that it is called about.
const ACTIONS: &[(&str, Action)] = &[
    ("append", |ring| drop(ring.append(b"of a subscriber"))),
    ("append a whole buffer", |ring| drop(ring.append(&[7; 4096]))),
    ("append to a writer", |ring| drop(ring.writer().append(b"of a subscriber"))),
    ("try_append", |ring| drop(ring.try_append(&[7; 4000]))),
    ("tail", |ring| assert!(ring.tail() > 0)),
    ("flush", |ring| _ = ring.flush(&current(ring))),
    ("sync", |ring| drop(ring.sync())),
    ("append_durable", |ring| drop(ring.append_durable(b"of a subscriber"))),
    ("wait_durable_timeout", |ring| drop(ring.wait_durable_timeout(ring.tail(), LIMIT))),
    ("written_watermark", |ring| assert!(ring.written_watermark() <= ring.tail())),
    ("stats and watch", |ring| assert!(ring.durable_watch().get() <= ring.tail() && ring.stats().records_appended > 0)),
    ("panic", |_| panic!("a subscriber panics")),
    ("panic with a payload that panics", |_| std::panic::panic_any(PanicsWhenDropped)),
];

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a payload panics");
        }
    }
}

/// Brings about every event of a ring that works. Each payload is where its extent says.
fn program(ring: &BufferRing) {
    let mut extents = Vec::new();
    let mut append = |id, len, append: fn(&BufferRing, &[u8]) -> Result<buffer_ring::Extent, AppendError>| {
        extents.push((id, append(ring, &pattern(id, len)).expect("a working device")));
    };
    (0..6).for_each(|id| append(id, 3000, BufferRing::append));
    (6..9).for_each(|id| append(id, 100, BufferRing::append_durable));
    append(9, 100, BufferRing::append);
    ring.flush(&current(ring)).wait().expect("a working device");
    ring.sync().expect("a working device");
    append(10, 100, |ring, payload| ring.append_durable_timeout(payload, LIMIT));
    for (id, extent) in extents {
        assert!(common::read(ring, extent) == pattern(id, extent.len()), "record {id}");
    }
}

/// The ring works, for this thread and for others.
fn works(ring: &BufferRing) {
    thread::scope(|scope| {
        for id in 100..102 {
            scope.spawn(move || {
                let extent = ring.append_durable(&pattern(id, 1000)).expect("a working device");
                assert!(common::read(ring, extent) == pattern(id, 1000));
            });
        }
    });
    assert!(ring.durable_watermark() > 0);
}

fn at_every_event(name: &str, make: impl Fn() -> BufferRing + Send + 'static) {
    let name = name.to_owned();
    within(LIMIT, move || {
        for message in ["sealed", "opened", "flushing", "write begins", "write completed", "synced"] {
            for (what, action) in ACTIONS {
                let ring = Arc::new(make());
                let of_subscriber = Arc::clone(&ring);
                let calls = during(message, move || action(&of_subscriber), || program(&ring));
                assert!(calls > 0, "{name}: nothing was {message}");
                works(&ring);
                let ring = Arc::into_inner(ring).expect("the subscriber is done");
                let tail = ring.tail();
                assert!(ring.close().is_ok_and(|end| end >= tail), "{name}: {what} when {message}");
            }
        }
    });
}

#[test]
fn a_subscriber_may_use_the_ring_at_every_event_of_a_device_in_memory() {
    at_every_event("memory", || in_memory(options(3, 4096)).0);
}

#[test]
fn a_subscriber_may_use_the_ring_at_every_event_of_a_file() {
    let folder = disk();
    let files = Mutex::new(0);
    at_every_event("a file", move || {
        let mut number = files.lock().expect("no panic");
        *number += 1;
        ring_on(QuikIO::new(direct_file(&folder.path().join(number.to_string()))), options(3, 4096))
    });
}

#[test]
fn a_subscriber_may_use_the_ring_at_every_event_of_a_failure() {
    within(LIMIT, || {
        let faults: [(&str, Fault); 3] = [
            ("write failed", |device| device.fail_write(1, EIO)),
            ("sync failed", |device| device.fail_sync(EIO)),
            ("the ring is poisoned", |device| device.fail_write(2, EIO)),
        ];
        for (message, fault) in faults {
            for (what, action) in ACTIONS {
                let (ring, device) = in_memory(options(3, 4096));
                let ring = Arc::new(ring);
                let of_subscriber = Arc::clone(&ring);
                fault(&device);
                let calls = during(
                    message,
                    move || action(&of_subscriber),
                    || {
                        for id in 0..5 {
                            let _ = ring.append(&pattern(id, 3000));
                        }
                        assert!(matches!(ring.sync(), Err(RingError::Device(_))), "{what} when {message}");
                    },
                );
                assert_eq!(calls, 1, "{what} when {message}");
                // Another thread learns of it.
                thread::scope(|scope| {
                    scope.spawn(|| {
                        assert!(matches!(ring.append(b"later"), Err(AppendError::Poisoned(RingError::Device(_)))));
                        assert!(matches!(ring.wait_durable(1), Ok(()) | Err(RingError::Device(_))));
                    });
                });
                let ring = Arc::into_inner(ring).expect("the subscriber is done");
                assert!(matches!(ring.close(), Err(RingError::Device(_))));
            }
        }
    });
}

/// The subscriber learns what holds the log back while it does: it can end that.
#[test]
fn a_warning_of_a_held_reservation_comes_while_it_is_held() {
    within(LIMIT, || {
        let ring: &'static BufferRing = Box::leak(Box::new(in_memory(options(3, 4096)).0));
        let held = RefCell::new(Some(ring.reserve(100).expect("room")));
        let calls = during(
            "reservations that have not ended",
            move || {
                let reservation = held.take().expect("one warning");
                assert!(ring.append_durable_timeout(b"beside it", Duration::from_millis(1)).is_err());
                reservation.commit();
                ring.sync().expect("nothing holds it back any more");
            },
            || assert!(ring.append_durable(b"behind it").is_ok()),
        );
        assert_eq!(calls, 1);
        works(ring);
    });
}

/// Whether the ring still takes bytes then or not.
#[test]
fn a_subscriber_may_use_the_ring_at_every_event_of_its_closing() {
    within(LIMIT, || {
        for message in ["sealed", "flushing", "write begins", "write completed", "synced"] {
            for (what, action) in ACTIONS {
                // The last buffer has bytes, or it is still empty.
                for len in [100, 4096] {
                    let (ring, device) = in_memory(options(3, 4096));
                    let ring = Arc::new(ring);
                    let extent = ring.append(&pattern(1, len)).expect("room");
                    let of_subscriber = Arc::clone(&ring);
                    let mut closed = None;
                    let calls = during(message, move || action(&of_subscriber), || closed = Some(ring.close()));
                    assert!(calls > 0 || len == 4096, "nothing was {message}");
                    assert_eq!(closed, Some(Ok(device.synced().len() as u64)), "{what} when {message}");
                    assert!(common::stored(&device, extent) == pattern(1, len), "{what} when {message}");
                    assert_eq!(ring.append(b"later"), Err(AppendError::Closed), "{what} when {message}");
                }
            }
        }
    });
}
