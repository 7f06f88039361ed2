//! Every task of the relay is started here, and none dies in silence.
//!
//! A task is given out as one of three kinds: *essential* (its panic ends the process, once everything is saved), *restarted*
//! (it begins anew, later and later), *single* (a short errand: its panic is told and counted, nothing more). What a task does
//! is its own business; this file knows names only. `deadline` is how tasks wait for others with a limit.

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;

pub mod deadline;
pub mod readiness;

pub use hookcast_core::panics::{Caught, Panic, catch, caught, tell_panics_by_log};

/// Pause before a task that panicked is started again; doubled by each panic up to [`RESTART_AFTER_MAX`].
pub const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Longest pause before a task is started again; one that ran for so long begins with the short one.
pub const RESTART_AFTER_MAX: Duration = Duration::from_mins(1);
/// Exit code: a task that must not end ended.
pub const EXIT_TASK: u8 = 70;

/// The name of a task, as it stands in the log, in metrics and behind `/task/`.
pub type TaskName = Cow<'static, str>;

/// Starts tasks and watches them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    readiness: Readiness,
    stopping: CancellationToken,
}

impl Supervisor {
    /// One that reports what died under `/task/…`.
    #[must_use]
    pub fn over(readiness: Readiness) -> Self {
        Self(Arc::new(Inner { readiness, stopping: CancellationToken::new() }))
    }

    /// A task that the relay cannot go on without: when it panics, the process saves what it can and ends with [`EXIT_TASK`].
    pub fn essential<N, F>(&self, name: N, task: F) -> Task<impl Future<Output = ()> + use<N, F>>
    where
        N: Into<TaskName>,
        F: Future<Output = ()>,
    {
        // In a box, so that what is spawned holds it once.
        let (supervisor, name, task) = (self.clone(), name.into(), Box::pin(task));
        Task(async move {
            if let Err(panic) = caught(task).await {
                supervisor.panicked(name, &panic);
            }
        })
    }

    /// A task that is started again when it panics, after [`RESTART_AFTER`], later and later up to [`RESTART_AFTER_MAX`].
    /// While it waits for that, the relay is not ready. It is over when it returns.
    pub fn restarted<N, F>(&self, name: N, mut start: F) -> Task<impl Future<Output = ()> + use<N, F>>
    where
        N: Into<TaskName>,
        F: AsyncFnMut(),
    {
        let (supervisor, name) = (self.clone(), name.into());
        Task(async move {
            let pointer = pointer(&name);
            let mut restarts = Restarts::new(name);
            loop {
                let began = Instant::now();
                let Err(panic) = caught(pin!(start())).await else { return };
                let pause = restarts.after(&panic, began.elapsed());
                supervisor.0.readiness.report_told(&pointer, format!("it panicked and is started again soon: {panic}"));
                let waited = supervisor.0.stopping.run_until_cancelled(tokio::time::sleep(pause)).await;
                supervisor.0.readiness.heal(&pointer);
                if waited.is_none() {
                    return;
                }
            }
        })
    }

    /// A short errand of which nothing is left when it panics: that is told and counted.
    pub fn single<N, F>(&self, name: N, task: F) -> Task<impl Future<Output = ()> + use<N, F>>
    where
        N: Into<TaskName>,
        F: Future<Output = ()>,
    {
        let (name, task) = (name.into(), Box::pin(task));
        Task(async move {
            if let Err(panic) = caught(task).await {
                panic.tell(&name, "it is left out");
            }
        })
    }

    /// A task that must not end panicked, and whoever noticed caught it.
    pub fn panicked(&self, name: impl Into<TaskName>, panic: &Panic) {
        let name = name.into();
        panic.tell(&name, "the process saves what it can and ends; a restart loses nothing");
        self.0.readiness.end_told(EXIT_TASK, &pointer(&name), format!("{name} panicked: {panic}"));
    }

    /// A task that must not end before the relay stops has ended.
    pub fn ended(&self, name: impl Into<TaskName>, detail: &str) {
        let name = name.into();
        if !self.0.stopping.is_cancelled() {
            tracing::error!(task = %name, detail, "a task ended that must not: the process saves what it can and ends");
            self.0.readiness.end_told(EXIT_TASK, &pointer(&name), format!("{name} ended: {detail}"));
        }
    }

    /// Nothing is started again from now on.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }
}

/// Under which a task is reported; what stands behind a slash in its name is a part of it.
fn pointer(task: &str) -> String {
    format!("/task/{}", task.split_once('/').map_or(task, |(whole, _)| whole))
}

/// How often a task panicked lately, and how long it rests after each time.
#[derive(Debug)]
pub struct Restarts {
    name: TaskName,
    pause: Duration,
}

impl Restarts {
    /// A task that never panicked.
    #[must_use]
    pub fn new(name: impl Into<TaskName>) -> Self {
        Self { name: name.into(), pause: RESTART_AFTER }
    }

    /// Tells a panic and counts it; the pause before the task is started again. `ran` is how long it lived.
    pub fn after(&mut self, panic: &Panic, ran: Duration) -> Duration {
        let pause = if ran >= RESTART_AFTER_MAX { RESTART_AFTER } else { self.pause };
        self.pause = (pause * 2).min(RESTART_AFTER_MAX);
        counter!("hookcast_task_restarts_total", "task" => self.name.clone()).increment(1);
        panic.tell(&self.name, &format!("it is started again in {} s", pause.as_secs()));
        pause
    }
}

/// A task that is watched, to be started.
#[must_use = "a task does nothing before it is spawned"]
#[derive(Debug)]
pub struct Task<F>(F);

impl<F: Future<Output = ()>> Task<F> {
    /// The same, with something to do once it is over and not started again.
    pub fn then(self, last: impl AsyncFnOnce()) -> Task<impl Future<Output = ()>> {
        Task(async move {
            self.0.await;
            last().await;
        })
    }
}

impl<F: Future<Output = ()> + 'static> Task<F> {
    /// Starts it on this thread.
    pub fn spawn_local(self) -> JoinHandle<()> {
        tokio::task::spawn_local(self.0)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Task<F> {
    /// Starts it on the present runtime.
    pub fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(self.0)
    }

    /// Starts it on another runtime.
    pub fn spawn_on(self, runtime: &Handle) -> JoinHandle<()> {
        runtime.spawn(self.0)
    }
}

/// Does heavy work on a thread of its own.
///
/// # Errors
/// The panic that it ended by.
pub async fn on_pool<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panic> {
    match tokio::task::spawn_blocking(move || catch(work)).await {
        Ok(done) => done,
        Err(error) => Err(Panic::new(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
