//! What a thread that waits owes to the others, over an engine whose waits end early.

use ring_alloc::{BLOCK, Buffer};

use super::*;
use crate::backend::{Attempt, Backend};
use crate::files::{Files, Segment, Segments};
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

/// Counts what it is called for.
#[derive(Debug, Default)]
struct Counting {
    announced: AtomicUsize,
    retracted: AtomicUsize,
    interrupts: AtomicUsize,
    /// The numbers of segments.
    added: Mutex<Vec<u64>>,
    removed: Mutex<Vec<u64>>,
}

/// A device in memory that is watched by a [`Counting`].
#[derive(Debug)]
struct Counted(MemoryDevice, Arc<Counting>);

impl Backend for Counted {
    fn attach(&self, arena: &Arc<Arena>, files: &[Arc<Segment>], segments: bool) -> Registered {
        assert!(segments);
        self.1.added.lock().extend(files.iter().map(|segment| segment.number));
        self.0.attach(arena, files, segments)
    }

    fn submit(&self, job: Job) {
        self.0.submit(job);
    }

    fn write_now(&self, request: Request) -> Attempt {
        self.0.write_now(request)
    }

    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        self.0.reap(wait, completed);
    }

    fn announce(&self) {
        self.1.announced.fetch_add(1, Ordering::Relaxed);
        self.0.announce();
    }

    fn retract(&self) {
        self.1.retracted.fetch_add(1, Ordering::Relaxed);
        self.0.retract();
    }

    fn add(&self, segment: &Arc<Segment>) {
        self.1.added.lock().push(segment.number);
    }

    fn remove(&self, segment: &Arc<Segment>) {
        self.1.removed.lock().push(segment.number);
    }

    fn interrupt(&self) {
        self.1.interrupts.fetch_add(1, Ordering::Relaxed);
        self.0.interrupt();
    }
}

#[test]
fn the_engine_knows_of_each_segment_and_of_each_write_that_waits_for_one() {
    const SIZE: u64 = BLOCK as u64;
    let (device, counting) = (MemoryDevice::new(), Arc::new(Counting::default()));
    let segment = || device.another_file(2 * BLOCK);
    let segments = Segments::new(SIZE, [(0, segment().into())]).expect("a segment");
    let engine = Box::new(Counted(device.clone(), Arc::clone(&counting)));
    let io = QuikIO::assemble(engine, Files::Segments(segments), Engine::new(EngineKind::Memory, None));
    let (io, arena) = (Arc::new(io), Arc::new(Arena::new(1, BLOCK).expect("an arena")));
    let queue = io.attach(&arena).expect("the only queue");
    let counted =
        || [&counting.announced, &counting.retracted, &counting.interrupts].map(|n| n.load(Ordering::Relaxed));
    let submit = |number: u64| {
        let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
        queue.submit(number, bytes, number * SIZE);
    };
    submit(0);
    submit(1);
    assert_eq!(counted(), [2, 0, 0]);
    io.add_segment(1, segment()).expect("the next one");
    assert_eq!((counted(), queue.in_flight()), ([2, 1, 0], 2));
    io.add_segment(2, segment()).expect("the next one");
    assert_eq!(counted(), [2, 2, 0]);
    let mut finished = Vec::new();
    queue.reap(Wait::Until(None), &mut finished);
    assert_eq!((finished.len(), io.sync()), (2, Ok(())));
    assert_eq!(io.remove_segments_before(2).map(|removed| removed.len()), Ok(2));
    assert_eq!((&**counting.added.lock(), &**counting.removed.lock()), (&[0, 1, 2][..], &[0, 1][..]));

    // What comes back untried is announced no longer, and a thread that waits for it is woken.
    submit(2);
    submit(3);
    device.fail_sync(Errno::IO.raw_os_error());
    assert!(io.sync().is_err());
    assert_eq!((counted(), queue.in_flight()), ([4, 4, 1], 2));
    submit(4);
    assert_eq!((counted(), queue.in_flight()), ([4, 4, 2], 3));
}
