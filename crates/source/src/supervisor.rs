//! Keeps one task for every source that should be read, and the status of all of them.
//!
//! A task that panics is started again, later and later, with its counters and position; the other sources do not notice.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::reconnect::{Ending, EndingClass};
use super::status::StatusCell;
use super::webhook::Door;
use super::{Session, SourceContext, SourceStatus, Upstream, protocol, runner};
use hookcast_core::model::Seq;
use hookcast_core::model::source::own::webhook::PROTOCOL;
use hookcast_core::model::source::{Incarnation, SourceRecord, SourceSpec};
use hookcast_supervise::{Restarts, catch, caught};

/// A task that hangs in a hand-over (a full disk) is given up after this long; what it held was not taken.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// All sources of a relay. Made on the runtime that reads them; usable from any thread.
#[derive(Debug)]
pub struct Sources {
    context: SourceContext,
    runtime: Handle,
    /// Held through every change, so that two of them cannot start the same source twice.
    changing: tokio::sync::Mutex<()>,
    entries: Mutex<BTreeMap<String, Entry>>,
    stop_all: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    spec: Arc<SourceSpec>,
    incarnation: Incarnation,
    /// Ids of events up to there were another upstream's.
    ids_after: Seq,
    status: Arc<StatusCell>,
    task: Option<Task>,
    /// Of a source that is called, once it was.
    door: Option<Arc<Door>>,
}

#[derive(Debug)]
struct Task {
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Entry {
    fn new(record: &SourceRecord, status: StatusCell) -> Self {
        Self {
            spec: Arc::new(record.spec.clone()),
            incarnation: record.incarnation(),
            ids_after: record.ids_after,
            status: Arc::new(status),
            task: None,
            door: None,
        }
    }

    /// Whether the record is of this source; one that was deleted and made again is another, even under the same name.
    fn is_of(&self, record: &SourceRecord) -> bool {
        self.incarnation.created_at == record.created_at
    }

    /// Whether the record says to read another upstream, be it that it went to another and back.
    fn is_replaced(&self, record: &SourceRecord) -> bool {
        self.incarnation != record.incarnation() || !self.spec.is_of_same_upstream(&record.spec)
    }
}

impl Sources {
    /// No sources yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(context: SourceContext) -> Self {
        Self {
            context,
            runtime: Handle::current(),
            changing: tokio::sync::Mutex::new(()),
            entries: Mutex::default(),
            stop_all: CancellationToken::new(),
        }
    }

    /// Makes what runs equal to `desired`: starts what is new or enabled, restarts what changed, stops and forgets the rest.
    ///
    /// A source whose URL and protocol stay goes on where it is; a new one where its record says. Returns once everything
    /// that had to stop has stopped.
    pub async fn reconcile(&self, desired: Vec<SourceRecord>) {
        let _changing = self.changing.lock().await;
        let mut gone = Vec::new();
        {
            let mut entries = self.entries();
            let wanted: BTreeMap<&str, &SourceRecord> = desired.iter().map(|record| (&*record.spec.name, record)).collect();
            let stays = |name: &str, entry: &Entry| wanted.get(name).is_some_and(|record| entry.is_of(record));
            let unwanted: Vec<String> =
                entries.iter().filter(|(name, entry)| !stays(name, entry)).map(|(name, _)| name.clone()).collect();
            gone.extend(unwanted.iter().filter_map(|name| entries.remove(name)).filter_map(|entry| entry.task));
            for entry in entries.values_mut() {
                if wanted.get(&*entry.spec.name).is_some_and(|record| record.spec != *entry.spec || entry.is_replaced(record)) {
                    gone.extend(entry.task.take());
                }
            }
        }
        stop(gone).await;
        if self.stop_all.is_cancelled() {
            return;
        }
        for record in desired {
            self.adopt(record);
        }
    }

    /// How a source is doing; `None` when there is none of that name.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<SourceStatus> {
        self.entries().get(name).map(|entry| entry.status.snapshot())
    }

    /// How all sources are doing, by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<(String, SourceStatus)> {
        self.entries().iter().map(|(name, entry)| (name.clone(), entry.status.snapshot())).collect()
    }

    /// The door of a source that is called, as its record says; `None` when it is none, or is disabled.
    ///
    /// A source that is not read yet, because its definition was stored just now, has one already.
    #[must_use]
    pub fn door(&self, record: &SourceRecord) -> Option<Arc<Door>> {
        if record.spec.protocol != PROTOCOL || !record.spec.enabled {
            return None;
        }
        let mut entries = self.entries();
        let entry = entries.entry(record.spec.name.clone()).or_insert_with(|| Entry::new(record, StatusCell::new(None, None)));
        if let Some(door) = entry.door.as_ref().filter(|door| door.revision == record.revision)
            && entry.is_of(record)
        {
            return Some(Arc::clone(door));
        }
        let door = Arc::new(Door::new(record, Arc::clone(&entry.status))?);
        if entry.is_of(record) {
            entry.door = Some(Arc::clone(&door));
        }
        Some(door)
    }

    /// Connects a source anew, whatever it is waiting for; `false` when there is none of that name or it is disabled.
    pub async fn restart(&self, name: &str) -> bool {
        let _changing = self.changing.lock().await;
        let task = match self.entries().get_mut(name) {
            Some(entry) if entry.spec.enabled => entry.task.take(),
            _ => return false,
        };
        stop(task.into_iter().collect()).await;
        if self.stop_all.is_cancelled() {
            return false;
        }
        if let Some(entry) = self.entries().get_mut(name) {
            entry.task = self.start(entry);
        }
        true
    }

    /// Stops all reading and waits until everything that was read is handed on. Nothing starts afterwards.
    pub async fn shutdown(&self) {
        self.stop_all.cancel();
        let _changing = self.changing.lock().await;
        let tasks = self.entries().values_mut().filter_map(|entry| entry.task.take()).collect();
        stop(tasks).await;
    }

    fn adopt(&self, record: SourceRecord) {
        let mut entries = self.entries();
        let away_since = self.context.away_since.filter(|since| record.created_at < *since);
        let status = || StatusCell::new(record.resume_token.clone(), away_since);
        let entry = entries.entry(record.spec.name.clone()).or_insert_with(|| Entry::new(&record, status()));
        if entry.is_replaced(&record) {
            // What the reader before handed on while it stopped came in behind the change of the definition.
            entry.ids_after = record.ids_after.max(self.context.emitter.head());
            entry.incarnation = record.incarnation();
            entry.status.begin_anew(record.resume_token);
        }
        entry.spec = Arc::new(record.spec);
        if entry.task.is_none() && entry.spec.enabled {
            entry.task = self.start(entry);
        }
    }

    fn start(&self, entry: &Entry) -> Option<Task> {
        let Some(protocol) = protocol(&entry.spec.protocol) else {
            tracing::error!(source.name = %entry.spec.name, source.protocol = %entry.spec.protocol, "unknown protocol");
            let ending = Ending::new(EndingClass::Stop, "protocol", "this relay does not know the protocol");
            entry.status.ended(&ending, self.context.clock.now(), None);
            return None;
        };
        entry.status.starting();
        let stop = self.stop_all.child_token();
        let (spec, status, context) = (Arc::clone(&entry.spec), Arc::clone(&entry.status), self.context.clone());
        let upstream = Upstream { spec: Arc::clone(&spec), incarnation: entry.incarnation, ids_after: entry.ids_after };
        let upstream = Arc::new(upstream);
        let task_stop = stop.clone();
        let handle = self.runtime.spawn(async move {
            let mut restarts = Restarts::new(format!("source-{}", spec.name));
            loop {
                let began = std::time::Instant::now();
                let opened = catch(|| {
                    let (stop, seed) = (task_stop.clone(), runner::seed());
                    (
                        Session::new(Arc::clone(&upstream), context.clone(), Arc::clone(&status), stop, seed),
                        (protocol.open)(&spec),
                    )
                });
                let ran = match opened {
                    Ok((session, source)) => caught(pin!(runner::run(session, source))).await,
                    Err(panic) => Err(panic),
                };
                let Err(panic) = ran else { return };
                let (now, pause) = (context.clock.now(), restarts.after(&panic, began.elapsed()));
                let ending = Ending::new(EndingClass::Failed, "panic", "the reader failed; it is started again");
                status.disconnected(now);
                status.ended(&ending, now, Some(now.plus(pause)));
                if task_stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    status.ended(&Ending::cancelled(), context.clock.now(), None);
                    return;
                }
            }
        });
        Some(Task { stop, handle })
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropping the set stops reading; [`Sources::shutdown`] also waits.
impl Drop for Sources {
    fn drop(&mut self) {
        self.stop_all.cancel();
    }
}

async fn stop(tasks: Vec<Task>) {
    for task in &tasks {
        task.stop.cancel();
    }
    let ends = tasks.into_iter().map(|mut task| async move {
        // Panics are caught inside, so the only failure there is comes from this abort.
        if tokio::time::timeout(STOP_TIMEOUT, &mut task.handle).await.is_err() {
            task.handle.abort();
        }
    });
    join_all(ends).await;
}
