//! Breaks the protocol on purpose, one place at a time, and shows that a model notices.
//!
//! A mutant is one piece of code, what it is replaced with, and the model that has to fail then: see [`state`],
//! [`parts`], [`ring`], [`commit`], [`foreign`] and [`writer`]. The checkout stays as it is; a [copy](crate::workbench)
//! of it is changed, built with loom, and changed back. A mutant that does not compile is an error of the list, and so
//! is code that does not stand there exactly once, or a model that fails without any change. `--trust` leaves that last
//! check to `cargo xtask loom`, which makes it too.

mod commit;
mod foreign;
mod parts;
mod ring;
mod state;
mod writer;

use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::models::{self, Model, Program};
use crate::patch::Change;
use crate::run::{root, rustflags};
use crate::workbench::Workbench;

/// A model of a mutant may take longer than that only if the mutant is not noticed: one that fails ends early.
const PATIENCE: Duration = Duration::from_secs(300);

/// A file, and the changes: what is wrong then, the text, what it becomes, the model.
type Group = (&'static str, &'static [[&'static str; 4]]);

/// All of them.
const GROUPS: &[&[Group]] =
    &[state::GROUPS, parts::GROUPS, ring::GROUPS, commit::GROUPS, foreign::GROUPS, writer::GROUPS];

struct Mutant {
    what: &'static str,
    change: Change,
    killer: &'static str,
}

/// How a model ended.
enum Verdict {
    Passed,
    /// With the first thing that it said.
    Failed(String),
    TimedOut,
}

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let (flags, filters): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    if let Some(flag) = flags.iter().find(|flag| !["--hunt", "--trust"].contains(&flag.as_str())) {
        return Err(format!("mutants does not know `{flag}`: cargo xtask mutants [--hunt] [--trust] [filter]"));
    }
    let is_set = |name| flags.iter().any(|flag| *flag == name);
    let (hunt, trust) = (is_set("--hunt"), is_set("--trust"));
    let wanted = |mutant: &Mutant| filters.is_empty() || filters.iter().any(|filter| mutant.title().contains(*filter));
    let mutants: Vec<_> = mutants(GROUPS).filter(wanted).collect();
    if mutants.is_empty() {
        return Err("no mutant has such a name".into());
    }

    let (start, next, report) = (Instant::now(), AtomicUsize::new(0), Mutex::new(Report::default()));
    let first = Lab::new(0)?;
    if !trust {
        first.check_unchanged(&mutants)?;
    }
    let work = |lab: Lab| -> Result<(), String> {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Relaxed)) {
            let begun = Instant::now();
            let (verdict, hunted) = lab.try_mutant(mutant, hunt)?;
            let line = report.lock().expect("not poisoned").add(mutant, verdict, begun.elapsed());
            println!("[{}/{}] {line}{hunted}", next.load(Relaxed).min(mutants.len()), mutants.len());
        }
        Ok(())
    };
    // A model runs in one thread, and so does most of a build.
    let helpers = (1..thread::available_parallelism().map_or(1, usize::from)).map(Lab::new);
    let labs: Vec<_> = [Ok(first)].into_iter().chain(helpers).collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        let workers: Vec<_> = labs.into_iter().map(|lab| scope.spawn(|| work(lab))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;

    let Report { mut killed, survivors } = report.into_inner().expect("not poisoned");
    killed.sort();
    print!("\n{}", table(&killed));
    println!("\n{} of {} killed ({:.0} s)", killed.len(), mutants.len(), start.elapsed().as_secs_f64());
    if survivors.is_empty() { Ok(()) } else { Err(format!("no model has noticed\n{}", survivors.join("\n"))) }
}

/// What has become of the mutants so far.
#[derive(Default)]
struct Report {
    killed: Vec<(String, String)>,
    survivors: Vec<String>,
}

impl Report {
    /// Takes a verdict down, and gives the line that reports it.
    fn add(&mut self, mutant: &Mutant, verdict: Verdict, time: Duration) -> String {
        let (title, killer, seconds) = (mutant.title(), mutant.killer, time.as_secs_f64());
        match verdict {
            Verdict::Failed(why) => {
                let line = format!("{title}: killed by {killer} ({seconds:.1} s): {why}");
                self.killed.push((title, format!("{killer:<74}{seconds:>6.1} s")));
                line
            }
            Verdict::Passed | Verdict::TimedOut => {
                self.survivors.push(mutant.description());
                let how = if matches!(verdict, Verdict::Passed) { "passed" } else { "was not done in time" };
                format!("{title}: SURVIVED: {killer} {how} ({seconds:.1} s)")
            }
        }
    }
}

fn mutants(groups: &[&'static [Group]]) -> impl Iterator<Item = Mutant> {
    groups.iter().copied().flatten().flat_map(|(file, changes)| {
        changes.iter().map(|&[what, from, to, killer]| Mutant { what, change: Change { file, from, to }, killer })
    })
}

impl Mutant {
    fn title(&self) -> String {
        let name = Path::new(self.change.file).file_stem().unwrap_or_default().to_string_lossy();
        format!("{name}: {}", self.what)
    }

    /// Where it is and what it changes.
    fn description(&self) -> String {
        let Change { file, from, to } = self.change;
        let place = || {
            let path = self.change.path(&root())?;
            let source = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            let line = source[..self.change.place(&source)?.start].matches('\n').count() + 1;
            Ok(format!("{}:{line}", path.display()))
        };
        let place = place().unwrap_or_else(|_: String| file.to_owned());
        format!("{place}: {}\n  {from}\n  became\n  {to}", self.what)
    }
}

/// The copy that is changed, and how the models are built there.
struct Lab {
    bench: Workbench,
    flags: String,
}

impl Lab {
    fn new(number: usize) -> Result<Self, String> {
        let bench = Workbench::new(&format!("mutants/{number}"))?;
        Ok(Self { bench, flags: rustflags("--cfg loom -A warnings") })
    }

    /// All models that are said to kill something have to pass as long as nothing is changed.
    fn check_unchanged(&self, mutants: &[Mutant]) -> Result<(), String> {
        let models: Result<BTreeSet<_>, _> = mutants.iter().map(|mutant| models::find(mutant.killer)).collect();
        for model in models? {
            let test = &model.test;
            say(&format!("unchanged: {test}: "));
            let start = Instant::now();
            match self.run(&self.compile(model.program)?, &model, PATIENCE, None)? {
                Verdict::Passed => println!("passes ({:.1} s)", start.elapsed().as_secs_f64()),
                Verdict::Failed(why) => return Err(format!("{test} fails without any change: {why}")),
                Verdict::TimedOut => return Err(format!("{test} takes more than {PATIENCE:?}")),
            }
        }
        Ok(())
    }

    /// What became of a mutant, and what else was found if other models were to be tried.
    fn try_mutant(&self, mutant: &Mutant, hunt: bool) -> Result<(Verdict, String), String> {
        let model = models::find(mutant.killer)?;
        let outcome = self.bench.with(&[mutant.change], || {
            let built = self.compile(model.program)?;
            let verdict = self.run(&built, &model, PATIENCE, None)?;
            let hunted = hunt && !matches!(verdict, Verdict::Failed(_));
            Ok((verdict, if hunted { self.hunt(model.program.package)? } else { String::new() }))
        });
        outcome.map_err(|error| format!("{}: {error}", mutant.title()))
    }

    /// Looks for another model of the package that fails, with few preemptions, so that it does not take long.
    fn hunt(&self, package: &str) -> Result<String, String> {
        let mut found = String::new();
        for program in models::PROGRAMS.iter().filter(|program| program.package == package) {
            let built = self.compile(program)?;
            for model in program.models(&built, &[])? {
                if let Verdict::Failed(why) = self.run(&built, &model, PATIENCE / 10, Some("2"))? {
                    found.push_str(&format!("\n  {} fails at 2 preemptions: {why} ", model.test));
                }
            }
        }
        Ok(found)
    }

    /// Builds a program of models, and gives its path.
    fn compile(&self, program: &Program) -> Result<PathBuf, String> {
        // Without debug information, which no debugger will read here, linking takes half the time. Incrementally, a
        // mutant is a tenth of a build.
        let variables = [
            ("RUSTFLAGS", &*self.flags),
            ("CARGO_PROFILE_LOOM_DEBUG", "false"),
            ("CARGO_PROFILE_LOOM_INCREMENTAL", "true"),
        ];
        let said = self.bench.cargo(&program.build(), &variables)?;
        Ok(self.bench.path(program.built(&said)?))
    }

    fn run(&self, built: &Path, model: &Model, patience: Duration, bound: Option<&str>) -> Result<Verdict, String> {
        let test = &model.test;
        let mut command = model.command(built);
        command.env("RUST_BACKTRACE", "0");
        if let Some(bound) = bound {
            command.env("LOOM_MAX_PREEMPTIONS", bound);
        }
        let ran = self.bench.run(command, patience)?;
        let Some(status) = ran.status else { return Ok(Verdict::TimedOut) };
        let said = ran.output;
        if !said.contains("running 1 test") {
            return Err(format!("there is no model {test}\n{said}"));
        }
        if status.success() {
            return Ok(Verdict::Passed);
        }
        let why = reason(&said).ok_or_else(|| format!("{test} failed, but not by a panic ({status})\n{said}"))?;
        Ok(Verdict::Failed(why))
    }
}

/// The first panic's message, cut to what fits a line.
fn reason(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at ")).skip(1);
    Some(lines.next()?.trim().chars().take(100).collect())
}

/// Without the end of the line, which comes with the outcome.
fn say(text: &str) {
    print!("{text}");
    let _ = io::stdout().flush();
}

fn table(lines: &[(String, String)]) -> String {
    let width = lines.iter().map(|(title, _)| title.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(title, rest)| format!("{title:<width$}  {rest}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_changes_one_place_and_names_a_model() {
        let (mut titles, mut wrong) = (BTreeSet::new(), Vec::new());
        for mutant in mutants(GROUPS) {
            match mutant.change.try_on(&root()) {
                Ok(()) => {}
                Err(why) => wrong.push(format!("{}: {why}", mutant.title())),
            }
            if let Err(why) = models::find(mutant.killer) {
                wrong.push(format!("{}: {why}", mutant.title()));
            }
            assert!(titles.insert(mutant.title()), "two mutants: {}", mutant.title());
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn the_reason_is_the_first_panic() {
        let said = "running 1 test\n\nthread 'm' (7) panicked at src/a.rs:1:2:\nlost\nnote: run with\n\n\
                    thread 'm' panicked at b:\nx\n";
        assert_eq!(reason(said).as_deref(), Some("lost"));
        assert_eq!(reason("running 1 test\ntest m ... ok\n"), None);
    }
}
