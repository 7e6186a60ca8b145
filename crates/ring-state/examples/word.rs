//! Prints the word of one buffer after each step: two writers, an overflow, a flush, the next generation.
//!
//! `cargo run -p ring-state --example word`

use ring_state::{Released, Reserve, StateWord};

const CAPACITY: u32 = 4096;

fn main() {
    let word = StateWord::vacant();
    println!("{:<52} offset  writers  flushing  sealed", "step");
    show(&word, "a buffer that was never used");
    assert!(word.reopen(), "only a late arrival could be in the way");
    show(&word, "reopen: its first generation begins");

    assert_eq!(word.reserve(3000, CAPACITY), Reserve::Granted { start: 0 });
    show(&word, "writer A reserves 3000 bytes: granted from 0");
    assert_eq!(word.reserve(1000, CAPACITY), Reserve::Granted { start: 3000 });
    show(&word, "writer B reserves 1000 bytes: granted from 3000");
    assert_eq!(word.release(), Released::Pending);
    show(&word, "writer B has copied its bytes, and releases");

    assert_eq!(word.reserve(100, CAPACITY), Reserve::Sealed { len: 4000 });
    show(&word, "writer C reserves 100 bytes: full, so C seals");
    assert_eq!(word.release(), Released::Pending);
    show(&word, "writer C releases, and goes to the next buffer");
    assert_eq!(word.reserve(8, CAPACITY), Reserve::Late(Released::Pending));
    show(&word, "writer D comes late: it gets nothing");

    let Released::Flushable(drained) = word.release() else { panic!("A was the last writer") };
    show(&word, "writer A releases last: the buffer is drained");
    assert!(word.try_take_flush(drained), "no other thread competes for the flush");
    show(&word, "writer A takes the flush: the device reads");
    word.complete(drained.len());
    show(&word, "the bytes are written: vacant again");
    assert!(word.reopen(), "only a late arrival could be in the way");
    show(&word, "reopen: its second generation begins");
}

fn show(word: &StateWord, step: &str) {
    let now = word.snapshot();
    let yes = |it: bool| if it { "yes" } else { "-" };
    println!(
        "{step:<52} {:>6}  {:>7}  {:>8}  {:>6}",
        now.offset(),
        now.writers(),
        yes(now.is_flushing()),
        yes(now.is_sealed())
    );
}
