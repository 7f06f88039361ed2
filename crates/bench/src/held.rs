//! A process that ends with whoever started it, however that one ends.
//!
//! The system sends a signal to a process when its parent is gone, if the process asked for that. A program under test does not
//! ask; so it is started as `hookcast-bench held`, which asks and then becomes that program: the request survives. What counts is
//! the end of the thread that started it, so that processes are started on the main thread only, which is the last to go.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::process::Command;

/// What is held, and by whom.
#[derive(Debug, clap::Args)]
pub(crate) struct HeldArgs {
    /// Process id of the one to end with.
    #[arg(long)]
    parent: i32,
    /// What ends the program.
    #[arg(long, value_enum, default_value_t)]
    ended_by: EndedBy,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// The signal that a program is ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EndedBy {
    /// At once.
    #[default]
    Kill,
    /// On request, for a program that ends processes of its own then.
    Term,
}

impl EndedBy {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Term => "term",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Term => Signal::TERM,
        }
    }
}

/// A command that runs `program` as a child which ends with this process; arguments and the rest are added as to any command.
///
/// # Errors
/// When this program does not know where it lies.
pub(crate) fn command(program: &Path, ended_by: EndedBy) -> anyhow::Result<Command> {
    let mut command = Command::new(own_program()?);
    let parent = getpid().as_raw_nonzero().to_string();
    command.args(["held", "--parent", &parent, "--ended-by", ended_by.name(), "--"]).arg(program);
    Ok(command)
}

/// Where this program lies.
///
/// # Errors
/// When the system does not say.
pub(crate) fn own_program() -> anyhow::Result<std::path::PathBuf> {
    std::env::current_exe().context("find this program")
}

/// Becomes the program; comes back only when it could not.
pub(crate) fn become_program(arguments: &HeldArgs) -> anyhow::Error {
    if let Err(error) = set_parent_process_death_signal(Some(arguments.ended_by.signal())) {
        return anyhow::Error::new(error).context("ask for the end with the parent");
    }
    // Whoever ended before the request was made is not told of.
    if getppid() != Pid::from_raw(arguments.parent) {
        return anyhow::anyhow!("the one to end with is gone already");
    }
    let [program, rest @ ..] = arguments.command.as_slice() else { return anyhow::anyhow!("no program is named") };
    let error = std::process::Command::new(program).args(rest).exec();
    anyhow::Error::new(error).context(format!("start {}", program.display()))
}
