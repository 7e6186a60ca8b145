//! Logs are opened in a process of their own: one that panics, hangs or asks for too much memory takes no other with
//! it.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::contestants::Contestant;
use crate::workload;

/// Longer than any of them needs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Logs are some hundred kilobytes long.
const MEMORY: u64 = 4 << 30;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The numbers of the records, in order; `None` for one that was never appended.
    Records(Vec<Option<u64>>),
    Refused(String),
    Panicked(String),
    Ended(String),
    Hung,
}

/// The first panic of any thread.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// The other process: for each line, a log, a seed and a folder, one line of answer.
pub fn serve() -> Result<(), String> {
    panic::set_hook(Box::new(|info| _ = PANIC.lock().expect("no panic").get_or_insert(info.to_string())));
    let limit = rustix::process::Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).map_err(|error| error.to_string())?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let mut words = line.split('\t');
        let contestant = words.next().and_then(Contestant::named).ok_or("a line without a log")?;
        let seed = words.next().and_then(|seed| seed.parse().ok()).ok_or("a line without a seed")?;
        let folder = Path::new(words.next().ok_or("a line without a folder")?);
        println!("{}", open(contestant, seed, folder).replace('\n', " "));
    }
    Ok(())
}

fn open(contestant: Contestant, seed: u64, folder: &Path) -> String {
    let mut numbers = Vec::new();
    let read = AssertUnwindSafe(|| {
        contestant.read(folder, |record| {
            let number = workload::number_of(seed, record);
            numbers.push(number.map_or("x".to_owned(), |number| number.to_string()));
        })
    });
    let outcome = panic::catch_unwind(read);
    match (PANIC.lock().expect("no panic").take(), outcome) {
        (Some(message), _) => format!("panicked\t{message}"),
        (None, Err(_)) => "panicked\twithout a message".into(),
        (None, Ok(Err(message))) => format!("refused\t{message}"),
        (None, Ok(Ok(()))) => format!("records\t{}", numbers.join(",")),
    }
}

/// The other process, from this side.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        Ok(Self { child, input, answers })
    }

    /// Opens the log in `folder`.
    pub fn open(&mut self, contestant: Contestant, seed: u64, folder: &Path) -> io::Result<Found> {
        // A worker that has just ended takes no line: that is the answer.
        let _sent = writeln!(self.input, "{}\t{seed}\t{}", contestant.name(), folder.display());
        let found = match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => parse(&line).ok_or_else(|| io::Error::other(format!("a strange answer: {line}")))?,
            Err(error) => {
                let found = match error {
                    RecvTimeoutError::Timeout => Found::Hung,
                    RecvTimeoutError::Disconnected => Found::Ended(self.child.wait()?.to_string()),
                };
                *self = Self::start()?;
                found
            }
        };
        Ok(found)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn parse(line: &str) -> Option<Found> {
    let (kind, rest) = line.split_once('\t')?;
    Some(match kind {
        "records" if rest.is_empty() => Found::Records(Vec::new()),
        "records" => Found::Records(rest.split(',').map(|number| number.parse().ok()).collect()),
        "refused" => Found::Refused(rest.to_owned()),
        "panicked" => Found::Panicked(rest.to_owned()),
        _ => return None,
    })
}

/// An empty folder for one trial, at the same place each time.
pub fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
