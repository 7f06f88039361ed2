//! What an experiment is: rows with targets, one run that gives a reading for each row, and the median of several runs.
//!
//! Knows no experiment in particular.

use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;

/// The subcommand that an experiment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    /// Deliveries beside the bare POST.
    Deliver,
    /// Time from send to receipt.
    Latency,
    /// Intake of batches and of single events.
    Publish,
    /// Streams with many clients.
    Stream,
    /// Catching up.
    Backlog,
    /// Many subscriptions.
    Subscriptions,
}

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Length of one measurement.
    pub(super) duration: Duration,
}

/// What a row's value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

impl Target {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Row {
    /// What is measured, in a few words.
    pub(super) what: &'static str,
    /// What it is held against; empty where the target is absolute.
    pub(super) against: &'static str,
    /// Unit of what was measured and of the limit: `/s`, `ms`, `KiB`.
    pub(super) unit: &'static str,
    /// What the value has to be: of the ratio where there is a limit, of the measured figure where there is none.
    pub(super) target: Target,
}

/// What one run found for one row.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reading {
    /// The figure, in the row's unit.
    pub(super) measured: f64,
    /// The limit measured in the same run, in the row's unit.
    pub(super) limit: Option<f64>,
    /// Processor time of the relay an event (or a delivery), by the system's accounting.
    pub(super) relay_cpu_us: Option<f64>,
    /// Resident memory of the relay at its highest.
    pub(super) relay_resident_mib: Option<f64>,
}

impl Reading {
    /// A figure without a limit.
    pub(super) fn absolute(measured: f64) -> Self {
        Self { measured, limit: None, relay_cpu_us: None, relay_resident_mib: None }
    }

    /// A figure beside its limit.
    pub(super) fn ratio(measured: f64, limit: f64) -> Self {
        Self { limit: Some(limit), ..Self::absolute(measured) }
    }

    /// What the target is about.
    pub(super) fn value(&self) -> f64 {
        self.limit.map_or(self.measured, |limit| self.measured / limit)
    }
}

/// What a run gives.
#[derive(Debug)]
pub(super) enum Findings {
    /// A reading for each row, in their order.
    Measured(Vec<Reading>),
    /// Nothing, and why: what would have to be installed or allowed.
    Skipped(String),
}

/// A run under way.
pub(super) type Run = Pin<Box<dyn Future<Output = anyhow::Result<Findings>>>>;

/// Something that is measured: one run gives a reading for each of its rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Experiment {
    /// Its name, as `--only` takes it.
    pub(super) name: &'static str,
    /// The subcommand that runs it.
    pub(super) subject: Subject,
    /// What it gives readings for.
    pub(super) rows: &'static [Row],
    /// Runs it once.
    pub(super) run: fn(Terms) -> Run,
}

/// A row with the median of its readings.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    /// The experiment.
    pub(super) experiment: &'static str,
    /// The row.
    #[serde(flatten)]
    pub(super) row: Row,
    /// The reading whose value is the median.
    pub(super) median: Option<Reading>,
    /// The ratio, or the figure itself where there is no limit; of the median.
    pub(super) value: Option<f64>,
    /// The values of all runs, in their order.
    pub(super) values: Vec<f64>,
    /// Whether the median holds the target.
    pub(super) holds: Option<bool>,
    /// Why there is no reading.
    pub(super) skipped: Option<String>,
}

/// Runs `experiment` so many times and takes the median of each row.
pub(super) async fn repeat(experiment: &Experiment, terms: Terms, runs: u32) -> anyhow::Result<Vec<Outcome>> {
    let mut readings: Vec<Vec<Reading>> = vec![Vec::new(); experiment.rows.len()];
    let mut skipped = None;
    for _ in 0..runs {
        match (experiment.run)(terms).await? {
            Findings::Measured(found) => {
                anyhow::ensure!(found.len() == readings.len(), "{}: a reading for each row", experiment.name);
                for (kept, reading) in readings.iter_mut().zip(found) {
                    kept.push(reading);
                }
            }
            Findings::Skipped(reason) => {
                skipped = Some(reason);
                break;
            }
        }
    }
    let outcomes = experiment.rows.iter().zip(readings).map(|(row, readings)| {
        let values = readings.iter().map(Reading::value).collect();
        let median = median(readings);
        let value = median.as_ref().map(Reading::value);
        let holds = value.map(|value| row.target.holds(value));
        Outcome { experiment: experiment.name, row: *row, median, value, values, holds, skipped: skipped.clone() }
    });
    Ok(outcomes.collect())
}

/// The reading with the median value; the lower one of the two in the middle.
fn median(mut readings: Vec<Reading>) -> Option<Reading> {
    readings.sort_by(|a, b| a.value().total_cmp(&b.value()));
    let middle = readings.len().checked_sub(1)? / 2;
    Some(readings.swap_remove(middle))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[Row] = &[Row { what: "a rate", against: "a limit", unit: "/s", target: Target::AtLeast(0.5) }];

    fn fixed(_: Terms) -> Run {
        Box::pin(async { Ok(Findings::Measured(vec![Reading::ratio(40.0, 100.0)])) })
    }

    fn not_here(_: Terms) -> Run {
        Box::pin(async { Ok(Findings::Skipped(String::from("install it"))) })
    }

    const TERMS: Terms = Terms { duration: Duration::ZERO };

    #[tokio::test]
    async fn a_row_below_its_target_does_not_hold() {
        let experiment = Experiment { name: "fixed", subject: Subject::Deliver, rows: ROWS, run: fixed };
        let outcomes = repeat(&experiment, TERMS, 3).await.unwrap();
        assert_eq!(outcomes[0].holds, Some(false));
        assert_eq!(outcomes[0].values, [0.4, 0.4, 0.4]);
    }

    #[tokio::test]
    async fn a_skipped_row_neither_holds_nor_misses() {
        let experiment = Experiment { name: "not-here", subject: Subject::Deliver, rows: ROWS, run: not_here };
        let outcomes = repeat(&experiment, TERMS, 3).await.unwrap();
        assert_eq!((outcomes[0].holds, outcomes[0].skipped.as_deref()), (None, Some("install it")));
    }

    #[test]
    fn the_median_is_by_value_and_not_by_order() {
        let readings = [30.0, 10.0, 20.0].map(Reading::absolute).to_vec();
        assert_eq!(median(readings).map(|reading| reading.measured), Some(20.0));
        assert!(median(Vec::new()).is_none());
    }

    #[test]
    fn a_target_holds_at_its_very_figure() {
        assert!(Target::AtLeast(0.5).holds(0.5) && !Target::AtLeast(0.5).holds(0.499));
        assert!(Target::AtMost(1.5).holds(1.5) && !Target::AtMost(1.5).holds(1.501));
    }
}
