//! What an experiment is: rows with targets, one run that gives a reading for each row, and the median of several runs.
//!
//! Knows no experiment in particular.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;

use crate::process::Role;
use crate::stage::{SERVE, Scene};

/// The subcommand that an experiment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
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
pub(crate) struct Terms {
    /// The relay that is measured.
    pub(crate) relay: &'static Path,
    /// Length of one measurement.
    pub(crate) duration: Duration,
}

impl Terms {
    /// A stage with the relay that is measured.
    pub(crate) fn scene(&self, subscriptions: u64) -> Scene {
        Scene::new(self.relay, subscriptions)
    }

    /// Starts the relay in a directory that has its configuration.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) async fn serve(&self, directory: &Path) -> anyhow::Result<Role> {
        Role::start(self.relay, SERVE, directory, &[]).await
    }
}

/// What a row's value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
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
pub(crate) struct Row {
    /// What is measured, in a few words.
    pub(crate) what: &'static str,
    /// What it is held against; empty where the target is absolute.
    pub(crate) against: &'static str,
    /// Unit of what was measured and of the limit: `/s`, `ms`, `KiB`.
    pub(crate) unit: &'static str,
    /// What the value has to be: of the ratio where there is a limit, of the measured figure where there is none.
    pub(crate) target: Target,
}

/// What one run found for one row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reading {
    /// The figure, in the row's unit.
    pub(crate) measured: f64,
    /// The limit measured in the same run, in the row's unit.
    pub(crate) limit: Option<f64>,
    /// Processor time of the relay an event (or a delivery), by the system's accounting.
    pub(crate) relay_cpu_us: Option<f64>,
    /// Resident memory of the relay at its highest.
    pub(crate) relay_resident_mib: Option<f64>,
}

impl Reading {
    /// A figure without a limit.
    pub(crate) fn absolute(measured: f64) -> Self {
        Self { measured, limit: None, relay_cpu_us: None, relay_resident_mib: None }
    }

    /// A figure beside its limit.
    pub(crate) fn ratio(measured: f64, limit: f64) -> Self {
        Self { limit: Some(limit), ..Self::absolute(measured) }
    }

    /// What the target is about.
    pub(crate) fn value(&self) -> f64 {
        self.limit.map_or(self.measured, |limit| self.measured / limit)
    }
}

/// What a run gives.
#[derive(Debug)]
pub(crate) enum Findings {
    /// A reading for each row, in their order.
    Measured(Vec<Reading>),
    /// Nothing, and why: what would have to be installed or allowed.
    Skipped(String),
}

/// A run under way.
pub(crate) type Run = Pin<Box<dyn Future<Output = anyhow::Result<Findings>>>>;

/// Something that is measured: one run gives a reading for each of its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Experiment {
    /// Its name, as `--only` takes it.
    pub(crate) name: &'static str,
    /// The subcommand that runs it.
    pub(crate) subject: Subject,
    /// What it gives readings for.
    pub(crate) rows: &'static [Row],
    /// Runs it once.
    pub(crate) run: fn(Terms) -> Run,
}

/// A row with the median of its readings.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// The experiment.
    pub(crate) experiment: &'static str,
    /// The row.
    #[serde(flatten)]
    pub(crate) row: Row,
    /// The reading whose value is the median.
    pub(crate) median: Option<Reading>,
    /// The ratio, or the figure itself where there is no limit; of the median.
    pub(crate) value: Option<f64>,
    /// The values of all runs, in their order.
    pub(crate) values: Vec<f64>,
    /// Whether the median holds the target.
    pub(crate) holds: Option<bool>,
    /// Why there is no reading.
    pub(crate) skipped: Option<String>,
}

/// Runs `experiment` so many times and takes the median of each row.
pub(crate) async fn repeat(experiment: &Experiment, terms: Terms, runs: u32) -> anyhow::Result<Vec<Outcome>> {
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

    fn terms() -> Terms {
        Terms { relay: Path::new("hookcast"), duration: Duration::ZERO }
    }

    #[tokio::test]
    async fn a_row_below_its_target_does_not_hold() {
        let experiment = Experiment { name: "fixed", subject: Subject::Deliver, rows: ROWS, run: fixed };
        let outcomes = repeat(&experiment, terms(), 3).await.unwrap();
        assert_eq!(outcomes[0].holds, Some(false));
        assert_eq!(outcomes[0].values, [0.4, 0.4, 0.4]);
    }

    #[tokio::test]
    async fn a_skipped_row_neither_holds_nor_misses() {
        let experiment = Experiment { name: "not-here", subject: Subject::Deliver, rows: ROWS, run: not_here };
        let outcomes = repeat(&experiment, terms(), 3).await.unwrap();
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
