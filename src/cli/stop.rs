//! The signals that end a command which runs on, SIGTERM and SIGINT, and the one that has a relay read its configuration again.

use std::future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{EXIT_FAILED, Exit};

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Takes both signals over from the system's default, which would end the process at once.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> Result<Self, Exit> {
        let hear = |kind| signal(kind).map_err(|error| Exit::new(EXIT_FAILED, format!("cannot wait for signals: {error}")));
        Ok(Self { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP, which a terminal that closes sends, too; several that come close together are one.
#[derive(Debug)]
pub struct ReloadSignal(Signal);

impl ReloadSignal {
    /// Takes the signal over from the system's default, which would end the process at once. From then on it never does.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> Result<Self, Exit> {
        let heard = signal(SignalKind::hangup());
        heard.map(Self).map_err(|error| Exit::new(EXIT_FAILED, format!("cannot wait for signals: {error}")))
    }

    /// Waits for the next one.
    pub async fn wait(&mut self) {
        if self.0.recv().await.is_none() {
            future::pending::<()>().await;
        }
    }
}
