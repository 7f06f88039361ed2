//! The command line: what each command takes, and what a process answers to its caller.
//!
//! Reads arguments and environment; each command's work is in a file of its own. What `serve` does is handed in by `main`, so
//! that nothing here knows how the relay is put together.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::telemetry::{self, LogForm};
use hookcast_supervise::readiness::Readiness;

pub use output::announce;
pub use stop::{ReloadSignal, StopSignal};

mod bench;
mod client;
mod data;
mod demo;
mod directory;
mod doctor;
mod health;
mod listen;
mod output;
mod publish;
mod serving;
mod stop;
mod subs;
mod tail;
mod token;
mod upstream;

/// Exit code: cannot bind.
pub const EXIT_BIND: u8 = 71;
/// Exit code: cannot create or open data.
pub const EXIT_CREATE: u8 = 73;
/// Exit code: I/O error on data.
pub const EXIT_IO: u8 = 74;
/// Exit code: data in use by another process.
pub const EXIT_IN_USE: u8 = 75;
/// Exit code: configuration.
pub const EXIT_CONFIG: u8 = 78;
/// Exit code: anything else.
pub const EXIT_FAILED: u8 = 1;

/// Why a command did not end cleanly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// One of the exit codes above.
    pub code: u8,
    /// What is wrong and what to do about it, one line each.
    pub message: String,
}

impl Exit {
    /// An end with `code` and a message for standard error.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A clean end without a word: whoever read standard output has gone.
    #[must_use]
    pub const fn unheard() -> Self {
        Self { code: 0, message: String::new() }
    }
}

/// A relay that runs until it is told to stop.
pub type Serving = Pin<Box<dyn Future<Output = Result<(), Exit>>>>;

/// A relay about to run.
pub type Starting = Pin<Box<dyn Future<Output = Result<Relay, Exit>>>>;

/// Reads the configuration again, as the process was told to at its start.
pub type ReadAgain = Box<dyn Fn() -> Result<Config, Exit>>;

/// What applies the definitions of a configuration to a running relay; an error says what is wrong with them, one line each.
pub type Reload = Box<dyn Fn(Config) -> Pin<Box<dyn Future<Output = Result<(), String>>>>>;

/// A running relay.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for clients without HTTP.
    pub tcp_address: Option<SocketAddr>,
    /// What is wrong with it, and whether it must end.
    pub readiness: Readiness,
    /// Applies what another configuration declares.
    pub reload: Reload,
    /// Ends it in order.
    pub stop: Pin<Box<dyn Future<Output = ()>>>,
}

/// What the commands need to know of the program they are part of.
#[derive(Clone, Debug)]
pub struct Program {
    /// Runs a relay until it is told to stop; on SIGHUP the configuration is read again.
    pub serve: fn(Config, ReloadSignal, ReadAgain) -> Serving,
    /// Starts a relay.
    pub start: fn(Config) -> Starting,
    /// Protocols a source may name.
    pub protocols: Vec<&'static str>,
}

/// A relay from HTTP event streams to signed webhooks and back, over one durable log.
#[derive(Debug, Parser)]
#[command(name = "hookcast", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay (the default).
    Serve(ServeArgs),
    /// Run it all on this machine: recorded edits of Wikipedia, the relay, three receivers that verify.
    Demo(demo::DemoArgs),
    /// Read the configuration and tell every mistake.
    Check(ConfigArgs),
    /// Ask the relay of this configuration whether it is well; for the health check of a container.
    Health(HealthArgs),
    /// Serve a recording as an upstream.
    Upstream(upstream::UpstreamArgs),
    /// Receive deliveries, verify their signatures and print them.
    Listen(listen::ListenArgs),
    /// Print the events of a topic pattern as they come.
    Tail(tail::TailArgs),
    /// Publish an event, or one a line of standard input.
    Publish(publish::PublishArgs),
    /// The subscriptions of a running relay: list, add, show, export, import.
    Subs(subs::SubsArgs),
    /// Find out what stands between a relay and its clients, and what to set there.
    Doctor(doctor::DoctorArgs),
    /// Make a token.
    Token(token::TokenArgs),
    /// Copy the database, also while the relay runs.
    Backup(data::BackupArgs),
    /// Put a copy of the database back.
    Restore(data::RestoreArgs),
    /// Seal every definition with the present master key; the relay must be stopped.
    Rekey(ConfigArgs),
    /// Measure what the relay costs over the bare work, with the program `hookcast-bench`.
    Bench(bench::BenchArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t)]
    log: LogForm,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file; without it config.toml if it is there, else the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HealthArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask whether it can take events, not only whether it lives.
    #[arg(long)]
    ready: bool,
}

/// Which relay to talk to.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// The relay.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Bearer token; without it the environment variable `HOOKCAST_TOKEN`.
    #[arg(long)]
    token: Option<String>,
}

impl Cli {
    /// Runs the chosen command to its end, on the runtime of the caller.
    pub async fn run(self, program: Program) -> ExitCode {
        let done = match self.command.unwrap_or(Command::Serve(self.serve)) {
            Command::Serve(args) => serve(args, program).await,
            Command::Demo(args) => demo::run(args, &program).await,
            Command::Check(args) => check(&args, &program),
            Command::Health(args) => health(&args, &program),
            Command::Upstream(args) => upstream::run(args).await,
            Command::Listen(args) => listen::run(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Publish(args) => publish::run(args).await,
            Command::Subs(args) => subs::run(args).await,
            Command::Doctor(args) => Box::pin(doctor::run(args)).await,
            Command::Token(args) => token::run(args).await,
            Command::Backup(args) => data::back_up(args, &program).await,
            Command::Restore(args) => data::restore(args, &program).await,
            Command::Rekey(args) => data::rekey(args, &program).await,
            Command::Bench(args) => bench::run(args),
        };
        let code = match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(exit) if exit == Exit::unheard() => ExitCode::SUCCESS,
            Err(exit) => {
                output::complain(&exit.message);
                ExitCode::from(exit.code)
            }
        };
        output::finish();
        code
    }
}

async fn serve(args: ServeArgs, program: Program) -> Result<(), Exit> {
    telemetry::init(args.log);
    // Otherwise a panic writes to standard error itself, and waits for whoever does not read that.
    hookcast_supervise::tell_panics_by_log();
    let hang_up = ReloadSignal::listen()?;
    let config = load(&args.config, &program)?;
    let serve = program.serve;
    serve(config, hang_up, Box::new(move || load(&args.config, &program))).await
}

fn check(args: &ConfigArgs, program: &Program) -> Result<(), Exit> {
    let config = load(args, program)?;
    for warning in config.warnings() {
        output::complain(&format!("warning: {warning}"));
    }
    output::say("ok")
}

fn health(args: &HealthArgs, program: &Program) -> Result<(), Exit> {
    let listen = load(&args.config, program)?.server.listen;
    health::ask(listen, args.ready, health::TIMEOUT).map_err(|error| Exit::new(EXIT_FAILED, error.to_string()))
}

fn load(args: &ConfigArgs, program: &Program) -> Result<Config, Exit> {
    // A variable that is not UTF-8 cannot be one of ours: names and values of all keys are.
    let readable =
        |(name, value): (std::ffi::OsString, std::ffi::OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let env: Vec<_> = std::env::vars_os().filter_map(readable).collect();
    Config::load(args.config.as_deref(), &env, &program.protocols).map_err(|errors| Exit::new(EXIT_CONFIG, errors.to_string()))
}
