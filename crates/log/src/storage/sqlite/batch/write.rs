//! Writes a batch down as one script.

use std::fmt::Write;

use super::{Batch, Skipped};
use crate::storage::sqlite::script::Script;
use crate::storage::sqlite::sealing::{Kind, Sealing};
use crate::storage::sqlite::{recovery, rows, signed};
use crate::storage::{Result, StorageError, StorageErrorKind};
use hookcast_core::model::source::SourceRecord;
use hookcast_core::model::{Exception, Page, Seq};

/// Gaps kept for one source; older ones go.
const GAPS_MAX: i64 = 1000;
/// Size of a database page, in bytes.
const FRAME_BYTES: usize = 4096;

/// Something of no meaning.
const PROBE: &str = "INSERT INTO meta (name, value) VALUES ('probe', 1) ON CONFLICT DO UPDATE SET value = value + 1";

impl Batch<'_> {
    /// A script that writes something of no meaning.
    pub(in crate::storage::sqlite) fn probe() -> Script {
        let mut script = Script::transaction();
        script.statement(PROBE);
        script.commit()
    }

    /// The script that commits it, or `None` when nothing changes.
    ///
    /// # Errors
    /// `Unavailable` for a record that cannot be encoded.
    pub(in crate::storage::sqlite) fn script(&self) -> Result<Option<Script>> {
        let mut script = Script::transaction();
        let empty = script.len();
        self.write_log(&mut script);
        self.write_progress(&mut script);
        self.write_exceptions(&mut script);
        self.write_catalog(&mut script)?;
        for change in &self.administration {
            change.write(&mut script);
        }
        if self.is_probe {
            script.statement(PROBE);
        }
        Ok((script.len() > empty).then(|| script.commit()))
    }

    /// About how many frames it adds to the WAL.
    pub(in crate::storage::sqlite) fn frames(&self) -> u64 {
        let rows = self.exceptions.len()
            + self.marked.len()
            + self.failures.len()
            + self.history.len()
            + self.subscriptions.len()
            + self.sources.len()
            + self.administration.len();
        (self.bytes / FRAME_BYTES + 2 * self.pages.len() + 2 * self.checkpoints.len() + rows + 4) as u64
    }

    fn write_log(&self, script: &mut Script) {
        let head = "INSERT INTO log (first, n, t_last, total, topics, data)";
        script.rows(head, 6, &self.pages, "", |script, (page, t_last, total)| {
            script.bind(signed(page.first().0)).bind(signed(page.len() as u64)).bind(t_last.0).bind(signed(*total));
            script.bind(topics(page)).bind(page.bytes().to_vec());
        });
        for (page, is_aside) in &self.rewritten {
            let table =
                if *is_aside { "UPDATE kept SET event = ? WHERE seq = ?" } else { "UPDATE log SET data = ? WHERE first = ?" };
            script.statement(table).bind(page.bytes().to_vec()).bind(signed(page.first().0));
        }
        for (name, token) in &self.resume_tokens {
            script.statement("UPDATE sources SET resume_token = ? WHERE name = ?");
            script.bind(token.as_str().to_owned()).bind(name.clone());
        }
        if let Some(oldest) = self.fingerprints_from {
            script.statement("DELETE FROM fingerprints WHERE last < ?").bind(signed(oldest.0));
        }
        let head = "INSERT OR REPLACE INTO fingerprints (first, last, last_at, bytes)";
        script.rows(head, 4, &self.fingerprints, "", |script, chunk| {
            script.bind(signed(chunk.first.0)).bind(signed(chunk.last.0)).bind(chunk.last_at.0).bind(chunk.bytes.clone());
        });
    }

    fn write_progress(&self, script: &mut Script) {
        let leases: Vec<_> = self.ahead.epochs.iter().collect();
        let tail = "ON CONFLICT (part) DO UPDATE SET epoch = excluded.epoch";
        script.rows("INSERT INTO checkpoints (part, epoch, frontier, state)", 4, &leases, tail, |script, (part, epoch)| {
            script.bind(i64::from(**part)).bind(signed(**epoch)).bind(0_i64).bind(Vec::<u8>::new());
        });
        let checkpoints: Vec<_> = self.checkpoints.iter().collect();
        let tail = "ON CONFLICT (part) DO UPDATE SET frontier = excluded.frontier, state = excluded.state";
        script.rows("INSERT INTO checkpoints (part, epoch, frontier, state)", 4, &checkpoints, tail, |script, (part, point)| {
            script.bind(i64::from(**part)).bind(signed(self.ahead.epoch(self.state, **part)));
            script.bind(signed(point.frontier.0)).bind(point.state.clone());
        });
    }

    fn write_exceptions(&self, script: &mut Script) {
        let put: Vec<&Exception> = self.exceptions.values().flatten().collect();
        script.rows(rows::EXCEPTION_INSERT, rows::EXCEPTION_WIDTH, &put, rows::EXCEPTION_UPSERT, |script, exception| {
            rows::bind_exception(script, exception);
        });
        for ((ordinal, seq), _) in self.exceptions.iter().filter(|(_, exception)| exception.is_none()) {
            script.statement("DELETE FROM exceptions WHERE sub = ? AND seq = ?");
            script.bind(signed(ordinal.0)).bind(signed(seq.0));
        }
        let marked: Vec<_> = self.marked.iter().collect();
        script.rows(rows::MARK_HEAD, 3, &marked, rows::MARK_TAIL, |script, ((ordinal, seq), reason)| {
            script.bind(signed(ordinal.0)).bind(signed(seq.0)).bind((*reason).clone());
        });
        let kept: Vec<_> = self.kept.iter().collect();
        script.rows("INSERT OR IGNORE INTO kept (seq, event)", 2, &kept, "", |script, (seq, event)| {
            script.bind(signed(seq.0)).bind(event.to_vec());
        });
        release(script, self.released.iter().copied());
        script.rows(rows::FAILURE_INSERT, rows::FAILURE_WIDTH, &self.failures, "", |script, (ordinal, attempt)| {
            rows::bind_failure(script, *ordinal, attempt);
        });
        for range in &self.expired {
            rows::merge_expired(script, range);
        }
        recovery::put_pages(script, &self.history);
        for step in &self.skipped {
            match step {
                Skipped::Range(range) => recovery::merge_skipped(script, range),
                Skipped::Reopened(ordinal, after) => recovery::reopen(script, *ordinal, *after),
            }
        }
        recovery::put_jobs(script, &self.jobs);
    }

    fn write_catalog(&self, script: &mut Script) -> Result<()> {
        for (id, _) in self.subscriptions.iter().filter(|(_, record)| record.is_none()) {
            script.statement("DELETE FROM subscriptions WHERE id = ?").bind(id.clone());
        }
        let put = self.subscriptions.values().flatten();
        let put =
            put.map(|record| Ok((record, serde_json::to_string(record).map_err(unreadable)?))).collect::<Result<Vec<_>>>()?;
        let sealing = &self.state.sealing;
        let head = "INSERT OR REPLACE INTO subscriptions (id, ordinal, revision, record)";
        script.rows(head, 4, &put, "", |script, (record, json)| {
            script.bind(record.spec.id.as_str().to_owned()).bind(signed(record.ordinal.0));
            script.bind(signed(record.revision)).bind(sealing.encode(Kind::Subscription, record.spec.id.as_str(), json.clone()));
        });
        if self.ahead.ordinal > self.state.ahead().ordinal {
            script.statement("UPDATE meta SET value = ? WHERE name = 'ordinal'").bind(signed(self.ahead.ordinal));
        }
        for (name, record) in &self.sources {
            if let Some(record) = record {
                put_source(script, sealing, record)?;
            } else {
                script.statement("DELETE FROM sources WHERE name = ?").bind(name.clone());
                script.statement("DELETE FROM gaps WHERE source = ?").bind(name.clone());
            }
        }
        for gap in &self.gaps {
            script.statement("INSERT INTO gaps (source, from_at, to_at, at_seq) VALUES (?, ?, ?, ?)");
            script.bind(gap.source.clone()).bind(gap.from.0).bind(gap.to.0).bind(signed(gap.at_seq.0));
            script.statement(
                "DELETE FROM gaps WHERE source = ? AND id <= \
                 (SELECT id FROM gaps WHERE source = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            );
            script.bind(gap.source.clone()).bind(gap.source.clone()).bind(GAPS_MAX);
        }
        Ok(())
    }
}

/// Drops kept events at these positions that no exception needs any more.
pub(in crate::storage::sqlite) fn release(script: &mut Script, seqs: impl Iterator<Item = Seq>) {
    let seqs: Vec<i64> = seqs.map(|seq| signed(seq.0)).collect();
    let unneeded = "AND NOT EXISTS (SELECT 1 FROM exceptions WHERE exceptions.seq = kept.seq)";
    script.keys("DELETE FROM kept WHERE seq", &seqs, unneeded);
}

fn put_source(script: &mut Script, sealing: &Sealing, record: &SourceRecord) -> Result<()> {
    let json = serde_json::to_string(&SourceRecord { resume_token: None, ..record.clone() }).map_err(unreadable)?;
    script.statement("INSERT OR REPLACE INTO sources (name, revision, record, resume_token) VALUES (?, ?, ?, ?)");
    let token = record.resume_token.as_ref().map(|token| token.as_str().to_owned());
    script.bind(record.spec.name.clone()).bind(signed(record.revision));
    script.bind(sealing.encode(Kind::Source, &record.spec.name, json)).bind(token);
    Ok(())
}

fn unreadable(error: serde_json::Error) -> StorageError {
    let message = "a definition cannot be written down".to_owned();
    StorageError { kind: StorageErrorKind::Unavailable, message, source: Some(Box::new(error)) }
}

fn topics(page: &Page) -> String {
    let mut lines = String::new();
    for topic in page.topics() {
        let _ = writeln!(lines, "{}", topic.as_str());
    }
    lines.pop();
    lines
}
