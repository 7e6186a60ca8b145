//! `crash --fs`: the same under a real file system, on a loop device over the FUSE disk.
//!
//! ```text
//!  workload ─▶ log on ext4 or xfs ─▶ loop device ─▶ FUSE disk ─▶ Log
//!  Log ─▶ image ─▶ loop device, mounted, its journal replayed ─▶ oracle
//! ```
//!
//! A power cut hits the file system's own writes as well: the oracle judges the file that the mounted image has, or the
//! folder of a log of [records].

use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use clap::ValueEnum;
use indicatif::ProgressBar;
use tempfile::TempDir;

use crate::disk::Disk;
use crate::explore::{Explored, Violation, by_chance, describe};
use crate::incarnation::{self, Plan};
use crate::log::{Event, Log};
use crate::machine::{self, Machine};
use crate::oracle::Oracle;
use crate::record::zeros;
use crate::records::{self, Logged};
use crate::workload::Engine;
use ring_testing::Random;

/// How often and how long unmounting waits for the last I/O of a process that has ended.
const PAUSES: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes of an image that are written at a time.
const PIECE: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The smallest disk that it can be made on.
    fn disk_size(self) -> u64 {
        match self {
            Self::Ext4 => 32 << 20,
            Self::Xfs => 300 << 20,
        }
    }

    fn make(self, file: &Path) -> Result<(), String> {
        let (program, flags): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        };
        call(Command::new(program).args(flags).arg(file)).map(drop)
    }
}

/// Runs a command, and returns what it prints.
fn call(command: &mut Command) -> Result<String, String> {
    let ran = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    match ran.status.success() {
        true => Ok(said),
        false => Err(format!("{command:?} failed: {said} {}", String::from_utf8_lossy(&ran.stderr).trim())),
    }
}

/// A loop device, detached when dropped.
struct Loop(String);

impl Loop {
    fn attach(file: &Path, direct: &str) -> Result<Self, String> {
        call(Command::new("losetup").args(["--show", "-f", direct]).arg(file)).map(Self)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = call(Command::new("losetup").arg("-d").arg(&self.0)) {
            eprintln!("{error}");
        }
    }
}

/// A mounted device, unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(device: &Loop, folder: &'a Path) -> Result<Self, String> {
        call(Command::new("mount").arg(&device.0).arg(folder)).map(|_| Self(folder))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let umount = || call(Command::new("umount").arg(self.0));
        // The kernel ends the I/O of a process that has ended without waiting for it.
        let pauses = || thread::sleep(PAUSE);
        let ended = (0..PAUSES).find_map(|_| umount().map_err(|_| pauses()).ok()).map_or_else(umount, Ok);
        if let Err(error) = ended {
            eprintln!("{error}");
            let _ = call(Command::new("umount").arg("-l").arg(self.0));
        }
    }
}

fn io_error(what: &str) -> impl Fn(io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// Lets a workload write to a log on a new file system, and records what arrives at its disk.
pub(crate) fn record(seed: u64, system: FileSystem, engine: Engine, images: u64) -> Result<Log, String> {
    let (before, key) = (Vec::new(), None);
    let plan =
        Plan { seed, incarnation: 1, engine, hands: None, appends: 20, before, key, owed: 0, fault: None, images };
    let mut log = recorded(seed, system, images, |folder, acks| incarnation::run(&plan, &folder.join("log"), acks))?;
    log.setting = format!("{}, {engine:?}; {}", system.name(), log.setting);
    Ok(log)
}

/// The same for a log of records.
pub(crate) fn record_records(seed: u64, system: FileSystem, images: u64) -> Result<Log, String> {
    let mut log = recorded(seed, system, images, |folder, acks| records::run(seed, &folder.join("log"), acks))?;
    log.setting = format!("{}, ringlog; {}", system.name(), log.setting);
    Ok(log)
}

/// What arrives at the disk of a new file system while `run` works in it; it is given a folder there, and the file of
/// the acknowledgements.
fn recorded(
    seed: u64,
    system: FileSystem,
    images: u64,
    run: impl FnOnce(&Path, &Path) -> Result<String, String>,
) -> Result<Log, String> {
    let folder = TempDir::new().map_err(io_error("a folder"))?;
    let place = |name: &str| -> Result<PathBuf, String> {
        let path = folder.path().join(name);
        fs::create_dir(&path).map_err(io_error("a folder"))?;
        Ok(path)
    };
    let image = folder.path().join("image");
    File::create(&image).and_then(|file| file.set_len(system.disk_size())).map_err(io_error("an image"))?;
    system.make(&image)?;
    let before = fs::read(&image).map_err(io_error("the image"))?;
    let (outer, inner) = (place("outer")?, place("inner")?);
    let machine = Machine::mount(&outer, before.clone(), None, seed).map_err(io_error("mount"))?;
    let setting = {
        let device = Loop::attach(&machine.disk(), "--direct-io=on")?;
        let mounted = Mounted::new(&device, &inner)?;
        run(mounted.0, &machine.acks())?
    };
    let events = machine.take();
    drop(machine);
    Ok(Log {
        seed,
        images,
        setting,
        serialized: false,
        reach: None,
        file_system: Some(system.name().into()),
        before,
        key: None,
        start: 0,
        events,
    })
}

/// Tries `log.images` images at random, each of them mounted.
pub(crate) fn explore(log: &Log, bar: &ProgressBar) -> Result<Explored, Violation> {
    let lab = |position, what| Violation { position, choice: "the lab".into(), what };
    let folder = TempDir::new().map_err(|error| lab(0, error.to_string()))?;
    let mut random = Random::new(log.seed);
    // A log of records makes its files itself.
    let is_first = |event: &Event| matches!(event, Event::Submitted { .. } | Event::Logged(Logged::Opening));
    let first = log.events.iter().position(is_first).unwrap_or(0);
    // A random number at each position.
    let mut places: Vec<_> = (0..log.images).map(|_| first + random.below(log.events.len() - first)).collect();
    places.sort_unstable();
    let mut places = places.into_iter().peekable();
    let mut judge = Judge::new(log).map_err(|what| lab(log.events.len(), what))?;
    let mut disk = Disk::new(&log.before, None);
    let mut explored = Explored::default();
    // Equals `disk.stable` between two images. Most of it is zeros, and only pieces that were ever anything else are
    // examined.
    let mut image = log.before.clone();
    let mut pieces: BTreeSet<usize> =
        image.chunks(PIECE).enumerate().filter(|(_, piece)| zeros(piece) < piece.len()).map(|(n, _)| n).collect();
    for (position, event) in log.events.iter().enumerate() {
        let changed = disk.step(event);
        copy(&mut image, &disk.stable, &changed);
        if let Event::Arrived { offset, bytes, .. } = event {
            pieces.extend(*offset as usize / PIECE..=(*offset as usize + bytes.len()) / PIECE);
        }
        if let Event::Leased { records } = event {
            explored.leased += records;
        }
        judge.note(event);
        while places.next_if_eq(&position).is_some() {
            let choice = by_chance(&mut random, &disk.pending);
            for (pending, take) in disk.pending.iter().zip(&choice) {
                pending.apply(&mut image, |sector| take.takes(sector));
            }
            let verdict = mounted(folder.path(), &image, &pieces, |inner| judge.judge(inner));
            let differs: Vec<_> = disk.pending.iter().map(|pending| pending.offset..pending.end()).collect();
            copy(&mut image, &disk.stable, &differs);
            verdict.map_err(|what| Violation { position, choice: describe(&disk.pending, &choice), what })?;
            explored.images += 1;
            bar.inc(1);
        }
        explored.positions += 1;
    }
    Ok(explored)
}

fn copy(image: &mut [u8], stable: &[u8], ranges: &[Range<usize>]) {
    for range in ranges {
        image[range.clone()].copy_from_slice(&stable[range.clone()]);
    }
}

/// What a mounted image must hold.
enum Judge {
    File(Oracle),
    Records(records::Bounds),
}

impl Judge {
    /// For this log, of which nothing has happened yet.
    fn new(log: &Log) -> Result<Self, String> {
        if log.events.iter().any(|event| matches!(event, Event::Logged(_))) {
            return Ok(Self::Records(records::Bounds::new(log)));
        }
        Oracle::new(log).map(Self::File)
    }

    fn note(&mut self, event: &Event) {
        match (self, event) {
            (Self::File(oracle), _) => _ = oracle.note(event),
            (Self::Records(bounds), Event::Logged(logged)) => bounds.note(logged),
            (Self::Records(_), _) => {}
        }
    }

    /// Judges the log in a mounted folder.
    fn judge(&self, folder: &Path) -> Result<(), String> {
        let log = folder.join("log");
        match self {
            Self::File(oracle) => {
                let (content, key) = match fs::read(&log) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
                    outcome => (outcome.map_err(io_error("the log"))?, machine::key_of(&log)),
                };
                oracle.judge_file(&content).and_then(|()| oracle.judge_end(&content, &[key]))
            }
            Self::Records(bounds) => bounds.judge(&log),
        }
    }
}

/// Looks at the file system of this image, mounted.
fn mounted<T>(
    folder: &Path,
    image: &[u8],
    pieces: &BTreeSet<usize>,
    look: impl FnOnce(&Path) -> Result<T, String>,
) -> Result<T, String> {
    let (path, inner) = (folder.join("image"), folder.join("inner"));
    let _ = fs::create_dir(&inner);
    let file = File::create(&path).map_err(io_error("an image"))?;
    file.set_len(image.len() as u64).map_err(io_error("an image"))?;
    for piece in pieces.iter().map(|n| n * PIECE).filter(|&start| start < image.len()) {
        let bytes = &image[piece..image.len().min(piece + PIECE)];
        file.write_all_at(bytes, piece as u64).map_err(io_error("an image"))?;
    }
    drop(file);
    let device = Loop::attach(&path, "--direct-io=off")?;
    let mounted = Mounted::new(&device, &inner)?;
    look(mounted.0)
}
