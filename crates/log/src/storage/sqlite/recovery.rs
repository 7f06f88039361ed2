//! Rows of history pages, jobs and skipped ranges: how they are written and read back.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::merge_ranges;
use super::script::Script;
use super::{signed, unsigned};
use crate::storage::{BURIED_MAX, JOBS_ENDED_MAX};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::job::{JobKind, JobState, Selection, decode_seqs, encode_seqs};
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{HistoryPage, JobId, RecoveryJob, Seq};

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Columns in the order that [`job`] reads.
macro_rules! job_columns {
    () => {
        "sub, id, kind, selection, from_seq, to_seq, seqs, state, position, events, done, failed, created_at, ended_at"
    };
}
pub(super) use job_columns;

const JOB_WIDTH: usize = 14;

/// Writes pages; a page of a known key replaces it.
pub(super) fn put_pages(script: &mut Script, pages: &[HistoryPage]) {
    let head = "INSERT INTO history (id, last_at, first_at, first_seq, last_seq, parts, data)";
    let tail = "ON CONFLICT (id) DO UPDATE SET last_at = excluded.last_at, first_at = excluded.first_at, \
                first_seq = excluded.first_seq, last_seq = excluded.last_seq, parts = excluded.parts, data = excluded.data";
    script.rows(head, 7, pages, tail, |script, page| {
        script.bind(signed(page.id)).bind(page.last_at.0).bind(page.first_at.0).bind(signed(page.first_seq.0));
        script.bind(signed(page.last_seq.0)).bind(page.partitions.cast_signed()).bind(page.bytes.clone());
    });
}

/// Reads `id, last_at, first_at, first_seq, last_seq, parts, data`.
pub(super) fn page(row: &SqliteRow) -> Result<HistoryPage> {
    Ok(HistoryPage {
        id: unsigned(row.try_get(0)?),
        last_at: Timestamp(row.try_get(1)?),
        first_at: Timestamp(row.try_get(2)?),
        first_seq: Seq(unsigned(row.try_get(3)?)),
        last_seq: Seq(unsigned(row.try_get(4)?)),
        partitions: row.try_get::<i64, _>(5)?.cast_unsigned(),
        bytes: row.try_get(6)?,
    })
}

/// Writes jobs; of one that is known only what moves changes. The oldest that ended go when there are too many.
pub(super) fn put_jobs(script: &mut Script, jobs: &[RecoveryJob]) {
    let tail = "ON CONFLICT (sub, id) DO UPDATE SET state = excluded.state, position = excluded.position, \
                events = excluded.events, done = excluded.done, failed = excluded.failed, ended_at = excluded.ended_at";
    script.rows(concat!("INSERT INTO jobs (", job_columns!(), ")"), JOB_WIDTH, jobs, tail, |script, job| {
        let (selection, seqs) = match &job.selection {
            Selection::All => (0, None),
            Selection::Failed => (1, None),
            Selection::Seqs(seqs) => (2, Some(encode_seqs(seqs))),
        };
        let state = match job.state {
            JobState::Running => 0,
            JobState::Done => 1,
            JobState::Cancelled => 2,
        };
        script.bind(signed(job.ordinal.0)).bind(signed(job.id.0)).bind(i64::from(job.kind == JobKind::Replay));
        script.bind(selection).bind(signed(job.from.0)).bind(signed(job.to.0)).bind(seqs).bind(state);
        script.bind(signed(job.position.0)).bind(signed(job.events)).bind(signed(job.done)).bind(signed(job.failed));
        script.bind(job.created_at.0).bind(job.ended_at.map(|at| at.0));
    });
    for job in jobs.iter().filter(|job| job.state != JobState::Running) {
        script.statement(
            "DELETE FROM jobs WHERE sub = ? AND state != 0 AND id NOT IN \
             (SELECT id FROM jobs WHERE sub = ? AND state != 0 ORDER BY id DESC LIMIT ?)",
        );
        script.bind(signed(job.ordinal.0)).bind(signed(job.ordinal.0)).bind(JOBS_ENDED_MAX);
    }
}

/// Reads [`job_columns`].
pub(super) fn job(row: &SqliteRow) -> Result<RecoveryJob> {
    let wrong = |what: &str, value: i64| sqlx::Error::Decode(format!("a job of {what} {value}").into());
    let selection = match row.try_get::<i64, _>(3)? {
        0 => Selection::All,
        1 => Selection::Failed,
        2 => {
            let bytes: Vec<u8> = row.try_get(6)?;
            Selection::Seqs(decode_seqs(&bytes).ok_or_else(|| wrong("positions", signed(bytes.len() as u64)))?.into())
        }
        other => return Err(wrong("selection", other)),
    };
    let state = match row.try_get::<i64, _>(7)? {
        0 => JobState::Running,
        1 => JobState::Done,
        2 => JobState::Cancelled,
        other => return Err(wrong("state", other)),
    };
    Ok(RecoveryJob {
        ordinal: Ordinal(unsigned(row.try_get(0)?)),
        id: JobId(unsigned(row.try_get(1)?)),
        kind: if row.try_get::<i64, _>(2)? == 0 { JobKind::Redrive } else { JobKind::Replay },
        selection,
        from: Seq(unsigned(row.try_get(4)?)),
        to: Seq(unsigned(row.try_get(5)?)),
        state,
        position: Seq(unsigned(row.try_get(8)?)),
        events: unsigned(row.try_get(9)?),
        done: unsigned(row.try_get(10)?),
        failed: unsigned(row.try_get(11)?),
        created_at: Timestamp(row.try_get(12)?),
        ended_at: row.try_get::<Option<i64>, _>(13)?.map(Timestamp),
    })
}

/// Adds a skipped range.
pub(super) fn merge_skipped(script: &mut Script, range: &ExpiredRange) {
    merge_ranges(script, "skipped", range);
}

/// Takes everything behind `after` out of what was skipped or buried.
pub(super) fn reopen(script: &mut Script, ordinal: Ordinal, after: Seq) {
    let (sub, after) = (signed(ordinal.0), signed(after.0));
    for table in ["skipped", "buried"] {
        script.statement(&format!("DELETE FROM {table} WHERE sub = ? AND from_seq > ?")).bind(sub).bind(after);
        script
            .statement(&format!("UPDATE {table} SET to_seq = ? WHERE sub = ? AND to_seq > ?"))
            .bind(after)
            .bind(sub)
            .bind(after);
    }
}

/// Remembers that these dead letters went; of each subscription the newest ranges.
pub(super) fn bury(script: &mut Script, letters: &[(Ordinal, Seq)]) {
    let mut letters = letters.to_vec();
    letters.sort_unstable();
    for run in letters.chunk_by(|(ordinal, seq), (next_ordinal, next)| ordinal == next_ordinal && seq.next() == *next) {
        if let (Some((ordinal, from)), Some((_, to))) = (run.first(), run.last()) {
            merge_ranges(script, "buried", &ExpiredRange { ordinal: *ordinal, from: *from, to: *to });
        }
    }
    for of_one in letters.chunk_by(|(ordinal, _), (next, _)| ordinal == next) {
        let Some((ordinal, _)) = of_one.first() else { continue };
        script.statement(
            "DELETE FROM buried WHERE sub = ? AND from_seq <= \
             (SELECT from_seq FROM buried WHERE sub = ? ORDER BY from_seq DESC LIMIT 1 OFFSET ?)",
        );
        script.bind(signed(ordinal.0)).bind(signed(ordinal.0)).bind(BURIED_MAX);
    }
}
