//! The page store of the example `page_store`: against a model, by several threads, over power cuts and kills.
//! `RINGLOG_PAGE_STEPS=1000000` and `RINGLOG_PAGE_KILLS=100` for more, `RINGLOG_SEED` for the same.

#[path = "../examples/page_store/page.rs"]
mod page;
#[path = "../examples/page_store/record.rs"]
mod record;
#[path = "../examples/page_store/store.rs"]
mod store;
#[path = "../examples/page_store/trial.rs"]
mod trial;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::Instant;
use std::{env, thread};

use ring_testing::Random;
use ringlog::directory::MemoryDirectory;
use ringlog::{Log, Lsn, Options};
use rustix::process::{Signal, set_parent_process_death_signal};

use page::{PAGE, Unflushed};
use store::Store;
use trial::{Owners, owners, verify};

/// It is cleaned when it is longer.
const LONGEST_LOG: u64 = 8 * (64 << 10);

/// A test that is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Small, so that a test has many batches and segments.
fn options() -> Options {
    Log::options().ring(4, 16 << 10).segment_size(64 << 10)
}

fn open(directory: &MemoryDirectory, pages: u32, resident: usize) -> Store {
    let opened = Store::open(options().directory(directory), "".as_ref(), pages, resident * PAGE);
    opened.unwrap_or_else(|why| panic!("the store is lost: {why}")).0
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|value| value.parse().ok())
}

fn seed() -> u64 {
    let seed = number("RINGLOG_SEED").unwrap_or_else(|| process::id().into());
    println!("RINGLOG_SEED={seed}");
    seed
}

fn get(counter: &core::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A page as it has to be.
#[derive(Clone)]
struct Expected {
    now: Vec<u8>,
    /// What it was when the store was opened, and all writes since.
    opened: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>,
    /// Flushes: up to where the log has to be durable for so many writes to be so.
    flushes: Vec<(Lsn, usize)>,
}

impl Expected {
    fn new(content: &[u8]) -> Self {
        Self { now: content.to_vec(), opened: content.to_vec(), writes: Vec::new(), flushes: Vec::new() }
    }

    fn write(&mut self, at: usize, bytes: Vec<u8>) {
        self.now[at..][..bytes.len()].copy_from_slice(&bytes);
        self.writes.push((at, bytes));
    }

    /// Whether `found` is what a crash may leave, with a log that was durable up to `durable`: all flushes up to there,
    /// and no write without all before it.
    fn allows(&self, found: &[u8], durable: Lsn) -> bool {
        let least = self.flushes.iter().filter(|(end, _)| *end <= durable).map(|(_, writes)| *writes).max();
        let mut image = self.opened.clone();
        let mut is_allowed = least.is_none() && image == found;
        for (n, (at, bytes)) in self.writes.iter().enumerate() {
            image[*at..][..bytes.len()].copy_from_slice(bytes);
            is_allowed |= n + 1 >= least.unwrap_or(0) && image == found;
        }
        is_allowed || (least == Some(0) && self.opened == found)
    }
}

#[test]
fn the_store_is_a_map_of_pages_over_evictions_cleaning_closes_and_power_cuts() {
    const PAGES: u32 = 48;
    const RESIDENT: usize = 12;
    let (mut random, steps) = (Random::new(seed()), number("RINGLOG_PAGE_STEPS").unwrap_or(5_000));
    let mut directory = MemoryDirectory::new();
    let mut store = open(&directory, PAGES, RESIDENT);
    let mut model: HashMap<u32, Expected> = HashMap::new();
    let zeros = Expected::new(&[0; PAGE]);
    let (mut loads, mut cleaned, mut opened) = (0, 0, 0);
    for step in 0..steps {
        let page = random.below(PAGES as usize) as u32;
        let expected = model.entry(page).or_insert_with(|| zeros.clone());
        match random.below(1000) {
            0..480 => {
                let len = if random.chance(2) { PAGE } else { random.up_to(120) };
                let at = random.below(PAGE - len + 1);
                let bytes: Vec<_> = (0..len).map(|_| random.next() as u8).collect();
                store.write(page, at, &bytes).expect("a working log");
                expected.write(at, bytes);
            }
            480..850 => {
                let found = store.read(page).expect("a working log");
                assert!(*found == *expected.now, "step {step}: page {page} is not what was written");
            }
            850..950 => {
                let end = store.flush(page).expect("a working log");
                expected.flushes.push((end, expected.writes.len()));
                if random.chance(30) {
                    store.log().wait_durable(end).expect("a working log");
                }
            }
            950..990 => store.evict(page).expect("a working log"),
            990..997 => {
                while store.log_len() > LONGEST_LOG && store.clean().expect("a working log") {
                    cleaned += 1;
                }
            }
            how => {
                loads += get(&store.counts.loads);
                if how == 997 {
                    store.log().close().expect("a working log");
                }
                let durable = store.log().durable();
                directory = match how {
                    997 => directory,
                    998 => directory.kill(random.next()),
                    _ => directory.power_cut(random.next()),
                };
                drop(store);
                store = open(&directory, PAGES, RESIDENT);
                opened += 1;
                for (page, expected) in &mut model {
                    let found = store.read(*page).expect("a working log");
                    assert!(expected.allows(&found, durable), "step {step}: page {page} is none that can be there");
                    *expected = Expected::new(&found);
                }
            }
        }
    }
    println!("{steps} steps: {loads} pages read back, {cleaned} segments cleaned, {opened} times opened");
    assert!(steps < 5_000 || (loads > 200 && cleaned > 5 && opened > 2));
}

#[test]
fn owners_find_their_updates_while_threads_evict_flush_and_clean_and_after_power_cuts() {
    const PAGES: u32 = 40;
    let (folder, mut random) = (tempfile::tempdir().expect("a folder"), Random::new(seed()));
    let directory = MemoryDirectory::new();
    let store = open(&directory, PAGES, 8);
    let Owners { acknowledged, mut all, .. } = Owners::create(folder.path(), PAGES, 3).expect("a new folder");
    let stop = AtomicBool::new(false);
    let images = thread::scope(|scope| {
        let (store, acknowledged, stop) = (&store, &acknowledged, &stop);
        for owner in &mut all {
            scope.spawn(move || {
                let worked = owner.work(store, acknowledged, LONGEST_LOG, |_| !stop.load(Ordering::Relaxed));
                worked.expect("each page is as written");
            });
        }
        let seed = random.next();
        scope.spawn(move || {
            let mut other = Random::new(seed);
            while !stop.load(Ordering::Relaxed) {
                let page = other.below(PAGES as usize) as u32;
                if other.chance(50) {
                    store.evict(page).expect("a working log");
                } else {
                    store.flush(page).expect("a working log");
                }
            }
        });
        let (start, mut images) = (Instant::now(), Vec::new());
        // On a slow machine it takes a while until the log has to be cleaned.
        while images.len() < 12 || (get(&store.counts.relocations) == 0 && start.elapsed() < PATIENCE) {
            thread::sleep(Duration::from_millis(30));
            if images.len() < 12 {
                let before = acknowledged.get().expect("a file").1;
                let image = directory.power_cut(random.next());
                images.push((before, image, acknowledged.get().expect("a file").1));
            }
        }
        stop.store(true, Ordering::Relaxed);
        images
    });
    let (failed, relocations) = (get(&store.counts.failed), get(&store.counts.relocations));
    println!("{failed} failed flushes, {relocations} relocations");
    assert_eq!(failed, store.log().stats().reservations_aborted);
    assert!(relocations > 0, "nothing was cleaned");
    verify(&store, PAGES, &all).expect("each page is as written");
    drop(store);
    verify(&open(&directory, PAGES, 8), PAGES, &all).expect("all is flushed");
    for (n, (before, image, after)) in images.into_iter().enumerate() {
        let verified = verify(&open(&image, PAGES, 8), PAGES, &owners(PAGES, &before, &after));
        verified.unwrap_or_else(|why| panic!("image {n}: {why}"));
    }
}

/// Where a child finds the store.
const FOLDER: &str = "RINGLOG_PAGE_FOLDER";

const THREADS: usize = 3;
const PAGES_OF_A_CHILD: u32 = 64;

fn open_on_disk(folder: &Path) -> Store {
    let opened = Store::open(options(), &folder.join("log"), PAGES_OF_A_CHILD, 16 * PAGE);
    opened.unwrap_or_else(|why| panic!("the store is lost: {why}")).0
}

/// Works until it is killed.
fn child(folder: &Path) -> ! {
    // It must not outlive its parent, as it ends by no other means.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux has it");
    let (store, mut owners) = (open_on_disk(folder), Owners::open(folder).expect("a file"));
    thread::scope(|scope| {
        for owner in &mut owners.all {
            scope.spawn(|| {
                let worked = owner.work(&store, &owners.acknowledged, LONGEST_LOG, |_| true);
                eprintln!("the child ends: {worked:?}");
                process::exit(1)
            });
        }
    });
    unreachable!("it is killed")
}

#[test]
fn a_store_that_is_killed_has_all_acknowledged_updates_each_time() {
    if let Some(folder) = env::var_os(FOLDER) {
        child(folder.as_ref());
    }
    let (kills, mut random) = (number("RINGLOG_PAGE_KILLS").unwrap_or(6), Random::new(seed()));
    let folder = tempfile::tempdir().expect("a folder");
    Owners::create(folder.path(), PAGES_OF_A_CHILD, THREADS).expect("a new folder");
    for kill in 0..kills {
        let next = || Owners::open(folder.path()).expect("a file").acknowledged.get().expect("a file").1;
        let before = next();
        let mut child = Command::new(env::current_exe().expect("this program"));
        child.args(["a_store_that_is_killed_has_all_acknowledged_updates_each_time", "--exact", "--nocapture"]);
        let mut child = child.env(FOLDER, folder.path()).stdout(Stdio::null()).spawn().expect("a child");
        while next() == before {
            assert_eq!(child.try_wait().expect("a child"), None, "kill {kill}: the child has failed");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.below(100_000) as u64));
        child.kill().expect("killed");
        assert_eq!(child.wait().expect("a child").code(), None, "kill {kill}: the child has failed");
        let (store, owners) = (open_on_disk(folder.path()), Owners::open(folder.path()).expect("a file"));
        verify(&store, owners.pages, &owners.all).unwrap_or_else(|why| panic!("kill {kill}: {why}"));
    }
}

#[test]
fn a_flush_of_a_state_that_was_replaced_leaves_no_record() {
    let (directory, zeros) = (MemoryDirectory::new(), vec![0; PAGE - 2]);
    let store = open(&directory, 8, 8);
    store.write(7, 0, b"a").expect("a working log");
    let earlier = store.newest(7);
    store.write(7, 1, b"b").expect("a working log");
    let content = store.content(7, &earlier).expect("all is in memory");
    assert_eq!(store.try_flush(7, &earlier, content, true).expect("a working log"), None);
    assert_eq!((get(&store.counts.failed), store.log().stats().reservations_aborted), (1, 1));
    let end = store.log().sync().expect("a working log");
    assert_eq!(store.log().scan(..end).next().expect("a working log"), None);
    assert_eq!(*store.read(7).expect("in memory"), *[b"ab", &*zeros].concat());
    store.flush(7).expect("a working log");
    drop(store);
    assert_eq!(*open(&directory, 8, 8).read(7).expect("in the log"), *[b"ab", &*zeros].concat());
}

#[test]
fn a_page_that_is_still_in_the_ring_is_read_from_there_and_nothing_is_synced() {
    let store = open(&MemoryDirectory::new(), 8, 8);
    store.write(3, 5, b"staged").expect("a working log");
    let end = store.flush(3).expect("a working log");
    store.write(3, 5, b"S").expect("a working log");
    store.evict(3).expect("a working log");
    assert_eq!(store.newest(3).memory, 0);
    let syncs = store.log().stats().syncs;
    assert_eq!(store.read(3).expect("in the ring")[5..11], *b"Staged");
    assert_eq!((get(&store.counts.loads), get(&store.counts.records)), (1, 2));
    assert!(store.log().durable() < end && store.log().stats().syncs == syncs);
}

#[test]
fn a_write_reads_nothing_and_a_flush_writes_what_was_written_until_the_records_are_many() {
    let store = open(&MemoryDirectory::new(), 8, 8);
    store.write(0, 0, &[1; PAGE]).expect("a working log");
    store.flush(0).expect("a working log");
    let whole = store.log().stats().bytes_appended;
    assert!(whole > PAGE as u64);
    for n in 1..=3 {
        store.evict(0).expect("a working log");
        store.write(0, n, &[2]).expect("a working log");
        store.flush(0).expect("a working log");
        assert!(store.log().stats().bytes_appended - whole <= n as u64 * 32);
        assert_eq!((get(&store.counts.increments), get(&store.counts.loads)), (n as u64, 0));
    }
    store.write(0, 9, &[3]).expect("a working log");
    store.flush(0).expect("a working log");
    assert_eq!((get(&store.counts.whole), get(&store.counts.increments)), (2, 3));
}

#[test]
fn cleaning_takes_along_what_was_written_to_a_page_since_its_flush() {
    let directory = MemoryDirectory::new();
    let store = open(&directory, 64, 64);
    for page in [0, 1] {
        store.write(page, 0, b"old").expect("a working log");
        store.flush(page).expect("a working log");
    }
    store.evict(1).expect("a working log");
    for page in (2..64).cycle().take(200) {
        store.write(page, 0, &[4; PAGE]).expect("a working log");
        store.flush(page).expect("a working log");
    }
    store.write(0, 3, b"new").expect("a working log");
    store.write(1, 3, b"new").expect("a working log");
    assert_eq!(store.live(), 64);
    let first = store.log().first();
    while store.clean().expect("a working log") && store.log_len() > 6 * (64 << 10) {}
    assert!(store.log().first() > first && get(&store.counts.relocations) >= 2);
    for page in [0, 1] {
        assert_eq!(store.newest(page).unflushed, Unflushed::Nothing);
        assert_eq!(store.read(page).expect("a page")[..6], *b"oldnew");
    }
    let after = directory.power_cut(1);
    for page in [0, 1] {
        assert_eq!(open(&after, 64, 64).read(page).expect("a page")[..6], *b"oldnew");
    }
}

#[test]
fn cleaning_begins_when_all_flushes_are_done_that_have_a_place_in_what_goes() {
    let store = open(&MemoryDirectory::new(), 20, 20);
    let flush = |pages: core::ops::Range<u32>| {
        for page in pages {
            store.write(page, 0, &[1; PAGE]).expect("a working log");
            store.flush(page).expect("a working log");
        }
    };
    flush(0..10);
    // Like a flush that is between its seizure and its check.
    let held = store.log().reserve(1, 8).expect("room");
    flush(10..18);
    assert!(held.lsn().get() < 64 << 10 && store.log().end().get() > 64 << 10, "{:?}", held.lsn());
    thread::scope(|scope| {
        let cleaning = scope.spawn(|| store.clean().expect("a working log"));
        let begun = Instant::now();
        while get(&store.counts.relocations) == 0 && begun.elapsed() < Duration::from_millis(300) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(get(&store.counts.relocations), 0, "it has looked at pages beside a flush");
        drop(held);
        assert!(cleaning.join().expect("no panic"));
    });
    assert!(get(&store.counts.relocations) >= 10);
}

#[test]
fn a_state_whose_records_are_trimmed_has_been_replaced_and_is_looked_at_again() {
    let store = open(&MemoryDirectory::new(), 8, 8);
    store.write(0, 0, b"cold").expect("a working log");
    store.evict(0).expect("a working log");
    let mut attempts = 0;
    let image = store.retry(0, |head| {
        attempts += 1;
        while attempts == 1 && store.newest(0).in_log == head.in_log {
            store.write(1, 0, &[1; PAGE]).expect("a working log");
            store.flush(1).expect("a working log");
            store.clean().expect("a working log");
        }
        store.image(0, head).map(Some)
    });
    assert_eq!((&image.expect("it is there")[..4], attempts), (&b"cold"[..], 2));
    let failure = store.retry(0, |_| store.log().read(Lsn::START, &mut Vec::new()).map(Some).map_err(Into::into));
    assert!(failure.is_err(), "what fails in an unchanged state fails");
}

#[test]
fn a_log_that_leads_to_no_whole_page_is_refused() {
    let directory = MemoryDirectory::new();
    let (log, _) = options().directory(&directory).open("").expect("a log");
    let increment =
        |page: u32, previous: Lsn| [&page.to_le_bytes()[..], &previous.to_bytes(), &[0, 0, 1, 0, 9]].concat();
    let whole = |page: u32| [&page.to_le_bytes()[..], &[7; PAGE]].concat();
    let refused = |log: Log| {
        drop(log);
        let opened = Store::open(options().directory(&directory), "".as_ref(), 8, PAGE);
        opened.map(drop).expect_err("it is refused").to_string()
    };
    log.append(2, &increment(3, Lsn::START)).expect("room");
    assert!(refused(log).contains("page 3: "));
    let (log, _) = options().directory(&directory).open("").expect("a log");
    let first = log.append(1, &whole(3)).expect("room");
    log.append(2, &increment(3, first.start)).expect("room");
    assert_eq!(open(&directory_of(log, &directory), 8, 8).read(3).expect("a page")[..2], [9, 7]);
    let (log, _) = options().directory(&directory).open("").expect("a log");
    log.append(2, &increment(3, first.start)).expect("room");
    assert!(refused(log).contains("not the newest"));
}

/// Closed.
fn directory_of(log: Log, directory: &MemoryDirectory) -> MemoryDirectory {
    drop(log);
    directory.clone()
}
