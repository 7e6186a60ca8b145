//! `ringlog completions` and `ringlog man`: what comes with the command.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use crate::Arguments;
use crate::output::{Failure, Output, Status};

/// Print completions for a shell
///
/// For bash: ringlog completions bash > ~/.local/share/bash-completion/completions/ringlog
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "ringlog", &mut script);
        output.raw(&String::from_utf8_lossy(&script))?;
        Ok(Status::Good)
    }
}

/// Print a page of the manual
///
/// To read it: ringlog man verify | man -l -
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The subcommand that it is about [default: the whole command]
    subcommand: Option<String>,
}

impl Man {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let mut command = Arguments::command();
        command.build();
        let about = match &self.subcommand {
            None => Some(&command),
            Some(name) => command.find_subcommand(name),
        };
        let about = about.ok_or_else(|| Failure::new("there is no such subcommand; see ringlog --help"))?;
        let mut page = Vec::new();
        Page::new(about.clone()).render(&mut page).map_err(Failure::at("cannot make the page"))?;
        output.raw(&String::from_utf8_lossy(&page))?;
        Ok(Status::Good)
    }
}
