//! The program: arguments in, exit code out; joins the commands with the relay.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use futures_util::FutureExt as _;
use hookcast::app::App;
use hookcast::cli::{Cli, Exit, Program, ReadAgain, Relay, Reload, ReloadSignal, StopSignal, announce};
use hookcast::config::Config;
use hookcast::readiness::Ending;
use hookcast::source::SOURCES;
use hookcast::telemetry;

/// How long an end at once waits for whoever reads the log.
const LAST_LINES_BOUND: Duration = Duration::from_millis(200);

/// Time for a relay that broke to save what it can.
const BROKEN_STOP_MAX: Duration = Duration::from_mins(1);

/// A relay that must end says so for this long before it stops.
const LINGER: Duration = Duration::from_secs(3);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
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

/// Runs a relay until the first signal; a second one ends the process at once, which loses nothing that was accepted.
async fn serve(config: Config, hang_up: ReloadSignal, read_again: ReadAgain) -> Result<(), Exit> {
    leave_no_core();
    let mut stop = StopSignal::listen()?;
    let relay = start(config).await?;
    // Whoever started us with port 0 reads the address here.
    let mut listening = vec![format!("hookcast is listening on http://{}/", relay.address)];
    listening.extend(relay.tcp_address.map(|address| format!("hookcast is listening on tcp://{address}")));
    announce(listening);
    let ending = tokio::select! {
        () = stop.wait() => None,
        ending = relay.readiness.ended() => Some(ending),
        () = follow_configuration(hang_up, &read_again, &relay.reload) => None,
    };
    match &ending {
        None => tracing::info!("stopping; a second signal stops at once"),
        Some(Ending { reason, exit_code }) => tracing::error!(reason, exit_code, "stopping: the relay cannot go on"),
    }
    if ending.is_some() {
        // Whoever looks at `/readyz` sees it, and whoever publishes is told, before nobody answers any more.
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            () = stop.wait() => {}
        }
    }
    let code = ending.as_ref().map_or(0, |ending| ending.exit_code);
    tokio::select! {
        () = relay.stop => {}
        // What holds up a relay that broke is not worth waiting for: what was accepted is durable.
        () = tokio::time::sleep(BROKEN_STOP_MAX), if ending.is_some() => {}
        () = stop.wait() => {
            telemetry::flush(LAST_LINES_BOUND);
            std::process::exit(code.into())
        }
    }
    // What came up while it stopped counts as well.
    let late = relay.readiness.ended().now_or_never();
    ending.or(late).map_or(Ok(()), |ending| Err(Exit::new(ending.exit_code, ending.reason)))
}

/// Applies what the configuration declares at each SIGHUP, for ever. A mistake changes nothing and is said as `check` says it.
async fn follow_configuration(mut hang_up: ReloadSignal, read_again: &ReadAgain, reload: &Reload) {
    loop {
        hang_up.wait().await;
        let applied = match read_again() {
            Ok(config) => reload(config).await,
            Err(exit) => Err(exit.message),
        };
        if let Err(mistakes) = applied {
            tracing::error!("SIGHUP: the declared definitions were not applied, the relay goes on with those it has:");
            mistakes.lines().for_each(telemetry::say);
        }
    }
}
