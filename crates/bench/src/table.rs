//! How the outcome of a benchmark is printed: a table for people, one JSON object for programs.

use serde::Serialize;

use crate::experiment::Outcome;
use crate::say;

/// Widths of the columns; the last one takes what it needs.
const WIDTHS: [usize; 7] = [13, 48, 14, 14, 9, 10, 8];

/// Prints the head of the table.
pub(crate) fn head() {
    say(&line(["experiment", "what", "measured", "limit", "value", "target", "verdict"], "relay CPU us"));
}

/// Prints one row.
pub(crate) fn row(outcome: &Outcome) {
    let figure = |figure: Option<f64>| figure.map_or_else(String::new, |figure| format!("{}{}", short(figure), outcome.row.unit));
    let median = outcome.median.as_ref();
    let measured = figure(median.map(|reading| reading.measured));
    let limit = figure(median.and_then(|reading| reading.limit));
    let value = outcome.value.map_or_else(String::new, |value| format!("{value:.3}"));
    let verdict = match outcome.holds {
        Some(true) => "pass",
        Some(false) => "MISS",
        None => "skipped",
    };
    let cpu = median.and_then(|reading| reading.relay_cpu_us).map_or_else(String::new, |cpu| format!("{cpu:.1}"));
    let columns = [outcome.experiment, outcome.row.what, &measured, &limit, &value, &outcome.row.target.to_string(), verdict];
    say(&line(columns, &cpu));
    if let Some(reason) = &outcome.skipped {
        say(&format!("{:>width$}  {reason}", "", width = WIDTHS[0]));
    }
}

/// Prints everything as one JSON object.
///
/// # Errors
/// When a figure is no number.
pub(crate) fn json(outcomes: &[Outcome], seconds: u64, pairs: u32) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        version: &'static str,
        processors: usize,
        seconds: u64,
        pairs: u32,
        rows: &'a [Outcome],
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report { version: env!("CARGO_PKG_VERSION"), processors, seconds, pairs, rows: outcomes };
    say(&serde_json::to_string(&report)?);
    Ok(())
}

fn line(columns: [&str; 7], last: &str) -> String {
    // The first two columns are words, the others figures.
    let words = format!("{:<2$} {:<3$}", columns[0], columns[1], WIDTHS[0], WIDTHS[1]);
    let figures: Vec<String> = columns.iter().zip(WIDTHS).skip(2).map(|(column, width)| format!("{column:>width$}")).collect();
    format!("{words} {} {last}", figures.join(" "))
}

/// A figure with as many digits as a reader compares.
fn short(figure: f64) -> String {
    if figure.abs() >= 1000.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}
