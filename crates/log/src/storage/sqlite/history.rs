//! The history of attempts in the database: which pages a search reads, and which attempts are the oldest.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::connect::scalar;
use super::recovery;
use super::slices::SLICE_ROWS_MAX;
use super::writer::Writer;
use super::{signed, unsigned};
use crate::storage::{HistoryQuery, Result};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::HistoryPage;
use hookcast_core::model::history::partition_bit;

/// History pages that one slice drops at most.
const SLICE_HISTORY_PAGES_MAX: u32 = 64;

/// Rows of attempts that are to go.
#[derive(Default)]
pub(super) struct OldAttempts {
    /// Keys of failures.
    pub(super) failures: Vec<i64>,
    /// Keys of pages.
    pub(super) pages: Vec<i64>,
    /// Whether there may be more.
    pub(super) more: bool,
}

/// Reads the pages of a search.
pub(super) async fn read(conn: &mut SqliteConnection, query: HistoryQuery) -> std::result::Result<Vec<HistoryPage>, sqlx::Error> {
    let sql = "SELECT id, last_at, first_at, first_seq, last_seq, parts, data FROM history INDEXED BY history_when \
               WHERE last_at >= ? AND last_at <= ? AND first_at <= ? AND (last_at, id) < (?, ?) AND parts & ? != 0 \
               AND first_seq <= ? AND last_seq >= ? ORDER BY last_at DESC, id DESC LIMIT ?";
    let (last_at, id) = query.before.unwrap_or((Timestamp(i64::MAX), u64::MAX));
    let (at_least, at_most) = (signed(query.seqs.0.0), signed(query.seqs.1.0));
    let rows = sqlx::query(sql).bind(query.from.0).bind(last_at.0).bind(query.to.0).bind(last_at.0).bind(signed(id));
    let rows = rows.bind(partition_bit(query.partition).cast_signed()).bind(at_most).bind(at_least).bind(query.limit);
    rows.fetch_all(conn).await?.iter().map(recovery::page).collect()
}

struct Row3 {
    id: i64,
    at: i64,
    bytes: u64,
}

impl Writer {
    /// The attempts that are over their time, or the oldest of those that take too much room: a slice of them.
    ///
    /// # Errors
    /// As the database fails.
    pub(super) async fn old_attempts(&mut self, before: Timestamp, bytes_max: u64, rows_max: i64) -> Result<OldAttempts> {
        // The order of keys is about the order of time, so only the oldest rows are looked at and not all of them.
        let sql = "SELECT id, at, 160 + coalesce(length(response), 0) FROM failures ORDER BY id LIMIT ?";
        let failures = self.read_old(sql, rows_max).await?;
        let sql = "SELECT id, last_at, 96 + length(data) FROM history ORDER BY last_at LIMIT ?";
        let pages_max = rows_max.min(i64::from(SLICE_HISTORY_PAGES_MAX));
        let pages = self.read_old(sql, pages_max).await?;
        let size: i64 = scalar(&mut self.conn, "SELECT bytes FROM history_size").await?;
        let mut over = unsigned(size).saturating_sub(bytes_max);
        let (mut old, mut failures, mut pages) =
            (OldAttempts::default(), failures.into_iter().peekable(), pages.into_iter().peekable());
        let mut goes = |row: &Row3| {
            let goes = row.at < before.0 || over > 0;
            over = if goes { over.saturating_sub(row.bytes) } else { over };
            goes
        };
        loop {
            let page_is_older = match (failures.peek(), pages.peek()) {
                (None, None) => break,
                (Some(failure), Some(page)) => page.at < failure.at,
                (failure, _) => failure.is_none(),
            };
            let row = if page_is_older { pages.next_if(&mut goes) } else { failures.next_if(&mut goes) };
            let Some(row) = row else { break };
            let (list, max) = if page_is_older { (&mut old.pages, pages_max) } else { (&mut old.failures, rows_max) };
            list.push(row.id);
            if signed(list.len() as u64) >= max {
                old.more = true;
                break;
            }
        }
        Ok(old)
    }

    async fn read_old(&mut self, sql: &'static str, limit: i64) -> Result<Vec<Row3>> {
        let rows = self.read(sql, &[limit.min(i64::from(SLICE_ROWS_MAX))]).await?;
        let row = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Row3 { id: row.try_get(0)?, at: row.try_get(1)?, bytes: unsigned(row.try_get(2)?) })
        };
        rows.iter()
            .map(row)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| super::fault::fault("reading old attempts", error))
    }
}
