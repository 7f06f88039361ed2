//! What an experiment is: rows with targets, and one run that gives a reading for each row beside its limit.
//!
//! Knows no experiment in particular.

use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::process::Role;
use crate::stage::{SERVE, Scene};
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

    /// Waits until another measurement that takes turns is ready, too. What is accounted for begins after it: a relay that waits for
    /// the other's set-up does not rest altogether, and only whoever begins has to wait for it.
    pub(crate) async fn both_ready(&self) {
        if let (Some(work), Some((seat, turns))) = (self.work, self.seat) {
            turns.take(seat, 0, work).await;
        }
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
    /// Whether a value is as it has to be.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) | Self::Processor(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    /// What of a reading it is about; nothing if that was not measured.
    pub(crate) fn value(self, reading: &Reading) -> Option<f64> {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => Some(reading.ratio_of_figures().unwrap_or(reading.measured)),
            Self::Processor(_) => Some(reading.limit_cpu_us? / reading.cost?.cpu_us),
        }
    }

    /// What of a reading it is held against.
    pub(crate) fn limit(self, reading: &Reading) -> Option<f64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_holds_at_its_very_figure() {
        assert!(Target::AtLeast(0.5).holds(0.5) && !Target::AtLeast(0.5).holds(0.499));
        assert!(Target::AtMost(1.5).holds(1.5) && !Target::AtMost(1.5).holds(1.501));
        assert!(Target::Processor(0.5).holds(0.5) && !Target::Processor(0.5).holds(0.499));
    }

    #[tokio::test]
    async fn what_is_accounted_for_begins_once_both_are_ready() {
        let turns: &'static Turns = Box::leak(Box::new(Turns::beginning_with(1)));
        let said = std::cell::RefCell::<Vec<String>>::default();
        let measure = async |seat: usize| {
            let terms =
                Terms { seat: Some((seat, turns)), work: Some(2), ..Terms::lasting(Path::new("hookcast"), Duration::ZERO) };
            let say = |what: &str| said.borrow_mut().push(format!("{what} {seat}"));
            turns.wait(seat).await;
            say("set up");
            terms.both_ready().await;
            say("account");
            let mut done = 0;
            while terms.go_on(Instant::now(), done).await {
                say("work");
                done += 1;
            }
            turns.leave(seat);
        };
        tokio::join!(measure(0), measure(1));
        let wanted = ["set up 1", "set up 0", "account 1", "work 1", "account 0", "work 0", "work 1", "work 0"];
        assert_eq!(said.into_inner(), wanted);
    }

    #[tokio::test]
    async fn work_is_done_to_its_end_and_time_to_its_own() {
        let (began, timed) = (Instant::now(), Terms::lasting(Path::new("hookcast"), Duration::ZERO));
        let counted = Terms { work: Some(10), ..timed };
        assert!(!timed.go_on(began, 0).await, "no time is no time");
        assert!(counted.go_on(began, 9).await && !counted.go_on(began, 10).await);
    }
}
