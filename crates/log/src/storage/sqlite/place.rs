//! The place of the database: its path, the lock file that keeps a second process out, the first look at the file.
//!
//! It must not be used while a connection of this process is open: closing any descriptor of the file drops the locks that
//! `SQLite` holds on it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::cannot_open;
use super::fault::damaged;
use crate::storage::{Result, StorageError, StorageErrorKind};

/// What stands in the header of our files, by place: magic, page size, kind of journal, no reserved bytes and the payload
/// fractions, schema format, no vacuum, UTF-8, no incremental vacuum, nothing in the part kept for later. Where there are
/// two, the second is that of a file whose first tables are still in the WAL.
///
/// The library looks at some of these bytes only in part. Spec: sqlite.org/fileformat2.html, section 1.3.
const HEADER: [(usize, [&[u8]; 2]); 9] = [
    (0, [b"SQLite format 3\0"; 2]),
    (16, [&[16, 0]; 2]),
    (18, [&[2, 2], &[1, 1]]),
    (20, [&[0, 64, 32, 32]; 2]),
    (44, [&[0, 0, 0, 4], &[0; 4]]),
    (52, [&[0; 4]; 2]),
    (56, [&[0, 0, 0, 1], &[0; 4]]),
    (64, [&[0; 4]; 2]),
    (72, [&[0; 20]; 2]),
];
/// Length of the header of a database file, in bytes.
const HEADER_BYTES: usize = 100;

/// A place that nobody else holds; let go when dropped.
pub(super) struct Place {
    path: PathBuf,
    /// The newest one counts; those before it are held on to.
    locks: Vec<File>,
    /// The files that were there when it was opened.
    marks: Vec<(Loss, Mark)>,
}

/// A file that is not where it was: it was removed, or another took its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// What is committed lies in a file that nobody will find.
    Wal,
    /// Nothing keeps a second process out.
    Lock,
    /// What is copied out of the WAL goes to a file that nobody will find.
    Database,
}

/// What tells a file from another of its name.
type Mark = (u64, u64);

impl Loss {
    /// Of several the first is told: it says what can still be saved.
    const ALL: [Self; 3] = [Self::Database, Self::Wal, Self::Lock];

    /// Who reports it.
    pub(super) fn pointer(self) -> &'static str {
        match self {
            Self::Wal => "/storage/wal",
            Self::Lock => "/storage/lock",
            Self::Database => "/storage/database",
        }
    }

    /// What follows, in one sentence.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Wal => "the write-ahead log (-wal) of the database was removed; what is in it is saved and the process ends",
            Self::Lock => "the lock file of the database was removed; what is open is saved and the process ends",
            Self::Database => "the database file was removed or replaced; nothing more is written and the process ends",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Wal => "-wal",
            Self::Lock => ".lock",
            Self::Database => "",
        }
    }
}

impl Place {
    /// Takes the place and makes an empty file when there is none.
    ///
    /// # Errors
    /// `InUse`, `CannotOpen`, or `Corrupt` for a file that is no database.
    pub(super) fn take(path: &Path) -> Result<Self> {
        // A relative name that begins with `file:` would be read as a URI with options in it; an absolute one never is.
        let path = std::path::absolute(path).map_err(|error| cannot_open(path, "not a usable path", error))?;
        if path.is_dir() {
            return Err(cannot_open(&path, "is a directory", std::io::Error::from(ErrorKind::IsADirectory)));
        }
        let lock = lock(&path)?;
        refuse_half_restored(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        // It holds keys and header values of endpoints.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(|error| cannot_open(&path, "cannot be opened for writing", error))?;
        check_header(&path, &mut file)?;
        Ok(Self { path, locks: vec![lock], marks: Vec::new() })
    }

    /// Remembers which files are there, once all of them are.
    pub(super) fn remember(&mut self) {
        let mark = |loss: Loss| Some((loss, mark(&beside(&self.path, loss.suffix())).ok()?));
        self.marks = Loss::ALL.into_iter().filter_map(mark).collect();
    }

    /// A file that is not where it was, if there is one. A file system that does not answer is no loss.
    pub(super) fn look(&self) -> Option<Loss> {
        let is_lost = |(loss, known): &&(Loss, Mark)| match mark(&beside(&self.path, loss.suffix())) {
            Ok(found) => found != *known,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        self.marks.iter().find(is_lost).map(|(loss, _)| *loss)
    }

    /// Takes the lock anew after its file was removed; `false` when somebody else has it.
    pub(super) fn retake(&mut self) -> bool {
        let taken = lock(&self.path);
        taken.map(|lock| self.locks.push(lock)).is_ok()
    }

    /// The absolute path of the database.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Looks at the beginning of a file.
///
/// # Errors
/// `Corrupt` for a file that is no database of ours.
pub(super) fn check(path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(|error| cannot_open(path, "cannot be opened", error))?;
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        return Err(damaged(format_args!("{} is empty", path.display())));
    }
    check_header(path, &mut file)
}

/// Takes the lock of a place, until the file is dropped.
///
/// # Errors
/// `InUse`, `CannotOpen`
pub(super) fn lock(path: &Path) -> Result<File> {
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(beside(path, Loss::Lock.suffix()));
    let file = open.map_err(|error| cannot_open(path, "its lock file cannot be made", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("locked: database {} is in use by another process", path.display());
            Err(StorageError::new(StorageErrorKind::InUse, message))
        }
        Err(TryLockError::Error(error)) => Err(cannot_open(path, "its lock file cannot be locked", error)),
    }
}

/// Where a restore puts its copy together before it gives it the name of the database.
pub(super) const RESTORING: &str = ".restoring";

/// An empty database would take the place of the copy that was on its way, and of the data that it has put aside.
fn refuse_half_restored(path: &Path) -> Result<()> {
    let restoring = beside(path, RESTORING);
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0) || !restoring.exists() {
        return Ok(());
    }
    let message = format!(
        "a restore was cut off before database {} was in its place: run it again, or remove {}",
        path.display(),
        restoring.display()
    );
    Err(StorageError::new(StorageErrorKind::CannotOpen, message))
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(unix)]
fn mark(path: &Path) -> std::io::Result<Mark> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn mark(path: &Path) -> std::io::Result<Mark> {
    std::fs::metadata(path).map(|_| (0, 0))
}

/// An empty file is a new database; anything else must begin like one.
fn check_header(path: &Path, file: &mut File) -> Result<()> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let read = file.take(HEADER_BYTES as u64).read_to_end(&mut header);
    read.map_err(|error| cannot_open(path, "cannot be read", error))?;
    let is_right = |(at, either): &(usize, [&[u8]; 2])| either.iter().any(|bytes| header[*at..].starts_with(bytes));
    if header.is_empty() || (header.len() == HEADER_BYTES && HEADER.iter().all(is_right)) {
        return Ok(());
    }
    Err(damaged(format_args!("{} does not begin like a database of ours", path.display())))
}
