//! Two builds of the relay, row by row and in turns: what an event costs the one and the other in processor time.
//!
//! Both do the same work: how much fits into a measurement is found out once, with the old build, and then done by each. In a
//! pair both run side by side and take turns in small slices, as far as the work can wait, so that whatever else the machine does
//! hits both; the pairs begin as A B, B A, A B …

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::ending::{self, Ending};
use crate::experiment::{Cost, Experiment, Findings, Part, Terms};
use crate::say::{note, say};
use crate::statistics::{self, Change, Spread};
use crate::turns::Turns;
use crate::{experiments, programs, table};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The relay that the new one is held against; any build that has `serve`.
    old: PathBuf,
    /// The new one; without it the `hookcast` beside this program.
    #[arg(long, value_name = "PATH", conflicts_with = "relay")]
    new: Option<PathBuf>,
    /// Experiments, by the names in the first column of the tables; `guard` = the twelve hot paths.
    #[arg(long, value_delimiter = ',', default_value = experiments::GUARD_NAME)]
    rows: Vec<String>,
    /// How often each build is measured; what does not look the same then is measured as often again, and all pairs decide.
    /// Fewer than five pairs decide nothing.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=50))]
    pairs: u32,
    /// Length of each measurement, about.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// End with 3 when a row is undecided.
    #[arg(long)]
    strict: bool,
}

/// What was found of one experiment.
#[derive(Debug, Serialize)]
struct Comparison {
    experiment: &'static str,
    /// Processor time an event of the old build in microseconds, median.
    old_cpu_us: f64,
    /// The same of the new build.
    new_cpu_us: f64,
    /// New beside old in each pair.
    ratios: Vec<f64>,
    /// How these spread.
    spread: Spread,
    change: Change,
}

/// Compares and prints.
///
/// # Errors
/// When a process does not start, or events do not arrive; what was found before it has been printed.
pub(crate) async fn run(relay: Option<PathBuf>, arguments: CompareArgs) -> anyhow::Result<Ending> {
    let experiments = experiments::chosen(&arguments.rows)?;
    let known = |path: PathBuf| -> &'static Path { Box::leak(path.into_boxed_path()) };
    let old = known(programs::relay(Some(arguments.old))?);
    let new = known(programs::relay(arguments.new.or(relay))?);
    let duration = Duration::from_secs(arguments.seconds);
    if !arguments.json {
        say(&line(["experiment", "old us", "new us", "ratio", "spread"], "verdict"));
    }
    let (mut comparisons, mut broke) = (Vec::new(), None);
    for experiment in experiments {
        match compare(experiment, [old, new], duration, usize::try_from(arguments.pairs)?).await {
            Ok(comparison) if arguments.json => comparisons.push(comparison),
            Ok(comparison) => {
                print(&comparison);
                comparisons.push(comparison);
            }
            Err(error) => {
                broke = Some(error.context(experiment.name));
                break;
            }
        }
    }
    if arguments.json {
        let broke = broke.as_ref().map(|error| format!("{error:#}"));
        say(&serde_json::to_string(&serde_json::json!({
            "seconds": arguments.seconds, "pairs": arguments.pairs, "rows": comparisons, "broke": broke,
        }))?);
    }
    let of = |change| -> Vec<&str> {
        comparisons.iter().filter(|row: &&Comparison| row.change == change).map(|row| row.experiment).collect()
    };
    let [dearer, cheaper, undecided, same] = [Change::Dearer, Change::Cheaper, Change::Undecided, Change::Same].map(of);
    let ending = Ending::of(!dearer.is_empty(), !undecided.is_empty(), arguments.strict);
    let line = ending::last_line(&[("dearer", dearer), ("cheaper", cheaper), ("undecided", undecided), ("same", same)]);
    if arguments.json {
        note(&line);
    } else {
        say(&line);
    }
    broke.map_or(Ok(ending), Err)
}

async fn compare(
    experiment: &Experiment,
    builds: [&'static Path; 2],
    duration: Duration,
    pairs: usize,
) -> anyhow::Result<Comparison> {
    let terms = |relay, work| Terms { work, part: Part::Figure, ..Terms::lasting(relay, duration) };
    let named = |seat: usize| format!("the {} build ({})", ["old", "new"][seat], builds[seat].display());
    let work = cost(experiment, terms(builds[0], None)).await.with_context(|| named(0))?.work;
    let (mut costs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    while !statistics::is_settled(&ratios, pairs) {
        // A few words for each pair, and every measurement may have them for nothing.
        let turns: &'static Turns = Box::leak(Box::new(Turns::beginning_with(ratios.len() % 2)));
        let in_turn = async |seat: usize| {
            turns.wait(seat).await;
            let found = cost(experiment, Terms { seat: Some((seat, turns)), ..terms(builds[seat], Some(work)) }).await;
            turns.leave(seat);
            found.with_context(|| named(seat))
        };
        let (old, new) = tokio::try_join!(in_turn(0), in_turn(1))?;
        costs[0].push(old.cpu_us);
        costs[1].push(new.cpu_us);
        let ratio = new.cpu_us / old.cpu_us;
        anyhow::ensure!(ratio.is_finite(), "{}: no processor time was counted", experiment.name);
        ratios.push(ratio);
    }
    let [old, new] = costs.map(|costs| Spread::of(&costs).map_or(f64::NAN, |spread| spread.median));
    let spread = Spread::of(&ratios).ok_or_else(|| anyhow::anyhow!("no pair was measured"))?;
    Ok(Comparison { experiment: experiment.name, old_cpu_us: old, new_cpu_us: new, change: Change::of(&ratios), ratios, spread })
}

/// What the first row of an experiment costs.
async fn cost(experiment: &Experiment, terms: Terms) -> anyhow::Result<Cost> {
    match (experiment.run)(terms).await? {
        Findings::Measured(readings) => {
            let cost = readings.first().and_then(|reading| reading.cost);
            cost.ok_or_else(|| anyhow::anyhow!("{} is not about processor time", experiment.name))
        }
        Findings::Skipped(reason) => anyhow::bail!("{} {reason}", experiment.name),
    }
}

fn print(comparison: &Comparison) {
    let Comparison { experiment, old_cpu_us, new_cpu_us, ratios, spread, change } = comparison;
    let ratio = format!("{:.3}", spread.median);
    let range = format!("{:.3}..{:.3}", spread.min, spread.max);
    let verdict = match change {
        Change::Dearer => String::from("DEARER"),
        Change::Cheaper => String::from("cheaper"),
        Change::Same => String::from("same"),
        Change::Undecided if ratios.len() < statistics::PAIRS_MIN => {
            format!("UNDECIDED: fewer than {} pairs", statistics::PAIRS_MIN)
        }
        Change::Undecided => {
            format!("UNDECIDED: the middle half of {} pairs spreads by {:.0} %", ratios.len(), spread.middle_half() * 100.0)
        }
    };
    say(&line([experiment, &table::short(*old_cpu_us), &table::short(*new_cpu_us), &ratio, &range], &verdict));
}

fn line(columns: [&str; 5], last: &str) -> String {
    let [name, old, new, ratio, range] = columns;
    format!("{name:<18} {old:>9} {new:>9} {ratio:>7} {range:>15}  {last}")
}
