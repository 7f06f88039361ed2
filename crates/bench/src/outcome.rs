//! What several runs of an experiment say of each of its rows.

use serde::Serialize;

use crate::experiment::{Experiment, Findings, Reading, Row, Target, Terms};
use crate::statistics::{LIMIT_MOVED_MAX, Spread, moved};

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
    /// How far the limit moved, as a part of its median (see [`moved`]).
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
        let (spread, limit_moved) = (Spread::of(&values), moved(&limits));
        let verdict = match spread {
            None => Verdict::Skipped,
            Some(_) if limit_moved.is_some_and(|moved| moved > LIMIT_MOVED_MAX) => Verdict::Undecided,
            Some(spread) if row.target.holds(spread.median) => Verdict::Held,
            Some(_) => Verdict::Missed,
        };
        let median = median(row.target, readings);
        Self { experiment: experiment.name, row, median, values, spread, limit_moved, verdict, skipped }
    }

    fn is_decided(&self) -> bool {
        self.verdict != Verdict::Undecided
    }
}

/// Runs `experiment` so many times; each run measures the limit and the figure, one after the other. When a row is undecided then,
/// it is run anew, if that is wanted. The new runs count for such rows only: a row that was decided stays what it was. Where a run
/// breaks, its error stands beside what was found before.
pub(crate) async fn repeat(
    experiment: &Experiment,
    terms: Terms,
    runs: u32,
    again: bool,
) -> (Vec<Outcome>, Option<anyhow::Error>) {
    let first = match run_all(experiment, terms, runs).await {
        Ok(first) => first,
        Err(error) => return (Vec::new(), Some(error)),
    };
    if !again || first.iter().all(Outcome::is_decided) {
        return (first, None);
    }
    match run_all(experiment, terms, runs).await {
        Ok(anew) => {
            let newest = first.into_iter().zip(anew).map(|(first, anew)| if first.is_decided() { first } else { anew });
            (newest.collect(), None)
        }
        Err(error) => (first, Some(error)),
    }
}

async fn run_all(experiment: &Experiment, terms: Terms, runs: u32) -> anyhow::Result<Vec<Outcome>> {
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
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::experiment::{Cost, Run, Subject};

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
        let outcomes = repeat(&experiment(fixed), terms(), 3, true).await.0;
        assert_eq!((outcomes[0].verdict, &outcomes[0].values[..]), (Verdict::Missed, &[0.4, 0.4, 0.4][..]));
    }

    #[tokio::test]
    async fn a_skipped_row_neither_holds_nor_misses() {
        let outcomes = repeat(&experiment(not_here), terms(), 3, true).await.0;
        assert_eq!((outcomes[0].verdict, outcomes[0].skipped.as_deref()), (Verdict::Skipped, Some("install it")));
    }

    #[test]
    fn the_median_is_by_value_and_not_by_order() {
        let readings = [30.0, 10.0, 20.0].map(Reading::absolute).to_vec();
        assert_eq!(median(Target::AtLeast(0.0), readings).map(|reading| reading.measured), Some(20.0));
        assert!(median(Target::AtLeast(0.0), Vec::new()).is_none());
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
        let (calm, moving) = ([100.0, 101.0, 99.0, 102.0, 98.0, 100.0, 60.0], [100.0, 98.0, 94.0, 90.0, 86.0, 83.0, 81.0]);
        for (target, decided) in [(Target::AtLeast(0.5), Verdict::Held), (Target::AtLeast(0.95), Verdict::Missed)] {
            assert_eq!(verdict(target, beside(calm)), decided);
            assert_eq!(verdict(target, beside(moving)), Verdict::Undecided);
        }
    }

    /// One whose limit moves in its first three runs and stands still from then on.
    fn calming(_: Terms) -> Run {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let limit = [100.0, 80.0, 60.0].get(RUNS.fetch_add(1, Ordering::Relaxed) as usize).copied().unwrap_or(50.0);
        Box::pin(async move { Ok(Findings::Measured(vec![Reading::ratio(30.0, limit)])) })
    }

    #[tokio::test]
    async fn an_undecided_row_is_measured_anew_where_that_is_wanted() {
        assert_eq!(repeat(&experiment(calming), terms(), 3, false).await.0[0].verdict, Verdict::Undecided);
        let outcome = &repeat(&experiment(calming), terms(), 3, true).await.0[0];
        assert_eq!((outcome.verdict, &outcome.values[..]), (Verdict::Held, &[0.6, 0.6, 0.6][..]));
    }

    /// Its first row misses in the first three runs and holds from then on; the limit of its second moves at first.
    fn missing_once(_: Terms) -> Run {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed) as usize;
        let (measured, limit) = [(40.0, 100.0), (40.0, 80.0), (40.0, 60.0)].get(run).copied().unwrap_or((60.0, 50.0));
        Box::pin(async move { Ok(Findings::Measured(vec![Reading::ratio(measured, 100.0), Reading::ratio(30.0, limit)])) })
    }

    #[tokio::test]
    async fn a_row_that_missed_is_not_forgotten_when_another_is_measured_anew() {
        const TWO_ROWS: &[Row] = &[ROWS[0], ROWS[0]];
        let two_rows = Experiment { rows: TWO_ROWS, ..experiment(missing_once) };
        let [first, second] = &repeat(&two_rows, terms(), 3, true).await.0[..] else { panic!("two rows") };
        assert_eq!((first.verdict, &first.values[..]), (Verdict::Missed, &[0.4, 0.4, 0.4][..]));
        assert_eq!((second.verdict, &second.values[..]), (Verdict::Held, &[0.6, 0.6, 0.6][..]));
    }

    /// One whose limit moves in its first three runs, and that breaks in its fourth.
    fn breaking(_: Terms) -> Run {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let limit = [100.0, 80.0, 60.0].get(RUNS.fetch_add(1, Ordering::Relaxed) as usize).copied();
        Box::pin(async move {
            let limit = limit.ok_or_else(|| anyhow::anyhow!("the relay ended"))?;
            Ok(Findings::Measured(vec![Reading::ratio(30.0, limit)]))
        })
    }

    #[tokio::test]
    async fn what_was_found_stays_when_measuring_anew_breaks() {
        let (outcomes, broke) = repeat(&experiment(breaking), terms(), 3, true).await;
        assert_eq!((outcomes[0].verdict, broke.unwrap().to_string()), (Verdict::Undecided, String::from("the relay ended")));
    }
}
