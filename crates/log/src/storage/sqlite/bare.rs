//! What the database alone can do: the limit that publishing is measured against.
//!
//! A plain program with the same durability on the same schema and nothing around it: no HTTP, no checks, no encoding, no
//! readers. It stores the same bytes, given once and written over and over. For the benchmark only.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fault::fault;
use super::script::Script;
use super::{connect, history, signed};
use crate::storage::{Durability, HistoryQuery, Result, StorageError};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::PARTITIONS;
use hookcast_core::model::{Page, Record};

/// Rows of one statement when an event is a row: as many as the fastest plain program was measured with.
const EVENT_ROWS_PER_STATEMENT: usize = 256;
/// Frames after which the plain program copies its WAL, on the connection that writes: four times the default, so that its flushes
/// stand in front of few commits.
const AUTOCHECKPOINT_FRAMES: u32 = 4_000;

/// How the plain program keeps events.
#[derive(Clone, Copy, Debug)]
pub enum BareRows<'a> {
    /// The very rows that the log writes.
    Pages(&'a [std::sync::Arc<Page>]),
    /// A row an event.
    Events(&'a [Record<'a>]),
}

/// Commits these rows over and over for so long in a new database at `path`; gives how many transactions there were and how
/// long they took.
///
/// # Errors
/// As the database fails.
pub async fn commit_over_and_over(path: &Path, rows: BareRows<'_>, duration: Duration) -> Result<(u64, Duration)> {
    std::fs::File::create(path).map_err(|error| super::cannot_open(path, "it cannot be made", error))?;
    let mut conn = connect::writer(path, Durability::Full).await?;
    connect::bring_up_to_date(&mut conn).await?;
    let mut setting = Script::default();
    setting.statement(&format!("PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_FRAMES}"));
    setting
        .statement("CREATE TABLE bare (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, topic TEXT NOT NULL, event BLOB NOT NULL)");
    setting.run(&mut conn).await.map_err(failed)?;
    let began = Instant::now();
    let (mut head, mut total, mut commits) = (0_u64, 0_u64, 0_u64);
    while began.elapsed() < duration {
        let mut script = Script::transaction();
        match rows {
            BareRows::Pages(pages) => {
                let columns = "INSERT INTO log (first, n, t_last, total, topics, data)";
                let numbered: Vec<_> = pages
                    .iter()
                    .map(|page| {
                        let first = head + 1;
                        head += page.len() as u64;
                        total += page.bytes().len() as u64;
                        (page, first, total)
                    })
                    .collect();
                script.rows(columns, 6, &numbered, "", |script, (page, first, total)| {
                    script.bind(signed(*first)).bind(signed(page.len() as u64)).bind(page.last_arrived_at().0);
                    script.bind(signed(*total)).bind(page.topics()[0].as_str().to_owned()).bind(page.bytes().to_vec());
                });
            }
            BareRows::Events(events) => {
                for some in events.chunks(EVENT_ROWS_PER_STATEMENT) {
                    let numbered: Vec<_> = some.iter().zip(head + 1..).collect();
                    head += some.len() as u64;
                    script.rows("INSERT INTO bare (seq, at, topic, event)", 4, &numbered, "", |script, (event, seq)| {
                        script.bind(signed(*seq)).bind(event.arrived_at().0);
                        script.bind(event.topic().as_str().to_owned()).bind(event.bytes().to_vec());
                    });
                }
            }
        }
        script.commit().run(&mut conn).await.map_err(failed)?;
        commits += 1;
    }
    Ok((commits, began.elapsed()))
}

fn failed(error: sqlx::Error) -> StorageError {
    super::fault::fault("the bare append", error)
}

/// The bytes that the history of successes takes on disk, with its index, and how many successes it holds.
///
/// # Errors
/// As the database fails.
pub async fn history_size(path: &Path) -> Result<(u64, u64)> {
    let mut conn = connect::reader(path).await?;
    let sql = "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name IN ('history', 'history_when')";
    let bytes: i64 = connect::scalar(&mut conn, sql).await?;
    let all =
        HistoryQuery { partition: 0, seq: None, from: Timestamp(0), to: Timestamp(i64::MAX), before: None, limit: u32::MAX };
    let mut pages = std::collections::BTreeMap::new();
    for partition in 0..PARTITIONS {
        let found = history::read(&mut conn, HistoryQuery { partition, ..all }).await;
        let found = found.map_err(|error| fault("reading the history", error))?;
        pages.extend(found.into_iter().map(|page| (page.id, page)));
    }
    let successes =
        pages.values().filter_map(hookcast_core::model::HistoryPage::decode).map(|attempts| attempts.len() as u64).sum();
    Ok((super::unsigned(bytes), successes))
}
