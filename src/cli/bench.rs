//! `hookcast bench`: hands over to `hookcast-bench`, a program of its own that the relay knows nothing about.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::Exit;

/// What measures.
const PROGRAM: &str = "hookcast-bench";
/// What tells it which relay to measure.
const RELAY: &str = "--relay";
/// Exit code: nothing could be measured, as that program says it, too; its 1 is about rows.
const EXIT_UNMEASURED: u8 = 2;

/// Arguments of `bench`: whatever that program takes.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct BenchArgs {
    /// What to measure, and how; see `hookcast bench --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes that program.
///
/// # Errors
/// When there is none, or it does not start.
pub(super) fn run(args: BenchArgs) -> Result<(), Exit> {
    let unmeasured = |message: String| Exit::new(EXIT_UNMEASURED, message);
    let own = std::env::current_exe().map_err(|error| unmeasured(format!("find this program: {error}")))?;
    let beside = own.with_file_name(PROGRAM);
    let is_beside = beside.is_file();
    let mut command = Command::new(if is_beside { beside } else { PathBuf::from(PROGRAM) });
    // One from elsewhere would measure the relay that lies there.
    if !is_beside && !args.arguments.iter().any(|argument| argument.to_string_lossy().starts_with(RELAY)) {
        command.arg(RELAY).arg(&own);
    }
    let error = command.args(args.arguments).exec();
    Err(if error.kind() == std::io::ErrorKind::NotFound {
        unmeasured(format!(
            "there is no {PROGRAM} beside {} or on the path; it comes with the sources: cargo build --release -p {PROGRAM}",
            own.display()
        ))
    } else {
        unmeasured(format!("start {PROGRAM}: {error}"))
    })
}
