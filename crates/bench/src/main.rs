//! `hookcast-bench`, also called by `hookcast bench`: what the relay costs over the bare work, each figure beside a limit measured in the same run.
//!
//! Producer, relay, receiver and clients are processes of their own on loopback, the relay stores on disk with full
//! durability. Times mean nothing on a shared machine; the ratios to the limits measured beside them do. To add a row: one
//! file with an [`Experiment`] and its line in [`EXPERIMENTS`].

#![allow(clippy::cast_precision_loss, reason = "counts become rates for people")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod backlog;
mod bare;
mod bytes;
mod catchup;
mod crowd;
mod deliver;
mod down;
mod experiment;
mod failures;
mod fanout;
mod filter;
mod framing;
mod gathering;
mod hanging;
mod held;
mod history;
mod latency;
mod limits;
mod load;
mod many;
mod outage;
mod peer;
mod process;
mod programs;
mod publish;
mod readers;
mod receiver;
mod scaling;
mod slow;
mod slow_disk;
mod source;
mod stage;
mod stream;
mod subscriptions;
mod table;
mod tenants;
mod wire;

use experiment::{Experiment, Subject, Terms};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Everything that is measured, in the order of the table.
const EXPERIMENTS: &[Experiment] = &[
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

/// What hookcast costs over the bare work, on this machine.
#[derive(Debug, Parser)]
#[command(name = "hookcast-bench", version)]
struct Cli {
    /// The relay to measure; without it the `hookcast` beside this program, else the one on the path.
    #[arg(long, global = true, value_name = "PATH")]
    relay: Option<PathBuf>,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Deliveries a second, against a bare POST loop.
    Deliver(RunArgs),
    /// Time from send to receipt at a steady rate.
    Latency(RunArgs),
    /// Intake of batches and of single events, stored durably.
    Publish(RunArgs),
    /// Streams with a thousand clients.
    Stream(RunArgs),
    /// Catching up with a backlog.
    Backlog(RunArgs),
    /// Many subscriptions: memory, start, matching.
    Subscriptions(RunArgs),
    /// Everything above, as one table.
    All(RunArgs),
    /// How the relay's processor time grows with events, subscriptions, topics, clients, backlog and payload.
    Scaling {
        /// Print one JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// The receiver of a benchmark; started by the others.
    #[command(hide = true)]
    Receiver(receiver::ReceiverArgs),
    /// The bare handler of a benchmark; started by the others.
    #[command(hide = true)]
    BareHandler,
    /// The bare database of a benchmark; started by the others.
    #[command(hide = true)]
    BareStorage { form: publish::BareForm, seconds: f64 },
    /// The stream clients of a benchmark; started by the others.
    #[command(hide = true)]
    Readers,
    /// Another program that ends with the benchmark; started by the others.
    #[command(hide = true)]
    Held(held::HeldArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Length of each measurement.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// How often each limit and figure are measured; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    pairs: u32,
    /// Only this experiment, by the name in the first column.
    #[arg(long)]
    only: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Cli { relay, bench } = Cli::parse();
    if let Bench::Held(arguments) = bench {
        return complain(&held::become_program(&arguments));
    }
    raise_open_files();
    actix_web::rt::System::new().block_on(async {
        tokio::select! {
            done = run(relay, bench) => done.map_or_else(|error| complain(&error), |()| ExitCode::SUCCESS),
            // What was started ends when it is dropped, and its directories go.
            signal = told_to_end() => ExitCode::from(128 + signal),
        }
    })
}

/// Waits for a signal to end and gives its number.
async fn told_to_end() -> u8 {
    const INTERRUPT: u8 = 2;
    const TERMINATE: u8 = 15;
    let listening = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = listening else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => INTERRUPT,
        _ = terminate.recv() => TERMINATE,
    }
}

#[allow(clippy::print_stderr, reason = "the end of the command")]
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

/// Thousands of stream clients take more files than a shell gives.
fn raise_open_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    // Where it cannot be raised, the clients that are too many say so.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// Runs a benchmark, or a part in one.
async fn run(relay: Option<PathBuf>, bench: Bench) -> anyhow::Result<()> {
    // Known to the end of the process, so that every measurement can have it for nothing.
    let relay = || programs::relay(relay).map(|path| -> &'static Path { Box::leak(path.into_boxed_path()) });
    match bench {
        Bench::Deliver(arguments) => measure(Some(Subject::Deliver), relay()?, &arguments).await,
        Bench::Latency(arguments) => measure(Some(Subject::Latency), relay()?, &arguments).await,
        Bench::Publish(arguments) => measure(Some(Subject::Publish), relay()?, &arguments).await,
        Bench::Stream(arguments) => measure(Some(Subject::Stream), relay()?, &arguments).await,
        Bench::Backlog(arguments) => measure(Some(Subject::Backlog), relay()?, &arguments).await,
        Bench::Subscriptions(arguments) => measure(Some(Subject::Subscriptions), relay()?, &arguments).await,
        Bench::All(arguments) => measure(None, relay()?, &arguments).await,
        Bench::Scaling { json } => scaling::run(Terms { relay: relay()?, duration: Duration::ZERO }, json).await,
        Bench::Receiver(behaviour) => receiver::serve(behaviour).await,
        Bench::BareHandler => publish::serve_bare().await,
        Bench::BareStorage { form, seconds } => publish::store_bare(form, seconds).await,
        Bench::Readers => readers::serve().await,
        Bench::Held(arguments) => Err(held::become_program(&arguments)),
    }
}

/// Measures what belongs to `subject` (everything without one) and prints it.
async fn measure(subject: Option<Subject>, relay: &'static Path, arguments: &RunArgs) -> anyhow::Result<()> {
    let terms = Terms { relay, duration: Duration::from_secs(arguments.seconds) };
    let wanted = |experiment: &&Experiment| {
        subject.is_none_or(|subject| experiment.subject == subject)
            && arguments.only.as_ref().is_none_or(|only| experiment.name == only)
    };
    let experiments: Vec<&Experiment> = EXPERIMENTS.iter().filter(wanted).collect();
    if experiments.is_empty() {
        let names: Vec<&str> = EXPERIMENTS.iter().map(|experiment| experiment.name).collect();
        anyhow::bail!("no such experiment; there are {}", names.join(", "));
    }
    if !arguments.json {
        table::head();
    }
    let mut outcomes = Vec::new();
    for experiment in experiments {
        let found = experiment::repeat(experiment, terms, arguments.pairs).await?;
        if !arguments.json {
            found.iter().for_each(table::row);
        }
        outcomes.extend(found);
    }
    if arguments.json {
        table::json(&outcomes, arguments.seconds, arguments.pairs)?;
    }
    let missed = outcomes.iter().filter(|outcome| outcome.holds == Some(false)).count();
    anyhow::ensure!(missed == 0, "{missed} of {} rows miss their target", outcomes.len());
    Ok(())
}

/// Prints a line of the result.
#[allow(clippy::print_stdout, reason = "the output of the command")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
