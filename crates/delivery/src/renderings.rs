//! Where events are filled into templates that may take long: aside from the lanes, a few at a time, and with a mark by
//! which the next start knows during which of them the process died.
//!
//! Subscriptions take turns: each has at most one rendering here (see [`super::filled`]), and places are given in the order in
//! which they were asked for. So many renderings of one subscription hold nobody else up longer than one of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use hookcast_core::model::Event;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::template::{Allowance, RenderError, Template};
use hookcast_supervise::{Panic, on_pool};
use marks::{Mark, Marks};

mod marks;

/// Why there is no result.
#[derive(Debug)]
pub enum RenderingError {
    /// The event cannot be filled in.
    Template(RenderError),
    /// The process ended while it was filled in before; it is not tried again by itself.
    Crashed,
    /// Whoever filled it in panicked.
    Panicked(Panic),
    /// The relay stops.
    Stopped,
}

/// The places where events are filled in.
#[derive(Debug)]
pub struct Renderings {
    places: Semaphore,
    marks: Marks,
    cancel: CancellationToken,
}

impl Renderings {
    /// Places for at most this many renderings at a time. Marks stand in the file at `path`; without one there are none.
    #[must_use]
    pub fn open(count: usize, path: Option<&Path>, cancel: CancellationToken) -> Self {
        let marks = path.map_or_else(Marks::none, |path| {
            Marks::open(path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "renderings are not marked; one that ends the process is tried again");
                Marks::none()
            })
        });
        Self { places: Semaphore::new(count.max(1)), marks, cancel }
    }

    /// Whether the process ended during this very rendering. Tells so once: whoever asks for it again gets it tried again.
    #[must_use]
    pub fn has_crashed(&self, ordinal: Ordinal, event: &Event, log_id: &str) -> bool {
        self.marks.has_any() && self.marks.take(&Mark::of(ordinal, event, log_id))
    }

    /// Fills an event in, once there is a place.
    ///
    /// # Errors
    /// [`RenderingError`]
    pub async fn render(
        self: &Arc<Self>,
        template: &Arc<Template>,
        event: &Event,
        (ordinal, log_id): (Ordinal, &str),
        allowance: Allowance,
    ) -> Result<Bytes, RenderingError> {
        let place = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(RenderingError::Stopped),
            place = self.places.acquire() => place.map_err(|_| RenderingError::Stopped)?,
        };
        let (template, event, here) = (Arc::clone(template), event.clone(), Arc::clone(self));
        let mark = Mark::of(ordinal, &event, log_id);
        let rendered = on_pool(move || {
            let _marked = here.marks.set(&mark);
            template.render(&event, &allowance)
        });
        let rendered = rendered.await;
        drop(place);
        rendered.map_err(RenderingError::Panicked)?.map_err(RenderingError::Template)
    }
}

/// The time that this thread worked: what a rendering is charged for also when others use the processor.
#[must_use]
pub fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::filled::Filled;
    use hookcast_core::model::ErrorKind;
    use hookcast_core::model::fixture::order;
    use hookcast_core::model::subscription;

    const LOG: &str = "abcdefgh";

    fn filled(body: &str) -> Filled {
        Filled::of(&subscription::Template { body: body.to_owned(), content_type: "text/plain".to_owned() })
    }

    /// An event with more data than is filled in at once.
    fn event(seq: u64) -> Event {
        order(seq, "text/plain", &[b'x'; 5000])
    }

    #[tokio::test]
    async fn subscriptions_take_turns() {
        let renderings = Arc::new(Renderings::open(1, None, CancellationToken::new()));
        let (first, second) = (filled("{{ data|length }}"), filled("{{ data|length }}"));
        let ended = std::sync::Mutex::new(Vec::new());
        let held = renderings.places.acquire().await.unwrap();
        let events: Vec<_> = (1..5).map(event).collect();
        let run = async |filled: &Filled, number: usize| {
            filled.content(&events[number], LOG, (Ordinal(1), &renderings)).await.unwrap();
            ended.lock().unwrap().push(number);
        };
        let all = async { tokio::join!(run(&first, 0), run(&first, 1), run(&first, 2), run(&second, 3)) };
        let mut all = pin!(all);
        // They are asked for in this order, before there is a place.
        assert_eq!(all.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        drop(held);
        all.await;
        assert_eq!(*ended.lock().unwrap(), [0, 3, 1, 2]);
    }

    #[tokio::test]
    async fn what_waits_ends_with_its_subscription_and_with_the_relay() {
        let cancel = CancellationToken::new();
        let renderings = Arc::new(Renderings::open(1, None, cancel.clone()));
        let (gone, other) = (filled("{{ data|length }}"), filled("{{ data|length }}"));
        let held = renderings.places.acquire().await.unwrap();
        let events: Vec<_> = (1..5).map(event).collect();
        let content = async |filled: &Filled, number: usize| {
            filled.content(&events[number], LOG, (Ordinal(1), &renderings)).await.err().and_then(|outcome| outcome.error())
        };
        let mut waiting = pin!(async { tokio::join!(content(&gone, 0), content(&gone, 1), content(&gone, 2)) });
        assert_eq!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        gone.retire();
        drop(held);
        // Nobody's attempt, and nothing of it was made: not even the one that had its turn.
        let unsent = Some(ErrorKind::Storage);
        assert_eq!(waiting.await, (unsent, unsent, unsent));
        let _held = renderings.places.acquire().await.unwrap();
        let mut waiting = pin!(content(&other, 3));
        assert_eq!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        cancel.cancel();
        assert_eq!(waiting.await, unsent);
    }

    #[tokio::test]
    async fn a_rendering_that_panics_fails_its_attempt_and_gives_its_place_back() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.renderings");
        let renderings = Arc::new(Renderings::open(1, Some(&path), CancellationToken::new()));
        let text = "{{ data|length }}";
        let (broken, whole) = (filled(text).with_clock(|| panic!("a broken clock")), filled(text));
        // So much that the time is looked at before anything is filled in.
        let event = |seq| order(seq, "text/plain", &vec![b'x'; 100_000]);
        for seq in [7, 8] {
            let failed = broken.content(&event(seq), LOG, (Ordinal(1), &renderings)).await.err();
            assert_eq!(failed.and_then(|outcome| outcome.error()), Some(ErrorKind::Internal));
        }
        assert_eq!(renderings.places.available_permits(), 1);
        whole.content(&event(7), LOG, (Ordinal(2), &renderings)).await.unwrap();
        // It did not end the process, so nothing is held against the event.
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn a_rendering_that_ended_the_process_is_not_tried_again_by_itself() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.renderings");
        let open = || Arc::new(Renderings::open(1, Some(&path), CancellationToken::new()));
        std::mem::forget(open().marks.set(&Mark::of(Ordinal(1), &event(7), LOG)));
        let (renderings, filled) = (open(), filled("{{ data|length }}"));
        for (ordinal, seq, is_dead) in [(2, 7, false), (1, 8, false), (1, 7, true), (1, 7, false)] {
            let content = filled.content(&event(seq), LOG, (Ordinal(ordinal), &renderings)).await;
            let dead = content.err().map(|outcome| outcome.describe());
            assert_eq!(dead.as_deref(), is_dead.then_some("rendering_crashed"), "{ordinal} {seq}");
        }
        // Nothing that ended well leaves a mark.
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
    }
}
