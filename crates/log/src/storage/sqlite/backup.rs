//! Copies of the database: made while a relay writes to it, put back, and sealed anew.
//!
//! A copy is what one read transaction sees, so it holds every event that was accepted before it began, and the writer goes on
//! meanwhile. A copy that is put back goes on far behind everything that may have been given out since it was made: what was
//! accepted then is lost, but its positions, which receivers know from `webhook-id`, are never given to other events, however
//! often the same copy is put back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

use super::fault::{damaged, fault};
use super::jumps::{self, KIND, TOPIC};
use super::log::read_pages;
use super::place::{self, Place, RESTORING, beside};
use super::script::Script;
use super::sealing::Sealing;
use super::state::State;
use super::{connect, signed, unsigned};
use crate::seal::Seals;
use crate::storage::{Durability, Result, StorageError, StorageErrorKind};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::page::PAGE_BYTES_SOFT_MAX;
use hookcast_core::model::{NewEvent, PageBuilder, Seq, Topic};

/// Pages of events that are checked in one go, in bytes.
const CHECKED_BYTES: usize = 1 << 20;

/// Ending of the file beside a database that holds the last position at which a log went on here, as a decimal number.
const LAST_JUMP: &str = ".jump";
/// Most bytes of it that are read.
const LAST_JUMP_BYTES_MAX: u64 = 32;

/// What a restored log goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Head of the copy.
    pub copied_to: Seq,
    /// Head of the data that was there before, when there was some and it could be read.
    pub replaced_to: Option<Seq>,
    /// The position that a log went on at here before, as it is kept beside the database.
    pub last_jump: Option<Seq>,
    /// Position of the event that tells of it; the next accepted one stands behind it.
    pub head: Seq,
}

/// Copies a database to `file`, which must not be there yet; the relay that uses it, if there is one, goes on. The copy is
/// whole, checked and on the disk once it has its name; its size in bytes comes back.
///
/// # Errors
/// `CannotOpen` when there is no database, or `file` is there or cannot be made; else as the database fails.
pub async fn back_up(database: &Path, file: &Path) -> Result<u64> {
    if !database.is_file() {
        return Err(cannot(database, "is no database", io::Error::from(io::ErrorKind::NotFound)));
    }
    if file.exists() {
        return Err(cannot(file, "is there already; choose another name", io::Error::from(io::ErrorKind::AlreadyExists)));
    }
    // Without a relay the place is held, so that none begins to bring the schema up to date meanwhile.
    let _place = match Place::take(database) {
        Err(error) if error.kind != StorageErrorKind::InUse => return Err(error),
        taken => taken.ok(),
    };
    let partial = Partial::make(beside(file, ".partial"))?;
    let mut conn = connect::observer(database).await?;
    let target =
        partial.path.to_str().ok_or_else(|| cannot(file, "is no UTF-8 name", io::Error::from(io::ErrorKind::InvalidInput)))?;
    let copied = sqlx::query("VACUUM INTO ?").bind(target.to_owned()).execute(&mut conn).await;
    copied.map_err(|error| fault("copying the database", error))?;
    conn.close().await.map_err(|error| fault("closing the database", error))?;
    let mut copy = connect::observer(&partial.path).await?;
    check_whole(&mut copy).await?;
    copy.close().await.map_err(|error| fault("closing the copy", error))?;
    partial.finish(file)
}

/// Puts a copy, with the WAL beside it if there is one, in the place of a database, and lets its log go on
/// [`Seq::RESTORE_JUMP`] behind the highest of: its head, the head of what is there, the last position a log went on at here,
/// and one that rises by as much every hour. With `replaces` a database that is there is kept as `<database>.replaced`.
///
/// # Errors
/// `InUse` while a relay uses the database, `CannotOpen` when there is one and `replaces` is not set, `Corrupt` when the copy
/// is damaged or not ours, `Newer` when it is of a later version.
pub async fn restore(file: &Path, database: &Path, replaces: bool, now: Timestamp) -> Result<Restored> {
    let database = std::path::absolute(database).map_err(|error| cannot(database, "is no usable path", error))?;
    let _lock = place::lock(&database)?;
    let is_there = fs::metadata(&database).is_ok_and(|metadata| metadata.len() > 0);
    if is_there && !replaces {
        return Err(cannot(&database, "holds data; `--force` puts it aside", io::Error::from(io::ErrorKind::AlreadyExists)));
    }
    let partial = Partial::make(beside(&database, RESTORING))?;
    copy_into(file, &partial.path)?;
    let wal = beside(file, "-wal");
    if wal.is_file() {
        let to = beside(&partial.path, "-wal");
        make_private(&to)?;
        copy_into(&wal, &to)?;
    }
    place::check(&partial.path)?;
    connect::refuse_what_is_not_ours(&partial.path).await?;
    let mut conn = connect::writer(&partial.path, Durability::Full).await?;
    check_whole(&mut conn).await?;
    connect::bring_up_to_date(&mut conn).await?;
    let kept = beside(&database, LAST_JUMP);
    let replaced_to = if is_there { head_of(&database).await } else { None };
    let before = Before { replaced_to, last_jump: last_jump(&kept) };
    let restored = jump(&mut conn, before, now).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut conn)
        .await
        .map_err(|error| fault("finishing the copy", error))?;
    conn.close().await.map_err(|error| fault("closing the copy", error))?;
    // Before anybody can publish behind it.
    let mut noting = Partial::make(beside(&kept, ".partial"))?;
    noting.write(restored.head.to_string().as_bytes())?;
    noting.finish(&kept)?;
    // A WAL alone, too: it would be taken for that of the copy.
    set_aside(&database)?;
    partial.finish(&database)?;
    Ok(restored)
}

/// Seals every definition with the present key, in one transaction, and leaves no copy of what was there; how many records.
///
/// # Errors
/// `InUse` while a relay uses the database, `Sealed` when a key is not known, else as the database fails.
pub async fn rekey(database: &Path, seals: Arc<Seals>) -> Result<u64> {
    if !database.is_file() {
        return Err(cannot(database, "is no database", io::Error::from(io::ErrorKind::NotFound)));
    }
    let place = Place::take(database)?;
    connect::refuse_what_is_not_ours(place.path()).await?;
    let mut conn = connect::writer(place.path(), Durability::Full).await?;
    connect::bring_up_to_date(&mut conn).await?;
    let sealing = Sealing::new(Some(seals));
    sealing.prepare(&mut conn).await?;
    let sealed = sealing.rekey(&mut conn).await?;
    conn.close().await.map_err(|error| fault("closing the database", error))?;
    Ok(sealed)
}

/// What is known of positions that were given out here.
struct Before {
    replaced_to: Option<Seq>,
    last_jump: Option<Seq>,
}

/// The newest position of a database; `None` when it cannot be read, which the hour makes good.
async fn head_of(database: &Path) -> Option<Seq> {
    let mut conn = connect::observer(database).await.ok()?;
    let head: Option<i64> = connect::scalar(&mut conn, "SELECT coalesce(max(first + n - 1), 0) FROM log").await.ok();
    // Nothing was written, so nothing can fail that matters.
    let _ = conn.close().await;
    head.map(|head| Seq(unsigned(head)))
}

/// The position in the file beside the database; `None` when there is none in it.
fn last_jump(kept: &Path) -> Option<Seq> {
    let mut text = String::new();
    File::open(kept).ok()?.take(LAST_JUMP_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().map(Seq)
}

/// Writes the event behind the jump: the log has a hole in front of it.
async fn jump(conn: &mut SqliteConnection, before: Before, now: Timestamp) -> Result<Restored> {
    let state = State::load(conn, Sealing::default()).await?;
    let copied_to = state.bounds.head;
    let Before { replaced_to, last_jump } = before;
    let known: Vec<Seq> = [Some(copied_to), replaced_to, last_jump].into_iter().flatten().collect();
    let head = jumps::goes_on_at(&known, now).ok_or_else(|| damaged("no position is left"))?;
    let data = serde_json::json!({ "from": copied_to.next(), "to": head.prev() }).to_string();
    let mut builder = PageBuilder::starting_at(head);
    builder.push(&NewEvent {
        topic: Topic::parse(TOPIC).expect("invariant: a well-formed topic"),
        id: format!("restored-{head}"),
        own_id: false,
        source: "/hookcast".to_owned(),
        kind: KIND.to_owned(),
        subject: None,
        time: None,
        arrived_at: now,
        content_type: "application/json".to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Json,
        data: Bytes::from(data),
    });
    let page = builder.finish();
    let (t_last, total) = state.ahead().advance(head, page.bytes().len() as u64, now);
    let mut script = Script::transaction();
    script.statement("INSERT INTO log (first, n, t_last, total, topics, data) VALUES (?, ?, ?, ?, ?, ?)");
    script.bind(signed(head.0)).bind(1_i64).bind(t_last.0).bind(signed(total));
    script.bind(TOPIC.to_owned()).bind(page.bytes().to_vec());
    jumps::note(&mut script, copied_to.next(), head.prev());
    script.commit().run(conn).await.map_err(|error| fault("letting the log go on", error))?;
    Ok(Restored { copied_to, replaced_to, last_jump, head })
}

async fn check_whole(conn: &mut SqliteConnection) -> Result<()> {
    let found: String = connect::scalar(conn, "PRAGMA quick_check(1)").await?;
    if found != "ok" {
        return Err(damaged(found));
    }
    // The database does not know when a page of events was changed inside; the page does.
    let newest: i64 = connect::scalar(conn, "SELECT coalesce(max(first + n - 1), 0) FROM log").await?;
    let oldest: i64 = connect::scalar(conn, "SELECT coalesce(min(first), 1) FROM log").await?;
    let jumps = jumps::load(conn).await?;
    let mut at = Seq(unsigned(oldest)).prev();
    while at < Seq(unsigned(newest)) {
        let pages = read_pages(conn, &jumps, at, CHECKED_BYTES, PAGE_BYTES_SOFT_MAX).await?;
        at = pages.last().map_or(at.next(), |page| page.last());
    }
    Ok(())
}

/// A file that is being made, for its owner only; removed unless it is finished.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn make(path: PathBuf) -> Result<Self> {
        let partial = Self { path };
        partial.remove();
        make_private(&partial.path)?;
        Ok(partial)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        fs::write(&self.path, bytes).map_err(|error| cannot(&self.path, "cannot be written", error))
    }

    /// Flushes it and gives it its name, of which there is nothing or the whole at any time; its size in bytes.
    fn finish(self, name: &Path) -> Result<u64> {
        let flush = || -> io::Result<u64> {
            let file = File::open(&self.path)?;
            file.sync_all()?;
            fs::rename(&self.path, name)?;
            let directory = name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(directory)?.sync_all()?;
            Ok(file.metadata()?.len())
        };
        flush().map_err(|error| cannot(name, "cannot be finished", error))
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // Most are not there; one that cannot be removed shows when it is made.
            let _ = fs::remove_file(beside(&self.path, suffix));
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes an empty file for its owner only: definitions may hold secrets.
fn make_private(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|error| cannot(path, "cannot be made", error))
}

fn copy_into(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> io::Result<()> {
        let (mut from, mut to) = (File::open(from)?, OpenOptions::new().write(true).truncate(true).open(to)?);
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    };
    copy().map_err(|error| cannot(from, "cannot be copied", error))
}

/// Gives a database another name, with its WAL. A WAL without a database is put aside alone: beside another database, it would
/// be taken for that one's.
fn set_aside(database: &Path) -> Result<()> {
    let (aside, wal) = (beside(database, ".replaced"), beside(database, "-wal"));
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|error| cannot(from, "cannot be put aside", error));
    let is_there = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
    if is_there(database) {
        let aside_wal = beside(&aside, "-wal");
        // That of what was put aside before.
        let _ = fs::remove_file(&aside_wal);
        rename(database, &aside)?;
        if is_there(&wal) {
            rename(&wal, &aside_wal)?;
        }
    } else if is_there(&wal) {
        rename(&wal, &beside(&wal, ".replaced"))?;
    }
    // Made anew by whoever opens it.
    let _ = fs::remove_file(beside(database, "-shm"));
    Ok(())
}

fn cannot(path: &Path, message: &str, source: io::Error) -> StorageError {
    let message = format!("{} {message}", path.display());
    StorageError { kind: StorageErrorKind::CannotOpen, message, source: Some(Box::new(source)) }
}
