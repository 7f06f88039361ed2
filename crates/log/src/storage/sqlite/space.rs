//! Room on the disk: the reserve that intake leaves alone, and the ballast that is thrown off when the disk is full all the
//! same, so that retention and deliveries can go on. It knows nothing of what is written.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fs4::FileExt;

use crate::storage::{Reserve, Result, Room, StorageError, StorageErrorKind};

/// The disk is asked again after this time …
const ASK_EVERY: Duration = Duration::from_millis(250);
/// … or after so many bytes, whichever is first.
const ASK_EVERY_BYTES: u64 = 16 * 1024 * 1024;
/// A disk that is full again within this time is not told of again.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// Size of the ballast: enough to copy a full WAL and to drop old pages.
const BALLAST_BYTES: u64 = 8 * 1024 * 1024;

/// Watches the free space of one disk.
pub(super) struct Space {
    directory: PathBuf,
    /// A file of [`BALLAST_BYTES`] that exists to be removed.
    ballast: PathBuf,
    reserve: Reserve,
    /// Bytes of the database file that hold nothing: it never shrinks, what retention frees is filled again.
    reusable: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    at: Option<Instant>,
    bytes_since: u64,
    is_full: bool,
    has_ballast: bool,
    told_at: Option<Instant>,
    /// Whether it was told that the disk is full.
    is_told: bool,
}

impl Space {
    /// Watches the disk that holds the database at `path` and takes ballast on, beside it as `<path>.ballast`.
    pub(super) fn new(path: &Path, reserve: Reserve) -> Self {
        let directory = path.parent().unwrap_or(path).to_owned();
        let mut ballast = path.as_os_str().to_owned();
        ballast.push(".ballast");
        let space = Self { directory, ballast: ballast.into(), reserve, reusable: AtomicU64::new(0), seen: Mutex::default() };
        space.measure(&mut space.seen.lock().unwrap_or_else(PoisonError::into_inner));
        space
    }

    /// Whether `bytes` more may be written. A disk that cannot be asked is not full: the write itself will tell.
    ///
    /// # Errors
    /// `Full` when the reserve is reached; asked again soon, so that it heals by itself.
    pub(super) fn admit(&self, bytes: u64) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.bytes_since = seen.bytes_since.saturating_add(bytes);
        if seen.at.is_none_or(|at| at.elapsed() >= ASK_EVERY) || seen.bytes_since >= ASK_EVERY_BYTES {
            self.measure(&mut seen);
        }
        if seen.is_full {
            let unknown = || StorageError::new(StorageErrorKind::Full, "the disk reserve is reached");
            return Err(self.room().map_or_else(unknown, StorageError::short_of));
        }
        let _ = self.reusable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
        Ok(())
    }

    /// Learns how much of the database file holds nothing.
    pub(super) fn set_reusable(&self, bytes: u64) {
        self.reusable.store(bytes, Ordering::Relaxed);
    }

    /// Throws the ballast off; `false` when it is gone already. Intake stays shut until it is taken on again.
    pub(super) fn drop_ballast(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.has_ballast = false;
        self.turn(&mut seen, true);
        seen.at = Some(Instant::now());
        fs::remove_file(&self.ballast).is_ok()
    }

    fn measure(&self, seen: &mut Seen) {
        let mut is_full = self.room().is_some_and(|room| room.is_short());
        if !seen.has_ballast && !is_full {
            match self.take_ballast() {
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    is_full = self.reusable.load(Ordering::Relaxed) < BALLAST_BYTES;
                }
                // A file system that cannot set room aside: then there is none.
                _ => seen.has_ballast = true,
            }
        }
        self.turn(seen, is_full);
        seen.at = Some(Instant::now());
        seen.bytes_since = 0;
    }

    fn take_ballast(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.ballast)?;
        let taken = file.allocate(BALLAST_BYTES);
        if taken.is_err() {
            // Half of it would only be in the way.
            fs::remove_file(&self.ballast)?;
        }
        taken
    }

    /// What is free and what of it is the reserve; `None` when the disk cannot be asked.
    pub(super) fn room(&self) -> Option<Room> {
        let disk = fs4::statvfs(&self.directory).ok()?;
        let free_bytes = disk.available_space().saturating_add(self.reusable.load(Ordering::Relaxed));
        Some(Room { free_bytes, reserve_bytes: self.reserve.bytes(disk.total_space()) })
    }

    /// Notes whether the disk counts as full, and says so when that changes: after [`TELL_EVERY`] at the earliest, so that
    /// one that goes back and forth is no flood. How it stands at the start is for whoever starts it to say.
    fn turn(&self, seen: &mut Seen, is_full: bool) {
        let was_full = std::mem::replace(&mut seen.is_full, is_full);
        if seen.at.is_none() || was_full == is_full {
            return;
        }
        let room = self.room().unwrap_or(Room { free_bytes: 0, reserve_bytes: 0 });
        let Room { free_bytes, reserve_bytes } = room;
        if is_full && seen.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            (seen.told_at, seen.is_told) = (Some(Instant::now()), true);
            tracing::warn!(
                free_bytes,
                reserve_bytes,
                "the disk is as full as `storage.reserve` allows: events are refused (507), deliveries and streams go on; \
                 free some space on it, or lower `retention`"
            );
        } else if !is_full && std::mem::take(&mut seen.is_told) {
            tracing::info!(free_bytes, reserve_bytes, "the disk has room again: events are taken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_below_its_reserve_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("any.db");
        let refused = Space::new(&path, Reserve::Bytes(u64::MAX)).admit(1).unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Full);
        assert_eq!(refused.room().unwrap().reserve_bytes, u64::MAX);
        assert!(Space::new(&path, Reserve::Bytes(0)).admit(1).is_ok());
    }

    #[test]
    fn what_retention_freed_inside_the_file_counts_as_room() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(&dir.path().join("any.db"), Reserve::Bytes(u64::MAX));
        space.set_reusable(u64::MAX);
        space.admit(ASK_EVERY_BYTES).unwrap();
        space.set_reusable(0);
        assert_eq!(space.admit(ASK_EVERY_BYTES).unwrap_err().kind, StorageErrorKind::Full, "it was used up");
    }

    #[test]
    fn intake_stays_shut_until_the_ballast_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(&dir.path().join("any.db"), Reserve::Bytes(0));
        let ballast = dir.path().join("any.db.ballast");
        assert_eq!(ballast.metadata().unwrap().len(), BALLAST_BYTES);
        assert!(space.drop_ballast());
        assert!(!space.drop_ballast() && !ballast.exists());
        assert_eq!(space.admit(1).unwrap_err().kind, StorageErrorKind::Full);
        // As much as makes it look again before its time.
        space.admit(ASK_EVERY_BYTES).unwrap();
        assert!(ballast.exists());
    }
}
