//! The one shape that all contestants have. What "appended" means is up to the workload that a contestant is entered
//! for: staged in memory, on its way to the file, or on stable storage.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::measure::{self, Job, Sample};
use crate::stamp::Tally;

/// What went wrong, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome<T> = Result<T, Failure>;

/// Where a log lives, and what is going to come.
#[derive(Clone, Debug)]
pub struct Place {
    /// A folder of its own, empty unless a contestant left its prepared file there.
    pub folder: PathBuf,
    pub threads: usize,
    /// Bytes of each record.
    pub size: usize,
    /// Bytes of memory for what is staged.
    pub memory: usize,
    /// Bytes of payload that are going to be appended, at most.
    pub expected: u64,
    /// Whether [`Log::read_back`] will be called. A log in memory then keeps all that is expected.
    pub checked: bool,
}

/// Something that records can be appended to by several threads.
pub trait Log: Sync + Sized {
    type Writer<'a>: Writer
    where
        Self: 'a;

    fn open(place: &Place) -> Outcome<Self>;

    /// What one thread appends through. Called in that thread.
    fn writer(&self, thread: usize) -> Self::Writer<'_>;

    /// Has all that was appended written, and synced, if this is a log on a device.
    fn finish(&mut self) -> Outcome<()> {
        Ok(())
    }

    /// Bytes of the file that the log takes, where that is worth reporting.
    fn length(&self) -> Option<u64> {
        None
    }

    /// Gives every record back. `false`: this is a limit, which keeps none.
    fn read_back(self, _: &mut Tally) -> Outcome<bool> {
        Ok(false)
    }
}

/// One thread's way into the log.
pub trait Writer {
    fn append(&mut self, record: &[u8]);
}

/// What a contestant is to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// What the machine can do, without being a log.
    Limit,
    /// What one would write by hand.
    Baseline,
    /// Another project's log.
    Rival,
    Ours,
}

/// A contestant, its type forgotten. The loop around `append` has been compiled for that type.
#[derive(Clone, Copy)]
pub struct Contestant {
    pub name: &'static str,
    pub family: Family,
    /// It takes no more threads than this.
    pub max_threads: usize,
    program: bool,
    run: fn(&Job) -> Outcome<Sample>,
}

impl Contestant {
    pub const fn of<L: Log>(family: Family, name: &'static str) -> Self {
        Self { name, family, max_threads: usize::MAX, program: false, run: measure::run::<L> }
    }

    /// For what has tasks in the place of threads, as many, and measures itself.
    pub const fn tasks(family: Family, name: &'static str, run: fn(&Job) -> Outcome<Sample>) -> Self {
        Self { name, family, max_threads: usize::MAX, program: false, run }
    }

    /// For what no trait of ours can drive: a program that measures itself.
    pub const fn program(family: Family, name: &'static str, run: fn(&Job) -> Outcome<Sample>) -> Self {
        Self { name, family, max_threads: 1, program: true, run }
    }

    #[cfg_attr(not(feature = "rivals"), expect(dead_code, reason = "only rivals need it"))]
    pub const fn single(self) -> Self {
        Self { max_threads: 1, ..self }
    }

    /// Whether it brings its own thread, so that it can stand beside any number of them.
    pub fn is_program(&self) -> bool {
        self.program
    }

    pub fn run(&self, job: &Job) -> Outcome<Sample> {
        (self.run)(job)
    }
}
