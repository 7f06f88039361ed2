//! The upstream of the demo: replays the recording as server-sent events, numbered from 1, over and over.
//!
//! It behaves as a good upstream does: a connection that comes back with `Last-Event-ID` goes on behind it. When it is told to
//! stop it makes no further event, but whoever missed one can still get it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, unfold};
use tokio::time::Instant;

use hookcast_core::codec::sse::write_block;

/// A few hundred real edits of Wikipedia.
const RECORDING: &[u8] = include_bytes!("../../../assets/wikiticker.ndjson");
/// Most events in one chunk.
const CHUNK_EVENTS_MAX: u64 = 256;
/// Time between two chunks when there is nothing to catch up with.
const TURN: Duration = Duration::from_millis(20);

/// The recording and how far it has been replayed.
#[derive(Debug)]
pub(super) struct Upstream {
    lines: Vec<&'static [u8]>,
    per_second: u32,
    began_at: Instant,
    sent: AtomicU64,
    is_stopped: AtomicBool,
}

impl Upstream {
    /// An upstream that makes `per_second` events from now on.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            lines: RECORDING.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect(),
            per_second,
            began_at: Instant::now(),
            sent: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// How many events there were so far: the number of the last one.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Makes no further event.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// The bytes of event `number` as the recording has them.
    pub(super) fn data(&self, number: u64) -> Option<&'static [u8]> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.lines.get(index % self.lines.len()).copied()
    }

    /// The number up to which events may go out now.
    fn due(&self) -> u64 {
        if self.is_stopped.load(Ordering::Acquire) {
            return self.sent();
        }
        u64::try_from(self.began_at.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_mul(self.per_second.into()) / 1000
    }
}

/// Answers every request with the events behind `Last-Event-ID`.
pub(super) async fn stream(request: HttpRequest, upstream: web::Data<Upstream>) -> HttpResponse {
    let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(events(upstream.into_inner(), last.unwrap_or(0)))
}

fn events(upstream: Arc<Upstream>, last: u64) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    unfold((upstream, last), |(upstream, last)| async move {
        loop {
            let to = upstream.due().min(last.saturating_add(CHUNK_EVENTS_MAX));
            let mut chunk = BytesMut::new();
            for number in last.saturating_add(1)..=to {
                write_block(&mut chunk, Some(&number.to_string()), None, upstream.data(number)?);
            }
            if !chunk.is_empty() {
                upstream.sent.fetch_max(to, Ordering::AcqRel);
                return Some((Ok(chunk.freeze()), (upstream, to)));
            }
            tokio::time::sleep(TURN).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[actix_web::test]
    async fn a_stopped_upstream_still_gives_what_was_missed() {
        let upstream = Arc::new(Upstream::new(1000));
        let first = Box::pin(events(Arc::clone(&upstream), 0)).next().await.unwrap().unwrap();
        upstream.stop();
        let sent = upstream.sent();
        assert!(sent > 0);
        let again = Box::pin(events(Arc::clone(&upstream), 0)).next().await.unwrap().unwrap();
        assert_eq!(again, first);
        let last = Box::pin(events(Arc::clone(&upstream), sent - 1)).next().await.unwrap().unwrap();
        assert!(last.starts_with(format!("id: {sent}\n").as_bytes()));
        assert_eq!(upstream.sent(), sent);
    }

    #[test]
    fn the_recording_begins_again_at_its_end() {
        let upstream = Upstream::new(1);
        let length = upstream.lines.len() as u64;
        assert_eq!(length, 500);
        assert_eq!(upstream.data(1), upstream.data(length + 1));
        assert_eq!(upstream.data(0), None);
    }
}
