//! Foreign code that the device layer calls: the watcher of a device in memory, and subscribers of `tracing`.

mod common;

use core::cell::{Cell, RefCell};
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::{Arc, Once};

use common::{attach, bytes, drain};
use ring_alloc::BLOCK;
use ring_io::{DeviceEvent, QuikIO, WriteQueue};
use ring_testing::events::OnEvent;

fn name(event: DeviceEvent<'_>) -> &'static str {
    match event {
        DeviceEvent::WriteArrived { .. } => "a write arrives",
        DeviceEvent::WriteCompleted { .. } => "a write completes",
        DeviceEvent::WriteFailed { .. } => "a write fails",
        DeviceEvent::SyncBegan { .. } => "a sync begins",
        DeviceEvent::SyncEnded { .. } => "a sync ends",
        _ => "something else",
    }
}

#[test]
fn a_watcher_that_panics_loses_no_completion_and_its_panic_reaches_the_remote_control() {
    let events = ["a write arrives", "a write completes", "a write fails", "a sync begins", "a sync ends"];
    for panics_when in events {
        let (io, device) = QuikIO::in_memory();
        let io = Arc::new(io);
        let queue = attach(&io);
        device.fail_write(2, 5);
        device.watch(move |event| assert_ne!(name(event), panics_when, "the watcher panics"));
        for token in 0..3 {
            queue.submit(token, bytes(1, BLOCK), token * BLOCK as u64);
        }
        let results: Vec<_> = drain(&queue).into_iter().map(|write| write.result.is_ok()).collect();
        assert_eq!(results, [true, true, false], "when {panics_when}");
        assert!(io.sync().is_ok(), "when {panics_when}");
        let payload = catch_unwind(AssertUnwindSafe(|| device.held())).expect_err("the panic is resumed here");
        let message = payload.downcast_ref::<String>().expect("what `assert_ne` says");
        assert!(message.contains("the watcher panics"), "{message}");
        assert_eq!(device.held(), 0, "once");
        device.watch(|_| {});
        assert_eq!(device.contents().len(), 2 * BLOCK);
    }
}

thread_local! {
    /// What the subscriber does in this thread at each event, and how often it did.
    static ACTION: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn react(_: &str) {
    if let Some(action) = ACTION.with_borrow(Clone::clone) {
        CALLS.set(CALLS.get() + 1);
        action();
    }
}

#[test]
fn a_subscriber_may_submit_reap_and_panic_at_every_event_of_a_queue() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(OnEvent::new(react)).expect("the only one"));
    let actions: [fn(&WriteQueue, &Cell<u64>); 4] = [
        |queue, next| {
            // A write for each event would never come to an end.
            let token = next.get();
            if token < 30 {
                next.set(token + 1);
                queue.submit(token, bytes(2, BLOCK), token * BLOCK as u64);
            }
        },
        |queue, _| drop(drain(queue)),
        |queue, _| assert!(queue.io().sync().is_ok()),
        |_, _| panic!("a subscriber panics"),
    ];
    for action in actions {
        let (io, device) = QuikIO::in_memory();
        let queue = Rc::new(attach(&Arc::new(io)));
        let next = Rc::new(Cell::new(10));
        device.shorten_write(1, BLOCK);
        let of_subscriber = (Rc::clone(&queue), Rc::clone(&next));
        ACTION.set(Some(Rc::new(move || action(&of_subscriber.0, &of_subscriber.1))));
        CALLS.set(0);
        for token in 0..3 {
            queue.submit(token, bytes(1, 2 * BLOCK), 2 * token * BLOCK as u64);
        }
        drain(&queue);
        let now = queue.write_durable_now(9, bytes(3, BLOCK), 6 * BLOCK as u64);
        assert_eq!(now.result, Ok(()));
        ACTION.set(None);
        // What the subscriber causes itself is not counted: it causes no events.
        assert!(CALLS.get() >= 5, "{} events", CALLS.get());
        drain(&queue);
        assert_eq!(queue.in_flight(), 0);
        assert!(device.contents()[..7 * BLOCK].chunks(BLOCK).all(|block| block.iter().any(|&byte| byte != 0)));
    }
}
