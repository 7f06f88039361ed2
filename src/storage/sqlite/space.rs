//! Room on the disk: the reserve that intake leaves alone, and the ballast that is thrown off when the disk is full all the
//! same, so that retention and deliveries can go on. It knows nothing of what is written.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fs4::FileExt;

use crate::storage::{Result, StorageError, StorageErrorKind};

/// Smallest reserve when none is configured.
const RESERVE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// Part of the disk that is the reserve when none is configured and that is more.
const RESERVE_PERCENT: u64 = 5;
/// The disk is asked again after this time …
const ASK_EVERY: Duration = Duration::from_millis(250);
/// … or after so many bytes, whichever is first.
const ASK_EVERY_BYTES: u64 = 16 * 1024 * 1024;
/// Size of the ballast: enough to copy a full WAL and to drop old pages.
const BALLAST_BYTES: u64 = 8 * 1024 * 1024;

/// Watches the free space of one disk.
pub(super) struct Space {
    directory: PathBuf,
    /// A file of [`BALLAST_BYTES`] that exists to be removed.
    ballast: PathBuf,
    reserve_bytes: Option<u64>,
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
}

impl Space {
    /// Watches the disk that holds the database at `path` and takes ballast on, beside it as `<path>.ballast`.
    pub(super) fn new(path: &Path, reserve_bytes: Option<u64>) -> Self {
        let directory = path.parent().unwrap_or(path).to_owned();
        let mut ballast = path.as_os_str().to_owned();
        ballast.push(".ballast");
        let space =
            Self { directory, ballast: ballast.into(), reserve_bytes, reusable: AtomicU64::new(0), seen: Mutex::default() };
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
            return Err(StorageError::new(StorageErrorKind::Full, "the disk reserve is reached"));
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
        seen.is_full = true;
        seen.at = Some(Instant::now());
        fs::remove_file(&self.ballast).is_ok()
    }

    fn measure(&self, seen: &mut Seen) {
        seen.is_full = self.reserve_is_reached();
        if !seen.has_ballast && !seen.is_full {
            match self.take_ballast() {
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    seen.is_full = self.reusable.load(Ordering::Relaxed) < BALLAST_BYTES;
                }
                // A file system that cannot set room aside: then there is none.
                _ => seen.has_ballast = true,
            }
        }
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

    fn reserve_is_reached(&self) -> bool {
        fs4::statvfs(&self.directory)
            .is_ok_and(|disk| self.room(disk.available_space()) < reserve(self.reserve_bytes, disk.total_space()))
    }

    fn room(&self, available: u64) -> u64 {
        available.saturating_add(self.reusable.load(Ordering::Relaxed))
    }
}

/// The bytes to leave free on a disk of this size.
fn reserve(configured: Option<u64>, disk_bytes: u64) -> u64 {
    configured.unwrap_or_else(|| RESERVE_BYTES_MIN.max(disk_bytes / 100 * RESERVE_PERCENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_reserve_is_a_part_of_a_large_disk_and_never_tiny() {
        assert_eq!(reserve(None, 100_000 * MIB), 5_000 * MIB);
        assert_eq!(reserve(None, 1_000 * MIB), 256 * MIB);
        assert_eq!(reserve(Some(7), 100_000 * MIB), 7);
    }

    #[test]
    fn a_disk_below_its_reserve_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("any.db");
        assert_eq!(Space::new(&path, Some(u64::MAX)).admit(1).unwrap_err().kind, StorageErrorKind::Full);
        assert!(Space::new(&path, Some(0)).admit(1).is_ok());
    }

    #[test]
    fn what_retention_freed_inside_the_file_counts_as_room() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(&dir.path().join("any.db"), Some(u64::MAX));
        space.set_reusable(u64::MAX);
        space.admit(ASK_EVERY_BYTES).unwrap();
        space.set_reusable(0);
        assert_eq!(space.admit(ASK_EVERY_BYTES).unwrap_err().kind, StorageErrorKind::Full, "it was used up");
    }

    #[test]
    fn intake_stays_shut_until_the_ballast_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(&dir.path().join("any.db"), Some(0));
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
