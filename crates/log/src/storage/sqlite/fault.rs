//! Turns what `SQLite` says into what a caller can do about it.

use sqlx::migrate::MigrateError;

use crate::storage::{StorageError, StorageErrorKind};
use hookcast_core::model::PageError;

const NO_MEMORY: u32 = 7;
const IO: u32 = 10;
const IO_READ: u32 = IO | (1 << 8);
const IO_SHORT_READ: u32 = IO | (2 << 8);
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

/// A transaction that failed. A write or a flush that fails may do so behind the commit in the WAL, which a crash would then
/// replay; a full disk is noticed before that is whole.
pub(super) fn commit_fault(error: sqlx::Error) -> StorageError {
    let in_doubt = match &error {
        sqlx::Error::Database(_) => match code_of(&error) {
            Some(IO_READ | IO_SHORT_READ) | None => false,
            Some(code) => matches!(code & 0xff, IO | NO_MEMORY),
        },
        // Whatever became of the connection, the statement may have run.
        _ => true,
    };
    let failure = fault("a commit", error);
    if in_doubt { StorageError { kind: StorageErrorKind::Unknown, ..failure } } else { failure }
}

/// A migration that could not be applied.
pub(super) fn migration_fault(error: MigrateError) -> StorageError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => fault("bringing the schema up to date", error),
        MigrateError::VersionMissing(version) => newer(version, 0, None),
        other => StorageError {
            kind: StorageErrorKind::Corrupt,
            message: "the schema of the database is not as this version made it".to_owned(),
            source: Some(Box::new(other)),
        },
    }
}

/// A database that a later version brought up to date; `written_by` is that version, as it noted it.
pub(super) fn newer(schema: i64, known: i64, written_by: Option<&str>) -> StorageError {
    let this = env!("CARGO_PKG_VERSION");
    let needed = written_by.filter(|version| *version != this).map_or_else(
        || "the version of hookcast that used it last, or a later one".to_owned(),
        |version| format!("hookcast {} or later", version.escape_debug()),
    );
    let message = format!(
        "schema_newer: the database has schema {schema}, and this is hookcast {this}, which knows schemas up to {known}: \
         {needed} is needed for it; or restore a copy that was made before. Nothing was changed"
    );
    StorageError::new(StorageErrorKind::Newer, message)
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
        sqlx::Error::Database(_) => code_of(error),
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

/// The extended code, when the database said one.
fn code_of(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).and_then(|code| code.parse().ok())
}
