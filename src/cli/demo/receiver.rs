//! A receiver of the demo: verifies the signature, compares the bytes with the recording, and counts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;

use super::upstream::Upstream;
use hookcast_core::clock::{Clock as _, SystemClock};
use hookcast_core::signature::standard::{PreparedKey, Received, verify};

/// What a receiver has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Events of the upstream that arrived, each counted once.
    pub(super) delivered: u64,
    /// Those of them whose signature and bytes are right.
    pub(super) verified: u64,
    /// Attempts that were not the first for their event.
    pub(super) retried: u64,
    /// Deliveries with a wrong signature or wrong bytes.
    pub(super) wrong: u64,
}

/// One receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Id of its subscription.
    pub(super) name: &'static str,
    key: PreparedKey,
    /// It answers every n-th request with 500; 0 = never.
    fails_every: u64,
    upstream: Arc<Upstream>,
    requests: AtomicU64,
    seen: Mutex<Seen>,
}

/// The events that arrived: all up to `all_to`, and those further on one by one.
#[derive(Debug, Default)]
struct Seen {
    counts: Counts,
    all_to: u64,
    beyond: BTreeSet<u64>,
}

impl Seen {
    /// Remembers an event; false when it was there before.
    fn note(&mut self, number: u64) -> bool {
        let is_new = number > self.all_to && self.beyond.insert(number);
        while self.beyond.remove(&(self.all_to + 1)) {
            self.all_to += 1;
        }
        is_new
    }
}

impl Receiver {
    pub(super) fn new(name: &'static str, key: PreparedKey, fails_every: u64, upstream: Arc<Upstream>) -> Self {
        Self { name, key, fails_every, upstream, requests: AtomicU64::new(0), seen: Mutex::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.seen().counts
    }

    /// Judges one delivery and gives the status to answer.
    fn judge(&self, request: &HttpRequest, body: &[u8]) -> StatusCode {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let received = Received {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signatures: header("webhook-signature"),
            body,
        };
        let is_signed = verify(std::slice::from_ref(&self.key), &received, SystemClock.now()).is_ok();
        // What somebody publishes to the topic by hand is welcome, but no part of the recording.
        let number = (header("ce-source") == super::SOURCE_PATH).then(|| header("ce-id").parse().ok()).flatten();
        let is_genuine = is_signed && number.is_none_or(|number| self.upstream.data(number) == Some(body));
        let is_retry = header("hookcast-attempt").parse().is_ok_and(|attempt: u64| attempt > 1);
        let is_failing =
            self.fails_every > 0 && (self.requests.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.fails_every);
        let mut seen = self.seen();
        seen.counts.retried += u64::from(is_retry);
        if !is_genuine {
            seen.counts.wrong += 1;
            return StatusCode::UNAUTHORIZED;
        }
        if is_failing {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        if number.is_some_and(|number| seen.note(number)) {
            seen.counts.delivered += 1;
            seen.counts.verified += 1;
        }
        StatusCode::NO_CONTENT
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a delivery.
pub(super) async fn receive(request: HttpRequest, body: Bytes, receiver: web::Data<Receiver>) -> HttpResponse {
    HttpResponse::new(receiver.judge(&request, &body))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use bytes::BytesMut;

    use super::*;
    use hookcast_core::signature::standard::sign_into;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn receiver(fails_every: u64) -> Receiver {
        Receiver::new("r", PreparedKey::parse(SECRET).unwrap(), fails_every, Arc::new(Upstream::new(1)))
    }

    /// Delivers event `number` with its own bytes or others.
    fn deliver(receiver: &Receiver, number: u64, attempt: u64, other: Option<&[u8]>) -> u16 {
        let body = other.unwrap_or_else(|| receiver.upstream.data(number).unwrap());
        let mut signature = BytesMut::new();
        let now_s = SystemClock.now().as_secs();
        sign_into([&PreparedKey::parse(SECRET).unwrap()], "msg_1", now_s, body, &mut signature);
        let request = TestRequest::post()
            .insert_header(("webhook-id", "msg_1"))
            .insert_header(("webhook-timestamp", now_s.to_string()))
            .insert_header(("webhook-signature", signature.to_vec()))
            .insert_header(("ce-source", super::super::SOURCE_PATH))
            .insert_header(("ce-id", number.to_string()))
            .insert_header(("hookcast-attempt", attempt.to_string()));
        receiver.judge(&request.to_http_request(), body).as_u16()
    }

    #[test]
    fn an_event_counts_once_and_only_with_the_right_bytes() {
        let receiver = receiver(0);
        assert_eq!(deliver(&receiver, 2, 1, None), 204);
        assert_eq!(deliver(&receiver, 2, 2, None), 204);
        assert_eq!(deliver(&receiver, 1, 1, Some(b"{}")), 401);
        assert_eq!(receiver.counts(), Counts { delivered: 1, verified: 1, retried: 1, wrong: 1 });
        assert_eq!(deliver(&receiver, 1, 1, None), 204);
        let seen = receiver.seen();
        assert_eq!((seen.all_to, seen.beyond.len()), (2, 0));
    }

    #[test]
    fn a_wrong_signature_is_refused() {
        let receiver = receiver(0);
        let request = TestRequest::post().insert_header(("webhook-id", "msg_1")).to_http_request();
        assert_eq!(receiver.judge(&request, b"{}").as_u16(), 401);
        assert_eq!(receiver.counts().wrong, 1);
    }

    #[test]
    fn one_request_in_so_many_fails() {
        let receiver = receiver(5);
        let answers: Vec<u16> = (1..=10).map(|number| deliver(&receiver, number, 1, None)).collect();
        assert_eq!(answers, [204, 204, 204, 204, 500, 204, 204, 204, 204, 500]);
        assert_eq!(receiver.counts().delivered, 8);
    }
}
