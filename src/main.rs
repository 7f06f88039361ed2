//! The program: arguments in, exit code out, and the two signals that end a relay.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use hookcast::app::App;
use hookcast::cli::{Cli, EXIT_FAILED, Exit, Program};
use hookcast::config::Config;
use hookcast::source::SOURCES;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let program =
        Program { serve: |config| Box::pin(serve(config)), protocols: SOURCES.iter().map(|protocol| protocol.name).collect() };
    actix_web::rt::System::new().block_on(cli.run(program))
}

/// Runs a relay until the first signal; a second one ends the process at once, which loses nothing that was accepted.
async fn serve(config: Config) -> Result<(), Exit> {
    let mut stop = StopSignal::listen()?;
    let app = App::start(&config).await.map_err(|error| Exit::new(error.exit_code(), error.to_string()))?;
    // Whoever started us with port 0 reads the address here; if nobody reads, there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "hookcast is listening on http://{}/", app.address());
    stop.wait().await;
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = app.stop() => Ok(()),
        () = stop.wait() => std::process::exit(0),
    }
}

/// SIGTERM and SIGINT.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn listen() -> Result<Self, Exit> {
        let hear = |kind| signal(kind).map_err(|error| Exit::new(EXIT_FAILED, format!("cannot wait for signals: {error}")));
        Ok(Self { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
