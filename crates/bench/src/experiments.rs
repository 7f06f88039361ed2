//! The table of experiments, and which of them guard every change.

use crate::experiment::{Experiment, Subject};
use crate::{
    backlog, bytes, catchup, deliver, down, failures, fanout, filter, gathering, hanging, history, latency, limits, outage,
    publish, slow, source, stream, subscriptions, tenants,
};

/// Everything that is measured, in the order of the table.
pub(crate) const EXPERIMENTS: &[Experiment] = &[
    deliver::TEN,
    deliver::ONE,
    failures::ONE_PERCENT,
    history::HISTORY,
    slow::FIFTY,
    down::REFUSING,
    limits::LIMITS,
    hanging::HANGING,
    gathering::BATCH,
    gathering::ORDERED,
    latency::CALM,
    latency::BUSY,
    latency::SLOW_DISK,
    tenants::NOISE,
    publish::BATCHES,
    publish::SINGLES,
    source::NDJSON,
    stream::SINGLE,
    stream::DELAY,
    stream::FULL,
    stream::FULL_NDJSON,
    stream::FULL_WS,
    stream::IDLE,
    stream::IDLE_WS,
    catchup::CATCH_UP,
    backlog::BACKLOG,
    backlog::LAGGING,
    outage::OUTAGE,
    subscriptions::CROWD,
    fanout::FANOUT,
    bytes::BYTES,
    filter::FILTER,
];

/// Experiments about counts, bytes and memory, and those that take a minute: a few runs say as much as many.
pub(crate) const SELDOM: &[&str] = &["limits", "stream-idle", "stream-idle-ws", "lagging", "outage", "crowd", "fanout", "bytes"];
/// Most runs of these.
pub(crate) const SELDOM_RUNS_MAX: u32 = 3;

/// The experiments that guard every change: each hot path once.
pub(crate) const GUARD: [&str; 12] = [
    "deliver-10",
    "deliver-1",
    "batch",
    "ordered",
    "backlog",
    "history",
    "publish-ndjson",
    "publish-single",
    "source-ndjson",
    "stream-single",
    "stream-full",
    "catch-up",
];
/// What stands for them.
pub(crate) const GUARD_NAME: &str = "guard";

/// The experiments of a subject.
pub(crate) fn about(subject: Subject) -> Vec<&'static Experiment> {
    EXPERIMENTS.iter().filter(|experiment| experiment.subject == subject).collect()
}

/// The experiments of these names, in their order.
///
/// # Errors
/// When there is no such experiment.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Experiment>> {
    let names = names.iter().flat_map(|name| if name == GUARD_NAME { GUARD.to_vec() } else { vec![name.as_str()] });
    let found = names.map(|name| EXPERIMENTS.iter().find(|experiment| experiment.name == name).ok_or_else(no_such_experiment));
    found.collect()
}

/// What is said of a name that no experiment has.
pub(crate) fn no_such_experiment() -> anyhow::Error {
    let names: Vec<&str> = EXPERIMENTS.iter().map(|experiment| experiment.name).collect();
    anyhow::anyhow!("no such experiment; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiments_have_names_of_their_own_and_rows() {
        let mut names: Vec<_> = EXPERIMENTS.iter().map(|experiment| experiment.name).collect();
        assert!(EXPERIMENTS.iter().all(|experiment| !experiment.rows.is_empty()));
        assert!(SELDOM.iter().all(|name| names.contains(name)));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EXPERIMENTS.len());
    }

    #[test]
    fn every_guard_is_an_experiment_that_is_about_processor_time() {
        let chosen = chosen(&[String::from("guard")]).unwrap();
        assert_eq!(chosen.len(), GUARD.len());
        for experiment in chosen {
            let target = experiment.rows[0].target;
            assert!(matches!(target, crate::experiment::Target::Processor(_)), "{}", experiment.name);
        }
    }

    #[test]
    fn rows_are_chosen_by_name_and_in_order() {
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| String::from(*name)).collect();
            chosen(&names).map(|found| found.iter().map(|experiment| experiment.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["batch", "deliver-1"]).unwrap(), ["batch", "deliver-1"]);
        assert!(names(&["batch", "no-such"]).unwrap_err().to_string().contains("deliver-10"));
    }
}
