//! A thread that sees that no life is opened any more knows where the log ends.

use super::*;
use crate::CommitPolicy;
use crate::append::Patience;
use crate::shared::Shared;

/// One buffer that opens in place: the life that is taken out of use may be another than the one that was found empty.
#[test]
fn all_who_see_the_rotation_frozen_know_where_the_log_ends() {
    static APPENDED: Count = Count::new(0);
    static REFUSED: Count = Count::new(0);
    model("all_who_see_the_rotation_frozen_know_where_the_log_ends", Bound::Preemptions(3), || {
        let arena = Arc::new(Arena::new(1, BUFFER).expect("a valid arena"));
        let shared = Arc::new(Shared::new(&arena, true, false, CommitPolicy::default(), 0, None));
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let appended = shared.append(&[1; 512], Patience::Never).is_ok();
                if appended {
                    shared.seal(Life::new(1, 0));
                }
                (appended, shared.freeze())
            })
        };
        let end = shared.freeze();
        let (appended, their_end) = other.join().unwrap();
        hit(if appended { &APPENDED } else { &REFUSED });
        assert_eq!((end, their_end), if appended { (4096, 4096) } else { (0, 0) });
        assert!(shared.append(&[2; 512], Patience::Never).is_err(), "a life was opened");
    });
    assert!(APPENDED.load(Relaxed) > 0 && REFUSED.load(Relaxed) > 0);
}
