//! What an experiment is: rows with targets, one run that gives a reading for each row beside its limit, and what several runs say.
//!
//! Knows no experiment in particular.

use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::process::Role;
use crate::stage::{SERVE, Scene};
use crate::statistics::{LIMIT_MOVED_MAX, Spread};
use crate::turns::Turns;

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

/// What of an experiment is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The limit and the figure.
    Both,
    /// What the relay does, for the processor time of the first row; nothing beside it.
    Figure,
}

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The relay that is measured.
    pub(crate) relay: &'static Path,
    /// Length of one measurement.
    pub(crate) duration: Duration,
    /// What is done instead of going on for so long, in the experiment's own unit (see [`Cost::work`]).
    pub(crate) work: Option<u64>,
    /// What is run.
    pub(crate) part: Part,
    /// The place in a measurement of two.
    pub(crate) seat: Option<(usize, &'static Turns)>,
}

impl Terms {
    /// Both parts, each for so long.
    pub(crate) fn lasting(relay: &'static Path, duration: Duration) -> Self {
        Self { relay, duration, work: None, part: Part::Both, seat: None }
    }

    /// Whether there is more to do; where another measurement takes turns, once it is this one's again.
    pub(crate) async fn go_on(&self, began: Instant, done: u64) -> bool {
        let Some(work) = self.work else { return began.elapsed() < self.duration };
        if let Some((seat, turns)) = self.seat
            && done < work
        {
            turns.take(seat, done, work).await;
        }
        done < work
    }

    /// The same for what cannot wait.
    pub(crate) fn alone(self) -> Self {
        Self { seat: None, ..self }
    }

    /// Whether the limit is wanted, too.
    pub(crate) fn want_limit(&self) -> bool {
        self.part == Part::Both
    }

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
    /// The figure beside its limit, or by itself: no less than this.
    AtLeast(f64),
    /// The figure beside its limit, or by itself: no more than this.
    AtMost(f64),
    /// The limit's processor time beside that of what is measured, for the same: no less than this.
    Processor(f64),
}

impl Target {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) | Self::Processor(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    /// What of a reading it is about; nothing if that was not measured.
    fn value(self, reading: &Reading) -> Option<f64> {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => Some(reading.ratio_of_figures().unwrap_or(reading.measured)),
            Self::Processor(_) => Some(reading.limit_cpu_us? / reading.cost?.cpu_us),
        }
    }

    /// What of a reading it is held against.
    fn limit(self, reading: &Reading) -> Option<f64> {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => reading.limit,
            Self::Processor(_) => reading.limit_cpu_us,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::Processor(least) => write!(f, "CPU >= {least}"),
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
    /// What the value has to be.
    pub(crate) target: Target,
}

/// What something cost, by the system's accounting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Processor time an event (or a delivery), in microseconds.
    pub(crate) cpu_us: f64,
    /// How much was done, in the unit that [`Terms::work`] asks for.
    pub(crate) work: u64,
}

/// What one run found for one row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reading {
    /// The figure, in the row's unit.
    pub(crate) measured: f64,
    /// The limit measured in the same run, in the row's unit.
    pub(crate) limit: Option<f64>,
    /// What it cost the relay.
    pub(crate) cost: Option<Cost>,
    /// Processor time of the limit for the same.
    pub(crate) limit_cpu_us: Option<f64>,
    /// Resident memory of the relay at its highest.
    pub(crate) relay_resident_mib: Option<f64>,
}

impl Reading {
    /// A figure without a limit.
    pub(crate) fn absolute(measured: f64) -> Self {
        Self { measured, limit: None, cost: None, limit_cpu_us: None, relay_resident_mib: None }
    }

    /// A figure beside its limit.
    pub(crate) fn ratio(measured: f64, limit: f64) -> Self {
        Self { limit: Some(limit), ..Self::absolute(measured) }
    }

    /// A figure with what it cost, to be held against `(figure, processor time)` of the limit.
    pub(crate) fn costing(measured: f64, cost: Cost, limit: Option<(f64, f64)>) -> Self {
        let (limit, limit_cpu_us) = limit.unzip();
        Self { limit, cost: Some(cost), limit_cpu_us, ..Self::absolute(measured) }
    }

    /// The same with the memory of the relay at its highest.
    pub(crate) fn with_resident(self, bytes: u64) -> Self {
        Self { relay_resident_mib: Some(bytes as f64 / (1024.0 * 1024.0)), ..self }
    }

    /// The figure beside its limit.
    pub(crate) fn ratio_of_figures(&self) -> Option<f64> {
        self.limit.map(|limit| self.measured / limit)
    }
}

/// What a run gives.
#[derive(Debug)]
pub(crate) enum Findings {
    /// A reading for each row, in their order; of [`Part::Figure`] at least one for the first.
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

/// What the runs say of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The target is held.
    Held,
    /// It is not.
    Missed,
    /// The limit moved too much meanwhile to say.
    Undecided,
    /// Nothing was measured.
    Skipped,
}

/// A row with what its readings say.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// The experiment.
    pub(crate) experiment: &'static str,
    /// The row.
    #[serde(flatten)]
    pub(crate) row: Row,
    /// The reading whose value is the median.
    pub(crate) median: Option<Reading>,
    /// What the target is about, of all runs in their order.
    pub(crate) values: Vec<f64>,
    /// How these spread.
    pub(crate) spread: Option<Spread>,
    /// How far the limit moved: the middle half of its measurements beside their median.
    pub(crate) limit_moved: Option<f64>,
    /// Whether the median holds the target.
    pub(crate) verdict: Verdict,
    /// Why there is no reading.
    pub(crate) skipped: Option<String>,
}

impl Outcome {
    fn of(experiment: &Experiment, row: Row, readings: Vec<Reading>, skipped: Option<String>) -> Self {
        let all = |of: fn(Target, &Reading) -> Option<f64>| -> Vec<f64> {
            readings.iter().filter_map(|reading| of(row.target, reading)).collect()
        };
        let (values, limits) = (all(Target::value), all(Target::limit));
        let (spread, limit_moved) = (Spread::of(&values), Spread::of(&limits).map(|limits| limits.middle_half()));
        let verdict = match spread {
            None => Verdict::Skipped,
            Some(_) if limit_moved.is_some_and(|moved| moved > LIMIT_MOVED_MAX) => Verdict::Undecided,
            Some(spread) if row.target.holds(spread.median) => Verdict::Held,
            Some(_) => Verdict::Missed,
        };
        let median = median(row.target, readings);
        Self { experiment: experiment.name, row, median, values, spread, limit_moved, verdict, skipped }
    }
}

/// Runs `experiment` so many times; each run measures the limit and the figure, one after the other.
///
/// # Errors
/// As a run fails.
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
    let outcome = |(row, readings): (&Row, Vec<Reading>)| Outcome::of(experiment, *row, readings, skipped.clone());
    Ok(experiment.rows.iter().zip(readings).map(outcome).collect())
}

/// The reading with the median value; the lower one of the two in the middle.
fn median(target: Target, mut readings: Vec<Reading>) -> Option<Reading> {
    let value = |reading: &Reading| target.value(reading).unwrap_or(f64::NAN);
    readings.sort_by(|a, b| value(a).total_cmp(&value(b)));
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

    fn experiment(run: fn(Terms) -> Run) -> Experiment {
        Experiment { name: "of a test", subject: Subject::Deliver, rows: ROWS, run }
    }

    fn terms() -> Terms {
        Terms::lasting(Path::new("hookcast"), Duration::ZERO)
    }

    fn verdict(target: Target, readings: Vec<Reading>) -> Verdict {
        let row = Row { target, ..ROWS[0] };
        Outcome::of(&experiment(fixed), row, readings, None).verdict
    }

    #[tokio::test]
    async fn a_row_below_its_target_does_not_hold() {
        let outcomes = repeat(&experiment(fixed), terms(), 3).await.unwrap();
        assert_eq!((outcomes[0].verdict, &outcomes[0].values[..]), (Verdict::Missed, &[0.4, 0.4, 0.4][..]));
    }

    #[tokio::test]
    async fn a_skipped_row_neither_holds_nor_misses() {
        let outcomes = repeat(&experiment(not_here), terms(), 3).await.unwrap();
        assert_eq!((outcomes[0].verdict, outcomes[0].skipped.as_deref()), (Verdict::Skipped, Some("install it")));
    }

    #[test]
    fn the_median_is_by_value_and_not_by_order() {
        let readings = [30.0, 10.0, 20.0].map(Reading::absolute).to_vec();
        assert_eq!(median(Target::AtLeast(0.0), readings).map(|reading| reading.measured), Some(20.0));
        assert!(median(Target::AtLeast(0.0), Vec::new()).is_none());
    }

    #[test]
    fn a_target_holds_at_its_very_figure() {
        assert!(Target::AtLeast(0.5).holds(0.5) && !Target::AtLeast(0.5).holds(0.499));
        assert!(Target::AtMost(1.5).holds(1.5) && !Target::AtMost(1.5).holds(1.501));
        assert!(Target::Processor(0.5).holds(0.5) && !Target::Processor(0.5).holds(0.499));
    }

    #[test]
    fn processor_time_decides_and_rates_do_not() {
        let reading = |rate: f64, cpu_us: f64| Reading::costing(rate, Cost { cpu_us, work: 1 }, Some((100.0, 6.0)));
        assert_eq!(verdict(Target::Processor(0.5), vec![reading(10.0, 12.0); 3]), Verdict::Held);
        assert_eq!(verdict(Target::Processor(0.5), vec![reading(90.0, 12.1); 3]), Verdict::Missed);
    }

    #[test]
    fn nothing_is_held_against_a_limit_that_moves() {
        let beside = |limits: [f64; 7]| limits.map(|limit| Reading::ratio(limit * 0.9, limit)).to_vec();
        let (calm, moving) = ([100.0, 101.0, 99.0, 102.0, 98.0, 100.0, 60.0], [100.0, 95.0, 90.0, 85.0, 80.0, 75.0, 70.0]);
        for (target, decided) in [(Target::AtLeast(0.5), Verdict::Held), (Target::AtLeast(0.95), Verdict::Missed)] {
            assert_eq!(verdict(target, beside(calm)), decided);
            assert_eq!(verdict(target, beside(moving)), Verdict::Undecided);
        }
    }

    #[tokio::test]
    async fn work_is_done_to_its_end_and_time_to_its_own() {
        let (began, timed) = (Instant::now(), terms());
        let counted = Terms { work: Some(10), ..timed };
        assert!(!timed.go_on(began, 0).await, "no time is no time");
        assert!(counted.go_on(began, 9).await && !counted.go_on(began, 10).await);
    }
}
