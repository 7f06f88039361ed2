//! A running relay until its end: by a signal, or because it must; and what that is as an exit code.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::{Exit, ReadAgain, Relay, Reload, ReloadSignal, StopSignal, announce};
use crate::telemetry;
use hookcast_supervise::readiness::Ending;

/// How long an end at once waits for whoever reads the log.
const LAST_LINES_BOUND: Duration = Duration::from_millis(200);

/// Time for a relay that broke to save what it can.
const BROKEN_STOP_MAX: Duration = Duration::from_mins(1);

/// A relay that must end says so for this long before it stops.
const LINGER: Duration = Duration::from_secs(3);

impl Relay {
    /// Serves until the first signal; a second one ends the process at once, which loses nothing that was accepted.
    ///
    /// # Errors
    /// The exit code and the reason when the relay had to end.
    pub async fn serve_until_over(self, mut stop: StopSignal, hang_up: ReloadSignal, read_again: &ReadAgain) -> Result<(), Exit> {
        // Whoever started us with port 0 reads the address here.
        let mut listening = vec![format!("hookcast is listening on http://{}/", self.address)];
        listening.extend(self.tcp_address.map(|address| format!("hookcast is listening on tcp://{address}")));
        announce(listening);
        let ending = tokio::select! {
            () = stop.wait() => None,
            ending = self.readiness.ended() => Some(ending),
            () = follow_configuration(hang_up, read_again, &self.reload) => None,
        };
        match &ending {
            None => tracing::info!("stopping; a second signal stops at once"),
            Some(Ending { reason, exit_code }) => tracing::warn!(reason, exit_code, "stopping: the relay cannot go on"),
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
            () = self.stop => {}
            // What holds up a relay that broke is not worth waiting for: what was accepted is durable.
            () = tokio::time::sleep(BROKEN_STOP_MAX), if ending.is_some() => {}
            () = stop.wait() => {
                telemetry::flush(LAST_LINES_BOUND);
                std::process::exit(code.into())
            }
        }
        // What came up while it stopped counts as well.
        let late = self.readiness.ended().now_or_never();
        ending.or(late).map_or(Ok(()), |ending| Err(Exit::new(ending.exit_code, ending.reason)))
    }
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
