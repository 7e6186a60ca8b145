//! Rounds of kills: a child puts and deletes from several threads until it is ended by SIGKILL, and then the store has
//! to hold what was acknowledged, and nothing else.
//!
//! What a thread does as its operation number `n` follows from `n` alone, and each thread has keys of its own. So the
//! number of operations that a thread has had acknowledged says what the store has to hold; only the operation that was
//! not acknowledged yet may be there or not.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use std::{env, thread};

use ringlog::{Log, Options, Recovery};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::kv::{Kv, Map, load, save};

/// Set for a child: the folder, and the number of each thread's next operation.
const FOLDER: &str = "RINGLOG_WAL_FOLDER";
const NUMBERS: &str = "RINGLOG_WAL_NUMBERS";

/// Operations of a thread between its checkpoints.
const CHECKPOINT: u64 = 50;

/// Small, so that each round has many batches, some segments, and values longer than a buffer.
fn options() -> Options {
    Log::options().ring(4, 64 << 10).segment_size(1 << 20)
}

/// The files, by their paths.
struct Input(Vec<(Vec<u8>, Arc<[u8]>)>);

impl Input {
    fn new(map: Map) -> Self {
        Self(map.into_iter().filter_map(|(path, (_, content))| Some((path, content?))).collect())
    }

    /// A thread's operation: the key, and the value that is put, or `None` if the key is deleted.
    fn operation(&self, thread: usize, number: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        let file = |number: u64| &self.0[(number as usize * 7 + thread) % self.0.len()];
        let key = |path: &[u8]| [format!("{thread}/").as_bytes(), path].concat();
        if number % 5 == 4 {
            return (key(&file(number - 2).0), None);
        }
        let (path, content) = file(number);
        (key(path), Some([&number.to_le_bytes(), &**content].concat()))
    }
}

/// Does not return in a child.
pub(crate) fn run_if_child() {
    if let (Some(folder), Ok(numbers)) = (env::var_os(FOLDER), env::var(NUMBERS)) {
        let failed = child(Path::new(&folder), &numbers);
        eprintln!("the child ends: {failed:?}");
        process::exit(1);
    }
}

/// Goes on until it is killed, or something fails.
fn child(folder: &Path, numbers: &str) -> io::Result<()> {
    // It must not outlive its parent, as it ends by no other means.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let (kv, _) = Kv::open(&folder.join("store"), options())?;
    let input = Input::new(load(folder)?);
    let acks = OpenOptions::new().append(true).open(folder.join("acks"))?;
    let work = |thread: usize, first: u64| -> io::Result<()> {
        for number in first.. {
            match input.operation(thread, number) {
                (key, Some(value)) => kv.put(&key, &value)?,
                (key, None) => kv.delete(&key)?,
            }
            // One call: all of it is there after a kill, or nothing.
            let ack = [(thread as u64).to_le_bytes(), number.to_le_bytes()].concat();
            (&acks).write_all(&ack)?;
            if number % CHECKPOINT == CHECKPOINT - 1 {
                kv.checkpoint()?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        for (thread, first) in numbers.split(' ').enumerate() {
            let (work, first) = (&work, first.parse().expect("a number"));
            scope.spawn(move || {
                eprintln!("thread {thread} ends: {:?}", work(thread, first));
                process::exit(1)
            });
        }
    });
    Ok(())
}

/// What a thread has put, and not deleted since: its keys, with the number of the operation.
#[derive(Clone, Default)]
struct Done {
    next: u64,
    keys: BTreeMap<Vec<u8>, u64>,
}

/// What was seen in a round.
pub(crate) struct Round {
    /// Operations that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Operations that are there although they were not.
    pub(crate) unacknowledged: u64,
    /// Keys that are there, all of them compared.
    pub(crate) keys: usize,
    pub(crate) recovery: Recovery,
    /// From opening to a store that can be used.
    pub(crate) time: Duration,
}

/// A store in a folder, and what it has to hold.
pub(crate) struct Rounds {
    folder: PathBuf,
    input: Input,
    done: Vec<Done>,
}

impl Rounds {
    /// A new store, for so many threads that put these files.
    pub(crate) fn new(folder: &Path, threads: usize, files: Map) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        save(folder, &files)?;
        Ok(Self { folder: folder.to_owned(), input: Input::new(files), done: vec![Done::default(); threads] })
    }

    /// Has the child, which comes to [`run_if_child`], work for `time` after its first acknowledgement, kills it, and
    /// compares. The error says what is wrong with the store.
    pub(crate) fn round(&mut self, child: &mut Command, time: Duration) -> Result<Round, String> {
        let text = |error: io::Error| error.to_string();
        self.work(child, time).map_err(text)?;
        let start = Instant::now();
        let (kv, recovery) = Kv::open(&self.folder.join("store"), options()).map_err(text)?;
        let time = start.elapsed();
        let acknowledged = self.acknowledged()?;
        let unacknowledged = self.compare(&kv.map())?;
        kv.log().close().map_err(|error| error.to_string())?;
        let keys = self.done.iter().map(|done| done.keys.len()).sum();
        Ok(Round { acknowledged, unacknowledged, keys, recovery, time })
    }

    fn work(&self, child: &mut Command, time: Duration) -> io::Result<()> {
        // One that started further ones would go on without an end.
        assert!(env::var_os(FOLDER).is_none(), "a child starts no child");
        let acks = self.folder.join("acks");
        File::create(&acks)?;
        let numbers: Vec<_> = self.done.iter().map(|done| done.next.to_string()).collect();
        let child = child.env(FOLDER, &self.folder).env(NUMBERS, numbers.join(" "));
        let mut child = child.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        while fs::metadata(&acks)?.len() == 0 && child.try_wait()?.is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(time);
        let early = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        early.map_or(Ok(()), |status| Err(io::Error::other(format!("the child ended before it was killed: {status}"))))
    }

    /// Does in memory what was acknowledged, and counts it.
    fn acknowledged(&mut self) -> Result<u64, String> {
        let acks = fs::read(self.folder.join("acks")).map_err(|error| error.to_string())?;
        let mut count = 0;
        for ack in acks.as_chunks::<8>().0.chunks_exact(2) {
            let [thread, number] = [ack[0], ack[1]].map(u64::from_le_bytes);
            if self.done[thread as usize].next != number {
                return Err(format!("thread {thread}: operation {number} was acknowledged out of order"));
            }
            self.advance(thread as usize);
            count += 1;
        }
        Ok(count)
    }

    fn advance(&mut self, thread: usize) {
        let done = &mut self.done[thread];
        match self.input.operation(thread, done.next) {
            (key, Some(_)) => _ = done.keys.insert(key, done.next),
            (key, None) => _ = done.keys.remove(&key),
        }
        done.next += 1;
    }

    /// Whether the store holds, of each thread, what was acknowledged, or that and the next operation: how often it was
    /// the latter.
    fn compare(&mut self, found: &Map) -> Result<u64, String> {
        let mut unacknowledged = 0;
        for thread in 0..self.done.len() {
            let Err(why) = self.compare_thread(thread, found) else { continue };
            self.advance(thread);
            self.compare_thread(thread, found).map_err(|_| why)?;
            unacknowledged += 1;
        }
        let keys: usize = self.done.iter().map(|done| done.keys.len()).sum();
        let values = found.values().filter(|(_, value)| value.is_some()).count();
        if keys != values { Err(format!("{values} keys are there instead of {keys}")) } else { Ok(unacknowledged) }
    }

    fn compare_thread(&self, thread: usize, found: &Map) -> Result<(), String> {
        let (done, prefix) = (&self.done[thread], format!("{thread}/").into_bytes());
        let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        for (key, number) in &done.keys {
            let value = found.get(key).and_then(|(_, value)| value.as_deref());
            if value != self.input.operation(thread, *number).1.as_deref() {
                return Err(format!("{}: not what operation {number} has put", name(key)));
            }
        }
        let live = found.iter().filter(|(key, (_, value))| value.is_some() && key.starts_with(&prefix));
        match live.map(|(key, _)| key).find(|key| !done.keys.contains_key(*key)) {
            Some(key) => Err(format!("{}: there, but it was deleted, or never put", name(key))),
            None => Ok(()),
        }
    }
}
