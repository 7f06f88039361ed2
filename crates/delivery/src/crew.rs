//! The workers of a lane: who has nothing to do, and what lies on whose bench. No I/O.
//!
//! A worker is a task that lives as long as its lane. A job is laid on its bench and the task woken: no channel, no spawn and no
//! search a delivery. Bounded by [`SLOTS_MAX`].

use std::task::{Context, Poll, Waker};

/// Attempts that one lane makes at the same time.
pub const SLOTS_MAX: u32 = 4096;

/// All workers of a lane; `T` is a job.
#[derive(Debug)]
pub struct Crew<T> {
    benches: Vec<Bench<T>>,
    /// Workers with an empty bench that wait; the one that worked last comes last, and works first.
    resting: Vec<usize>,
    in_flight: u32,
}

#[derive(Debug)]
struct Bench<T> {
    job: Option<T>,
    waker: Option<Waker>,
    is_resting: bool,
}

/// Who takes a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// A worker that was woken.
    Woken,
    /// A new worker with this number, to be started.
    New(usize),
}

impl<T> Default for Crew<T> {
    fn default() -> Self {
        Self { benches: Vec::new(), resting: Vec::new(), in_flight: 0 }
    }
}

impl<T> Crew<T> {
    /// Jobs that were given out and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether somebody can take a job.
    #[must_use]
    pub fn has_hands(&self) -> bool {
        !self.resting.is_empty() || self.benches.len() < SLOTS_MAX as usize
    }

    /// Gives a job out; ask [`Crew::has_hands`] before.
    pub fn give(&mut self, job: T) -> Taken {
        debug_assert!(self.has_hands());
        self.in_flight += 1;
        let Some(number) = self.resting.pop() else {
            self.benches.push(Bench { job: Some(job), waker: None, is_resting: false });
            return Taken::New(self.benches.len() - 1);
        };
        let bench = &mut self.benches[number];
        bench.job = Some(job);
        bench.is_resting = false;
        if let Some(waker) = &bench.waker {
            waker.wake_by_ref();
        }
        Taken::Woken
    }

    /// A worker takes the next job itself.
    pub fn go_on(&mut self) {
        self.in_flight += 1;
    }

    /// A job has ended.
    pub fn end(&mut self) {
        self.in_flight -= 1;
    }

    /// The job on a worker's bench; without one the worker rests, however often its task is polled.
    pub fn poll_job(&mut self, number: usize, cx: &mut Context<'_>) -> Poll<T> {
        let bench = &mut self.benches[number];
        if let Some(job) = bench.job.take() {
            return Poll::Ready(job);
        }
        match &mut bench.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => bench.waker = Some(cx.waker().clone()),
        }
        if !bench.is_resting {
            bench.is_resting = true;
            self.resting.push(number);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_rests_once_and_gets_what_lies_on_its_bench() {
        let mut crew = Crew::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!((crew.give('a'), crew.give('b')), (Taken::New(0), Taken::New(1)));
        assert_eq!((crew.poll_job(0, &mut cx), crew.poll_job(1, &mut cx)), (Poll::Ready('a'), Poll::Ready('b')));
        crew.end();
        // Woken by something else than a job.
        for _ in 0..3 {
            assert!(crew.poll_job(1, &mut cx).is_pending());
        }
        assert_eq!((crew.give('c'), crew.give('d')), (Taken::Woken, Taken::New(2)));
        assert_eq!(crew.poll_job(1, &mut cx), Poll::Ready('c'));
        assert_eq!(crew.in_flight(), 3);
    }

    #[test]
    fn there_are_as_many_hands_as_slots() {
        let mut crew = Crew::default();
        for _ in 0..SLOTS_MAX {
            assert!(crew.has_hands());
            crew.give(());
        }
        assert!(!crew.has_hands());
    }
}
