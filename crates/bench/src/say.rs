//! What a benchmark and its parts print: whole lines on standard output.

/// Prints a line.
#[allow(clippy::print_stdout, reason = "the output of the command")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
