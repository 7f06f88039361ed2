//! When the write-ahead log is copied into the database.
//!
//! A checkpoint costs two flushes, so it must not stand in front of a commit: it runs on a connection of its own beside the
//! writer. A WAL that was copied whole begins anew, which keeps the file small and its flushes free of changes to its length;
//! under load that takes a moment without commits. After [`LAP_FRAMES`] the writer gives that moment as soon as it is short,
//! after [`FRAMES_MAX`] in any case. Frames are counted from what was written and set right by every checkpoint.

use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};
use tokio::task::JoinHandle;

use hookcast_supervise::readiness::Readiness;
use hookcast_supervise::{Panic, Supervisor, caught};

/// Frames worth a checkpoint when the writer has nothing to do.
const IDLE_FRAMES: u64 = 256;
/// Frames worth a checkpoint beside a busy writer, so that little is left to wait for.
const BUSY_FRAMES: u64 = 512;
/// Frames from which on the WAL should begin anew.
const LAP_FRAMES: u64 = 1024;
/// Frames that are copied in about the time of the two flushes: so few the writer waits for, if that lets the WAL begin anew.
const REST_FRAMES: u64 = 128;
/// Frames at which the writer waits until all are copied.
const FRAMES_MAX: u64 = 2048;

/// Pause after a checkpoint that failed; every further one doubles it …
const PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Who reports that the WAL cannot be copied.
const POINTER: &str = "/storage/checkpoint";

/// Frames in the WAL and frames copied, when the database said so.
type Copied = std::result::Result<Option<(u64, u64)>, sqlx::Error>;

/// Checkpoints fail: they are tried now and then, and nobody waits for them.
struct Failing {
    pause: Duration,
    again_at: Instant,
}

/// The WAL and who copies it.
pub(super) struct Wal {
    copier: Copier,
    /// Frames in the file.
    length: u64,
    /// Frames not yet copied.
    backlog: u64,
    /// Frames written since the present checkpoint began.
    during: u64,
    /// Frames that a reader kept from being left behind when it was last tried; the lap is counted from there.
    held: u64,
    failing: Option<Failing>,
    readiness: Readiness,
    pub(super) supervisor: Supervisor,
}

enum Copier {
    Idle(SqliteConnection),
    Running(JoinHandle<std::result::Result<(SqliteConnection, Copied), Panic>>),
    /// Lost to a panic: the database closes it with the last connection.
    Gone,
}

impl Wal {
    /// Counts from zero: what an earlier process left is copied with the rest.
    pub(super) fn new(conn: SqliteConnection, readiness: Readiness, supervisor: Supervisor) -> Self {
        let copier = Copier::Idle(conn);
        Self { copier, length: 0, backlog: 0, during: 0, held: 0, failing: None, readiness, supervisor }
    }

    /// Counts what a commit wrote.
    pub(super) fn wrote(&mut self, frames: u64) {
        self.length += frames;
        self.backlog += frames;
        self.during += frames;
    }

    /// Starts a checkpoint when one is due, and waits for it when it must be. Must run on the writer's runtime.
    pub(super) async fn tend(&mut self, writer_is_idle: bool) {
        if matches!(&self.copier, Copier::Running(task) if task.is_finished()) {
            self.finish().await;
        }
        if let Some(failing) = &self.failing {
            if Instant::now() >= failing.again_at {
                self.start();
            }
            return;
        }
        let lap = self.length.saturating_sub(self.held);
        if lap >= FRAMES_MAX {
            self.finish().await;
            self.copy_rest().await;
        } else if lap >= LAP_FRAMES && self.backlog > 0 && matches!(self.copier, Copier::Idle(_)) {
            if writer_is_idle {
                self.start();
            } else if self.backlog <= REST_FRAMES {
                self.copy_rest().await;
            } else if self.backlog >= BUSY_FRAMES {
                self.start();
            }
        } else if self.backlog >= BUSY_FRAMES || (writer_is_idle && self.backlog >= IDLE_FRAMES) {
            self.start();
        }
    }

    /// Copies what is left while nothing is committed.
    async fn copy_rest(&mut self) {
        if self.backlog > 0 {
            self.start();
            self.finish().await;
        }
        self.held = self.length;
    }

    /// Copies what there is now, as far as readers let it.
    pub(super) async fn copy_now(&mut self) {
        self.finish().await;
        self.copy_rest().await;
    }

    /// Waits for a running checkpoint and closes the connection.
    pub(super) async fn close(mut self) {
        self.finish().await;
        if let Copier::Idle(conn) = self.copier {
            // The writer closes last and copies what is left.
            let _ = conn.close().await;
        }
    }

    fn start(&mut self) {
        self.copier = match std::mem::replace(&mut self.copier, Copier::Gone) {
            Copier::Idle(conn) => {
                self.during = 0;
                Copier::Running(tokio::spawn(caught(Box::pin(copy(conn)))))
            }
            other => other,
        };
    }

    async fn finish(&mut self) {
        let Copier::Running(task) = &mut self.copier else { return };
        let copied = task.await.unwrap_or_else(|error| Err(Panic::new(error.to_string())));
        let (conn, copied) = match copied {
            Ok(done) => done,
            Err(panic) => {
                // Without checkpoints the log would grow for ever.
                self.supervisor.panicked("writer/checkpoint", &panic);
                self.copier = Copier::Gone;
                return;
            }
        };
        self.copier = Copier::Idle(conn);
        match copied {
            Ok(copied) => {
                if self.failing.take().is_some() {
                    self.readiness.heal(POINTER);
                }
                if let Some((length, done)) = copied {
                    self.set_right(length, done);
                }
            }
            Err(error) => self.put_off(&error),
        }
    }

    /// The frames are safe where they are, but the WAL grows until they can be copied.
    fn put_off(&mut self, error: &sqlx::Error) {
        let pause = self.failing.as_ref().map_or(PAUSE, |failing| (2 * failing.pause).min(PAUSE_MAX));
        self.failing = Some(Failing { pause, again_at: Instant::now() + pause });
        self.readiness.report(POINTER, format!("the write-ahead log cannot be copied into the database: {error}"));
        tracing::debug!(%error, ?pause, frames = self.length, "the write-ahead log could not be copied into the database");
    }

    fn set_right(&mut self, length: u64, done: u64) {
        self.backlog = length.saturating_sub(done) + self.during;
        self.length = if self.backlog == 0 { 0 } else { length + self.during };
        // Held by a reader, or begun anew.
        if done < length || self.backlog == 0 {
            self.held = self.length;
        }
    }
}

/// One checkpoint that waits for nobody.
async fn copy(mut conn: SqliteConnection) -> (SqliteConnection, Copied) {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut conn).await;
    let copied = row.map(|row| {
        let frames = |column| row.try_get::<i64, _>(column).ok().and_then(|count| u64::try_from(count).ok());
        frames(1).zip(frames(2))
    });
    (conn, copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_checkpoint_that_panics_ends_the_process() {
        let readiness = Readiness::default();
        let conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let mut wal = Wal::new(conn, readiness.clone(), Supervisor::over(readiness.clone()));
        wal.copier = Copier::Running(tokio::spawn(caught(Box::pin(async { panic!("overflow") }))));
        wal.wrote(FRAMES_MAX);
        wal.tend(true).await;
        let ending = readiness.ended().await;
        assert_eq!(ending.exit_code, 70);
        assert!(ending.reason.starts_with("writer/checkpoint panicked: overflow"), "{}", ending.reason);
        // Whoever commits goes on, and so does the end.
        wal.wrote(FRAMES_MAX);
        wal.tend(false).await;
        wal.close().await;
    }
}
