//! Where the loom models are, and how one of them is run by its name.

use std::fs;
use std::path::PathBuf;

use crate::run::root;

/// Programs of models: the package, what cargo is told to build, and the file or folder that they are in.
pub(crate) const PROGRAMS: &[Program] = &[
    Program { package: "ring-state", target: "--test loom", sources: "crates/ring-state/tests/loom.rs" },
    Program { package: "buffer_ring", target: "--lib", sources: "crates/buffer_ring/src/parts" },
    Program { package: "buffer_ring", target: "--test loom", sources: "crates/buffer_ring/tests/loom.rs" },
    Program {
        package: "buffer_ring",
        target: "--test loom_sessions",
        sources: "crates/buffer_ring/tests/loom_sessions.rs",
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
                let test = if program.target == "--lib" { format!("parts::{module}::{name}") } else { name.to_owned() };
                return Ok(Model { program, test });
            }
        }
    }
    Err(format!("there is no model `{name}`"))
}

impl Program {
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
        let part = "parts::gate::the_opener_waits_for_the_last_read".to_owned();
        assert_eq!(test("the_opener_waits_for_the_last_read"), Ok(("--lib", part)));
        assert_eq!(test("two_threads_wrap_round"), Ok(("--test loom", "two_threads_wrap_round".to_owned())));
        assert!(test("no_such_model").is_err());
    }
}
