//! What the database alone can do: the limit that publishing is measured against, and what the history takes on disk.
//!
//! A plain program with the same durability on the same schema and nothing around it: no HTTP, no checks, no encoding, no
//! readers. It stores the same bytes, given once and written over and over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::usage::Usage;
use futures_util::TryStreamExt as _;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{HistoryPage, Page, Record, Seq};
use hookcast_log::storage::sqlite;
use hookcast_log::storage::{Durability, Reserve, StorageSettings};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Rows of one statement when an event is a row: as many as the fastest plain program was measured with.
const EVENT_ROWS_PER_STATEMENT: usize = 256;
/// Frames after which the plain program copies its WAL, on the connection that writes: four times the default, so that its flushes
/// stand in front of few commits.
const AUTOCHECKPOINT_FRAMES: &str = "4000";

/// How the plain program keeps events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BareRows<'a> {
    /// The very rows that the log writes.
    Pages(&'a [Arc<Page>]),
    /// A row an event.
    Events(&'a [Record<'a>]),
}

/// What was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    /// Transactions.
    pub(crate) commits: u64,
    /// How long they took.
    pub(crate) took: Duration,
    /// Processor time of this process meanwhile.
    pub(crate) cpu_us: f64,
}

/// Commits these rows over and over for so long in a new database at `path`.
///
/// # Errors
/// As the database fails.
pub(crate) async fn commit_over_and_over(path: &Path, rows: BareRows<'_>, duration: Duration) -> anyhow::Result<Committed> {
    make(path.to_owned()).await?;
    let mut conn = writer(path).await?;
    let table = "CREATE TABLE bare (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, topic TEXT NOT NULL, event BLOB NOT NULL)";
    sqlx::query(table).execute(&mut conn).await?;
    let (began, before) = (Instant::now(), Usage::own());
    let (mut head, mut total, mut commits) = (0_u64, 0_u64, 0_u64);
    while began.elapsed() < duration {
        let (sql, arguments) = match rows {
            BareRows::Pages(pages) => pages_at(pages, &mut head, &mut total)?,
            BareRows::Events(events) => events_at(events, &mut head)?,
        };
        sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(false).execute(&mut conn).await?;
        commits += 1;
    }
    Ok(Committed { commits, took: began.elapsed(), cpu_us: Usage::own().since(&before) })
}

/// A new database with the relay's own schema, made by the relay's own storage.
async fn make(path: PathBuf) -> anyhow::Result<()> {
    let settings = StorageSettings {
        path,
        durability: Durability::Full,
        reserve: Reserve::Bytes(0),
        seals: None,
        readiness: hookcast_supervise::readiness::Readiness::default(),
    };
    sqlite::open(settings).await?.close().await;
    Ok(())
}

/// The settings of the relay's writer, as `crates/log/src/storage/sqlite/connect.rs` has them; but the plain program copies its WAL itself.
async fn writer(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .page_size(4096)
        .foreign_keys(false)
        .statement_cache_capacity(64)
        .auto_vacuum(sqlx::sqlite::SqliteAutoVacuum::None)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("mmap_size", "0")
        .pragma("trusted_schema", "0")
        .pragma("wal_autocheckpoint", AUTOCHECKPOINT_FRAMES)
        .pragma("journal_size_limit", "67108864")
        .pragma("cell_size_check", "1")
        .pragma("cache_size", "-8192")
        .disable_statement_logging()
        .connect()
        .await
}

/// A transaction and its arguments.
type Transaction = (String, SqliteArguments);

fn pages_at(pages: &[Arc<Page>], head: &mut u64, total: &mut u64) -> anyhow::Result<Transaction> {
    let mut arguments = SqliteArguments::default();
    for page in pages {
        let first = *head + 1;
        *head += page.len() as u64;
        *total += page.bytes().len() as u64;
        add(&mut arguments, first.cast_signed())?;
        add(&mut arguments, (page.len() as u64).cast_signed())?;
        add(&mut arguments, page.last_arrived_at().0)?;
        add(&mut arguments, total.cast_signed())?;
        add(&mut arguments, page.topics()[0].as_str().to_owned())?;
        add(&mut arguments, page.bytes().to_vec())?;
    }
    let rows = vec!["(?,?,?,?,?,?)"; pages.len()].join(",");
    Ok((format!("INSERT INTO log (first, n, t_last, total, topics, data) VALUES {rows}"), arguments))
}

fn events_at(events: &[Record<'_>], head: &mut u64) -> anyhow::Result<Transaction> {
    let mut arguments = SqliteArguments::default();
    let mut sql = String::from("BEGIN IMMEDIATE;");
    for some in events.chunks(EVENT_ROWS_PER_STATEMENT) {
        for event in some {
            *head += 1;
            add(&mut arguments, head.cast_signed())?;
            add(&mut arguments, event.arrived_at().0)?;
            add(&mut arguments, event.topic().as_str().to_owned())?;
            add(&mut arguments, event.bytes().to_vec())?;
        }
        sql.push_str("INSERT INTO bare (seq, at, topic, event) VALUES ");
        sql.push_str(&vec!["(?,?,?,?)"; some.len()].join(","));
        sql.push(';');
    }
    sql.push_str("COMMIT");
    Ok((sql, arguments))
}

fn add<'a, T: sqlx::Encode<'a, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
    to: &mut SqliteArguments,
    value: T,
) -> anyhow::Result<()> {
    to.add(value).map_err(|error| anyhow::anyhow!("a value that does not encode: {error}"))
}

/// Serves the rows of a log as they are to whoever connects and asks; prints the bound address.
///
/// # Errors
/// As the database or a socket fails.
pub(crate) async fn serve_log(path: &Path) -> anyhow::Result<()> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let mut conn = writer(path).await?;
    crate::say::say(&format!("serving on http://{}", listener.local_addr()?));
    loop {
        let (mut stream, _) = listener.accept().await?;
        // The request is one that is known; nothing of it is looked at.
        stream.readable().await?;
        let mut rows = sqlx::query("SELECT data FROM log ORDER BY first").fetch(&mut conn);
        while let Some(row) = rows.try_next().await? {
            stream.write_all(row.try_get(0)?).await?;
        }
        stream.shutdown().await?;
        // Until the other side has gone, too: what it sent must not reset the connection.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
}

/// The bytes that the history of successes takes on disk, with its index, and how many successes it holds.
///
/// # Errors
/// As the database fails.
pub(crate) async fn history_size(path: &Path) -> anyhow::Result<(u64, u64)> {
    let mut conn = SqliteConnectOptions::new().filename(path).read_only(true).connect().await?;
    let sql = "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name IN ('history', 'history_when')";
    let bytes: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
    let sql = "SELECT id, last_at, first_at, first_seq, last_seq, parts, data FROM history";
    let mut successes = 0;
    for row in sqlx::query(sql).fetch_all(&mut conn).await? {
        let page = HistoryPage {
            id: row.try_get::<i64, _>(0)?.cast_unsigned(),
            last_at: Timestamp(row.try_get(1)?),
            first_at: Timestamp(row.try_get(2)?),
            first_seq: Seq(row.try_get::<i64, _>(3)?.cast_unsigned()),
            last_seq: Seq(row.try_get::<i64, _>(4)?.cast_unsigned()),
            partitions: row.try_get::<i64, _>(5)?.cast_unsigned(),
            bytes: row.try_get(6)?,
        };
        successes += page.decode().map_or(0, |attempts| attempts.len() as u64);
    }
    conn.close().await?;
    Ok((bytes.cast_unsigned(), successes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::model::event::DataForm;
    use hookcast_core::model::{NewEvent, PageBuilder, Topic};

    #[tokio::test]
    async fn both_forms_of_rows_fit_the_schema_of_the_relay() {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = PageBuilder::starting_at(Seq(1));
        builder.push(&NewEvent {
            topic: Topic::parse("bench").unwrap(),
            id: String::from("1"),
            own_id: true,
            source: String::from("/bench"),
            kind: String::from("message"),
            subject: None,
            time: None,
            arrived_at: Timestamp(1),
            content_type: String::from("application/json"),
            data_schema: None,
            extensions: Vec::new(),
            hops: 0,
            form: DataForm::Json,
            data: "{}".into(),
        });
        let pages = [builder.finish()];
        let path = directory.path().join("pages.db");
        let committed = commit_over_and_over(&path, BareRows::Pages(&pages), Duration::from_millis(20)).await;
        let commits = committed.unwrap().commits;
        let mut conn = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM log").fetch_one(&mut conn).await.unwrap();
        assert!(commits > 0 && rows == commits.cast_signed(), "{commits} commits, {rows} rows");
        assert_eq!(history_size(&path).await.unwrap().1, 0);
    }
}
