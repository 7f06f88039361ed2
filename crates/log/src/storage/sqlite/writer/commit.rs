//! How the writer commits, and what it does when that fails.
//!
//! A failure behind the commit in the WAL leaves it in doubt: a crash would replay what was refused. Then nothing else is
//! written until a small commit has taken its place, which makes it one that never was.

use super::{Writer, settle};
use crate::storage::sqlite::batch::Batch;
use crate::storage::sqlite::fault::commit_fault;
use crate::storage::sqlite::job::{Answer, Job, Work};
use crate::storage::sqlite::script::Script;
use crate::storage::{Result, StorageError, StorageErrorKind};

use sqlx::sqlite::SqliteConnection;

/// About how many frames a probe adds to the WAL.
const PROBE_FRAMES: u64 = 4;
/// Who reports that nothing can be written.
const POINTER: &str = "/storage/writer";

impl Writer {
    /// Runs a script that is one transaction.
    ///
    /// # Errors
    /// As the database fails; nothing of it stays then, unless the kind is `Unknown`.
    pub(in crate::storage::sqlite) async fn write(&mut self, script: Option<Script>) -> Result<()> {
        let Some(script) = script else { return Ok(()) };
        self.settle_tail().await?;
        let Err(failure) = commit(&mut self.conn, script).await else {
            self.went_well();
            return Ok(());
        };
        self.went_wrong(&failure);
        if failure.kind != StorageErrorKind::Unknown {
            return Err(failure);
        }
        self.tail_in_doubt = true;
        match self.settle_tail().await {
            Ok(()) => Err(StorageError { kind: StorageErrorKind::Unavailable, ..failure }),
            Err(_) => Err(failure),
        }
    }

    /// Writes over a commit in doubt, if there is one.
    ///
    /// # Errors
    /// `Full` or `Unavailable`: it is in doubt still, and nothing may be written.
    async fn settle_tail(&mut self) -> Result<()> {
        if !self.tail_in_doubt {
            return Ok(());
        }
        match commit(&mut self.conn, Batch::probe()).await {
            Ok(()) => {
                self.tail_in_doubt = false;
                self.wal.wrote(PROBE_FRAMES);
                self.went_well();
                Ok(())
            }
            Err(failure) => {
                self.went_wrong(&failure);
                let is_full = failure.kind == StorageErrorKind::Full;
                let kind = if is_full { StorageErrorKind::Full } else { StorageErrorKind::Unavailable };
                Err(StorageError { kind, message: format!("an earlier commit is in doubt: {}", failure.message), ..failure })
            }
        }
    }

    /// Tries whether what could not be written can be written again.
    pub(super) async fn look(&mut self) {
        if self.last_write_failed || self.tail_in_doubt {
            // What comes of it is noted where it happens.
            let looked = self.write(Some(Batch::probe())).await;
            self.wal.wrote(if looked.is_ok() { PROBE_FRAMES } else { 0 });
        }
    }

    fn went_well(&mut self) {
        if std::mem::take(&mut self.last_write_failed) {
            self.shown.readiness.heal(POINTER);
        }
    }

    fn went_wrong(&mut self, failure: &StorageError) {
        self.last_write_failed = true;
        if failure.kind != StorageErrorKind::Full {
            self.shown.readiness.report(POINTER, again(failure).message);
        }
    }

    /// Tries the jobs of a group that failed, each in a transaction of its own.
    pub(super) async fn one_by_one(&mut self, jobs: Vec<Job>, failure: &StorageError) {
        let grows = |work: &Work| matches!(work, Work::Append(_));
        let is_full = failure.kind == StorageErrorKind::Full;
        // On a full disk the log must not grow; everything else may have what the ballast leaves.
        let is_worth_ballast = is_full && jobs.iter().any(|job| !grows(&job.work));
        let has_more_room = is_worth_ballast && self.shown.space.drop_ballast();
        let is_alone = jobs.len() == 1;
        for Job { work, reply } in jobs {
            if self.tail_in_doubt || (is_full && grows(&work)) || (is_alone && !has_more_room) {
                let _ = reply.send(Err(again(failure)));
                continue;
            }
            let answer = self.alone(&work).await;
            match answer {
                Ok(answer) => settle(reply, answer),
                Err(failure) => drop(reply.send(Err(failure))),
            }
        }
    }

    async fn alone(&mut self, work: &Work) -> Result<Answer> {
        let mut batch = Batch::on(&self.state);
        let answer = batch.admit(work)?;
        let (frames, script) = (batch.frames(), batch.script()?);
        let ahead = batch.into_ahead();
        self.write(script).await?;
        self.state.reach(ahead);
        self.wal.wrote(frames);
        self.publish();
        Ok(answer)
    }
}

/// Runs it, and rolls back what is left of it when it fails.
async fn commit(conn: &mut SqliteConnection, script: Script) -> Result<()> {
    let Err(error) = script.run(conn).await else { return Ok(()) };
    // Some failures have ended the transaction already; then there is nothing to roll back and that is no news.
    let _ = Script::default().rollback().run(conn).await;
    Err(commit_fault(error))
}

/// The same failure for one more caller.
fn again(failure: &StorageError) -> StorageError {
    let cause = failure.source.as_ref().map_or(String::new(), |source| format!(": {source}"));
    StorageError::new(failure.kind, format!("{}{cause}", failure.message))
}
