//! Writing: owners of different buffers at once; no thread while a buffer is frozen; memory outlives the arena's
//! handle.

use std::sync::Arc;
use std::thread;

use ring_alloc::{Arena, BLOCK, Buffer};

#[test]
fn owners_of_different_buffers_do_not_meet() {
    let buffers = Arena::new(8, 2 * BLOCK).expect("a valid arena").into_buffers();
    let fill = |(mark, mut buffer): (usize, Buffer)| {
        thread::spawn(move || {
            buffer.fill(mark as u8 + 1);
            buffer
        })
    };
    let threads: Vec<_> = buffers.into_iter().enumerate().map(fill).collect();
    for (mark, thread) in threads.into_iter().enumerate() {
        let buffer = thread.join().expect("no panic");
        assert!(buffer.iter().all(|&byte| byte == mark as u8 + 1));
    }
}

#[test]
fn a_frozen_buffer_outlives_its_siblings_and_thaws_whole() {
    let mut buffers = Arena::new(3, 2 * BLOCK).expect("a valid arena").into_buffers();
    let mut buffer = buffers.remove(1);
    drop(buffers);
    buffer.fill(7);
    let frozen = buffer.freeze(BLOCK);
    assert_eq!((frozen.len(), frozen.index()), (BLOCK, 1));
    let thawed = frozen.thaw().expect("it came from a buffer");
    assert_eq!(&thawed[..], &[7; 2 * BLOCK]);
}

#[test]
fn what_the_arenas_user_froze_does_not_thaw() {
    let arena = Arc::new(Arena::new(1, BLOCK).expect("a valid arena"));
    // SAFETY: *quiet*: this test writes nothing.
    let frozen = unsafe { arena.region(0).freeze(BLOCK) };
    drop(arena);
    let frozen = frozen.thaw().expect_err("no sole owner");
    assert_eq!(&frozen[..], &[0; BLOCK]);
}
