//! Logging: one line an event on standard error, filtered by `HOOKCAST_LOG`, and foreign text that cannot fake a line; and the one
//! recorder of metrics.
//!
//! A log that cannot be written, or that nobody reads, stops nothing: lines go through a queue (`lines`), and so does whatever
//! else this program says on standard error.

use std::fmt;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

mod lines;
mod recorder;

pub use recorder::recorder;

/// Environment variable with the filter, such as `info,hookcast_delivery=debug`; `RUST_LOG` is read when it is not set.
pub const LOG_VARIABLE: &str = "HOOKCAST_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogForm {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the whole process; a second call changes nothing.
pub fn init(form: LogForm) {
    let given = std::env::var(LOG_VARIABLE).or_else(|_| std::env::var("RUST_LOG")).unwrap_or_default();
    let builder = || EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let (filter, problem) = match builder().parse(&given) {
        Ok(filter) => (filter, None),
        Err(error) => (builder().parse_lossy(""), Some(error)),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| lines::Pen).log_internal_errors(false);
    let started = match form {
        LogForm::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_ansi(is_terminal).try_init()
        }
        LogForm::Json => lines.json().flatten_event(true).try_init(),
    };
    if let (Ok(()), Some(problem)) = (started, problem) {
        tracing::warn!("{LOG_VARIABLE} is not a log filter, logging at info: {problem}");
    }
}

/// Says one line on standard error, in its turn; nobody waits for that.
pub fn say(line: &str) {
    let mut text = String::with_capacity(line.len() + 1);
    text.push_str(line);
    text.push('\n');
    lines::standard_error().push(text.as_bytes());
}

/// Waits until what was logged and said is written, at most so long: the last thing that a process does.
pub fn flush(bound: Duration) {
    lines::standard_error().flush(bound);
}

/// Lines that were left out so far because they could not be written.
#[must_use]
pub fn lines_left_out() -> u64 {
    lines::standard_error().left_out()
}

/// A foreign text for a log line: control characters, line ends and terminal codes are escaped, the rest is cut.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a>(pub &'a str);

/// How much of a foreign text is logged, in characters.
const FOREIGN_CHARS_MAX: usize = 512;

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_invisible = |c: char| {
            c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        for c in self.0.chars().take(FOREIGN_CHARS_MAX) {
            if is_invisible(c) { write!(f, "{}", c.escape_default())? } else { fmt::Write::write_char(f, c)? }
        }
        if self.0.chars().nth(FOREIGN_CHARS_MAX).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(Foreign("a\nb\r\x1b[31mé\"").to_string(), "a\\nb\\r\\u{1b}[31mé\"");
        assert_eq!(Foreign("\u{202e}x\u{2028}").to_string(), "\\u{202e}x\\u{2028}");
        assert_eq!(Foreign(&"x".repeat(1000)).to_string().chars().count(), FOREIGN_CHARS_MAX + 1);
    }
}
