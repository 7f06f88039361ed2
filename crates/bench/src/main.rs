//! `hookcast-bench`, also called by `hookcast bench`: what the relay costs over the bare work, each figure beside a limit measured in the same run.
//!
//! Producer, relay, receiver and clients are processes of their own on loopback, the relay stores on disk with full
//! durability. Times mean nothing on a shared machine; the processor time beside that of the limits does. To add a row: one file
//! with an [`experiment::Experiment`] and its line in [`EXPERIMENTS`].

#![allow(clippy::cast_precision_loss, reason = "counts become rates for people")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod arrivals;
mod backlog;
mod bare;
mod bytes;
mod catchup;
mod compare;
mod crowd;
mod deliver;
mod down;
mod ending;
mod experiment;
mod experiments;
mod failures;
mod fanout;
mod filter;
mod floor;
mod folder;
mod framing;
mod gathering;
mod hanging;
mod held;
mod history;
mod latency;
mod limits;
mod load;
mod many;
mod measure;
mod outage;
mod outcome;
mod pace;
mod peer;
mod process;
mod programs;
mod publish;
mod readers;
mod receiver;
mod say;
mod scaling;
mod slow;
mod slow_disk;
mod source;
mod stage;
mod statistics;
mod stream;
mod subscriptions;
mod table;
mod tenants;
mod turns;
mod usage;
mod wire;

use ending::Ending;
use experiment::{Subject, Terms};
use experiments::{EXPERIMENTS, GUARD, about};
use measure::RunArgs;
use say::note;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the help says of the end.
const EXIT_CODES: &str = "\
Ends with 0 when no row misses its target or is dearer, with 1 when one does or is, with 2 when it cannot measure, and with
--strict with 3 when a row is undecided or skipped.";

/// What hookcast costs over the bare work, on this machine.
#[derive(Debug, Parser)]
#[command(name = "hookcast-bench", version, after_help = EXIT_CODES)]
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
    /// The twelve hot paths, each beside its limit.
    Guard(RunArgs),
    /// Two builds in turns: whether an event has become dearer.
    Compare(compare::CompareArgs),
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
    /// The upstream of a benchmark; started by the others.
    #[command(hide = true)]
    Upstream { recording: PathBuf },
    /// The log as it is, for a benchmark; started by the others.
    #[command(hide = true)]
    BareLog { path: PathBuf },
    /// The stream clients of a benchmark; started by the others.
    #[command(hide = true)]
    Readers,
    /// Another program that ends with the benchmark; started by the others.
    #[command(hide = true)]
    Held(held::HeldArgs),
}

fn main() -> ExitCode {
    let Cli { relay, bench } = Cli::parse();
    if let Bench::Held(arguments) = bench {
        return broken(&held::become_program(&arguments));
    }
    raise_open_files();
    actix_web::rt::System::new().block_on(async {
        tokio::select! {
            done = run(relay, bench) => done.map_or_else(|error| broken(&error), ExitCode::from),
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

fn broken(error: &anyhow::Error) -> ExitCode {
    note(&format!("{error:#}"));
    ExitCode::from(Ending::BROKEN)
}

/// Thousands of stream clients take more files than a shell gives.
fn raise_open_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    // Where it cannot be raised, the clients that are too many say so.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// Runs a benchmark, or plays a part in one.
async fn run(named: Option<PathBuf>, bench: Bench) -> anyhow::Result<Ending> {
    // Known to the end of the process, so that every measurement can have it for nothing.
    let relay = || programs::relay(named.clone()).map(|path| -> &'static Path { Box::leak(path.into_boxed_path()) });
    match bench {
        Bench::Deliver(arguments) => return measure::run(about(Subject::Deliver), relay()?, &arguments).await,
        Bench::Latency(arguments) => return measure::run(about(Subject::Latency), relay()?, &arguments).await,
        Bench::Publish(arguments) => return measure::run(about(Subject::Publish), relay()?, &arguments).await,
        Bench::Stream(arguments) => return measure::run(about(Subject::Stream), relay()?, &arguments).await,
        Bench::Backlog(arguments) => return measure::run(about(Subject::Backlog), relay()?, &arguments).await,
        Bench::Subscriptions(arguments) => return measure::run(about(Subject::Subscriptions), relay()?, &arguments).await,
        Bench::All(arguments) => return measure::run(EXPERIMENTS.iter().collect(), relay()?, &arguments).await,
        Bench::Guard(arguments) => {
            return measure::run(experiments::chosen(&GUARD.map(String::from))?, relay()?, &arguments).await;
        }
        Bench::Compare(arguments) => return compare::run(named, arguments).await,
        Bench::Scaling { json } => scaling::run(Terms::lasting(relay()?, Duration::ZERO), json).await?,
        Bench::Receiver(behaviour) => receiver::serve(behaviour).await?,
        Bench::BareHandler => publish::serve_bare().await?,
        Bench::BareStorage { form, seconds } => publish::store_bare(form, seconds).await?,
        Bench::Upstream { recording } => source::serve(&recording).await?,
        Bench::BareLog { path } => bare::serve_log(&path).await?,
        Bench::Readers => readers::serve().await?,
        Bench::Held(arguments) => return Err(held::become_program(&arguments)),
    }
    Ok(Ending::Well)
}
