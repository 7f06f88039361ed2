//! The program: arguments in, exit code out; joins the commands with the relay.
//!
//! It stands in the library, so that everything below is compiled here once and the binary is no more than its entry.

use std::process::ExitCode;

use clap::Parser as _;

use crate::app::App;
use crate::cli::{Cli, Exit, Program, ReadAgain, Relay, ReloadSignal, StopSignal};
use crate::config::Config;
use hookcast_source::SOURCES;

/// Runs the command that the arguments of this process name, to its end.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let program = Program {
        serve: |config, hang_up, read_again| Box::pin(serve(config, hang_up, read_again)),
        start: |config| Box::pin(start(config)),
        protocols: SOURCES.iter().map(|protocol| protocol.name).collect(),
    };
    actix_web::rt::System::new().block_on(cli.run(program))
}

/// A core file of this process would hold every key and header value.
fn leave_no_core() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "core files cannot be switched off; one would hold secrets");
    }
}

/// Shells and service managers give few descriptors and allow more: a program that asks has them.
fn raise_open_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if limit.current != limit.maximum
        && let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised; it stays at {:?}", limit.current);
    }
}

async fn start(config: Config) -> Result<Relay, Exit> {
    raise_open_files();
    let app = App::start(&config).await.map_err(|error| Exit::new(error.exit_code(), error.to_string()))?;
    let reloader = app.reloader().clone();
    Ok(Relay {
        reload: Box::new(move |config| {
            let reloader = reloader.clone();
            Box::pin(async move { reloader.apply(&config).await.map_err(|error| error.to_string()) })
        }),
        address: app.address(),
        tcp_address: app.tcp_address(),
        readiness: app.readiness().clone(),
        stop: Box::pin(app.stop()),
    })
}

/// Runs a relay until a signal, or until it must end.
async fn serve(config: Config, hang_up: ReloadSignal, read_again: ReadAgain) -> Result<(), Exit> {
    leave_no_core();
    let stop = StopSignal::listen()?;
    let relay = start(config).await?;
    relay.serve_until_over(stop, hang_up, &read_again).await
}
