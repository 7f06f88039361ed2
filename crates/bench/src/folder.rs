//! The directory that a part of a benchmark runs in: removed with it, or, when it was ended by force, by the next benchmark.

use std::fs::File;
use std::path::Path;
use std::sync::Once;

use anyhow::Context as _;
use tempfile::TempDir;

/// How its name begins.
const PREFIX: &str = "hookcast-bench-";
/// A file in it that is locked for as long as it is in use. The lock goes with the process, however that ends.
const LOCK: &str = "bench.lock";
/// The same before it is locked: a file of the other name that nobody has locked was left.
const NEW_LOCK: &str = "bench.lock.new";

/// A directory of its own.
#[derive(Debug)]
pub(crate) struct Folder {
    directory: TempDir,
    /// Given up once the directory is removed.
    _lock: File,
}

impl Folder {
    /// A new one among the temporary directories; the first that a benchmark makes removes those that others left there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn make() -> anyhow::Result<Self> {
        static SWEPT: Once = Once::new();
        let among = std::env::temp_dir();
        SWEPT.call_once(|| sweep(&among));
        Self::make_in(&among)
    }

    fn make_in(among: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(among).context("make a directory to run in")?;
        let new = directory.path().join(NEW_LOCK);
        let lock = File::create(&new)?;
        lock.lock()?;
        std::fs::rename(new, directory.path().join(LOCK))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what benchmarks left that were ended by force. What cannot be looked at or removed belongs to somebody else, and stays.
fn sweep(among: &Path) {
    for entry in std::fs::read_dir(among).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let lock = is_ours.then(|| File::open(entry.path().join(LOCK)).ok()).flatten();
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_any_more_is_removed_and_nothing_else() {
        let among = tempfile::tempdir().unwrap();
        let used = Folder::make_in(among.path()).unwrap();
        // As a process that was killed leaves one.
        let Folder { directory, .. } = Folder::make_in(among.path()).unwrap();
        let left = directory.keep();
        std::fs::write(left.join("hookcast.db"), "rows").unwrap();
        let others = among.path().join("hookcast-bench-without-lock");
        std::fs::create_dir(&others).unwrap();
        sweep(among.path());
        assert!(used.path().is_dir() && others.is_dir() && !left.exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }
}
