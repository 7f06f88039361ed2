//! A panic as a value: what it said and where. Catching one costs nothing while there is none.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use metrics::counter;

/// Most characters of what a panic said.
const SAID_CHARS_MAX: usize = 256;

thread_local! {
    /// How many catchers stand below the code that runs now.
    static CATCHERS: Cell<u32> = const { Cell::new(0) };
    /// Where the panic began that is on its way to a catcher.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What a panic said, and where it was when that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    said: String,
    place: Option<String>,
}

impl Panic {
    fn of(payload: &(dyn Any + Send)) -> Self {
        Self { said: said(payload), place: PLACE.take() }
    }

    /// One that is known by its text only.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { said: text.into(), place: None }
    }

    /// Counts it; for whoever writes a line of their own.
    pub fn count(task: &str) {
        counter!("hookcast_task_panics_total", "task" => task.to_owned()).increment(1);
    }

    /// Counts it, and writes the one line of the log; `consequence` says what becomes of the task.
    pub fn tell(&self, task: &str, consequence: &str) {
        Self::count(task);
        tracing::error!(task, panic = %self, "a task panicked: {consequence}");
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.said),
            None => f.write_str(&self.said),
        }
    }
}

/// What was said, on one line and not too long: it may hold text of others.
fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("it says nothing");
    text.chars().take(SAID_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Counts a catcher as long as it lives.
struct Catching;

impl Catching {
    #[inline]
    fn begin() -> Self {
        CATCHERS.set(CATCHERS.get() + 1);
        Self
    }
}

impl Drop for Catching {
    #[inline]
    fn drop(&mut self) {
        CATCHERS.set(CATCHERS.get() - 1);
    }
}

/// Runs `work`.
///
/// # Errors
/// The panic that it ended by. What it worked on may be half done; whoever goes on with that must know.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    let _catching = Catching::begin();
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panic::of(&*payload))
}

/// A future whose panic is its result; not to be polled after that. Made by [`caught`].
#[derive(Debug)]
pub struct Caught<F>(F);

/// As [`catch`], for a future that is pinned by the caller.
pub fn caught<F: Future + Unpin>(future: F) -> Caught<F> {
    Caught(future)
}

impl<F: Future + Unpin> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch(|| Pin::new(&mut self.0).poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// Has every panic of this process told by the log, in one line: a caught one by its catcher, any other where it happens.
pub fn tell_panics_by_log() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        // A thread that ends has no memory of its own any more; then nobody catches either.
        if CATCHERS.try_with(Cell::get).is_ok_and(|count| count > 0) {
            PLACE.set(place);
        } else {
            let panic = Panic { said: said(info.payload()), place };
            let thread = std::thread::current();
            panic.tell(thread.name().unwrap_or("a thread"), "nothing more is known of it");
        }
    }));
}
