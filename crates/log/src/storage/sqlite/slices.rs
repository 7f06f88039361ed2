//! Slow work in slices: retention of the log and of the ledger, and what a deleted subscription leaves.
//!
//! A slice reads what it is about and then writes one transaction. Nobody else writes, so what it read still holds.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::batch::release;
use super::connect::{DATABASE_PAGE_BYTES, scalar};
use super::fault::fault;
use super::history::OldAttempts;
use super::job::{Answer, Slice};
use super::log::pages_at;
use super::recovery::bury;
use super::script::Script;
use super::writer::Writer;
use super::{signed, unsigned};
use crate::storage::{LedgerTrim, LedgerTrimmed, Result, StorageErrorKind, kept_apart};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::Ordinal;

/// Pages that one slice drops at most.
pub(super) const SLICE_PAGES_MAX: u32 = 16;
/// Rows that one slice drops at most, of each kind.
pub(super) const SLICE_ROWS_MAX: u32 = 256;

struct OldPage {
    first: i64,
    n: i64,
    t_last: i64,
    total: i64,
}

impl OldPage {
    /// The position behind it.
    fn end(&self) -> i64 {
        self.first.saturating_add(self.n)
    }
}

impl Writer {
    /// Does a slice.
    ///
    /// # Errors
    /// As the database fails; nothing is changed then.
    pub(super) async fn slice(&mut self, slice: Slice) -> Result<Answer> {
        match slice {
            Slice::Log { older_than, bytes_max, pages_max } => self.trim_log(older_than, bytes_max, pages_max).await,
            Slice::Ledger(trim) => self.trim_ledger(trim).await,
            Slice::Forget(ordinal) => self.forget(ordinal).await,
        }
    }

    async fn trim_log(&mut self, older_than: Timestamp, bytes_max: u64, pages_max: u32) -> Result<Answer> {
        let limit = pages_max.min(SLICE_PAGES_MAX);
        // One more than may go tells whether more could.
        let sql = "SELECT first, n, t_last, total FROM log ORDER BY first LIMIT ?";
        let oldest = self.read(sql, &[i64::from(limit) + 1 + signed(self.stuck.len() as u64)]).await?;
        let oldest = oldest.iter().map(old_page).collect::<std::result::Result<Vec<_>, _>>();
        let mut oldest = oldest.map_err(|error| fault("reading the old end of the log", error))?;
        for at in 1..oldest.len() {
            // Whatever the row says, it ends where the next begins.
            let room = oldest[at].first - oldest[at - 1].first;
            oldest[at - 1].n = oldest[at - 1].n.clamp(1, room);
        }
        oldest.retain(|page| !self.stuck.contains(&page.first));
        let mut bytes = self.state.bounds.bytes;
        let droppable = oldest.iter().take_while(|page| {
            let goes = unsigned(page.end()) <= self.state.bounds.head.0 && (bytes > bytes_max || page.t_last < older_than.0);
            bytes = self.state.bytes_after(page.total);
            goes
        });
        let droppable = u32::try_from(droppable.count()).unwrap_or(u32::MAX);
        let (pages, more) = (droppable.min(limit), droppable > limit);
        self.drop_pages(&oldest[..pages as usize]).await?;
        Ok(Answer::Trimmed { bounds: self.state.bounds, pages, more })
    }

    /// Drops pages, together or else one by one; one that cannot be dropped because it is damaged is left where it is.
    async fn drop_pages(&mut self, pages: &[OldPage]) -> Result<()> {
        let is_damage = |dropped: &Result<()>| matches!(dropped, Err(error) if error.kind == StorageErrorKind::Corrupt);
        let dropped = self.drop_together(pages).await;
        if !is_damage(&dropped) {
            return dropped;
        }
        for page in pages {
            let dropped = self.drop_together(std::slice::from_ref(page)).await;
            if is_damage(&dropped) {
                let (from, to) = (page.first, page.end() - 1);
                tracing::error!(from, to, "a page of the log is so damaged that it cannot be dropped; it takes room for good");
                self.stuck.insert(page.first);
                self.state.shorten(Seq(unsigned(page.end())), page.total);
            } else {
                dropped?;
            }
        }
        Ok(())
    }

    /// Drops the oldest pages and keeps the events aside that exceptions need.
    async fn drop_together(&mut self, pages: &[OldPage]) -> Result<()> {
        let Some(last) = pages.last() else { return Ok(()) };
        let sql = "SELECT DISTINCT seq FROM exceptions WHERE seq >= ? AND seq < ? ORDER BY seq";
        let needed = self.read(sql, &[signed(self.state.bounds.first.0), last.end()]).await?;
        let needed = numbers(&needed)?;
        let keys: Vec<i64> = pages.iter().map(|page| page.first).collect();
        let mut script = Script::transaction();
        if !needed.is_empty() {
            let kept = self.kept_events(&keys, &needed).await?;
            script.rows("INSERT OR IGNORE INTO kept (seq, event)", 2, &kept, "", |script, (seq, event)| {
                script.bind(*seq).bind(event.clone());
            });
        }
        script.keys("DELETE FROM log WHERE first", &keys, "");
        self.write(Some(script.commit())).await?;
        // Freed pages are not written, only the list of them and the edge of the tree.
        self.wal.wrote(8 + u64::from(SLICE_PAGES_MAX) + needed.len() as u64);
        self.state.shorten(Seq(unsigned(last.end())), last.total);
        let free: i64 = scalar(&mut self.conn, "PRAGMA freelist_count").await?;
        self.shown.space.set_reusable(unsigned(free) * DATABASE_PAGE_BYTES);
        Ok(())
    }

    /// Of a page that does not read nobody can have an event; what is old must go all the same.
    async fn kept_events(&mut self, keys: &[i64], needed: &[i64]) -> Result<Vec<(i64, Vec<u8>)>> {
        let mut kept = Vec::with_capacity(needed.len());
        for page in pages_at(&mut self.conn, &self.shown.damage, keys).await? {
            let inside = needed.iter().filter_map(|seq| page.get(Seq(unsigned(*seq))));
            kept.extend(inside.map(|event| (signed(event.seq().0), kept_apart(&event).page().bytes().to_vec())));
        }
        Ok(kept)
    }

    async fn trim_ledger(&mut self, trim: LedgerTrim) -> Result<Answer> {
        let limit = i64::from(trim.rows_max.min(SLICE_ROWS_MAX));
        let sql = "SELECT sub, seq FROM exceptions WHERE state = 1 AND due_at < ? ORDER BY due_at, sub, seq LIMIT ?";
        let dead = self.read(sql, &[trim.dead_before.0, limit]).await?;
        let dead = dead.iter().map(|row| Ok((Ordinal(unsigned(row.try_get(0)?)), Seq(unsigned(row.try_get(1)?)))));
        let dead = dead.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| fault("reading old dead letters", error))?;
        let old = self.old_attempts(trim.attempts_before, trim.attempts_bytes_max, limit).await?;
        let more = old.more || signed(dead.len() as u64) >= limit;
        self.drop_rows(&dead, &old, None).await?;
        Ok(Answer::Forgotten(LedgerTrimmed { dead, more }))
    }

    async fn forget(&mut self, ordinal: Ordinal) -> Result<Answer> {
        let (sub, limit) = (signed(ordinal.0), i64::from(SLICE_ROWS_MAX));
        let seqs = self.read("SELECT seq FROM exceptions WHERE sub = ? ORDER BY seq LIMIT ?", &[sub, limit]).await?;
        let keys: Vec<_> = numbers(&seqs)?.into_iter().map(|seq| (ordinal, Seq(unsigned(seq)))).collect();
        let failures = self.read("SELECT id FROM failures WHERE sub = ? LIMIT ?", &[sub, limit]).await?;
        let old = OldAttempts { failures: numbers(&failures)?, ..OldAttempts::default() };
        self.drop_rows(&keys, &old, Some(ordinal)).await?;
        let full = SLICE_ROWS_MAX as usize;
        Ok(Answer::More(keys.len() == full || old.failures.len() == full))
    }

    async fn drop_rows(&mut self, exceptions: &[(Ordinal, Seq)], old: &OldAttempts, all_of: Option<Ordinal>) -> Result<()> {
        let mut script = Script::transaction();
        if !exceptions.is_empty() {
            let tail = ") DELETE FROM exceptions WHERE (sub, seq) IN (SELECT column1, column2 FROM gone)";
            script.rows("WITH gone AS (", 2, exceptions, tail, |script, (ordinal, seq)| {
                script.bind(signed(ordinal.0)).bind(signed(seq.0));
            });
            let below = exceptions.iter().map(|(_, seq)| *seq).filter(|seq| *seq < self.state.bounds.first);
            release(&mut script, below);
        }
        script.keys("DELETE FROM failures WHERE id", &old.failures, "");
        script.keys("DELETE FROM history WHERE id", &old.pages, "");
        if all_of.is_none() {
            bury(&mut script, exceptions);
        }
        if let Some(ordinal) = all_of {
            script.statement("DELETE FROM buried WHERE sub = ?").bind(signed(ordinal.0));
            script.statement("DELETE FROM expired WHERE sub = ?").bind(signed(ordinal.0));
            script.statement("DELETE FROM skipped WHERE sub = ?").bind(signed(ordinal.0));
            script.statement("DELETE FROM jobs WHERE sub = ?").bind(signed(ordinal.0));
        }
        if script.len() > Script::transaction().len() {
            self.write(Some(script.commit())).await?;
            self.wal.wrote(8 + (2 * exceptions.len() + old.failures.len() + old.pages.len()) as u64);
        }
        Ok(())
    }

    pub(super) async fn read(&mut self, sql: &'static str, arguments: &[i64]) -> Result<Vec<SqliteRow>> {
        let query = arguments.iter().fold(sqlx::query(sql), |query, argument| query.bind(*argument));
        query.fetch_all(&mut self.conn).await.map_err(|error| fault("reading what is old", error))
    }
}

fn old_page(row: &SqliteRow) -> std::result::Result<OldPage, sqlx::Error> {
    Ok(OldPage { first: row.try_get(0)?, n: row.try_get(1)?, t_last: row.try_get(2)?, total: row.try_get(3)? })
}

fn numbers(rows: &[SqliteRow]) -> Result<Vec<i64>> {
    let numbers = rows.iter().map(|row| row.try_get(0)).collect::<std::result::Result<Vec<i64>, _>>();
    numbers.map_err(|error| fault("reading what is old", error))
}
