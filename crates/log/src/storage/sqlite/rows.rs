//! Rows of the ledger: how exceptions, failures and expired ranges are written and read back.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::script::Script;
use super::{signed, unsigned};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Attempt, Exception, ExceptionState, Seq};

type Result<T> = std::result::Result<T, sqlx::Error>;

pub(super) const EXCEPTION_WIDTH: usize = 9;
pub(super) const EXCEPTION_INSERT: &str =
    "INSERT INTO exceptions (sub, seq, state, attempts, sent, due_at, since, reason, batch_ids)";
pub(super) const EXCEPTION_UPSERT: &str = "ON CONFLICT (sub, seq) DO UPDATE SET state = excluded.state, \
     attempts = excluded.attempts, sent = excluded.sent, due_at = excluded.due_at, since = excluded.since, \
     reason = excluded.reason, batch_ids = excluded.batch_ids";
/// What stands before the keys and reasons of dead letters that get another reason, and behind them; it makes no rows.
pub(super) const MARK_HEAD: &str = "WITH marked (sub, seq, reason) AS (";
pub(super) const MARK_TAIL: &str = ") UPDATE exceptions SET reason = marked.reason FROM marked \
     WHERE exceptions.sub = marked.sub AND exceptions.seq = marked.seq AND exceptions.state = 1";
/// Columns in the order that [`exception`] reads.
macro_rules! exception_columns {
    () => {
        "sub, seq, state, attempts, sent, due_at, since, reason, batch_ids"
    };
}
pub(super) use exception_columns;

pub(super) const FAILURE_WIDTH: usize = 9;
/// An attempt that is known already stays as it is: commits may be repeated.
pub(super) const FAILURE_INSERT: &str =
    "INSERT OR IGNORE INTO failures (sub, seq, n, at, outcome, status, error, latency_ms, response)";

/// The number of a state; the partial indexes name it.
pub(super) fn state_number(state: ExceptionState) -> i64 {
    match state {
        ExceptionState::Retry => 0,
        ExceptionState::Dead => 1,
    }
}

/// Binds the columns of [`EXCEPTION_INSERT`].
pub(super) fn bind_exception(script: &mut Script, exception: &Exception) {
    script.bind(signed(exception.ordinal.0)).bind(signed(exception.seq.0)).bind(state_number(exception.state));
    script.bind(i64::from(exception.attempts)).bind(i64::from(exception.sent));
    script.bind(exception.due_at.0).bind(exception.since.0).bind(exception.reason.clone());
    script.bind(i64::from(!exception.has_old_batch_id));
}

/// Reads [`exception_columns`].
pub(super) fn exception(row: &SqliteRow) -> Result<Exception> {
    let state = match row.try_get::<i64, _>(2)? {
        0 => ExceptionState::Retry,
        1 => ExceptionState::Dead,
        other => return Err(sqlx::Error::Decode(format!("an exception of state {other}").into())),
    };
    Ok(Exception {
        ordinal: Ordinal(unsigned(row.try_get(0)?)),
        seq: Seq(unsigned(row.try_get(1)?)),
        state,
        attempts: row.try_get(3)?,
        sent: row.try_get(4)?,
        due_at: Timestamp(row.try_get(5)?),
        since: Timestamp(row.try_get(6)?),
        reason: row.try_get(7)?,
        has_old_batch_id: row.try_get::<i64, _>(8)? == 0,
    })
}

/// Binds the columns of [`FAILURE_INSERT`].
pub(super) fn bind_failure(script: &mut Script, ordinal: Ordinal, attempt: &Attempt) {
    script.bind(signed(ordinal.0)).bind(signed(attempt.seq.0)).bind(i64::from(attempt.n)).bind(attempt.at.0);
    script.bind(attempt.outcome.clone()).bind(attempt.status.map(i64::from)).bind(attempt.error.clone());
    script.bind(i64::from(attempt.latency_ms)).bind(attempt.response.clone());
}

/// Reads `seq, n, at, outcome, status, error, latency_ms, response`.
pub(super) fn attempt(row: &SqliteRow) -> Result<Attempt> {
    Ok(Attempt {
        seq: Seq(unsigned(row.try_get(0)?)),
        n: row.try_get(1)?,
        at: Timestamp(row.try_get(2)?),
        outcome: row.try_get(3)?,
        status: row.try_get(4)?,
        error: row.try_get(5)?,
        latency_ms: row.try_get(6)?,
        response: row.try_get(7)?,
    })
}

/// Adds an expired range.
pub(super) fn merge_expired(script: &mut Script, range: &ExpiredRange) {
    merge_ranges(script, "expired", range);
}

/// Adds a range to `table`; ranges that touch become one row, so that a subscription that falls behind for weeks has one.
pub(super) fn merge_ranges(script: &mut Script, table: &'static str, range: &ExpiredRange) {
    let (sub, from, to) = (signed(range.ordinal.0), signed(range.from.0), signed(range.to.0));
    script.statement(&format!(
        "INSERT INTO {table} (sub, from_seq, to_seq) \
         SELECT ?, min(?, coalesce(min(from_seq), ?)), max(?, coalesce(max(to_seq), ?)) \
         FROM {table} WHERE sub = ? AND from_seq <= ? AND to_seq >= ? \
         ON CONFLICT (sub, from_seq) DO UPDATE SET to_seq = excluded.to_seq",
    ));
    script.bind(sub).bind(from).bind(from).bind(to).bind(to);
    script.bind(sub).bind(to.saturating_add(1)).bind(from - 1);
    script.statement(&format!(
        "DELETE FROM {table} WHERE sub = ? AND from_seq <= ? AND to_seq >= ? AND EXISTS (SELECT 1 FROM {table} AS whole \
         WHERE whole.sub = {table}.sub AND whole.from_seq < {table}.from_seq AND whole.to_seq >= {table}.to_seq)",
    ));
    script.bind(sub).bind(to.saturating_add(1)).bind(from - 1);
}
