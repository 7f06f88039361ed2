//! Why a relay cannot run, and the exit code that tells it. Must not know what was being started.

use std::net::SocketAddr;

use hookcast_log::storage::{StorageError, StorageErrorKind};

/// Why the relay cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another server.{key}")]
    Listen {
        /// The key that names it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Storage cannot be opened or used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A setting cannot be used on this machine.
    #[error("{0}")]
    Setting(String),
}

impl AppError {
    /// The exit code that tells it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } => 71,
            Self::Setting(_) => 78,
            Self::Storage(error) => storage_exit_code(error.kind),
        }
    }
}

/// The exit code that tells a failure of storage.
#[must_use]
pub fn storage_exit_code(kind: StorageErrorKind) -> u8 {
    match kind {
        StorageErrorKind::CannotOpen => 73,
        StorageErrorKind::InUse => 75,
        StorageErrorKind::Sealed | StorageErrorKind::Newer => 78,
        _ => 74,
    }
}
