//! Deadlines that look once more before they blame anybody.
//!
//! Time passes while a process stands still: the machine sleeps, a container is paused, a thread is kept busy. What the other
//! side sent meanwhile lies in its socket, and the runtime may ring the alarms before it has asked the system what came: a wait
//! that a signal ended brings no events at all, and a full one brings only the first. So an alarm proves nothing yet. Owns that
//! last look; must not know what is waited for.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// An alarm that rings later than this means that the process stood still, or nearly.
const LATE: Duration = Duration::from_millis(100);
/// Looks after such a time: one asks about 1024 sockets, which is what tokio takes at once, and no thread has more than 65,536.
const LOOKS_WHEN_LATE: u32 = 64;
/// Looks that [`LastLook::again`] adds to one deadline at most: more than a socket holds, taken in pieces of 64 KiB, and not so many
/// that a byte at a time keeps a deadline away.
const LOOKS_AGAIN_MAX: u32 = 128;

/// What `future` gives, or `None` when `limit` has passed and nothing is there that would move it on.
///
/// # Cancellation
/// As that of `future`.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let until = sleep(limit).deadline();
    by(until, future).await
}

/// [`within`], up to a point in time.
///
/// # Cancellation
/// As that of `future`.
pub async fn by<F: Future>(until: Instant, future: F) -> Option<F::Output> {
    let (mut future, mut alarm) = (pin!(future), pin!(sleep_until(until)));
    let mut look = LastLook::default();
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => {
            ready!(rings(alarm.as_mut(), cx));
            look.poll(until, cx).map(|()| None)
        }
    })
    .await
}

/// Ready when an alarm rings, also for a task that has used its budget up: who is always given more to do never leaves any of it,
/// and would never hear the alarm.
pub fn rings(alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(alarm)).poll(cx)
}

/// The look at what came that stands between an alarm and giving up, for those who keep an alarm of their own.
#[derive(Debug, Default)]
pub struct LastLook {
    turn: Option<Arc<Turn>>,
    /// Looks that remain; `None` = there was none yet.
    left: Option<u32>,
    /// Looks that were added.
    added: u32,
}

impl LastLook {
    /// Ready when it is time to give up. To be called after the alarm has rung, each time that what is waited for was polled just
    /// before, and was not ready.
    pub fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(turn) = &self.turn {
            // First whom to wake, then whether it is over: the other way round, its end could wake the one before only.
            turn.task().clone_from(cx.waker());
            if !turn.is_over.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        let left = self.left.get_or_insert_with(|| if until.elapsed() > LATE { LOOKS_WHEN_LATE } else { 1 });
        if *left == 0 {
            return Poll::Ready(());
        }
        *left -= 1;
        self.turn = Some(Turn::begin(cx));
        Poll::Pending
    }

    /// What is waited for has moved on, so there may be more of it: one more look, should none remain, 128 times.
    pub fn again(&mut self) {
        if self.left == Some(0) && self.added < LOOKS_AGAIN_MAX {
            self.added += 1;
            self.left = Some(1);
        }
    }

    /// There is another deadline.
    pub fn rest(&mut self) {
        *self = Self::default();
    }
}

/// A turn of the runtime: over when it has asked the system once what came, and told whoever waits for it.
#[derive(Debug)]
struct Turn {
    /// Whom it wakes.
    task: Mutex<Waker>,
    is_over: AtomicBool,
}

impl Turn {
    fn begin(cx: &Context<'_>) -> Arc<Self> {
        let turn = Arc::new(Self { task: Mutex::new(cx.waker().clone()), is_over: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&turn));
        // It is polled once only, to leave the waker where tokio wakes what yields: behind its look at the system. Its own word
        // would not do, because any other waking of this task makes it ready.
        let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
        turn
    }

    fn task(&self) -> std::sync::MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.is_over.store(true, Ordering::Release);
        let task = self.task().clone();
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream as Far;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;
    use tokio::runtime::{Builder, Runtime};
    use tokio::task::yield_now;

    const LIMIT: Duration = Duration::from_millis(50);
    /// An alarm rings so much too late at most when the thread is free.
    const TICK: Duration = Duration::from_millis(2);

    /// Takes one event from the system at a time, as every runtime takes only so many.
    fn one_event_a_turn() -> Runtime {
        Builder::new_current_thread().enable_all().max_io_events_per_tick(1).build().unwrap()
    }

    fn pair() -> (UnixStream, Far) {
        let (near, far) = Far::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (UnixStream::from_std(near).unwrap(), far)
    }

    /// A byte that came in time, while the thread stood still until `late` after the deadline, behind news of `others` sockets.
    async fn read_after_a_standstill(others: usize, late: Duration) -> Option<u8> {
        let (mut near, mut far) = pair();
        let until = Instant::now() + LIMIT;
        let mut read = Box::pin(by(until, near.read_u8()));
        assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await.is_pending());
        for _ in 0..4 {
            // The system tells that it can be written to, the runtime itself that there is an alarm.
            yield_now().await;
        }
        let _others: Vec<_> = (0..others).map(|_| pair()).collect();
        far.write_all(b"a").unwrap();
        while until.elapsed() <= TICK + late {
            std::thread::yield_now();
        }
        read.await.map(Result::unwrap)
    }

    #[test]
    fn what_came_before_the_deadline_is_taken_after_it() {
        let read = |others, late| one_event_a_turn().block_on(read_after_a_standstill(others, late));
        assert_eq!(read(1, Duration::ZERO), Some(b'a'));
        assert_eq!(read(40, LATE), Some(b'a'));
    }

    #[test]
    fn silence_ends_with_the_deadline() {
        one_event_a_turn().block_on(async {
            let (mut near, _far) = pair();
            let began = Instant::now();
            assert!(within(LIMIT, near.read_u8()).await.is_none());
            assert!(began.elapsed() >= LIMIT);
            assert_eq!(within(LIMIT, std::future::ready(1)).await, Some(1));
        });
    }

    #[tokio::test]
    async fn who_is_never_done_hears_the_alarm_too() {
        // It gives way only because the budget of its task is used up, at every poll.
        let busy = poll_fn(|cx| -> Poll<()> {
            loop {
                ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
            }
        });
        let heard = tokio::spawn(within(LIMIT, busy));
        assert_eq!(tokio::time::timeout(Duration::from_secs(30), heard).await.expect("the alarm is heard").unwrap(), None);
    }

    #[tokio::test]
    async fn a_look_is_added_only_so_often() {
        let (mut look, until, mut looks) = (LastLook::default(), Instant::now(), 0);
        while looks < 1_000 {
            poll_fn(|cx| look.poll(until, cx)).await;
            look.again();
            looks += 1;
            if look.left == Some(0) {
                break;
            }
        }
        assert_eq!(looks, LOOKS_AGAIN_MAX + 1);
    }

    #[test]
    fn another_waking_is_no_look() {
        one_event_a_turn().block_on(async {
            let (mut look, mut polls) = (LastLook::default(), 0);
            let until = Instant::now();
            let looking = tokio::spawn(poll_fn(move |cx| {
                polls += 1;
                // A task that wakes itself is polled again and again before the runtime turns.
                let looked = look.poll(until, cx);
                if polls < 5 {
                    assert!(looked.is_pending(), "{polls}");
                    cx.waker().wake_by_ref();
                }
                looked
            }));
            looking.await.unwrap();
        });
    }
}
