//! Where the loom models are, how they are built, and how one of them is run by its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::root;

/// Programs of models: the package, what cargo has to build, and the file or folder that they are in.
pub(crate) const PROGRAMS: &[Program] = &[
    Program { package: "ring-state", target: "--test loom", sources: "crates/ring-state/tests/loom.rs" },
    Program { package: "buffer_ring", target: "--lib", sources: "crates/buffer_ring/src/tests" },
    Program { package: "buffer_ring", target: "--test loom", sources: "crates/buffer_ring/tests/loom.rs" },
    Program {
        package: "buffer_ring",
        target: "--test loom_writers",
        sources: "crates/buffer_ring/tests/loom_writers.rs",
    },
];

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    pub(crate) package: &'static str,
    pub(crate) target: &'static str,
    sources: &'static str,
}

/// A model, as the test harness calls it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Model {
    pub(crate) program: &'static Program,
    pub(crate) test: String,
}

/// The model that is called `name`, of whatever program.
pub(crate) fn find(name: &str) -> Result<Model, String> {
    let head = format!("#[test]\nfn {name}()");
    for program in PROGRAMS {
        for file in program.files()? {
            let source = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            if source.contains(&head) {
                let module = file.file_stem().unwrap_or_default().to_string_lossy();
                let test = if program.target == "--lib" { format!("tests::{module}::{name}") } else { name.to_owned() };
                return Ok(Model { program, test });
            }
        }
    }
    Err(format!("there is no model `{name}`"))
}

impl Model {
    /// Without the modules that it is in.
    pub(crate) fn name(&self) -> &str {
        self.test.rsplit("::").next().unwrap_or(&self.test)
    }

    /// Runs it alone in `built`, its program. The process is its own, since loom maps and unmaps stacks in each
    /// execution: two models in one process would wait for each other most of the time.
    pub(crate) fn command(&self, built: &Path) -> Command {
        let mut command = Command::new(built);
        command.args(["--exact", &self.test, "--nocapture"]);
        command
    }
}

impl Program {
    /// What `cargo` builds it by. Needs `--cfg loom` in `RUSTFLAGS`.
    pub(crate) fn build(&self) -> String {
        let Self { package, target, .. } = self;
        format!("test --profile loom -p {package} {target} --no-run --color never")
    }

    /// Where it is, as the build `said`: relative to where that ran, or absolute.
    pub(crate) fn built<'a>(&self, said: &'a str) -> Result<&'a str, String> {
        let line = said.lines().rev().find_map(|line| line.trim().strip_prefix("Executable ")?.split_once('('));
        let (_, path) = line.ok_or_else(|| format!("cargo names no program of {self:?}\n{said}"))?;
        Ok(path.trim_end_matches(')'))
    }

    /// Its models whose names contain one of `filters`, or all if there are none.
    pub(crate) fn models(&'static self, built: &Path, filters: &[&String]) -> Result<Vec<Model>, String> {
        // A library's other tests know nothing of loom.
        let list = Command::new(built).args(["--list", "--skip", "::tests::"]).args(filters).output();
        let list = list.map_err(|error| format!("cannot start {}: {error}", built.display()))?.stdout;
        let tests = String::from_utf8_lossy(&list);
        let tests = tests.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(tests.map(|test| Model { program: self, test: test.to_owned() }).collect())
    }

    fn files(&self) -> Result<Vec<PathBuf>, String> {
        let path = root().join(self.sources);
        if path.is_file() {
            return Ok(vec![path]);
        }
        let entries = fs::read_dir(&path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        entries.map_err(|error| format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_where_it_is() {
        let test = |name| find(name).map(|model| (model.program.target, model.test));
        let part = "tests::loom_reader_latch::the_opener_waits_for_the_last_read".to_owned();
        assert_eq!(test("the_opener_waits_for_the_last_read"), Ok(("--lib", part)));
        assert_eq!(test("two_threads_wrap_round"), Ok(("--test loom", "two_threads_wrap_round".to_owned())));
        assert!(test("no_such_model").is_err());
    }
}
