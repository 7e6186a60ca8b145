//! Bugs that are planted all at once, in one build, each behind a switch: a test is run once per bug, with the bug that
//! it has to notice switched on.
//!
//! A build takes longer than most tests, so this allows many bugs.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::{RELEASE, Tally, ringlog};
use crate::patch::Change;
use crate::workbench::{Workbench, text_of};

/// A test of them that is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(150);

/// Which bug is switched on.
const VARIABLE: &str = "RINGLOG_PLANTED";

/// The word in a change that stands for its switch.
const SWITCH: &str = "PLANTED";

/// The crate that they are in, and the file in which the switches are.
const PACKAGE: &str = "ringlog";
const ROOT: &str = "crates/ringlog/src/lib.rs";

/// The switches.
const SWITCHES: &str = "
#[allow(missing_docs)]
pub fn planted(what: &str) -> bool {
    static SWITCHED_ON: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    *SWITCHED_ON.get_or_init(|| std::env::var(\"RINGLOG_PLANTED\").unwrap_or_default()) == *what
}
";

/// How many crash images are enough for each bug that only they show.
const IMAGES: &str = "60000";

/// Images of a log that runs.
const CRASHES: &str = "4000";

/// The killer of bugs that only a log of the lab under a mounted file system shows, and what it is started with.
const MOUNTED: &str = "mounted";
const MOUNTED_ARGUMENTS: &str = "crash --fs ext4 --records --images 50 --seed 1";

pub(super) struct Bug {
    pub(super) what: &'static str,
    /// The test program that must fail, `lib` or a name in `tests`, and which of its tests, if not any. Or `mounted`.
    pub(super) killer: &'static str,
    /// In which file, which code, and what it becomes; with `PLANTED` for the switch. A bug may change what one above
    /// it in the list has written.
    pub(super) changes: &'static [(&'static str, &'static str, &'static str)],
}

impl Bug {
    /// What a filter is compared with.
    pub(super) fn title(&self) -> String {
        format!("{PACKAGE}: {}", self.what)
    }

    /// Whether only the lab notices it, under a file system.
    pub(super) fn is_mounted(&self) -> bool {
        self.killer == MOUNTED
    }

    fn program(&self) -> &'static str {
        self.killer.split(' ').next().expect("one part at least")
    }
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Bug> {
    ringlog::BUGS.iter().copied().flatten()
}

/// The files of the checkout at `root` that have a bug, with all bugs and their switches.
fn files(root: &Path) -> Result<BTreeMap<PathBuf, String>, String> {
    let mut files = BTreeMap::new();
    *text_of(&mut files, root.join(ROOT))? += SWITCHES;
    for bug in all() {
        for &(file, from, to) in bug.changes {
            let change = Change { file, from, to };
            let text = text_of(&mut files, change.path(root)?)?;
            let changed = change.apply(text).map_err(|why| format!("{}: {why}", bug.what))?;
            *text = changed.replace(SWITCH, &format!("crate::planted({:?})", bug.what));
        }
    }
    Ok(files)
}

/// Plants all of them, and has each of `bugs` noticed.
pub(super) fn try_all(workbench: &Workbench, bugs: &[&'static Bug], tally: &mut Tally) -> Result<(), String> {
    let programs = workbench.with_files(&files(&workbench.path(""))?, || build(workbench, bugs))?;
    for (name, program) in &programs {
        let arguments = if *name == MOUNTED { MOUNTED_ARGUMENTS } else { "" };
        match run(workbench, program, arguments, None)? {
            Some(why) => return Err(format!("without any bug, {name} of {PACKAGE} fails: {why}")),
            None => println!("unchanged: {name} of {PACKAGE}: passes"),
        }
    }
    for bug in bugs {
        let begun = Instant::now();
        let filter = bug.killer.split_once(' ').map_or("", |(_, filter)| filter);
        let arguments = if bug.is_mounted() { MOUNTED_ARGUMENTS } else { filter };
        let killed = run(workbench, &programs[bug.program()], arguments, Some(bug))?;
        tally.add(bug.what, &format!("{PACKAGE}: {}", bug.killer), begun.elapsed(), killed);
    }
    Ok(())
}

/// The test programs, by name.
fn build(workbench: &Workbench, bugs: &[&'static Bug]) -> Result<BTreeMap<&'static str, PathBuf>, String> {
    let names: BTreeSet<_> = bugs.iter().filter(|bug| !bug.is_mounted()).map(|bug| bug.program()).collect();
    let target = |name: &&str| if **name == *"lib" { "--lib".to_owned() } else { format!("--test {name}") };
    let targets = names.iter().map(target).collect::<Vec<_>>().join(" ");
    let said = match &*targets {
        "" => String::new(),
        _ => workbench.cargo(
            &format!("test --release -p {PACKAGE} --features async --no-run --color never {targets}"),
            RELEASE,
        )?,
    };
    let program = |name: &'static str| {
        let source = if name == "lib" { "src/lib.rs (".to_owned() } else { format!("tests/{name}.rs (") };
        let line = said.lines().find_map(|line| line.trim().strip_prefix("Executable ")?.split_once(&source));
        let (_, path) = line.ok_or_else(|| format!("cargo names no program {name}\n{said}"))?;
        Ok((name, workbench.path(path.trim_end_matches(')'))))
    };
    let mut programs = names.into_iter().map(program).collect::<Result<BTreeMap<_, _>, String>>()?;
    if bugs.iter().any(|bug| bug.is_mounted()) {
        workbench.cargo("build --release --package ring-lab", RELEASE)?;
        programs.insert(MOUNTED, workbench.built("release/ring-lab"));
    }
    Ok(programs)
}

/// The first thing that a test says that fails.
fn run(workbench: &Workbench, program: &Path, arguments: &str, bug: Option<&Bug>) -> Result<Option<String>, String> {
    let mut tests = Command::new(program);
    tests.args(arguments.split_whitespace()).env(VARIABLE, bug.map_or("", |bug| bug.what));
    tests.env("RINGLOG_IMAGES", IMAGES).env("RINGLOG_CRASHES", CRASHES);
    tests.env("RINGLOG_FUZZ", "2000").env("RINGLOG_SEED", "1");
    let ran = workbench.run(tests, PATIENCE)?;
    let Some(status) = ran.status else { return Ok(Some(format!("it hangs: not done after {PATIENCE:?}"))) };
    if status.success() {
        return Ok(None);
    }
    let is_telling =
        |line: &&str| line.starts_with("test ") && line.ends_with("FAILED") || line.starts_with("ring-lab: ");
    let failed = ran.output.lines().find(is_telling);
    Ok(Some(failed.or(ran.output.lines().next()).unwrap_or("it said nothing").chars().take(150).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::root;

    #[test]
    fn every_switched_bug_changes_places_that_are_there() {
        let (root, mut names) = (root(), BTreeSet::new());
        for bug in all() {
            assert!(names.insert(bug.what), "{} is there twice", bug.what);
            let tests = root.join(format!("crates/{PACKAGE}/tests/{}.rs", bug.program()));
            assert!(
                bug.is_mounted() || bug.program() == "lib" || tests.is_file(),
                "{}: there is no such test",
                bug.what
            );
            let switched = bug.changes.iter().any(|(.., to)| to.contains(SWITCH));
            assert!(switched, "{} has no switch", bug.what);
        }
        let texts = files(&root).unwrap().into_values().collect::<String>();
        for name in names {
            assert!(texts.contains(&format!("crate::planted({name:?})")), "{name} is overwritten");
        }
    }
}
