//! The disk reserve: whether there is still room for events. It knows nothing of what is written.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::storage::{Result, StorageError, StorageErrorKind};

/// Smallest reserve when none is configured.
const RESERVE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// Part of the disk that is the reserve when none is configured and that is more.
const RESERVE_PERCENT: u64 = 5;
/// The disk is asked again after this time …
const ASK_EVERY: Duration = Duration::from_millis(250);
/// … or after so many bytes, whichever is first.
const ASK_EVERY_BYTES: u64 = 16 * 1024 * 1024;

/// Watches the free space of one disk.
pub(super) struct Space {
    directory: PathBuf,
    reserve_bytes: Option<u64>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    at: Option<Instant>,
    bytes_since: u64,
    is_full: bool,
}

impl Space {
    /// Watches the disk that holds the database at `path`.
    pub(super) fn new(path: &Path, reserve_bytes: Option<u64>) -> Self {
        let directory = path.parent().unwrap_or(path).to_owned();
        Self { directory, reserve_bytes, seen: Mutex::default() }
    }

    /// Whether `bytes` more may be written. A disk that cannot be asked is not full: the write itself will tell.
    ///
    /// # Errors
    /// `Full` when the reserve is reached; asked again soon, so that it heals by itself.
    pub(super) fn admit(&self, bytes: u64) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.bytes_since = seen.bytes_since.saturating_add(bytes);
        if seen.at.is_none_or(|at| at.elapsed() >= ASK_EVERY) || seen.bytes_since >= ASK_EVERY_BYTES {
            seen.is_full = self.reserve_is_reached();
            seen.at = Some(Instant::now());
            seen.bytes_since = 0;
        }
        if seen.is_full {
            return Err(StorageError::new(StorageErrorKind::Full, "the disk reserve is reached"));
        }
        Ok(())
    }

    fn reserve_is_reached(&self) -> bool {
        fs4::statvfs(&self.directory).is_ok_and(|disk| disk.available_space() < reserve(self.reserve_bytes, disk.total_space()))
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
        let path = std::env::temp_dir().join("any.db");
        assert_eq!(Space::new(&path, Some(u64::MAX)).admit(1).unwrap_err().kind, StorageErrorKind::Full);
        assert!(Space::new(&path, Some(0)).admit(1).is_ok());
    }
}
