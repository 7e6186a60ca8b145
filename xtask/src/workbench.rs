//! A copy of the checkout in which bugs are planted, one at a time, built, and taken out again.

use core::time::Duration;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use crate::patch::Change;
use crate::run::{root, target};

/// What is copied. No build needs more.
const SOURCES: &[&str] = &["Cargo.toml", "Cargo.lock", "README.md", "crates", "docs", "xtask"];

#[derive(Debug)]
pub(crate) struct Workbench {
    tree: PathBuf,
    build: PathBuf,
}

/// How a program ended, and what it printed.
pub(crate) struct Ran {
    /// `None`: it took too long, and was ended.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) output: String,
}

impl Workbench {
    /// A copy under this name, in the folder for builds. What is left there of the last time need not be built again.
    pub(crate) fn new(name: &str) -> Result<Self, String> {
        let place = PathBuf::from(target(name));
        let (tree, build) = (place.join("tree"), place.join("build"));
        fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
        for name in SOURCES {
            copy(&root().join(name), &tree.join(name)).map_err(|error| format!("cannot copy {name}: {error}"))?;
        }
        Ok(Self { tree, build })
    }

    /// A path in the copy.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.tree.join(path)
    }

    /// A path among what was built.
    pub(crate) fn built(&self, path: impl AsRef<Path>) -> PathBuf {
        self.build.join(path)
    }

    /// Does `work` on the copy with these changes, and undoes them.
    pub(crate) fn with<T>(&self, changes: &[Change], work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let mut files = BTreeMap::new();
        for change in changes {
            let text = text_of(&mut files, change.path(&self.tree)?)?;
            *text = change.apply(text)?;
        }
        self.with_files(&files, work)
    }

    /// Does `work` on the copy with these texts in these files, and puts back what was there.
    pub(crate) fn with_files<T>(
        &self,
        files: &BTreeMap<PathBuf, String>,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let mut before = BTreeMap::new();
        for path in files.keys() {
            text_of(&mut before, path.clone())?;
        }
        let outcome = files.iter().try_for_each(|(path, text)| write(path, text)).and_then(|()| work());
        before.iter().try_for_each(|(path, text)| write(path, text))?;
        outcome
    }

    /// Builds by `cargo` with these arguments, and gives what it said.
    pub(crate) fn cargo(&self, arguments: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let mut cargo = Command::new("cargo");
        cargo.args(arguments.split(' ')).envs(variables.iter().copied()).env("CARGO_TARGET_DIR", &self.build);
        let built = cargo.current_dir(&self.tree).stdin(Stdio::null()).output();
        let built = built.map_err(|error| format!("cannot start cargo: {error}"))?;
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        if built.status.success() { Ok(said) } else { Err(format!("it does not compile\n{said}")) }
    }

    /// Runs a program in the copy, for as long as `patience` lasts.
    pub(crate) fn run(&self, mut program: Command, patience: Duration) -> Result<Ran, String> {
        let path = self.built("output");
        let files = || {
            let file = File::create(&path)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = files().map_err(|error: io::Error| format!("{}: {error}", path.display()))?;
        program.current_dir(&self.tree).stdin(Stdio::null()).stdout(out).stderr(err);
        let name = program.get_program().to_string_lossy().into_owned();
        let child = program.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let status = wait(child, patience).map_err(|error| format!("cannot wait for {name}: {error}"))?;
        let output = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Ran { status, output: String::from_utf8_lossy(&output).into_owned() })
    }
}

/// The text of a file, to be changed: as it has become, or as it is on disk.
pub(crate) fn text_of(files: &mut BTreeMap<PathBuf, String>, path: PathBuf) -> Result<&mut String, String> {
    match files.entry(path) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let text =
                fs::read_to_string(entry.key()).map_err(|error| format!("{}: {error}", entry.key().display()))?;
            Ok(entry.insert(text))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
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
