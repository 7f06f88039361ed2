//! How the outcome of a benchmark is printed: a table for people, one JSON object for programs.

use serde::Serialize;

use crate::experiment::Reading;
use crate::outcome::{Outcome, Verdict};
use crate::say::say;

/// Widths of the columns; the last one takes what it needs.
const WIDTHS: [usize; 10] = [18, 51, 14, 14, 6, 8, 8, 7, 15, 11];

/// Prints the head of the table.
pub(crate) fn head() {
    let columns = ["experiment", "what", "measured", "limit", "ratio", "CPU us", "limit's", "value", "spread", "target"];
    say(&line(columns, "verdict"));
}

/// Prints one row.
pub(crate) fn row(outcome: &Outcome) {
    let unit = outcome.row.unit;
    let median = outcome.median.as_ref();
    let text = |figure: Option<f64>, unit: &str| figure.map_or_else(String::new, |figure| format!("{}{unit}", short(figure)));
    let measured = text(median.map(|reading| reading.measured), unit);
    let limit = text(median.and_then(|reading| reading.limit), unit);
    let ratio = text(median.and_then(Reading::ratio_of_figures), "");
    let cpu = text(median.and_then(|reading| reading.cost).map(|cost| cost.cpu_us), "");
    let limit_cpu = text(median.and_then(|reading| reading.limit_cpu_us), "");
    let value = text(outcome.spread.map(|spread| spread.median), "");
    let spread = outcome.spread.map_or_else(String::new, |spread| format!("{}..{}", short(spread.min), short(spread.max)));
    let verdict = match (outcome.verdict, outcome.limit_moved) {
        (Verdict::Held, _) => String::from("held"),
        (Verdict::Missed, _) => String::from("MISSED"),
        (Verdict::Undecided, moved) => format!("UNDECIDED: the limit moved by {:.0} %", moved.unwrap_or(0.0) * 100.0),
        (Verdict::Skipped, _) => format!("skipped: {}", outcome.skipped.as_deref().unwrap_or("nothing was measured")),
    };
    let target = outcome.row.target.to_string();
    let (name, what) = (outcome.experiment, outcome.row.what);
    say(&line([name, what, &measured, &limit, &ratio, &cpu, &limit_cpu, &value, &spread, &target], &verdict));
}

/// Everything as one JSON object.
///
/// # Errors
/// When a figure is no number.
pub(crate) fn json(outcomes: &[Outcome], broke: Option<&anyhow::Error>, seconds: u64, pairs: u32) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Report<'a> {
        version: &'static str,
        processors: usize,
        seconds: u64,
        pairs: u32,
        rows: &'a [Outcome],
        /// What ended it before everything was measured.
        broke: Option<String>,
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        processors,
        seconds,
        pairs,
        rows: outcomes,
        broke: broke.map(|error| format!("{error:#}")),
    };
    Ok(serde_json::to_string(&report)?)
}

fn line(columns: [&str; 10], last: &str) -> String {
    // The first two columns are words, the others figures.
    let words = format!("{:<2$} {:<3$}", columns[0], columns[1], WIDTHS[0], WIDTHS[1]);
    let figures: Vec<String> = columns.iter().zip(WIDTHS).skip(2).map(|(column, width)| format!("{column:>width$}")).collect();
    format!("{words} {} {last}", figures.join(" "))
}

/// A figure with as many digits as a reader compares.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        1000.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        0.1.. => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}
