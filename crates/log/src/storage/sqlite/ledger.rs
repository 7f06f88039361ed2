//! The ledger over the database.

use async_trait::async_trait;
use sqlx::Row;

use super::fault::fault;
use super::job::{Answer, Slice, Work};
use super::recovery::job_columns;
use super::rows::exception_columns;
use super::slices::SLICE_ROWS_MAX;
use super::{Sqlite, history, mismatch, recovery, rows, signed, unsigned};
use crate::storage::{
    AttemptKey, Checkpoint, HistoryQuery, Lease, Ledger, LedgerChange, LedgerTrim, LedgerTrimmed, Marks, PageRequest, Result,
    StorageError, StorageErrorKind,
};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Attempt, Exception, ExceptionState, HistoryPage, RecoveryJob, Seq};

/// Whether a range of this table holds position `?2` of the subscription `?1`; ranges do not overlap.
macro_rules! in_range {
    ($table:literal) => {
        concat!(
            "coalesce((SELECT to_seq FROM ",
            $table,
            " WHERE sub = ?1 AND from_seq <= ?2 ORDER BY from_seq DESC LIMIT 1) >= ?2, 0)"
        )
    };
}

#[async_trait]
impl Ledger for Sqlite {
    async fn lease(&self, partition: u16) -> Result<Lease> {
        let Answer::Lease(lease) = self.ask(Work::Lease(partition)).await? else { return Err(mismatch()) };
        Ok(lease)
    }

    async fn load(&self, partition: u16) -> Result<Checkpoint> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT frontier, state FROM checkpoints WHERE part = ?";
        let row: Option<(i64, Vec<u8>)> =
            sqlx::query_as(sql).bind(partition).fetch_optional(&mut *reader).await.map_err(reading)?;
        let checkpoint = row.map(|(frontier, state)| Checkpoint { frontier: Seq(unsigned(frontier)), state });
        Ok(checkpoint.unwrap_or_default())
    }

    async fn exceptions(&self, partition: u16) -> Result<(Vec<Exception>, Vec<(Ordinal, u64)>)> {
        let mut reader = self.readers.take().await?;
        let sql = concat!("SELECT ", exception_columns!(), " FROM exceptions WHERE state = 0 AND sub % 64 = ?");
        let waiting = sqlx::query(sql).bind(partition).fetch_all(&mut *reader).await.map_err(reading)?;
        let waiting = waiting.iter().map(rows::exception).collect::<std::result::Result<_, _>>().map_err(reading)?;
        let sql = "SELECT sub, count(*) FROM exceptions WHERE state = 1 AND sub % 64 = ? GROUP BY sub ORDER BY sub";
        let dead: Vec<(i64, i64)> = sqlx::query_as(sql).bind(partition).fetch_all(&mut *reader).await.map_err(reading)?;
        Ok((waiting, dead.into_iter().map(|(sub, count)| (Ordinal(unsigned(sub)), unsigned(count))).collect()))
    }

    async fn commit(&self, changes: Vec<LedgerChange>) -> Result<()> {
        self.ask(Work::Commit(changes)).await.map(drop)
    }

    async fn exception(&self, ordinal: Ordinal, seq: Seq) -> Result<Option<Exception>> {
        let mut reader = self.readers.take().await?;
        let sql = concat!("SELECT ", exception_columns!(), " FROM exceptions WHERE sub = ? AND seq = ?");
        let query = sqlx::query(sql).bind(signed(ordinal.0)).bind(signed(seq.0));
        let row = query.fetch_optional(&mut *reader).await.map_err(reading)?;
        row.map(|row| rows::exception(&row)).transpose().map_err(reading)
    }

    async fn list(&self, ordinal: Ordinal, state: ExceptionState, page: PageRequest) -> Result<Vec<Exception>> {
        let mut reader = self.readers.take().await?;
        // The indexes are named: the planner cannot know that one state may be rare among millions of the other.
        let sql = match state {
            ExceptionState::Retry => concat!(
                "SELECT ",
                exception_columns!(),
                " FROM exceptions INDEXED BY exceptions_waiting \
                 WHERE state = 0 AND sub % 64 = ? AND sub = ? AND seq > ? ORDER BY seq LIMIT ?"
            ),
            ExceptionState::Dead => concat!(
                "SELECT ",
                exception_columns!(),
                " FROM exceptions INDEXED BY exceptions_dead \
                 WHERE state = 1 AND sub % 64 = ? AND sub = ? AND seq > ? ORDER BY seq LIMIT ?"
            ),
        };
        let query = sqlx::query(sql).bind(ordinal.partition()).bind(signed(ordinal.0)).bind(signed(page.after.0));
        let found = query.bind(page.limit).fetch_all(&mut *reader).await.map_err(reading)?;
        found.iter().map(rows::exception).collect::<std::result::Result<_, _>>().map_err(reading)
    }

    async fn failures(&self, ordinal: Ordinal, seq: Option<Seq>, limit: u32) -> Result<Vec<Attempt>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT seq, n, at, outcome, status, error, latency_ms, response FROM failures \
                   WHERE sub = ? AND (? IS NULL OR seq = ?) ORDER BY at DESC, seq DESC, n DESC LIMIT ?";
        let seq = seq.map(|seq| signed(seq.0));
        let query = sqlx::query(sql).bind(signed(ordinal.0)).bind(seq).bind(seq).bind(limit);
        let mut found = query.fetch_all(&mut *reader).await.map_err(reading)?;
        found.reverse();
        found.iter().map(rows::attempt).collect::<std::result::Result<_, _>>().map_err(reading)
    }

    async fn failures_before(&self, ordinal: Ordinal, since: Timestamp, before: AttemptKey, limit: u32) -> Result<Vec<Attempt>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT seq, n, at, outcome, status, error, latency_ms, response FROM failures \
                   WHERE sub = ? AND at >= ? AND (at, seq, n) < (?, ?, ?) ORDER BY at DESC, seq DESC, n DESC LIMIT ?";
        let (at, seq, n) = before;
        let query = sqlx::query(sql).bind(signed(ordinal.0)).bind(since.0).bind(at.0).bind(signed(seq.0)).bind(n).bind(limit);
        let found = query.fetch_all(&mut *reader).await.map_err(reading)?;
        found.iter().map(rows::attempt).collect::<std::result::Result<_, _>>().map_err(reading)
    }

    async fn history(&self, query: HistoryQuery) -> Result<Vec<HistoryPage>> {
        let mut reader = self.readers.take().await?;
        history::read(&mut reader, query).await.map_err(reading)
    }

    async fn count_dead(&self, ordinal: Ordinal, from: Seq, to: Seq) -> Result<u64> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT count(*) FROM exceptions INDEXED BY exceptions_dead \
                   WHERE state = 1 AND sub % 64 = ? AND sub = ? AND seq >= ? AND seq <= ?";
        let query = sqlx::query_scalar::<_, i64>(sql).bind(ordinal.partition()).bind(signed(ordinal.0));
        let count = query.bind(signed(from.0)).bind(signed(to.0)).fetch_one(&mut *reader).await.map_err(reading)?;
        Ok(unsigned(count))
    }

    async fn dead_among(&self, ordinal: Ordinal, seqs: &[Seq]) -> Result<Vec<Seq>> {
        let mut reader = self.readers.take().await?;
        let wanted: serde_json::Value = seqs.iter().map(|seq| signed(seq.0)).collect();
        // Every position is looked up in the index; the other way round, all letters would be read.
        let sql = "SELECT seq FROM json_each(?) AS wanted CROSS JOIN exceptions INDEXED BY exceptions_dead \
                   WHERE state = 1 AND sub % 64 = ? AND sub = ? AND seq = wanted.value ORDER BY seq";
        let query = sqlx::query_scalar::<_, i64>(sql).bind(wanted.to_string()).bind(ordinal.partition()).bind(signed(ordinal.0));
        let dead = query.fetch_all(&mut *reader).await.map_err(reading)?;
        Ok(dead.into_iter().map(|seq| Seq(unsigned(seq))).collect())
    }

    async fn running_jobs(&self, partition: u16) -> Result<Vec<RecoveryJob>> {
        let sql = concat!("SELECT ", job_columns!(), " FROM jobs WHERE state = 0 AND sub % 64 = ? ORDER BY id");
        let mut reader = self.readers.take().await?;
        let rows = sqlx::query(sql).bind(partition).fetch_all(&mut *reader).await.map_err(reading)?;
        rows.iter().map(recovery::job).collect::<std::result::Result<_, _>>().map_err(reading)
    }

    async fn jobs(&self, ordinal: Ordinal) -> Result<Vec<RecoveryJob>> {
        let sql = concat!("SELECT ", job_columns!(), " FROM jobs WHERE sub = ? ORDER BY id DESC");
        let mut reader = self.readers.take().await?;
        let rows = sqlx::query(sql).bind(signed(ordinal.0)).fetch_all(&mut *reader).await.map_err(reading)?;
        rows.iter().map(recovery::job).collect::<std::result::Result<_, _>>().map_err(reading)
    }

    async fn marks(&self, ordinal: Ordinal, seq: Seq) -> Result<Marks> {
        let mut reader = self.readers.take().await?;
        let sql = concat!("SELECT ", in_range!("expired"), ", ", in_range!("skipped"), ", ", in_range!("buried"));
        let query = sqlx::query_as::<_, (bool, bool, bool)>(sql).bind(signed(ordinal.0)).bind(signed(seq.0));
        let (is_expired, is_skipped, is_buried) = query.fetch_one(&mut *reader).await.map_err(reading)?;
        Ok(Marks { is_expired, is_skipped, is_buried })
    }

    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT from_seq, to_seq FROM expired WHERE sub = ? ORDER BY from_seq LIMIT ?";
        let found = sqlx::query(sql).bind(signed(ordinal.0)).bind(limit).fetch_all(&mut *reader).await.map_err(reading)?;
        let range = |row: &sqlx::sqlite::SqliteRow| {
            Ok(ExpiredRange { ordinal, from: Seq(unsigned(row.try_get(0)?)), to: Seq(unsigned(row.try_get(1)?)) })
        };
        found.iter().map(range).collect::<std::result::Result<_, _>>().map_err(reading)
    }

    async fn trim(&self, trim: LedgerTrim) -> Result<LedgerTrimmed> {
        let (mut all, mut left) = (LedgerTrimmed::default(), trim.rows_max);
        while left > 0 {
            let asked = left.min(SLICE_ROWS_MAX);
            let slice = Slice::Ledger(LedgerTrim { rows_max: asked, ..trim });
            let some = match self.ask_slice(slice).await {
                Ok(Answer::Forgotten(some)) => some,
                Ok(_) => return Err(mismatch()),
                // What went before has to be told; the next call meets the failure again.
                Err(error) if !all.dead.is_empty() && error.kind != StorageErrorKind::Unknown => {
                    all.more = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            all.dead.extend(some.dead);
            all.more = some.more;
            if !some.more {
                break;
            }
            left -= asked;
        }
        Ok(all)
    }

    async fn forget(&self, ordinal: Ordinal) -> Result<()> {
        loop {
            match self.ask_slice(Slice::Forget(ordinal)).await? {
                Answer::More(true) => {}
                Answer::More(false) => return Ok(()),
                _ => return Err(mismatch()),
            }
        }
    }
}

fn reading(error: sqlx::Error) -> StorageError {
    fault("reading the ledger", error)
}
