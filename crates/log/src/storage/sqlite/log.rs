//! The log over the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::damage::{self, Damage};
use super::fault::{damaged, damaged_page, fault};
use super::job::{Answer, Slice, Work};
use super::script::Script;
use super::slices::SLICE_PAGES_MAX;
use super::{Sqlite, mismatch, signed, unsigned};
use crate::storage::{Append, Bounds, EventLog, FingerprintChunk, LateAppend, LogRead, Result, Room, StorageErrorKind};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{Event, Jumps, Page, Seq};

/// Rows that one read takes at most.
const READ_ROWS_MAX: usize = 1024;
/// No page is smaller, in bytes.
const PAGE_BYTES_MIN: usize = 32;
/// Positions looked up in one query.
const GET_SEQS_MAX: usize = 256;
/// Pages fetched in one query when single events are looked up.
const GET_PAGES_MAX: usize = 16;

#[async_trait]
impl EventLog for Sqlite {
    fn log_id(&self) -> &str {
        &self.log_id
    }

    fn jumps(&self) -> &Jumps {
        &self.jumps
    }

    fn room(&self) -> Option<Room> {
        self.space.room()
    }

    fn home(&self) -> Option<tokio::runtime::Handle> {
        Some(self.home.clone())
    }

    async fn append(&self, append: Append) -> Result<()> {
        if !append.pages.is_empty() {
            self.space.admit(append.pages.iter().map(|page| page.bytes().len() as u64).sum())?;
        }
        self.ask(Work::Append(append)).await.map(drop)
    }

    async fn append_late(&self, make: LateAppend) -> Result<()> {
        self.ask(Work::Late(make)).await.map(drop)
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<LogRead> {
        let head = self.known_bounds().head;
        if after >= head {
            return Ok(LogRead::default());
        }
        let mut reader = self.readers.take().await?;
        let page_bytes = self.page_bytes.load(Ordering::Relaxed);
        let pages = match read_pages(&mut reader, &self.jumps, after, bytes_max, page_bytes).await {
            Err(error) if error.kind == StorageErrorKind::Corrupt => {
                return damage::read_around(&mut reader, &self.jumps, &self.damage, (after, head), bytes_max).await;
            }
            pages => pages?,
        };
        let bytes: usize = pages.iter().map(|page| page.bytes().len()).sum();
        self.page_bytes.store((bytes / pages.len().max(1)).max(PAGE_BYTES_MIN), Ordering::Relaxed);
        Ok(LogRead { damaged: None, pages })
    }

    async fn get(&self, seqs: &[Seq]) -> Result<Vec<Event>> {
        let wanted: Vec<Seq> = seqs.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut found = BTreeMap::new();
        let mut reader = self.readers.take().await?;
        for some in wanted.chunks(GET_SEQS_MAX) {
            let keys = pages_of(&mut reader, some).await?;
            for some_keys in keys.chunks(GET_PAGES_MAX) {
                for page in pages_at(&mut reader, &self.damage, some_keys).await? {
                    found.extend(some.iter().filter_map(|seq| page.get(*seq)).map(|event| (event.seq(), event)));
                }
            }
            // After the log: retention moves an event from there to here, never back.
            let missing: Vec<i64> = some.iter().filter(|seq| !found.contains_key(*seq)).map(|seq| signed(seq.0)).collect();
            if !missing.is_empty() {
                found.extend(kept(&mut reader, &self.damage, &missing).await?.into_iter().map(|event| (event.seq(), event)));
            }
        }
        Ok(found.into_values().collect())
    }

    async fn purge(&self, seq: Seq) -> Result<bool> {
        // Retention moves events from the log aside: it must not do so with what is being rewritten.
        let _turn = self.trimming.lock().await;
        let found = {
            let mut reader = self.readers.take().await?;
            let keys = pages_of(&mut reader, &[seq]).await?;
            let page = pages_at(&mut reader, &self.damage, &keys).await?.into_iter().find(|page| page.get(seq).is_some());
            match page {
                Some(page) => Some((page, false)),
                None => {
                    kept(&mut reader, &self.damage, &[signed(seq.0)]).await?.pop().map(|event| (Arc::clone(event.page()), true))
                }
            }
        };
        let Some((page, is_aside)) = found else { return Ok(false) };
        if let Some(page) = page.purged(seq) {
            self.ask(Work::Rewrite { page, is_aside }).await?;
        }
        Ok(true)
    }

    async fn bounds(&self) -> Result<Bounds> {
        Ok(self.known_bounds())
    }

    async fn before_time(&self, time: Timestamp) -> Result<Seq> {
        let bounds = self.known_bounds();
        let mut reader = self.readers.take().await?;
        // Halves the range; `t_last` only rises, but for a clock that was set back by more than a minute.
        let (mut low, mut high) = (bounds.first.0, bounds.head.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let sql = "SELECT first, n, t_last FROM log WHERE first <= ? ORDER BY first DESC LIMIT 1";
            let page: Option<(i64, i64, i64)> =
                sqlx::query_as(sql).bind(signed(middle)).fetch_optional(&mut *reader).await.map_err(reading)?;
            match page {
                Some((first, _, t_last)) if t_last >= time.0 => high = unsigned(first),
                Some((first, n, _)) => low = unsigned(first + n).max(middle + 1),
                None => low = middle + 1,
            }
        }
        Ok(Seq(low).prev())
    }

    async fn trim(&self, older_than: Timestamp, bytes_max: u64, pages_max: u32) -> Result<(Bounds, bool)> {
        let _turn = self.trimming.lock().await;
        let mut left = pages_max;
        loop {
            let slice = Slice::Log { older_than, bytes_max, pages_max: left.min(SLICE_PAGES_MAX) };
            let Answer::Trimmed { bounds, pages, more } = self.ask_slice(slice).await? else { return Err(mismatch()) };
            left = left.saturating_sub(pages);
            if !more || left == 0 {
                return Ok((bounds, more));
            }
        }
    }

    async fn fingerprints(&self) -> Result<Vec<FingerprintChunk>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT first, last, last_at, bytes FROM fingerprints ORDER BY first";
        let rows = sqlx::query_as::<_, (i64, i64, i64, Vec<u8>)>(sql).fetch_all(&mut *reader).await.map_err(reading)?;
        Ok(rows.into_iter().map(chunk).collect())
    }

    async fn drop_fingerprints(&self, oldest: Seq) -> Result<()> {
        self.ask(Work::DropFingerprints(oldest)).await.map(drop)
    }

    async fn writable(&self) -> Result<()> {
        self.space.admit(0)?;
        self.ask(Work::Probe).await.map(drop)
    }
}

fn chunk((first, last, last_at, bytes): (i64, i64, i64, Vec<u8>)) -> FingerprintChunk {
    FingerprintChunk { first: Seq(unsigned(first)), last: Seq(unsigned(last)), last_at: Timestamp(last_at), bytes }
}

/// Reads whole pages behind `after`, at least one and at most `bytes_max` bytes, and makes sure that none is missing between them. Nothing is
/// missing in the hole that a restored log has; the pages end in front of it, so that readers see it as what lies in front of
/// the next ones.
///
/// The database is asked for as many rows as that takes when pages have about `page_bytes`: it runs ahead of whoever takes
/// its rows, and what is not taken was read for nothing.
pub(super) async fn read_pages(
    conn: &mut SqliteConnection,
    jumps: &Jumps,
    after: Seq,
    bytes_max: usize,
    page_bytes: usize,
) -> Result<Vec<Arc<Page>>> {
    let few = (bytes_max / page_bytes.max(PAGE_BYTES_MIN)).clamp(1, READ_ROWS_MAX);
    match read_rows(conn, jumps, after, bytes_max, few).await? {
        // The one page in front of `after` is a row, too.
        pages if pages.is_empty() => {
            let pages = read_rows(conn, jumps, after, bytes_max, READ_ROWS_MAX).await?;
            if pages.is_empty() {
                return Err(damaged(format_args!("the log misses {} and all behind it", after.next())));
            }
            Ok(pages)
        }
        pages => Ok(pages),
    }
}

async fn read_rows(
    conn: &mut SqliteConnection,
    jumps: &Jumps,
    after: Seq,
    bytes_max: usize,
    rows_max: usize,
) -> Result<Vec<Arc<Page>>> {
    // One statement sees one state of the log, so the oldest position goes with the pages.
    let sql = "SELECT first, data, (SELECT min(first) FROM log) FROM log \
               WHERE first >= (SELECT coalesce(max(first), 0) FROM log WHERE first <= ?) ORDER BY first LIMIT ?";
    let mut rows = sqlx::query(sql).bind(signed(after.next().0)).bind(signed(rows_max as u64)).fetch(conn);
    let (mut pages, mut bytes, mut next) = (Vec::new(), 0, after.next());
    while let Some(row) = rows.try_next().await.map_err(reading)? {
        let page = page(&row)?;
        next = next.max(Seq(unsigned(row.try_get(2).map_err(reading)?)));
        if page.last() < next {
            continue;
        }
        if page.first() > next && jumps.past(next) >= page.first() {
            if !pages.is_empty() {
                break;
            }
            next = page.first();
        }
        if page.first() > next {
            return Err(damaged(format_args!("the log misses {next} to {}", page.first().prev())));
        }
        bytes += page.bytes().len();
        if bytes > bytes_max && !pages.is_empty() {
            break;
        }
        next = page.last().next();
        pages.push(Arc::new(page));
    }
    Ok(pages)
}

/// First positions of the pages that can hold these.
async fn pages_of(conn: &mut SqliteConnection, seqs: &[Seq]) -> Result<Vec<i64>> {
    let mut script = Script::default();
    let tail = ") SELECT DISTINCT (SELECT max(first) FROM log WHERE first <= column1) FROM wanted";
    script.rows("WITH wanted AS (", 1, seqs, tail, |script, seq| {
        script.bind(signed(seq.0));
    });
    let rows = script.query().fetch_all(conn).await.map_err(reading)?;
    let keys = rows.iter().map(|row| row.try_get::<Option<i64>, _>(0)).collect::<std::result::Result<Vec<_>, _>>();
    Ok(keys.map_err(reading)?.into_iter().flatten().collect())
}

/// Pages that begin at these positions; what is damaged is left out.
pub(super) async fn pages_at(conn: &mut SqliteConnection, damage: &Damage, keys: &[i64]) -> Result<Vec<Arc<Page>>> {
    let mut found = Vec::with_capacity(keys.len());
    let sql = "SELECT first, data FROM log WHERE first";
    for row in damage::rows_at(conn, damage, sql, keys, "ORDER BY first").await? {
        found.extend(damage.pass_over(row.try_get(0).map_err(reading)?, page(&row))?.map(Arc::new));
    }
    Ok(found)
}

async fn kept(conn: &mut SqliteConnection, damage: &Damage, seqs: &[i64]) -> Result<Vec<Event>> {
    let mut found = Vec::with_capacity(seqs.len());
    let sql = "SELECT seq, event FROM kept WHERE seq";
    for row in damage::rows_at(conn, damage, sql, seqs, "ORDER BY seq").await? {
        let page = damage.pass_over(row.try_get(0).map_err(reading)?, page(&row))?.map(Arc::new);
        found.extend(page.and_then(|page| page.get(page.first())));
    }
    Ok(found)
}

/// The page in the second column, whose first position the first column says.
pub(super) fn page(row: &SqliteRow) -> Result<Page> {
    let first: i64 = row.try_get(0).map_err(reading)?;
    let data: &[u8] = row.try_get(1).map_err(reading)?;
    let page = Page::decode(Bytes::copy_from_slice(data)).map_err(|error| damaged_page(first, error))?;
    if page.first().0 != unsigned(first) {
        return Err(damaged(format_args!("the log page at {first} says that it begins at {}", page.first())));
    }
    Ok(page)
}

pub(super) fn reading(error: sqlx::Error) -> crate::storage::StorageError {
    fault("reading the log", error)
}
