//! Reading around damage: what of the log is intact comes, what is not is named, counted and said once.
//!
//! The quick way of `log.rs` gives up where a page does not read; this is the way past it, page by page. It changes nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::log::{page, reading};
use super::script::Script;
use super::{signed, unsigned};
use crate::storage::{LogRead, Result, StorageErrorKind};
use hookcast_core::model::{Jumps, Page, Seq};

/// Pages that one read looks at.
const ROWS_MAX: i64 = 256;
/// Damaged pages that are remembered as said; of more each is said whenever it is met.
const SAID_MAX: usize = 4096;

/// What was found damaged.
#[derive(Default)]
pub(super) struct Damage {
    said: Mutex<BTreeSet<i64>>,
}

impl Damage {
    /// Passes over a page that does not read, as a row that begins at `first`.
    ///
    /// # Errors
    /// Any failure but `Corrupt`.
    pub(super) fn pass_over<T>(&self, first: i64, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind == StorageErrorKind::Corrupt => {
                self.say(first, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn say(&self, first: i64, why: &dyn std::fmt::Display) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.insert(first) {
            return;
        }
        if said.len() > SAID_MAX {
            said.remove(&first);
        }
        metrics::counter!("hookcast_damaged_pages_total").increment(1);
        tracing::error!(%why, from = first, "a page of the log is damaged; its events cannot be delivered any more");
    }
}

/// A row of the log as far as its columns tell: where its page begins and ends.
struct Place {
    first: Seq,
    /// Not beyond where the next one begins, whatever the row says.
    last: Seq,
    /// The last position before the next one; `None` for the last row that was looked at.
    end: Option<Seq>,
}

/// Reads whole pages behind `after` as `read_pages` does, and passes over those that do not read, up to `head`.
pub(super) async fn read_around(
    conn: &mut SqliteConnection,
    jumps: &Jumps,
    damage: &Damage,
    (after, head): (Seq, Seq),
    bytes_max: usize,
) -> Result<LogRead> {
    let (places, oldest) = places(conn, after, head).await?;
    let is_all = places.len() < usize::try_from(ROWS_MAX).unwrap_or(usize::MAX);
    let (mut found, mut bytes, mut next) = (Around::default(), 0, after.next().max(oldest));
    for Place { first, last, end } in places {
        if first > next && !found.misses(damage, jumps, next, first.prev()) {
            return Ok(found.read);
        }
        let read = one(conn, first).await.and_then(|page| match page {
            Some(page) if end.is_none_or(|end| page.last() <= end) => Ok(page),
            _ => Err(super::fault::damaged(format_args!("log page at {first}"))),
        });
        let read = damage.pass_over(signed(first.0), read)?;
        let last = read.as_ref().map_or(last, Page::last);
        if last < next {
            continue;
        }
        match read {
            Some(page) => {
                bytes += page.bytes().len();
                if bytes > bytes_max && !found.read.pages.is_empty() {
                    return Ok(found.read);
                }
                found.read.pages.push(Arc::new(page));
            }
            None if found.lacks(first, last) => {}
            None => return Ok(found.read),
        }
        next = last.next();
    }
    if is_all && next <= head && found.read.pages.is_empty() {
        // Nothing is left behind it.
        found.misses(damage, jumps, next, head);
    }
    Ok(found.read)
}

#[derive(Default)]
struct Around {
    read: LogRead,
}

impl Around {
    /// Notes positions that cannot be read; `false` when pages were found before them.
    fn lacks(&mut self, from: Seq, to: Seq) -> bool {
        if !self.read.pages.is_empty() {
            return false;
        }
        let from = self.read.damaged.map_or(from, |(from, _)| from);
        self.read.damaged = Some((from, to));
        true
    }

    /// Notes positions of which there is no page, unless they are a jump; `false` when pages were found before them.
    fn misses(&mut self, damage: &Damage, jumps: &Jumps, from: Seq, to: Seq) -> bool {
        if jumps.past(from) > to {
            return self.read.pages.is_empty();
        }
        let is_noted = self.lacks(from, to);
        if is_noted {
            damage.say(signed(from.0), &"it is missing");
        }
        is_noted
    }
}

/// Where pages begin and end from the one that can hold the position behind `after`, and where the log begins. Their data is not
/// touched.
async fn places(conn: &mut SqliteConnection, after: Seq, head: Seq) -> Result<(Vec<Place>, Seq)> {
    let sql = "SELECT first, n, (SELECT min(first) FROM log) FROM log \
               WHERE first >= (SELECT coalesce(max(first), 0) FROM log WHERE first <= ?) ORDER BY first LIMIT ?";
    let rows: Vec<(i64, i64, i64)> =
        sqlx::query_as(sql).bind(signed(after.next().0)).bind(ROWS_MAX).fetch_all(conn).await.map_err(reading)?;
    let oldest = rows.first().map_or(Seq::ZERO, |(.., oldest)| Seq(unsigned(*oldest)));
    let ends = rows.iter().skip(1).map(|(first, ..)| Some(Seq(unsigned(*first)).prev())).chain([None]);
    let place = |((first, n, _), end): (&(i64, i64, i64), Option<Seq>)| {
        let last = Seq(unsigned(first.saturating_add(*n).saturating_sub(1)));
        let first = Seq(unsigned(*first));
        Place { first, last: last.min(end.unwrap_or(head)).max(first), end }
    };
    Ok((rows.iter().zip(ends).map(place).collect(), oldest))
}

async fn one(conn: &mut SqliteConnection, first: Seq) -> Result<Option<Page>> {
    let sql = "SELECT first, data FROM log WHERE first = ?";
    let row = sqlx::query(sql).bind(signed(first.0)).fetch_optional(conn).await.map_err(reading)?;
    row.map(|row| page(&row)).transpose()
}

/// Rows of these keys, all at once, or one by one when some of them do not read.
pub(super) async fn rows_at(
    conn: &mut SqliteConnection,
    damage: &Damage,
    head: &str,
    keys: &[i64],
    tail: &str,
) -> Result<Vec<SqliteRow>> {
    let mut script = Script::default();
    script.keys(head, keys, tail);
    let all = script.query().fetch_all(&mut *conn).await.map_err(reading);
    if !matches!(&all, Err(error) if error.kind == StorageErrorKind::Corrupt) {
        return all;
    }
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let mut script = Script::default();
        script.keys(head, &[*key], tail);
        let row = script.query().fetch_optional(&mut *conn).await.map_err(reading);
        rows.extend(damage.pass_over(*key, row)?.flatten());
    }
    Ok(rows)
}
