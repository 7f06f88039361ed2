//! Experiments measured one after the other, and what is printed of them. When one breaks, what was found before it is printed all
//! the same.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use crate::ending::{self, Ending};
use crate::experiment::{Experiment, Terms};
use crate::experiments::{self, SELDOM, SELDOM_RUNS_MAX};
use crate::outcome::{self, Outcome, Verdict};
use crate::say::{note, say};
use crate::table;

/// Arguments of whatever measures rows.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Length of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Do so much instead, in the experiment's own unit; for tests.
    #[arg(long, hide = true)]
    work: Option<u64>,
    /// How often each limit and figure are measured, one after the other; the median counts.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=20))]
    pairs: u32,
    /// Only this experiment, by the name in the first column.
    #[arg(long)]
    only: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Measure a row anew, once, when its limit moved too much to decide.
    #[arg(long)]
    again: bool,
    /// End with 3 when a row is undecided or skipped.
    #[arg(long)]
    strict: bool,
}

/// What was found, and what broke then.
#[derive(Debug, Default)]
struct Found {
    outcomes: Vec<Outcome>,
    broke: Option<anyhow::Error>,
}

/// Measures experiments (one, if only that is asked for) and prints what they say.
///
/// # Errors
/// When one breaks; what was found before it has been printed.
pub(crate) async fn run(mut experiments: Vec<&Experiment>, relay: &'static Path, arguments: &RunArgs) -> anyhow::Result<Ending> {
    let terms = Terms { work: arguments.work, ..Terms::lasting(relay, Duration::from_secs(arguments.seconds)) };
    if let Some(only) = &arguments.only {
        experiments.retain(|experiment| experiment.name == only);
        anyhow::ensure!(!experiments.is_empty(), experiments::no_such_experiment());
    }
    if !arguments.json {
        table::head();
    }
    let Found { outcomes, broke } = find(experiments, terms, arguments).await;
    if arguments.json {
        say(&table::json(&outcomes, broke.as_ref(), arguments.seconds, arguments.pairs)?);
    }
    let of = |verdict| -> Vec<&str> {
        outcomes.iter().filter(|outcome: &&Outcome| outcome.verdict == verdict).map(|outcome| outcome.experiment).collect()
    };
    let [missed, undecided, skipped, held] = [Verdict::Missed, Verdict::Undecided, Verdict::Skipped, Verdict::Held].map(of);
    let ending = Ending::of(!missed.is_empty(), !(undecided.is_empty() && skipped.is_empty()), arguments.strict);
    let line = ending::last_line(&[("missed", missed), ("undecided", undecided), ("skipped", skipped), ("held", held)]);
    if arguments.json {
        note(&line);
    } else {
        say(&line);
    }
    broke.map_or(Ok(ending), Err)
}

/// Measures until one breaks; prints each row as it comes, unless everything is to be printed at once.
async fn find(experiments: Vec<&Experiment>, terms: Terms, arguments: &RunArgs) -> Found {
    let mut all = Found::default();
    for experiment in experiments {
        let runs = if SELDOM.contains(&experiment.name) { arguments.pairs.min(SELDOM_RUNS_MAX) } else { arguments.pairs };
        let (outcomes, broke) = outcome::repeat(experiment, terms, runs, arguments.again).await;
        if !arguments.json {
            outcomes.iter().for_each(table::row);
        }
        all.outcomes.extend(outcomes);
        if let Some(error) = broke {
            return Found { broke: Some(error.context(experiment.name)), ..all };
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Findings, Reading, Row, Run, Subject, Target};

    const ROWS: &[Row] = &[Row { what: "a rate", against: "a limit", unit: "/s", target: Target::AtLeast(0.5) }];

    fn held(_: Terms) -> Run {
        Box::pin(async { Ok(Findings::Measured(vec![Reading::ratio(60.0, 100.0)])) })
    }

    fn breaking(_: Terms) -> Run {
        Box::pin(async { anyhow::bail!("the relay ended") })
    }

    #[tokio::test]
    async fn what_was_found_before_one_breaks_is_kept_and_what_broke_is_told() {
        let experiment = |name, run| Experiment { name, subject: Subject::Deliver, rows: ROWS, run };
        let experiments = [experiment("first", held), experiment("second", breaking), experiment("third", held)];
        let arguments = RunArgs { seconds: 1, work: None, pairs: 1, only: None, json: true, again: false, strict: false };
        let terms = Terms::lasting(Path::new("hookcast"), Duration::ZERO);
        let Found { outcomes, broke } = find(experiments.iter().collect(), terms, &arguments).await;
        let report = table::json(&outcomes, broke.as_ref(), 1, 1).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["rows"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!((&report["rows"][0]["experiment"], &report["broke"]), (&"first".into(), &"second: the relay ended".into()));
    }
}
