//! Lines on standard output and standard error.

use std::io::{ErrorKind, Write as _, stdout};
use std::time::Duration;

use super::{EXIT_FAILED, Exit};
use crate::telemetry;

/// How long the end of a command waits for whoever reads standard error.
const LAST_LINES_BOUND: Duration = Duration::from_secs(2);

/// Writes one line to standard output.
///
/// A reader that has gone (`| head`) ends the process quietly, as it would end any other filter.
pub(super) fn say(line: &str) -> Result<(), Exit> {
    say_bytes(line.as_bytes())
}

/// [`say`] for bytes that need not be text.
pub(super) fn say_bytes(line: &[u8]) -> Result<(), Exit> {
    say_while_heard(line).inspect_err(|exit| {
        if *exit == Exit::unheard() {
            finish();
            std::process::exit(0)
        }
    })
}

/// [`say_bytes`] for a command that has something to put away before it ends: a reader that has gone is [`Exit::unheard`].
pub(super) fn say_while_heard(line: &[u8]) -> Result<(), Exit> {
    let mut out = stdout().lock();
    out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Exit::unheard(),
        _ => Exit::new(EXIT_FAILED, format!("cannot write to standard output: {error}")),
    })
}

/// Writes one line to standard error; nobody waits for that, and nothing can be done about a failure.
pub(super) fn complain(line: &str) {
    telemetry::say(line);
}

/// Lets what was said on standard error be written, within a bound.
pub(super) fn finish() {
    telemetry::flush(LAST_LINES_BOUND);
}

/// Says lines on standard output for whoever started a relay; if nobody reads, there is nobody to tell, and nobody waits.
pub fn announce(lines: Vec<String>) {
    let tell = move || {
        let mut out = stdout().lock();
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    };
    // Without a thread it goes unsaid, which the log makes good.
    let _ = std::thread::Builder::new().name("hookcast-announce".to_owned()).spawn(tell);
}
