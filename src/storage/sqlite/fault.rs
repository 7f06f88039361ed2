//! Turns what `SQLite` says into what a caller can do about it.

use sqlx::migrate::MigrateError;

use crate::model::PageError;
use crate::storage::{StorageError, StorageErrorKind};

const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;

/// A failure while doing `what`.
pub(super) fn fault(what: &str, error: sqlx::Error) -> StorageError {
    let kind = kind_of(&error);
    let advice = match kind {
        StorageErrorKind::Corrupt => ": the database is damaged",
        StorageErrorKind::Full => ": the disk is full",
        _ => "",
    };
    StorageError { kind, message: format!("{what} failed{advice}"), source: Some(Box::new(error)) }
}

/// A migration that could not be applied.
pub(super) fn migration_fault(error: MigrateError) -> StorageError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => fault("bringing the schema up to date", error),
        MigrateError::VersionMissing(version) => newer(version),
        other => StorageError {
            kind: StorageErrorKind::Corrupt,
            message: "the schema of the database is not as this version made it".to_owned(),
            source: Some(Box::new(other)),
        },
    }
}

/// A database made by a later version.
pub(super) fn newer(version: i64) -> StorageError {
    let message = format!("schema_newer: the database has schema {version}, which is newer than this version knows");
    StorageError::new(StorageErrorKind::Corrupt, message)
}

/// Stored bytes that do not read.
pub(super) fn damaged(what: impl std::fmt::Display) -> StorageError {
    StorageError::new(StorageErrorKind::Corrupt, format!("the database is damaged: {what}"))
}

/// A stored page that does not read.
pub(super) fn damaged_page(first: i64, error: PageError) -> StorageError {
    let message = format!("the database is damaged: log page at {first}");
    StorageError { kind: StorageErrorKind::Corrupt, message, source: Some(Box::new(error)) }
}

fn kind_of(error: &sqlx::Error) -> StorageErrorKind {
    let code = match error {
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse::<u32>().ok()),
        // A value of another type than the schema says.
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Some(CORRUPT),
        _ => None,
    };
    // The low byte is the primary code, the rest says more than anyone can act on.
    match code.map(|code| code & 0xff) {
        Some(CORRUPT | NOT_A_DATABASE) => StorageErrorKind::Corrupt,
        Some(FULL) => StorageErrorKind::Full,
        Some(CANNOT_OPEN) => StorageErrorKind::CannotOpen,
        _ => StorageErrorKind::Unavailable,
    }
}
