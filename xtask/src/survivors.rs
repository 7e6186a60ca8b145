//! Lets `cargo-mutants` change the code of the four crates one place at a time, and looks which changes no test
//! notices.
//!
//! It knows nothing about the protocol, and so looks where no person would. What it cannot do is weaken an ordering, or
//! see a model fail: that is [`crate::mutants`]. A copy of the checkout is changed, never the checkout itself. A
//! survivor needs a test, or a line with a reason in `xtask/survivors.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{root, target};
use crate::workbench::Workbench;

/// The survivors that are accepted, each with a reason.
const ACCEPTED: &str = "xtask/survivors.txt";

/// What the tool leaves out, and why.
const CONFIG: &str = ".cargo/mutants.toml";

/// Where the copy is, and what the tool prints.
const FOLDER: &str = "survivors";

/// Of all viable mutants of a crate, in percent.
const LEAST_CAUGHT: usize = 95;

/// The program that most test files are built into: linking one instead of twenty is most of the time.
const AT_ONCE: &str = "at_once";

/// One crate, and the tests that its mutants have to pass.
struct Plan {
    package: &'static str,
    features: &'static str,
    /// Quick test files that can share a process. Cargo runs the programs by name, so that this one comes first and the
    /// slower ones see only what it has not caught.
    at_once: &'static [&'static str],
    /// Slow ones, and those that need a process of their own: they start their program again to run one test by its
    /// name, fork, have a subscriber or an allocator for the whole process.
    alone: &'static [&'static str],
}

const PLANS: &[Plan] = &[
    Plan { package: "ring-state", features: "", at_once: &[], alone: &[] },
    Plan { package: "ring-alloc", features: "", at_once: &["alignment", "exclusive"], alone: &[] },
    Plan {
        package: "ring-io",
        features: "",
        at_once: &["bad_files", "cut", "faults", "imitate", "order", "reports", "shuffle"],
        alone: &[
            "contract",
            "events",
            "foreign",
            "fork",
            "interrupted",
            "limits",
            "lock",
            "options",
            "prepare",
            "segments",
            "wanted",
        ],
    },
    Plan {
        package: "buffer_ring",
        features: "async",
        at_once: &[
            "api",
            "closing",
            "commits",
            "deferred",
            "encoding",
            "errors",
            "failures",
            "files",
            "foreign_wakers",
            "forgotten",
            "framing",
            "futures",
            "giving_up",
            "leasing",
            "looking",
            "manual",
            "options",
            "ownership",
            "patience",
            "prepared",
            "reopening",
            "reservations",
            "timeouts",
            "watching",
            "write_modes",
            "writer",
        ],
        alone: &[
            "subscribers",
            "fork",
            "counting",
            "full_disk",
            "acknowledged",
            "events",
            "reading",
            "registered",
            "reports",
            "stress",
            "space",
        ],
    },
];

const USAGE: &str = "cargo xtask survivors [--shard k/n] [--in-diff revision] [--file glob] [crate…]";

/// What is looked at.
#[derive(Default)]
struct Scope {
    shard: Option<String>,
    /// The file with the difference to a revision.
    diff: Option<PathBuf>,
    file: Option<String>,
    packages: Vec<String>,
}

impl Scope {
    fn of(arguments: &[String]) -> Result<Self, String> {
        let (mut scope, mut arguments) = (Self::default(), arguments.iter());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().cloned().ok_or(format!("{argument} needs a value: {USAGE}"));
            match argument.as_str() {
                "--shard" => scope.shard = Some(value()?),
                "--in-diff" => scope.diff = Some(difference(&value()?)?),
                "--file" => scope.file = Some(value()?),
                name if PLANS.iter().any(|plan| plan.package == name) => scope.packages.push(name.to_owned()),
                other => return Err(format!("survivors does not know `{other}`: {USAGE}")),
            }
        }
        Ok(scope)
    }

    fn includes(&self, plan: &Plan) -> bool {
        self.packages.is_empty() || self.packages.iter().any(|package| package == plan.package)
    }

    /// Whether a crate is looked at as a whole, so that a share of it means something.
    fn is_whole(&self) -> bool {
        self.shard.is_none() && self.diff.is_none() && self.file.is_none()
    }
}

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let scope = Scope::of(arguments)?;
    let installed = Command::new("cargo").args(["mutants", "--version"]).output().is_ok_and(|it| it.status.success());
    if !installed {
        return Err("cargo-mutants is not installed: cargo install cargo-mutants --locked".into());
    }
    let text = fs::read_to_string(root().join(ACCEPTED)).map_err(|error| format!("{ACCEPTED}: {error}"))?;
    let accepted = accepted(&text)?;
    let mut failures = Vec::new();
    for plan in PLANS.iter().filter(|plan| scope.includes(plan)) {
        let found = plan.look(&scope)?;
        println!("{}", found.summary(plan.package));
        failures.extend(found.complaints(plan.package, &accepted, scope.is_whole()));
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\neach needs a test that fails with it, or a line with a reason in {ACCEPTED}\nto look at one file again: \
         cargo xtask survivors --file '**/name.rs' crate\nwhat was changed, and what the tests printed: {}",
        failures.join("\n"),
        target(FOLDER)
    ))
}

/// What has changed since `revision`, as a file.
fn difference(revision: &str) -> Result<PathBuf, String> {
    let output =
        Command::new("git").args(["diff", "--merge-base", revision, "--", "crates"]).current_dir(root()).output();
    let output = output.map_err(|error| format!("cannot start git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git diff {revision}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let path = PathBuf::from(target(FOLDER)).join("diff");
    let written = fs::create_dir_all(target(FOLDER)).and_then(|()| fs::write(&path, output.stdout));
    written.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

impl Plan {
    /// Runs the tool over the crate: with the quick tests first, then with all of them over the mutants that are left.
    fn look(&self, scope: &Scope) -> Result<Found, String> {
        let copy = Workbench::new(FOLDER)?;
        if !self.at_once.is_empty() {
            let file = copy.path("crates").join(self.package).join("tests").join(AT_ONCE).with_extension("rs");
            let modules: String =
                self.at_once.iter().map(|test| format!("#[path = \"{test}.rs\"]\nmod {test};\n")).collect();
            fs::write(&file, modules).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let out = PathBuf::from(target(FOLDER)).join(self.package);
        // What an earlier run left must not be taken for an answer.
        if out.exists() {
            fs::remove_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
        }
        // The tool takes a shard of what is left: of a shard, two looks would see two sets of mutants.
        if self.alone.is_empty() || scope.shard.is_some() {
            return self.run(&copy, &out, scope, &self.tests(self.alone));
        }
        let first = self.run(&copy, &out, scope, &self.tests(&[]))?;
        if first.missed.is_empty() && first.hung == 0 {
            return Ok(first);
        }
        let mut arguments = self.tests(self.alone);
        arguments.push("--iterate".into());
        Ok(first.then(self.run(&copy, &out, scope, &arguments)?))
    }

    /// Runs the tool once, with these arguments beside the usual ones.
    fn run(&self, copy: &Workbench, out: &Path, scope: &Scope, arguments: &[String]) -> Result<Found, String> {
        let mut command = Command::new("cargo");
        command.args(["mutants", "--in-place", "--no-shuffle", "--colors", "never", "--package", self.package]);
        // A hang is found by its time. Much more than the tests take, so that a busy machine is not one.
        command.args(["--timeout-multiplier", "3", "--minimum-test-timeout", "60"]);
        command.arg("--config").arg(root().join(CONFIG)).arg("--dir").arg(copy.path("")).arg("--output").arg(out);
        command.args(arguments);
        for (flag, value) in [("--shard", &scope.shard), ("--file", &scope.file)] {
            value.iter().for_each(|value| _ = command.args([flag, value]));
        }
        scope.diff.iter().for_each(|diff| _ = command.arg("--in-diff").arg(diff));
        // No debugger is used on these builds.
        for profile in ["CARGO_PROFILE_DEV_DEBUG", "CARGO_PROFILE_TEST_DEBUG"] {
            command.env(profile, "false");
        }
        command.env("CARGO_TARGET_DIR", copy.built(""));
        println!("$ cargo mutants --package {} {}", self.package, arguments.join(" "));
        let status = command.status().map_err(|error| format!("cannot start cargo: {error}"))?;
        match status.code() {
            // Caught all; some lived; some hung.
            Some(0 | 2 | 3) => Found::read(&out.join("mutants.out")),
            _ => Err(format!("cargo mutants failed ({status}): {}", out.display())),
        }
    }

    /// What has the tool run the quick tests, and the programs `alone`.
    fn tests(&self, alone: &[&str]) -> Vec<String> {
        let mut arguments = vec!["--lib"];
        if !self.features.is_empty() {
            arguments.extend(["--features", self.features]);
        }
        let together = (!self.at_once.is_empty()).then_some(AT_ONCE);
        arguments.extend(together.iter().chain(alone).flat_map(|test| ["--test", *test]));
        arguments.iter().map(|argument| format!("--cargo-arg={argument}")).collect()
    }
}

/// What has become of a crate's mutants, by name.
#[derive(Debug, Default)]
struct Found {
    /// By a test that failed, or one that hung.
    caught: usize,
    hung: usize,
    missed: Vec<String>,
    unviable: usize,
}

impl Found {
    fn read(folder: &Path) -> Result<Self, String> {
        let lines = |name: &str| match fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect::<Vec<_>>()),
            // No mutant matches, for instance in a difference that has no code.
            Err(_) if !folder.exists() => Ok(Vec::new()),
            Err(error) => Err(format!("{}/{name}: {error}", folder.display())),
        };
        let hung = lines("timeout.txt")?.len();
        Ok(Self {
            caught: lines("caught.txt")?.len() + hung,
            hung,
            missed: lines("missed.txt")?,
            unviable: lines("unviable.txt")?.len(),
        })
    }

    /// With what became of the mutants that were missed or hung, and of no others, when they were tried again.
    fn then(self, again: Self) -> Self {
        Self { caught: self.caught - self.hung + again.caught, unviable: self.unviable + again.unviable, ..again }
    }

    fn viable(&self) -> usize {
        self.caught + self.missed.len()
    }

    fn summary(&self, package: &str) -> String {
        let Self { caught, hung, unviable, .. } = self;
        let (viable, missed) = (self.viable(), self.missed.len());
        format!(
            "{package}: {caught} of {viable} caught, {hung} of them by a hang; \
             {missed} lived; {unviable} do not compile"
        )
    }

    /// What has to be done.
    fn complaints(&self, package: &str, accepted: &BTreeMap<String, usize>, whole: bool) -> Vec<String> {
        let mut left = accepted.clone();
        let is_new = |name: &&String| match left.get_mut(&without_place(name)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        };
        let mut complaints: Vec<_> =
            self.missed.iter().filter(is_new).map(|name| format!("no test notices {name}")).collect();
        if whole && self.caught * 100 < self.viable() * LEAST_CAUGHT {
            complaints.push(format!("{package}: fewer than {LEAST_CAUGHT} % of the mutants are caught"));
        }
        complaints
    }
}

/// The tool names a mutant by file, line, column and what it does. Without line and column, so that it keeps its name.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(what)) => format!("{file}:{what}"),
        _ => name.to_owned(),
    }
}

/// The accepted survivors, and how many of each name. Above them, up to a blank line, is the reason.
fn accepted(text: &str) -> Result<BTreeMap<String, usize>, String> {
    let (mut accepted, mut has_reason) = (BTreeMap::new(), false);
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            has_reason = false;
        } else if line.starts_with('#') {
            has_reason = true;
        } else if has_reason {
            *accepted.entry(line.to_owned()).or_insert(0) += 1;
        } else {
            return Err(format!("{ACCEPTED}: no reason above `{line}`"));
        }
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines;

    /// Programs that no mutant is shown to: empty without a checker; a count of instructions, which any change may
    /// move; minutes without optimization.
    const LEFT_OUT: [(&str, &[&str]); 2] = [
        ("ring-state", &["loom"]),
        ("buffer_ring", &["loom", "loom_writers", "shuttle", "instructions", "oracle", "sweep"]),
    ];

    fn found(caught: usize, missed: &[&str]) -> Found {
        Found { caught, missed: missed.iter().map(|&name| name.to_owned()).collect(), ..Found::default() }
    }

    #[test]
    fn a_survivor_is_accepted_as_often_as_it_is_listed_wherever_it_has_moved() {
        let accepted = accepted("# equivalent\na.rs: replace | with ^ in f\n").expect("a reason");
        let one = "a.rs:1:2: replace | with ^ in f";
        let again = "a.rs:70:2: replace | with ^ in f";
        assert!(found(99, &[again]).complaints("a", &accepted, true).is_empty());
        assert_eq!(found(99, &[one, again]).complaints("a", &accepted, true), [format!("no test notices {again}")]);
        assert_eq!(found(99, &["b.rs:1:2: replace | with ^ in f"]).complaints("a", &accepted, true).len(), 1);
    }

    #[test]
    fn too_few_that_are_caught_are_a_failure_of_a_whole_crate_even_if_all_others_are_accepted() {
        let accepted = accepted("# equivalent\na: b\na: b\n").expect("a reason");
        let enough = found(19, &["a:1:1: b"]);
        let too_few = found(18, &["a:1:1: b"]);
        assert!(enough.complaints("a", &accepted, true).is_empty());
        assert_eq!(too_few.complaints("a", &accepted, true).len(), 1);
        assert!(too_few.complaints("a", &accepted, false).is_empty());
    }

    #[test]
    fn an_accepted_survivor_needs_a_reason_and_a_file_that_exists() {
        assert!(accepted("# why\n\na: b").is_err());
        let text = fs::read_to_string(root().join(ACCEPTED)).expect(ACCEPTED);
        for name in accepted(&text).expect("reasons").keys() {
            let file = name.split(':').next().unwrap_or_default();
            assert!(root().join(file).is_file(), "{name}");
        }
    }

    #[test]
    fn every_test_program_has_one_place_in_the_plan_of_its_crate() {
        for plan in PLANS {
            let left_out = LEFT_OUT.iter().find(|(package, _)| *package == plan.package).map_or(&[][..], |it| it.1);
            let mut planned = [plan.at_once, plan.alone, left_out].concat();
            planned.sort_unstable();
            let programs = engines::test_programs(plan.package).expect("programs");
            let mut programs: Vec<_> = programs.iter().map(|path| engines::name_of(path)).collect();
            programs.sort_unstable();
            assert_eq!(planned, programs, "{}", plan.package);
        }
    }

    #[test]
    fn a_mutant_counts_as_what_became_of_it_at_last() {
        let first = Found { hung: 1, unviable: 2, ..found(10, &["a:1:1: b", "a:2:1: c"]) };
        let again = Found { hung: 1, ..found(2, &["a:2:1: c"]) };
        let both = first.then(again);
        assert_eq!((both.caught, both.hung, both.unviable, both.missed.len()), (11, 1, 2, 1));
    }
}
