//! When the write-ahead log is copied into the database.
//!
//! A checkpoint costs two flushes, so it must not stand in front of a commit: it runs on a connection of its own beside the
//! writer, which only waits for it once the WAL has grown to [`FRAMES_MAX`]. A WAL that was copied whole begins anew.
//! Frames are counted from what was written and set right by every checkpoint.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};
use tokio::task::JoinHandle;

/// Frames worth a checkpoint when the writer has nothing to do.
const IDLE_FRAMES: u64 = 64;
/// Frames worth a checkpoint beside a busy writer, so that little is left to wait for.
const BUSY_FRAMES: u64 = 512;
/// Frames at which the writer waits until all are copied.
const FRAMES_MAX: u64 = 1024;

type Copied = Option<(u64, u64)>;

/// The WAL and who copies it.
pub(super) struct Wal {
    copier: Copier,
    /// Frames in the file.
    length: u64,
    /// Frames not yet copied.
    backlog: u64,
    /// Frames written since the present checkpoint began.
    during: u64,
    /// Length at which the writer waits; higher while a reader keeps the WAL from beginning anew.
    wait_at: u64,
}

enum Copier {
    Idle(SqliteConnection),
    Running(JoinHandle<(SqliteConnection, Copied)>),
    /// Lost to a panic: the database closes it with the last connection.
    Gone,
}

impl Wal {
    /// Counts from zero: what an earlier process left is copied with the rest.
    pub(super) fn new(conn: SqliteConnection) -> Self {
        Self { copier: Copier::Idle(conn), length: 0, backlog: 0, during: 0, wait_at: FRAMES_MAX }
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
        if self.length >= self.wait_at {
            self.finish().await;
            if self.backlog > 0 {
                self.start();
                self.finish().await;
            }
            self.wait_at = if self.length == 0 { FRAMES_MAX } else { self.length + FRAMES_MAX };
        } else if self.backlog >= BUSY_FRAMES || (writer_is_idle && self.backlog >= IDLE_FRAMES) {
            self.start();
        }
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
                Copier::Running(tokio::spawn(copy(conn)))
            }
            other => other,
        };
    }

    async fn finish(&mut self) {
        let Copier::Running(task) = &mut self.copier else { return };
        let Ok((conn, copied)) = task.await else {
            self.copier = Copier::Gone;
            return;
        };
        self.copier = Copier::Idle(conn);
        if let Some((length, done)) = copied {
            self.set_right(length, done);
        }
    }

    fn set_right(&mut self, length: u64, done: u64) {
        self.backlog = length.saturating_sub(done) + self.during;
        self.length = if self.backlog == 0 { 0 } else { length + self.during };
    }
}

/// One checkpoint that waits for nobody; frames in the WAL and frames copied, when it worked.
async fn copy(mut conn: SqliteConnection) -> (SqliteConnection, Copied) {
    match sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut conn).await {
        Ok(row) => {
            let frames = |column| row.try_get::<i64, _>(column).ok().and_then(|count| u64::try_from(count).ok());
            let copied = frames(1).zip(frames(2));
            (conn, copied)
        }
        Err(error) => {
            // The frames are safe where they are; the next checkpoint tries again.
            tracing::warn!(error = %error, "the write-ahead log could not be copied into the database");
            (conn, None)
        }
    }
}
