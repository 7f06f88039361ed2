//! Lines on standard output and standard error.

use std::io::{ErrorKind, Write as _, stderr, stdout};

use super::{EXIT_FAILED, Exit};

/// Writes one line to standard output.
///
/// A reader that has gone (`| head`) ends the process quietly, as it would end any other filter.
pub(super) fn say(line: &str) -> Result<(), Exit> {
    say_bytes(line.as_bytes())
}

/// [`say`] for bytes that need not be text.
pub(super) fn say_bytes(line: &[u8]) -> Result<(), Exit> {
    let mut out = stdout().lock();
    match out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Exit::new(EXIT_FAILED, format!("cannot write to standard output: {error}"))),
    }
}

/// Writes one line to standard error, where nothing can be done about a failure.
pub(super) fn complain(line: &str) {
    let _ = writeln!(stderr().lock(), "{line}");
}
