//! Commands: shown before they run, started at the root of the checkout, an error when they fail.

use std::env;
use std::io::{self, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Variables of one command, beside the inherited ones.
pub(crate) type Variables<'a> = &'a [(&'a str, &'a str)];

/// The root of the checkout, wherever the task was started.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the checkout").to_owned()
}

/// The folder for builds with other flags than the normal ones, which would otherwise make every normal build start
/// from nothing.
pub(crate) fn target(name: &str) -> String {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join(name).to_string_lossy().into_owned()
}

/// The user's `RUSTFLAGS`, and `flags` behind them.
pub(crate) fn rustflags(flags: &str) -> String {
    let users = env::var("RUSTFLAGS").unwrap_or_default();
    format!("{users} {flags}").trim_start().to_owned()
}

/// Runs `line`: words with single blanks between, no quoting.
pub(crate) fn run(variables: Variables<'_>, line: &str) -> Result<(), String> {
    finish(start(variables, line, |_| ())?, line)
}

/// Like [`run`], and answers what the command printed, which is also shown as it comes.
pub(crate) fn run_and_read(variables: Variables<'_>, line: &str) -> Result<String, String> {
    // One pipe for both streams keeps their lines in order.
    let pipe = || {
        let (reader, writer) = io::pipe()?;
        Ok((reader, writer.try_clone()?, writer))
    };
    let (reader, out, err) = pipe().map_err(|error: io::Error| format!("cannot make a pipe: {error}"))?;
    let child = start(variables, line, |command| _ = command.stdout(out).stderr(err))?;
    let printed = tee(reader).map_err(|error| format!("cannot pass on what `{line}` prints: {error}"));
    finish(child, line)?;
    printed
}

/// What a command prints, which is not shown unless it fails.
pub(crate) fn read(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let ran = command.args(words).current_dir(root()).output();
    let ran = ran.map_err(|error| format!("cannot start `{line}`: {error}"))?;
    if !ran.status.success() {
        return Err(format!("`{line}` failed ({})\n{}", ran.status, String::from_utf8_lossy(&ran.stderr)));
    }
    String::from_utf8(ran.stdout).map_err(|error| format!("`{line}` printed no text: {error}"))
}

/// The `Command` ends here, and with it our copies of the streams that `wire` gave it: readers see their end.
fn start(variables: Variables<'_>, line: &str, wire: impl FnOnce(&mut Command)) -> Result<Child, String> {
    let shown: String = variables.iter().map(|(name, value)| format!("{name}='{value}' ")).collect();
    println!("$ {shown}{line}");
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).envs(variables.iter().copied()).current_dir(root());
    wire(&mut command);
    command.spawn().map_err(|error| format!("cannot start `{line}`: {error}"))
}

fn finish(mut child: Child, line: &str) -> Result<(), String> {
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed ({status})")),
        Err(error) => Err(format!("cannot wait for `{line}`: {error}")),
    }
}

fn tee(mut reader: PipeReader) -> io::Result<String> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = reader.read(&mut piece)?;
        if count == 0 {
            return Ok(String::from_utf8_lossy(&all).into_owned());
        }
        all.extend_from_slice(&piece[..count]);
        // Flushed even amid a line: a test's name stands there while it runs.
        io::stdout().write_all(&piece[..count])?;
        io::stdout().flush()?;
    }
}
