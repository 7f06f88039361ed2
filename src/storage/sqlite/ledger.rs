//! The ledger over the database.

use async_trait::async_trait;
use sqlx::Row;

use super::fault::fault;
use super::job::{Answer, Slice, Work};
use super::rows::exception_columns;
use super::slices::SLICE_ROWS_MAX;
use super::{Sqlite, mismatch, rows, signed, unsigned};
use crate::clock::Timestamp;
use crate::model::delivery::ExpiredRange;
use crate::model::subscription::Ordinal;
use crate::model::{Attempt, Exception, ExceptionState, Seq};
use crate::storage::{Checkpoint, Lease, Ledger, LedgerChange, PageRequest, Result, StorageError};

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

    async fn expired(&self, ordinal: Ordinal, limit: u32) -> Result<Vec<ExpiredRange>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT from_seq, to_seq FROM expired WHERE sub = ? ORDER BY from_seq LIMIT ?";
        let found = sqlx::query(sql).bind(signed(ordinal.0)).bind(limit).fetch_all(&mut *reader).await.map_err(reading)?;
        let range = |row: &sqlx::sqlite::SqliteRow| {
            Ok(ExpiredRange { ordinal, from: Seq(unsigned(row.try_get(0)?)), to: Seq(unsigned(row.try_get(1)?)) })
        };
        found.iter().map(range).collect::<std::result::Result<_, _>>().map_err(reading)
    }

    async fn trim(&self, dead_before: Timestamp, failures_before: Timestamp, rows_max: u32) -> Result<Vec<(Ordinal, Seq)>> {
        let (mut gone, mut left) = (Vec::new(), rows_max);
        while left > 0 {
            let asked = left.min(SLICE_ROWS_MAX);
            let slice = Slice::Ledger { dead_before, failures_before, rows_max: asked };
            let Answer::Forgotten { dead, failures } = self.ask_slice(slice).await? else { return Err(mismatch()) };
            let is_last = dead.len() < asked as usize && failures < asked;
            gone.extend(dead);
            if is_last {
                break;
            }
            left -= asked;
        }
        Ok(gone)
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
