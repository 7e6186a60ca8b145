//! Breaks the protocol on purpose, one place at a time, and shows that a model notices.
//!
//! A mutant is one piece of source text, what it is replaced with, and the model that has to fail then: see [`state`] and [`ring`]. The checkout
//! stays as it is; a copy of it is changed, built with loom, and changed back. A mutant that does not compile is an error of the
//! list, and so is a text that does not occur exactly once, or a model that fails without any change.

mod open;
mod ring;
mod state;

use core::time::Duration;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Instant;

use crate::run::{root, rustflags, target};

/// What is copied. The models need no more.
const SOURCES: &[&str] = &["Cargo.toml", "Cargo.lock", "README.md", "crates", "xtask"];

/// A model of a mutant may take longer than that only if the mutant is not noticed: one that fails ends early.
const PATIENCE: Duration = Duration::from_secs(300);

/// A file, the package whose models are run, and the changes: what is wrong then, the text, what it becomes, the model.
type Group = (&'static str, &'static str, &'static [[&'static str; 4]]);

struct Mutant {
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
    package: &'static str,
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
    let has = |name: &str| flags.iter().any(|flag| *flag == name);
    if let Some(flag) = flags.iter().find(|flag| !["--hunt", "--open"].contains(&flag.as_str())) {
        return Err(format!("mutants does not know `{flag}`: cargo xtask mutants [--hunt] [--open] [filter]"));
    }
    let groups: &[&[Group]] = if has("--open") { &[open::GROUPS] } else { &[state::GROUPS, ring::GROUPS] };
    let wanted = |mutant: &Mutant| filters.is_empty() || filters.iter().any(|filter| mutant.title().contains(*filter));
    let mutants: Vec<_> = mutants(groups).filter(wanted).collect();
    if mutants.is_empty() {
        return Err("no mutant has such a name".into());
    }
    let lab = Lab::new()?;
    lab.check_unchanged(&mutants)?;

    let (start, count) = (Instant::now(), mutants.len());
    let (mut lines, mut survivors) = (Vec::new(), Vec::new());
    for (number, mutant) in mutants.iter().enumerate() {
        say(&format!("[{}/{count}] {}: ", number + 1, mutant.title()));
        let begun = Instant::now();
        let verdict = lab.try_mutant(mutant, has("--hunt"))?;
        let seconds = begun.elapsed().as_secs_f64();
        match verdict {
            Verdict::Failed(why) => {
                println!("killed by {} ({seconds:.1} s): {why}", mutant.killer);
                lines.push((mutant.title(), format!("{:<74}{seconds:>6.1} s", mutant.killer)));
            }
            Verdict::Passed | Verdict::TimedOut => {
                let how = if matches!(verdict, Verdict::Passed) { "passed" } else { "was not done in time" };
                println!("SURVIVED: {} {how} ({seconds:.1} s)", mutant.killer);
                survivors.push(mutant.description(&lab.tree));
            }
        }
    }
    print!("\n{}", table(&lines));
    println!("\n{} of {count} killed ({:.0} s)", count - survivors.len(), start.elapsed().as_secs_f64());
    if survivors.is_empty() { Ok(()) } else { Err(format!("no model has noticed\n{}", survivors.join("\n"))) }
}

fn mutants(groups: &[&'static [Group]]) -> impl Iterator<Item = Mutant> {
    groups.iter().copied().flatten().flat_map(|(file, package, changes)| {
        changes.iter().map(|&[what, from, to, killer]| Mutant { file, what, from, to, package, killer })
    })
}

impl Mutant {
    fn title(&self) -> String {
        let name = Path::new(self.file).file_stem().unwrap_or_default().to_string_lossy();
        format!("{name}: {}", self.what)
    }

    fn apply(&self, source: &str) -> Result<String, String> {
        match source.matches(self.from).count() {
            1 => Ok(source.replacen(self.from, self.to, 1)),
            count => {
                Err(format!("{}: {} has this {count} times instead of once:\n{}", self.title(), self.file, self.from))
            }
        }
    }

    /// Where it is and what it changes. The tree must be as it was.
    fn description(&self, tree: &Path) -> String {
        let source = fs::read_to_string(tree.join(self.file)).unwrap_or_default();
        let line = source
            .find(self.from)
            .map_or(0, |at| source[..at].lines().count() + usize::from(source[..at].ends_with('\n')));
        format!("{}:{line}: {}\n  {}\n  became\n  {}", self.file, self.what, self.from, self.to)
    }
}

/// The copy that is changed, and its builds.
struct Lab {
    tree: PathBuf,
    build: PathBuf,
    flags: String,
}

impl Lab {
    fn new() -> Result<Self, String> {
        let target = PathBuf::from(target("mutants"));
        let (tree, build) = (target.join("tree"), target.join("build"));
        fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
        for name in SOURCES {
            copy(&root().join(name), &tree.join(name)).map_err(|error| format!("cannot copy {name}: {error}"))?;
        }
        println!("the copy that is changed: {}", tree.display());
        Ok(Self { tree, build, flags: rustflags("--cfg loom -A warnings") })
    }

    /// All models that are said to kill something have to pass as long as nothing is changed.
    fn check_unchanged(&self, mutants: &[Mutant]) -> Result<(), String> {
        let killers: BTreeSet<_> = mutants.iter().map(|mutant| (mutant.package, mutant.killer)).collect();
        for (package, killer) in killers {
            say(&format!("unchanged: {killer}: "));
            let start = Instant::now();
            match self.run(&self.compile(package)?, killer, PATIENCE, None)? {
                Verdict::Passed => println!("passes ({:.1} s)", start.elapsed().as_secs_f64()),
                Verdict::Failed(why) => return Err(format!("{killer} of {package} fails without any change: {why}")),
                Verdict::TimedOut => return Err(format!("{killer} of {package} takes more than {PATIENCE:?}")),
            }
        }
        Ok(())
    }

    fn try_mutant(&self, mutant: &Mutant, hunt: bool) -> Result<Verdict, String> {
        let path = self.tree.join(mutant.file);
        let write = |text: &str| fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()));
        let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        write(&mutant.apply(&source)?)?;
        let outcome = self.compile(mutant.package).and_then(|test| {
            let verdict = self.run(&test, mutant.killer, PATIENCE, None)?;
            if hunt && !matches!(verdict, Verdict::Failed(_)) {
                self.hunt(&test)?;
            }
            Ok(verdict)
        });
        write(&source)?;
        outcome.map_err(|error| format!("{}: {error}", mutant.title()))
    }

    /// Looks for another model of the package that fails, with few preemptions, so that it does not take long.
    fn hunt(&self, test: &Path) -> Result<(), String> {
        let list =
            Command::new(test).arg("--list").output().map_err(|error| format!("cannot list the models: {error}"))?;
        for name in String::from_utf8_lossy(&list.stdout).lines().filter_map(|line| line.strip_suffix(": test")) {
            if let Verdict::Failed(why) = self.run(test, name, PATIENCE / 6, Some("2"))? {
                say(&format!("\n  {name} fails at 2 preemptions: {why} "));
            }
        }
        Ok(())
    }

    /// Builds the models of `package`, and gives the program that has them.
    fn compile(&self, package: &str) -> Result<PathBuf, String> {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--profile", "loom", "--package", package, "--test", "loom", "--no-run"]);
        // Nobody looks at these builds with a debugger, and linking takes half the time without.
        cargo
            .env("RUSTFLAGS", &self.flags)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_PROFILE_LOOM_DEBUG", "false");
        let built = cargo.current_dir(&self.tree).output().map_err(|error| format!("cannot start cargo: {error}"))?;
        let said = String::from_utf8_lossy(&built.stderr);
        if !built.status.success() {
            return Err(format!("it does not compile\n{said}"));
        }
        let program = said.lines().rev().find_map(|line| line.trim().strip_prefix("Executable ")?.split_once('('));
        let (_, path) = program.ok_or_else(|| format!("cargo names no program\n{said}"))?;
        Ok(self.tree.join(path.trim_end_matches(')')))
    }

    fn run(&self, test: &Path, model: &str, patience: Duration, bound: Option<&str>) -> Result<Verdict, String> {
        let output = self.build.join("output");
        let open = || {
            let out = File::create(&output)?;
            Ok((out.try_clone()?, out))
        };
        let (out, err) = open().map_err(|error: io::Error| format!("{}: {error}", output.display()))?;
        let mut command = Command::new(test);
        command.args(["--exact", model, "--nocapture"]).env("RUST_BACKTRACE", "0").stdout(out).stderr(err);
        if let Some(bound) = bound {
            command.env("LOOM_MAX_PREEMPTIONS", bound);
        }
        let child = command.spawn().map_err(|error| format!("cannot start {}: {error}", test.display()))?;
        let Some(status) = wait(child, patience).map_err(|error| format!("cannot wait for {model}: {error}"))? else {
            return Ok(Verdict::TimedOut);
        };
        let said = fs::read(&output).map_err(|error| format!("{}: {error}", output.display()))?;
        let said = String::from_utf8_lossy(&said);
        if !said.contains("running 1 test") {
            return Err(format!("there is no model {model}\n{said}"));
        }
        if status.success() {
            return Ok(Verdict::Passed);
        }
        let why = reason(&said).ok_or_else(|| format!("{model} failed, but not by a panic ({status})\n{said}"))?;
        Ok(Verdict::Failed(why))
    }
}

/// The first panic's message, cut to what fits a line.
fn reason(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at ")).skip(1);
    Some(lines.next()?.trim().chars().take(100).collect())
}

/// `None` if it took too long; then it has been ended.
fn wait(mut child: Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Makes `to` the same as `from`, and leaves alone what is: what has not changed need not be built again.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        let content = fs::read(from)?;
        return if fs::read(to).is_ok_and(|old| old == content) { Ok(()) } else { fs::write(to, content) };
    }
    fs::create_dir_all(to)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !names.contains(&entry.file_name()) {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    Ok(())
}

/// Without the end of the line, which comes when there is something to tell.
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
        let mut titles = BTreeSet::new();
        for mutant in mutants(&[state::GROUPS, ring::GROUPS, open::GROUPS]) {
            let source = fs::read_to_string(root().join(mutant.file)).expect(mutant.file);
            assert_ne!(mutant.apply(&source).unwrap(), source, "{}", mutant.title());
            let models = format!("crates/{}/tests/loom.rs", mutant.package);
            let models = fs::read_to_string(root().join(&models)).expect(&models);
            let model = format!("#[test]\nfn {}()", mutant.killer);
            assert!(models.contains(&model), "{} has no model {}", mutant.package, mutant.killer);
            assert!(titles.insert(mutant.title()), "two mutants: {}", mutant.title());
        }
    }

    #[test]
    fn the_reason_is_the_first_panic() {
        let said = "running 1 test\n\nthread 'm' (7) panicked at src/a.rs:1:2:\nlost\nnote: run with\n\nthread 'm' panicked at b:\nx\n";
        assert_eq!(reason(said).as_deref(), Some("lost"));
        assert_eq!(reason("running 1 test\ntest m ... ok\n"), None);
    }
}
