//! The key-value store of the example `wal`, killed at random moments, round after round: nothing that it has
//! acknowledged is lost, nothing comes back, nothing is invented. `RINGLOG_WAL_KILLS=100` for more rounds.

#[path = "../examples/wal/kills.rs"]
mod kills;
#[path = "../examples/wal/kv.rs"]
mod kv;

use core::time::Duration;
use std::path::Path;
use std::process::{self, Command};
use std::{env, fs, thread};

use kills::{Round, Rounds};
use kv::{Kv, Map, load, save};
use ring_testing::Random;
use ringlog::recovery::Verdict;
use ringlog::{Log, Lsn, Recovery};

/// The sources of this crate's tests, by their names, and one file that is longer than a buffer.
fn files() -> Map {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut map: Map = entries
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().expect("a name").as_encoded_bytes().to_vec();
            (name, (Lsn::START, Some(fs::read(path).expect("a file").into())))
        })
        .collect();
    map.insert(b"long".to_vec(), (Lsn::START, Some(vec![7; 100_000].into())));
    map
}

#[test]
fn a_store_that_is_killed_has_what_it_acknowledged_and_nothing_else() {
    kills::run_if_child();
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let count = number("RINGLOG_WAL_KILLS").unwrap_or(20);
    let seed = number("RINGLOG_SEED").unwrap_or_else(|| process::id().into());
    println!("RINGLOG_SEED={seed} RINGLOG_WAL_KILLS={count}");
    let folder = tempfile::tempdir().expect("a folder");
    let (mut random, mut acknowledged) = (Random::new(seed), 0);
    let mut rounds = Rounds::new(folder.path(), 3, files()).expect("a store");
    for round in 0..count {
        let mut child = Command::new(env::current_exe().expect("this program"));
        child.args(["a_store_that_is_killed_has_what_it_acknowledged_and_nothing_else", "--exact", "--nocapture"]);
        let seen = rounds.round(&mut child, Duration::from_micros(random.below(100_000) as u64));
        let seen = seen.unwrap_or_else(|why| panic!("round {round}: {why}"));
        let is_killed = matches!(seen.recovery.verdict, Verdict::Unclosed | Verdict::Torn(_));
        assert!(is_killed, "round {round}: {}", seen.recovery.verdict);
        assert!(seen.unacknowledged <= 3);
        let Round { acknowledged: new, keys, time, .. } = seen;
        let Recovery { first, verdict, .. } = seen.recovery;
        println!("{round}: {new} operations; from {first} in {time:.0?}, {verdict}: {keys} values");
        acknowledged += new;
    }
    assert!(acknowledged >= count);
}

#[test]
fn what_was_deleted_stays_deleted_over_checkpoints_and_trims() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || Log::options().ring(2, 4096).segment_size(4 << 12);
    let (kv, _) = Kv::open(folder.path(), options()).expect("a store");
    for round in 0..40_u8 {
        kv.put(b"same", &[round; 3000]).expect("no failure");
        kv.put(&[round], &[round]).expect("no failure");
        kv.delete(b"same").expect("no failure");
        if round % 4 == 0 {
            kv.checkpoint().expect("no failure");
        }
    }
    assert!(kv.log().first() > Lsn::START, "nothing was trimmed");
    let keys = |kv: &Kv| {
        let map = kv.map();
        map.iter().filter_map(|(key, (_, value))| Some((key.clone(), value.clone()?))).collect::<Vec<_>>()
    };
    let before = keys(&kv);
    drop(kv);
    let (kv, _) = Kv::open(folder.path(), options()).expect("a store");
    assert_eq!(keys(&kv), before);
    assert_eq!(before.len(), 40);
}

#[test]
fn of_puts_that_meet_the_one_that_is_last_in_the_log_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || Log::options().ring(4, 4096).segment_size(4 << 12);
    let (kv, _) = Kv::open(folder.path(), options()).expect("a store");
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let kv = &kv;
            scope.spawn(move || {
                for key in 0..100_u8 {
                    kv.put(&[key], &[thread]).expect("no failure");
                }
            });
        }
    });
    let before = kv.map().clone();
    drop(kv);
    let (kv, _) = Kv::open(folder.path(), options()).expect("a store");
    assert_eq!(*kv.map(), before);
    assert_eq!(before.len(), 100);
}

#[test]
fn a_snapshot_comes_back_and_half_a_snapshot_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(load(folder.path()).expect("no snapshot").is_empty());
    let mut map = Map::from([(b"key".to_vec(), (Lsn::new(8), Some([1, 2, 3].into())))]);
    map.insert(b"deleted".to_vec(), (Lsn::new(16), None));
    save(folder.path(), &map).expect("saved");
    map.remove(&b"deleted"[..]);
    assert_eq!(load(folder.path()).expect("a snapshot"), map);
    let file = folder.path().join("snapshot");
    let bytes = fs::read(&file).expect("a snapshot");
    for len in 1..bytes.len() {
        fs::write(&file, &bytes[..len]).expect("cut");
        assert!(load(folder.path()).is_err(), "{len}");
    }
}
