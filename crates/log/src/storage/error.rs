//! What can go wrong with storage, as kinds that say what the caller can do.

use super::Room;

/// What a caller can do about a storage failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// Somebody else changed it first: read again.
    Conflict,
    /// The lease was taken over: stop.
    Fenced,
    /// No room: refuse intake, try later.
    Full,
    /// It did not work this time and nothing was stored: try later.
    Unavailable,
    /// Whether it was stored is not known: try later, with what tells a repeat from another.
    Unknown,
    /// The data is damaged: stop and tell the operator.
    Corrupt,
    /// The data is of a version that comes after this one: a later program is needed.
    Newer,
    /// Another process holds it.
    InUse,
    /// It cannot be made or opened at all.
    CannotOpen,
    /// What is in it is sealed with a key that is not configured.
    Sealed,
}

/// A storage failure.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    /// What can be done about it.
    pub kind: StorageErrorKind,
    /// One line for a person.
    pub message: String,
    /// What the backend said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What became of a change that storage was asked to keep.
#[derive(Debug)]
#[must_use]
pub enum Written {
    /// It is durable.
    Stored,
    /// Nothing of it is stored, and nothing of it will be.
    Refused(StorageError),
    /// It may be stored, now or later.
    Unknown(StorageError),
}

impl Written {
    /// Whether it is durable.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored)
    }

    /// The same as a result, for those who only go on when it is stored.
    ///
    /// # Errors
    /// What storage said; of the kind `Unknown` exactly when that is what became of it.
    pub fn stored(self) -> Result<()> {
        match self {
            Self::Stored => Ok(()),
            Self::Refused(error) => Err(error),
            Self::Unknown(error) => Err(StorageError { kind: StorageErrorKind::Unknown, ..error }),
        }
    }
}

impl From<Result<()>> for Written {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Stored,
            Err(error) if error.kind == StorageErrorKind::Unknown => Self::Unknown(error),
            Err(error) => Self::Refused(error),
        }
    }
}

impl StorageError {
    /// Whether storage just does not take anything at the moment, which `/readyz` and the log tell once.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind, StorageErrorKind::Full | StorageErrorKind::Unavailable | StorageErrorKind::Unknown)
    }

    /// A failure that the backend did not cause itself.
    #[must_use]
    pub fn new(kind: StorageErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// There is less room than must be left alone.
    #[must_use]
    pub fn short_of(room: Room) -> Self {
        let message = "the disk reserve is reached".to_owned();
        Self { kind: StorageErrorKind::Full, message, source: Some(Box::new(room)) }
    }

    /// How much room there is, where that is why.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        self.source.as_ref()?.downcast_ref::<Room>().copied()
    }
}

/// Result of storage.
pub type Result<T> = std::result::Result<T, StorageError>;
