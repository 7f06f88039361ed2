//! What a benchmark and its parts print: whole lines, the output and what is said beside it.

/// Prints a line of the output.
#[allow(clippy::print_stdout, reason = "the output of the command")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Prints a line beside the output.
#[allow(clippy::print_stderr, reason = "the end of the command, where the output is for programs")]
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}
