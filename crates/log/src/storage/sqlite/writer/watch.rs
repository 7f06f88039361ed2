//! Whether the files that the writer stands on are still where everybody else looks for them, and what is still done when not.

use std::time::{Duration, Instant};

use super::Writer;
use crate::storage::sqlite::job::Work;
use crate::storage::sqlite::place::Loss;
use crate::storage::{Result, StorageError, StorageErrorKind};

/// The files are looked at this often while the writer works.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// The exit code that tells it: an I/O error on data.
const EXIT_CODE: u8 = 74;

/// What the writer knows of its files.
pub(super) struct Watch {
    looked_at: Instant,
    lost: Option<Loss>,
    /// Another process has the database now.
    is_fenced: bool,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { looked_at: Instant::now(), lost: None, is_fenced: false }
    }

    /// Whether the database file itself is gone: nothing may be copied into it any more.
    pub(super) fn lost_database(&self) -> bool {
        self.lost == Some(Loss::Database)
    }

    /// Whether the WAL is gone: nothing is safe before it is copied.
    pub(super) fn lost_wal(&self) -> bool {
        self.lost == Some(Loss::Wal)
    }

    /// Once a file is lost, only progress is still taken, for the end of the process; not even that when another process has
    /// the database.
    ///
    /// # Errors
    /// `Unavailable`, or `Fenced`.
    pub(super) fn admit(&self, work: &Work) -> Result<()> {
        let Some(loss) = self.lost else { return Ok(()) };
        let kind = match work {
            Work::Commit(_) if self.is_fenced => StorageErrorKind::Fenced,
            Work::Close | Work::Commit(_) => return Ok(()),
            _ => StorageErrorKind::Unavailable,
        };
        Err(StorageError::new(kind, loss.detail()))
    }
}

impl Writer {
    /// Looks whether the files are there, unless that was done just now and nobody asks.
    pub(super) async fn watch(&mut self, is_asked: bool) {
        let watch = &mut self.watch;
        if watch.lost.is_some() || (!is_asked && watch.looked_at.elapsed() < WATCH_EVERY) {
            return;
        }
        watch.looked_at = Instant::now();
        let Some(loss) = self.place.look() else { return };
        watch.lost = Some(loss);
        // With a lock of its own again, no second process can begin before this one has ended.
        watch.is_fenced = loss == Loss::Lock && !self.place.retake();
        self.shown.readiness.end(EXIT_CODE, loss.pointer(), loss.detail());
        if loss == Loss::Wal {
            self.wal.copy_now().await;
        }
    }
}
