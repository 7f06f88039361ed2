//! Storage in one `SQLite` database, the default: one writer that commits in groups, a few readers, a lock file.
//!
//! What goes in travels as jobs to the thread of `writer`, which knows the head, the leases and the revisions and decides
//! every conflict in memory; what is asked is read by `readers`. No SQL stands anywhere else. It must not know what pages,
//! checkpoints and definitions mean to those who store them.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as TurnMutex, mpsc, oneshot};

use self::job::{Answer, Job, Slice, SliceJob, Work};
use self::place::Place;
use self::readers::Readers;
use self::sealing::Sealing;
use self::space::Space;
use super::{Backend, Bounds, Result, StorageError, StorageErrorKind, StorageSettings, Store};
use hookcast_core::model::Jumps;
use hookcast_supervise::Supervisor;

mod administration;
pub mod backup;
mod batch;
mod catalog;
mod connect;
mod damage;
mod fault;
mod history;
mod job;
mod jumps;
mod ledger;
mod log;
mod migrations;
mod place;
mod readers;
mod recovery;
mod rows;
mod script;
mod sealing;
mod slices;
mod space;
mod state;
mod wal;
mod writer;

/// `sqlite://<path>`.
pub const BACKEND: Backend = Backend { scheme: "sqlite", open: |settings| Box::pin(open(settings)) };

/// Jobs that may wait for the writer; more wait at the door.
const JOBS_WAITING_MAX: usize = 1024;
/// Slices of slow work that may wait for the writer.
const SLICES_WAITING_MAX: usize = 16;

/// Opens or makes the database at `settings.path`; its directory must exist.
///
/// Beside it stand `<path>-wal` and `<path>-shm` while it is open, `<path>.lock` and `<path>.ballast` for good.
///
/// # Errors
/// `InUse` when another process has it open, `Newer` when it is of a later version, `Corrupt` when it is damaged or not ours (the file is not
/// touched then), `CannotOpen` when it cannot be made or opened.
pub async fn open(settings: StorageSettings) -> Result<Store> {
    let mut place = Place::take(&settings.path)?;
    connect::refuse_what_is_not_ours(place.path()).await?;
    let space = Arc::new(Space::new(place.path(), settings.reserve));
    let mut conn = connect::writer(place.path(), settings.durability).await?;
    connect::bring_up_to_date(&mut conn).await?;
    let sealing = Sealing::new(settings.seals.clone());
    sealing.prepare(&mut conn).await?;
    let state = state::State::load(&mut conn, sealing.clone()).await?;
    let jumps = jumps::load(&mut conn).await?;
    let free: i64 = connect::scalar(&mut conn, "PRAGMA freelist_count").await?;
    space.set_reusable(unsigned(free) * connect::DATABASE_PAGE_BYTES);
    let checkpointer = connect::checkpointer(place.path(), settings.durability).await?;
    let supervisor = Supervisor::over(settings.readiness.clone());
    let wal = wal::Wal::new(checkpointer, settings.readiness.clone(), supervisor);
    let readers = Readers::open(place.path()).await?;
    place.remember();

    let (jobs, jobs_queue) = mpsc::channel(JOBS_WAITING_MAX);
    let (slices, slices_queue) = mpsc::channel(SLICES_WAITING_MAX);
    let bounds = Arc::new(Mutex::new(state.bounds));
    let log_id = state.log_id.clone();
    let queues = writer::Queues { jobs: jobs_queue, slices: slices_queue };
    let damage = Arc::new(damage::Damage::default());
    let shown = writer::Shown {
        bounds: Arc::clone(&bounds),
        space: Arc::clone(&space),
        damage: Arc::clone(&damage),
        readiness: settings.readiness,
    };
    let home = writer::start(writer::Writer::new(conn, wal, state, place, shown), queues)?;

    let sqlite = Arc::new(Sqlite {
        log_id,
        jumps,
        sealing,
        readers,
        damage,
        page_bytes: AtomicUsize::default(),
        jobs,
        slices,
        bounds,
        space,
        trimming: TurnMutex::new(()),
        home,
    });
    let closing = Arc::clone(&sqlite);
    Ok(Store::new(sqlite.clone(), sqlite.clone(), sqlite.clone(), sqlite, move || {
        let sqlite = Arc::clone(&closing);
        Box::pin(async move { sqlite.close().await })
    }))
}

/// What callers hold.
struct Sqlite {
    log_id: String,
    /// Made while no process has it open, so it stays as it was at the start.
    jumps: Jumps,
    sealing: Sealing,
    readers: Readers,
    damage: Arc<damage::Damage>,
    /// Bytes of a page as last read.
    page_bytes: AtomicUsize,
    jobs: mpsc::Sender<Job>,
    slices: mpsc::Sender<SliceJob>,
    /// As of the last commit; written by the writer before it answers.
    bounds: Arc<Mutex<Bounds>>,
    space: Arc<Space>,
    /// One trim at a time: two would only make each other's slices useless.
    trimming: TurnMutex<()>,
    /// The writer's runtime.
    home: tokio::runtime::Handle,
}

impl Sqlite {
    /// Has the writer do something. Dropping the future does not undo it.
    async fn ask(&self, work: Work) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { work, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| cut_off())?.map_err(|error| self.with_room(error))
    }

    /// Says how much room there is to whoever is told that there is none.
    fn with_room(&self, error: StorageError) -> StorageError {
        let room = if error.kind == StorageErrorKind::Full { self.space.room() } else { None };
        match room {
            Some(room) => StorageError { source: Some(Box::new(room)), ..error },
            None => error,
        }
    }

    /// Has the writer do one slice of slow work, when nothing else waits for it.
    async fn ask_slice(&self, slice: Slice) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        self.slices.send(SliceJob { slice, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| cut_off())?
    }

    fn known_bounds(&self) -> Bounds {
        *self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The readers go first, so that the writer is the last to close and leaves no WAL behind.
    async fn close(&self) {
        self.readers.close().await;
        // An error says that it is closed already.
        let _ = self.ask(Work::Close).await;
    }
}

fn closed() -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, "the storage is closed")
}

/// The writer ended over what it was doing.
fn cut_off() -> StorageError {
    StorageError::new(StorageErrorKind::Unknown, "the storage ended before it answered")
}

/// An answer of another kind than the work asks for.
fn mismatch() -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, "the writer gave an answer of another kind")
}

fn cannot_open(path: &Path, message: &str, source: impl std::error::Error + Send + Sync + 'static) -> StorageError {
    let message = format!("database {}: {message}", path.display());
    StorageError { kind: StorageErrorKind::CannotOpen, message, source: Some(Box::new(source)) }
}

/// `SQLite` integers are signed; no position or count gets anywhere near the difference.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
