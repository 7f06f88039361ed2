//! Deadlines that cost nothing while they are kept.
//!
//! A timer of the runtime is set and taken back under a lock. Most attempts end long before their deadline, so a timer is kept
//! from attempt to attempt and only moved when it goes off early, which is once a timeout and not once an attempt.

use hookcast_supervise::deadline::{LastLook, rings};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// One deadline at a time, for one attempt after the other.
#[derive(Debug)]
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    until: Instant,
    look: LastLook,
}

impl Alarm {
    pub(super) fn new(until: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(until)), until, look: LastLook::default() }
    }

    /// Sets the deadline.
    pub(super) fn set(&mut self, until: Instant) {
        self.until = until;
        self.look.rest();
        if until < self.sleep.deadline() {
            self.sleep.as_mut().reset(until);
        }
    }

    /// Ready when the deadline has passed and a last look found nothing; to be polled behind what is waited for.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_time(cx));
        self.look.poll(self.until, cx)
    }

    /// Ready when the deadline has passed; else the task is woken then, or earlier.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while rings(self.sleep.as_mut(), cx).is_ready() {
            if self.sleep.deadline() >= self.until {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.until);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    /// Waits for the deadline, which must come before `patience` is over, and not too early.
    async fn passes(alarm: &mut Alarm, until: Instant) {
        const PATIENCE: Duration = Duration::from_secs(30);
        alarm.set(until);
        tokio::time::timeout(PATIENCE, poll_fn(|cx| alarm.poll(cx))).await.expect("the deadline passes");
        assert!(Instant::now() >= until);
    }

    #[tokio::test]
    async fn a_deadline_holds_wherever_the_timer_stood_before() {
        let began = Instant::now();
        let mut alarm = Alarm::new(began + Duration::from_hours(1));
        for until_ms in [40, 41, 60, 61] {
            passes(&mut alarm, began + Duration::from_millis(until_ms)).await;
        }
    }

    #[tokio::test]
    async fn a_later_deadline_does_not_move_the_timer_before_it_goes_off() {
        let began = Instant::now();
        let first = began + Duration::from_mins(1);
        let mut alarm = Alarm::new(first);
        alarm.set(began + Duration::from_mins(2));
        assert_eq!(alarm.sleep.deadline(), first);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
    }
}
