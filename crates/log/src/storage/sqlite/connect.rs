//! Connections: how each kind is set up, and what is checked before anything is changed.
//!
//! The settings are part of the promise: WAL, `synchronous`, no automatic checkpoint, a library that does not corrupt the
//! WAL on reset (sqlite.org/wal.html, fixed in 3.51.3).

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::fault::{damaged, fault, migration_fault, newer};
use super::migrations::MIGRATIONS;
use crate::storage::{Durability, Result, StorageError, StorageErrorKind};

/// Name in the header of our files: `hkct`.
const APPLICATION_ID: i64 = 0x686b_6374;
/// Size of a page of the database file, in bytes; what is checked of the header depends on it.
pub(super) const DATABASE_PAGE_BYTES: u64 = 4096;
/// The oldest library that is safe with a checkpoint beside a writer.
const LIBRARY_MIN: (u32, u32, u32) = (3, 51, 3);
/// Largest WAL that stays on disk after a burst, in bytes.
const JOURNAL_BYTES_MAX: &str = "67108864";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared scripts that a connection remembers; group commits have few shapes.
const STATEMENTS_MAX: usize = 64;
/// Rows that a reader runs ahead of whoever takes them: a log page can have 64 KiB.
const ROWS_AHEAD_MAX: usize = 8;
/// Tables that are small and that everything hangs on; they are checked whole at every start.
const CHECKED_TABLES: [&str; 3] = ["sqlite_schema", "meta", "checkpoints"];

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .page_size(4096)
        .foreign_keys(false)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_MAX)
        .pragma("mmap_size", "0")
        .pragma("trusted_schema", "0")
        .disable_statement_logging()
}

fn writing(path: &Path, durability: Durability) -> SqliteConnectOptions {
    let synchronous = match durability {
        Durability::Full => SqliteSynchronous::Full,
        Durability::Normal => SqliteSynchronous::Normal,
    };
    options(path)
        .auto_vacuum(sqlx::sqlite::SqliteAutoVacuum::None)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", JOURNAL_BYTES_MAX)
        .pragma("cell_size_check", "1")
}

/// The one connection that changes anything.
pub(super) async fn writer(path: &Path, durability: Durability) -> Result<SqliteConnection> {
    let options = writing(path, durability).pragma("cache_size", "-8192").thread_name(|_| "hookcast-db-write".to_owned());
    let mut conn = connect(options).await?;
    let version: String = scalar(&mut conn, "SELECT sqlite_version()").await?;
    if !is_safe(&version) {
        let message = format!("SQLite {version} can corrupt its WAL; 3.51.3 or later is needed");
        return Err(StorageError::new(StorageErrorKind::CannotOpen, message));
    }
    let mode: String = scalar(&mut conn, "PRAGMA journal_mode").await?;
    if mode != "wal" {
        let message = format!("the database cannot use a write-ahead log here, only {mode:?}");
        return Err(StorageError::new(StorageErrorKind::CannotOpen, message));
    }
    Ok(conn)
}

/// The writer's second hand: copies the WAL into the database while the writer goes on.
pub(super) async fn checkpointer(path: &Path, durability: Durability) -> Result<SqliteConnection> {
    connect(writing(path, durability).thread_name(|_| "hookcast-db-wal".to_owned())).await
}

/// A connection that looks at a database beside whoever uses it; the file is opened for reading only.
pub(super) async fn observer(path: &Path) -> Result<SqliteConnection> {
    connect(options(path).read_only(true)).await
}

/// A connection that cannot change anything.
pub(super) async fn reader(path: &Path) -> Result<SqliteConnection> {
    let options = options(path).pragma("query_only", "1").pragma("cell_size_check", "1").row_buffer_size(ROWS_AHEAD_MAX);
    connect(options.thread_name(|n| format!("hookcast-db-read-{n}"))).await
}

async fn connect(options: SqliteConnectOptions) -> Result<SqliteConnection> {
    options.connect().await.map_err(|error| fault("opening the database", error))
}

/// Looks at the file through a connection that cannot write: what is not ours or newer than we know stays as it is.
///
/// # Errors
/// `Newer` or `Corrupt` for such a file, for one whose first pages are damaged.
pub(super) async fn refuse_what_is_not_ours(path: &Path) -> Result<()> {
    let mut conn = connect(options(path).read_only(true)).await?;
    let objects: i64 = scalar(&mut conn, "SELECT count(*) FROM sqlite_schema").await?;
    if objects > 0 {
        let migrations: i64 = scalar(&mut conn, "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'").await?;
        let id: i64 = scalar(&mut conn, "PRAGMA application_id").await?;
        // Between making that table and the first migration there is no id yet.
        if migrations == 0 || (id != APPLICATION_ID && objects > 2) {
            return Err(damaged(format_args!("{} belongs to another program", path.display())));
        }
        let version: i64 = scalar(&mut conn, "SELECT coalesce(max(version), 0) FROM _sqlx_migrations").await?;
        if !MIGRATIONS.version_exists(version) && version > 0 {
            let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
            let sql = "SELECT value FROM meta WHERE name = 'written_by'";
            // What a later version keeps there is its own business; without it the sentence is less exact.
            let written_by: Option<String> = scalar(&mut conn, sql).await.ok();
            return Err(newer(version, known, written_by.as_deref()));
        }
    }
    conn.close().await.map_err(|error| fault("closing the database", error))
}

/// Applies what is missing of the schema, then checks the tables that everything hangs on.
///
/// # Errors
/// As the database fails; `Corrupt` for damage.
pub(super) async fn bring_up_to_date(conn: &mut SqliteConnection) -> Result<()> {
    MIGRATIONS.run_direct(None, conn, false).await.map_err(migration_fault)?;
    super::jumps::bring_up_to_date(conn).await?;
    // For versions before this one, to say which is needed.
    let sql = "INSERT INTO meta (name, value) VALUES ('written_by', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value \
               WHERE value <> excluded.value";
    let noted = sqlx::query(sql).bind(env!("CARGO_PKG_VERSION")).execute(&mut *conn).await;
    noted.map_err(|error| fault("noting the version", error))?;
    for table in CHECKED_TABLES {
        let sql = format!("PRAGMA quick_check('{table}')");
        let found: String = scalar(conn, sqlx::AssertSqlSafe(sql)).await?;
        if found != "ok" {
            return Err(damaged(found));
        }
    }
    Ok(())
}

/// The one value of a query.
pub(super) async fn scalar<T>(conn: &mut SqliteConnection, sql: impl sqlx::SqlSafeStr) -> Result<T>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    sqlx::query_scalar(sql).fetch_one(conn).await.map_err(|error| fault("reading the database", error))
}

fn is_safe(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= LIBRARY_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_can_corrupt_the_wal_is_refused() {
        for (version, safe) in
            [("3.51.3", true), ("3.51.2", false), ("3.9.99", false), ("3.52.0", true), ("4.0", true), ("x", false)]
        {
            assert_eq!(is_safe(version), safe, "{version}");
        }
    }
}
