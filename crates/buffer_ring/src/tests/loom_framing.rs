//! Frames: the thread that fills one knows what the sealer and the opener of its batch have settled.

use std::sync::Mutex;

use super::*;
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::staging::layout::Layout;
use crate::{BatchInfo, CommitPolicy, Framing, Margins};

/// Keeps what it is given. No thread of a model is switched while it has the lock.
#[derive(Debug, Default)]
struct Recording(Mutex<Vec<BatchInfo>>);

impl Framing for Recording {
    fn margins(&self) -> Margins {
        Margins { header: 512, trailer: 512, trailer_per_block: 0 }
    }

    fn seal(&self, info: &BatchInfo, _: &mut [u8], _: &[u8], _: &mut [u8]) {
        self.0.lock().unwrap().push(*info);
    }
}

/// What can be appended to a buffer.
const CAPACITY: usize = BUFFER - 1024;

fn framed() -> (Arc<Core>, Arc<Recording>) {
    let (arena, framing) = (Arc::new(Arena::new(2, BUFFER).expect("a valid arena")), Arc::<Recording>::default());
    let layout = Layout::framed(&arena, framing.clone(), None).expect("it fits");
    let core = Core::new(&arena, layout, true, true, CommitPolicy::default(), 0, None);
    (Arc::new(core), framing)
}

fn append(core: &Core, len: usize) -> u64 {
    core.append(&vec![1; len], Patience::ForRoom).expect("there is room").start()
}

/// The sealer leaves before the other thread, which then flushes; or after it, and flushes itself.
#[test]
fn the_flusher_of_a_batch_knows_the_next_one() {
    static FLUSHED: [Count; 2] = [const { Count::new(0) }; 2];
    model("the_flusher_of_a_batch_knows_the_next_one", Bound::Preemptions(3), || {
        let (core, framing) = framed();
        append(&core, CAPACITY - 512);
        let other = {
            let core = Arc::clone(&core);
            thread::spawn(move || append(&core, 512))
        };
        let sealed = core.seal(BufferId::new(1, 0));
        let flushed_by_both = !framing.0.lock().unwrap().is_empty();
        hit(&FLUSHED[usize::from(flushed_by_both)]);
        let start = other.join().unwrap();
        assert!(sealed && (start == 512 + CAPACITY as u64 - 512 || start == 4096 + 512), "{start}");
        let infos = framing.0.lock().unwrap().clone();
        assert_eq!((infos[0].base, infos[0].next, infos[0].previous), (0, 4096, None));
        assert_eq!(core.writeback.written(), 4096 + 512);
    });
    assert!(FLUSHED.iter().all(|flushed| flushed.load(Relaxed) > 0), "{FLUSHED:?}");
}

/// While the first batch still has a writer, another thread fills the second, and tries to open the third in the place
/// of the first.
#[test]
fn a_batch_knows_the_one_before_it_although_the_next_in_its_place_is_tried() {
    static TRIED: Count = Count::new(0);
    model("a_batch_knows_the_one_before_it_although_the_next_in_its_place_is_tried", Bound::Preemptions(2), || {
        let (core, framing) = framed();
        let grant = core.seize(CAPACITY, Patience::Never).expect("there is room");
        assert!(core.seal(BufferId::new(1, 0)));
        let other = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                append(&core, CAPACITY);
                core.append(&[1; 512], Patience::Never).is_err()
            })
        };
        core.release(grant);
        if other.join().unwrap() {
            hit(&TRIED);
        }
        append(&core, 512);
        assert!(core.seal(core.staging.current()));
        let mut infos = framing.0.lock().unwrap().clone();
        infos.sort_by_key(|info| info.base);
        let batches: Vec<_> = infos.iter().map(|info| (info.generation, info.previous)).collect();
        assert_eq!(batches[..3], [(1, None), (2, Some(0)), (3, Some(4096))]);
    });
    assert!(TRIED.load(Relaxed) > 0);
}
