//! The writer: one thread that commits everything, in groups.
//!
//! It waits for the first job, takes whatever else waits, and commits all of it as one transaction in one hop; grouping
//! comes from the commit in progress, never from a timer. When a group fails, its jobs are tried one by one, so that a bad
//! one fails alone. Slices of slow work run when no job waits. It must not know who asks.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::mpsc;

use super::batch::Batch;
use super::damage::Damage;
use super::job::{Answer, Job, Slice, SliceJob, Work};
use super::place::Place;
use super::script::Script;
use super::space::Space;
use super::state::State;
use super::wal::Wal;
use crate::storage::{Bounds, Result, StorageError, StorageErrorKind};
use hookcast_supervise::readiness::Readiness;
use hookcast_supervise::{Supervisor, catch, caught};

mod commit;
mod watch;

use watch::Watch;

/// Jobs that one transaction takes at most.
const GROUP_JOBS_MAX: usize = 512;
/// Without work the writer looks after itself this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Groups that may go before a waiting slice.
const GROUPS_BEFORE_SLICE_MAX: u32 = 16;

/// What reaches the writer.
pub(super) struct Queues {
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) slices: mpsc::Receiver<SliceJob>,
}

/// What others see of the writer, or tell it.
pub(super) struct Shown {
    /// As of the last commit.
    pub(super) bounds: Arc<Mutex<Bounds>>,
    pub(super) space: Arc<Space>,
    pub(super) damage: Arc<Damage>,
    pub(super) readiness: Readiness,
}

/// The one who writes.
pub(super) struct Writer {
    pub(super) conn: SqliteConnection,
    pub(super) wal: Wal,
    pub(super) state: State,
    pub(super) shown: Shown,
    /// Where pages begin that are so damaged that they cannot be dropped.
    pub(super) stuck: BTreeSet<i64>,
    last_write_failed: bool,
    /// A commit failed behind the point from which on a crash would replay it, and nothing was written over it since.
    tail_in_doubt: bool,
    watch: Watch,
    supervisor: Supervisor,
    /// Let go when everything is closed.
    place: Place,
}

/// Starts the thread of a writer and gives its runtime. It ends when it is told to or when nobody can send to it any more.
///
/// # Errors
/// `CannotOpen` when the system gives no thread.
pub(super) fn start(writer: Writer, queues: Queues) -> Result<tokio::runtime::Handle> {
    let no_thread = |error: std::io::Error| StorageError {
        kind: StorageErrorKind::CannotOpen,
        message: "the writer cannot be started".to_owned(),
        source: Some(Box::new(error)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(no_thread)?;
    let home = runtime.handle().clone();
    let thread = std::thread::Builder::new().name("hookcast-writer".to_owned());
    let supervisor = writer.supervisor.clone();
    let run = move || {
        if let Err(panic) = catch(|| runtime.block_on(writer.run(queues))) {
            supervisor.panicked("writer", &panic);
        }
    };
    thread.spawn(run).map_err(no_thread)?;
    Ok(home)
}

enum Turn {
    Group(Job),
    Slice(SliceJob),
    /// Nothing waits, and nothing came for a while.
    Look,
    End,
}

impl Writer {
    /// A writer over an open connection.
    pub(super) fn new(conn: SqliteConnection, wal: Wal, state: State, place: Place, shown: Shown) -> Self {
        let (stuck, supervisor, watch) = (BTreeSet::new(), wal.supervisor.clone(), Watch::new());
        Self { conn, wal, state, shown, stuck, last_write_failed: false, tail_in_doubt: false, watch, supervisor, place }
    }

    async fn run(mut self, mut queues: Queues) {
        let mut groups = 0;
        let mut closing = Vec::new();
        loop {
            let turn = next_turn(&mut queues, groups).await;
            groups = match turn {
                Turn::Group(_) => groups + 1,
                Turn::Slice(_) => 0,
                Turn::Look => groups,
                Turn::End => break,
            };
            let done = {
                let doing = pin!(self.take_turn(turn, &mut queues, &mut closing));
                caught(doing).await
            };
            if let Err(panic) = done {
                self.supervisor.panicked("writer", &panic);
                // The others still want to save: what is committed is whole, so that is gone on from.
                if let Err(error) = self.begin_anew().await {
                    tracing::error!(%error, "the database cannot be gone on with after a panic");
                    break;
                }
            }
        }
        if self.watch.lost_database() {
            // Closing would copy the WAL into a file that nobody finds, and remove it.
            std::mem::forget((self.wal, self.conn));
        } else {
            self.wal.close().await;
            // The last connection copies the WAL and removes it; when that fails, the next start does it.
            if let Err(error) = self.conn.close().await {
                tracing::warn!(error = %error, "the database could not be closed cleanly");
            }
        }
        drop(self.place);
        for reply in closing {
            let _ = reply.send(Ok(Answer::Done));
        }
    }

    async fn take_turn(&mut self, turn: Turn, queues: &mut Queues, closing: &mut Vec<Reply>) {
        match turn {
            Turn::Group(first) => self.group(first, queues, closing).await,
            Turn::Slice(SliceJob { slice, reply }) => {
                let answer = self.slice_with_ballast(slice).await;
                self.publish();
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            Turn::Look => self.look().await,
            Turn::End => {}
        }
        self.watch(false).await;
        if !self.watch.lost_database() {
            self.wal.tend(queues.jobs.is_empty()).await;
        }
    }

    /// Forgets what is half done, and what is only believed.
    async fn begin_anew(&mut self) -> Result<()> {
        // Most often nothing is open, and that is no news.
        let _ = Script::default().rollback().run(&mut self.conn).await;
        self.state = State::load(&mut self.conn, self.state.sealing.clone()).await?;
        self.publish();
        Ok(())
    }

    /// Commits the first job with whatever else waits.
    async fn group(&mut self, first: Job, queues: &mut Queues, closing: &mut Vec<Reply>) {
        self.watch(matches!(first.work, Work::Probe)).await;
        let mut batch = Batch::on(&self.state);
        let mut admitted = Vec::new();
        let mut next = Some(first);
        while let Some(Job { work, reply }) = next {
            match work {
                Work::Close => {
                    // What was sent before is still taken; nothing more can be.
                    queues.jobs.close();
                    queues.slices.close();
                    closing.push(reply);
                }
                Work::Probe if !self.last_write_failed && self.watch.admit(&Work::Probe).is_ok() => {
                    drop(reply.send(Ok(Answer::Done)));
                }
                work => match self.ready(work).and_then(|work| batch.admit(&work).map(|answer| (work, answer))) {
                    Ok((work, answer)) => admitted.push((Job { work, reply }, answer)),
                    Err(refused) => drop(reply.send(Err(refused))),
                },
            }
            let has_room = batch.has_room() && admitted.len() < GROUP_JOBS_MAX;
            next = if has_room { queues.jobs.try_recv().ok() } else { None };
        }
        let frames = batch.frames();
        let written = match batch.script() {
            Ok(script) => {
                let ahead = batch.into_ahead();
                self.write(script).await.map(|()| self.state.reach(ahead))
            }
            Err(refused) => Err(refused),
        };
        match written {
            Ok(()) => {
                self.wal.wrote(frames);
                if self.watch.lost_wal() {
                    self.wal.copy_now().await;
                }
                self.publish();
                for (job, answer) in admitted {
                    settle(job.reply, answer);
                }
            }
            Err(failure) => self.one_by_one(admitted.into_iter().map(|(job, _)| job).collect(), &failure).await,
        }
    }

    /// Has a late append made, if the disk has room for it.
    fn ready(&self, work: Work) -> Result<Work> {
        self.watch.admit(&work)?;
        let Work::Late(make) = work else { return Ok(work) };
        let append = make();
        if !append.pages.is_empty() {
            self.shown.space.admit(append.pages.iter().map(|page| page.bytes().len() as u64).sum())?;
        }
        Ok(Work::Append(append))
    }

    async fn slice_with_ballast(&mut self, slice: Slice) -> Result<Answer> {
        match self.slice(slice).await {
            // Dropping pages takes room before it gives any.
            Err(failure) if failure.kind == StorageErrorKind::Full && self.shown.space.drop_ballast() => self.slice(slice).await,
            other => other,
        }
    }

    fn publish(&self) {
        *self.shown.bounds.lock().unwrap_or_else(PoisonError::into_inner) = self.state.bounds;
    }
}

type Reply = tokio::sync::oneshot::Sender<Result<Answer>>;

/// Jobs first, unless a slice has waited for long enough.
async fn next_turn(queues: &mut Queues, groups: u32) -> Turn {
    if groups >= GROUPS_BEFORE_SLICE_MAX
        && let Ok(slice) = queues.slices.try_recv()
    {
        return Turn::Slice(slice);
    }
    tokio::select! {
        biased;
        job = queues.jobs.recv() => job.map_or(Turn::End, Turn::Group),
        Some(slice) = queues.slices.recv() => Turn::Slice(slice),
        () = tokio::time::sleep(LOOK_EVERY) => Turn::Look,
    }
}

fn settle(reply: Reply, answer: Answer) {
    let answer = match answer {
        Answer::Fenced(partition) => {
            Err(StorageError::new(StorageErrorKind::Fenced, format!("partition {partition} was taken over")))
        }
        other => Ok(other),
    };
    // Whoever asked may have gone; the commit stands.
    let _ = reply.send(answer);
}
