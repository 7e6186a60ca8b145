//! What a thread that waits owes to the others, over an engine whose waits end early.

use ring_alloc::{BLOCK, Buffer};

use super::*;
use crate::backend::{Attempt, Backend};
use crate::files::{Files, Segment};
use crate::{Engine, EngineKind, MemoryDevice};

/// Ends this many waits with nothing, as an interrupt does; only then do preallocating writes complete.
#[derive(Debug)]
struct Interrupted {
    device: MemoryDevice,
    waits: AtomicUsize,
    prepares: Mutex<Vec<Job>>,
    /// How often the queue has interrupted it.
    interrupts: AtomicUsize,
}

impl Backend for Arc<Interrupted> {
    fn attach(&self, arena: &Arc<Arena>, files: &[Arc<Segment>], segments: bool) -> Registered {
        self.device.attach(arena, files, segments)
    }

    fn submit(&self, job: Job) {
        match &job {
            Job::Write(request) if request.preparing => self.prepares.lock().push(job),
            _ => self.device.submit(job),
        }
    }

    fn write_now(&self, request: Request) -> Attempt {
        self.device.write_now(request)
    }

    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        if wait != Wait::No {
            let ends = self.waits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if ends.is_ok() {
                return;
            }
            self.prepares.lock().drain(..).for_each(|job| self.device.submit(job));
        }
        self.device.reap(Wait::No, completed);
    }

    fn announce(&self) {
        self.device.announce();
    }

    fn retract(&self) {
        self.device.retract();
    }

    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_thread_that_waits_for_prepared_space_passes_an_interrupt_on_and_makes_none_up() {
    for (waits, interrupts) in [(0, 0), (1, 1), (3, 1)] {
        let device = QuikIO::in_memory().1;
        let engine = Arc::new(Interrupted {
            device: device.clone(),
            waits: AtomicUsize::new(waits),
            prepares: Mutex::default(),
            interrupts: AtomicUsize::new(0),
        });
        let kind = Engine::new(EngineKind::Memory, None);
        let mut io =
            QuikIO::assemble(Box::new(Arc::clone(&engine)), Files::One(Segment::whole_in_memory(device)), kind);
        io.prepare = 1 << 20;
        let arena = Arc::new(Arena::new(1, BLOCK).expect("an arena"));
        let queue = Arc::new(io).attach(&arena).expect("the only queue");
        // Behind the fourth durable write space is prepared, in the place of the fifth.
        for n in 0..5 {
            assert_eq!(engine.prepares.lock().len(), usize::from(n == 4), "{n}");
            let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
            assert!(queue.write_durable_now(n, bytes, n * BLOCK as u64).durable);
        }
        assert_eq!((engine.waits.load(Ordering::Relaxed), engine.interrupts.load(Ordering::Relaxed)), (0, interrupts));
    }
}

#[test]
fn what_is_prepared_is_taken_back_though_no_thread_ever_reaps() {
    let device = QuikIO::in_memory().1;
    let io = Arc::new(device.builder().prepare(1 << 20).build().expect("no obstacle"));
    let arena = Arc::new(Arena::new(1, BLOCK).expect("an arena"));
    let queue = io.attach(&arena).expect("the only queue");
    for n in 0..4 {
        let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
        assert!(queue.write_durable_now(n, bytes, n * BLOCK as u64).durable);
    }
    assert!(device.contents().len() > 4 * BLOCK, "space is prepared");
    assert!(queue.prealloc.as_ref().is_some_and(|prealloc| !prealloc.lock().is_preparing()));
}
