//! A few events an answer, `{"events":[…],"next":"n"}`, asked for by `?after=n`; at the end of the recording empty ones.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use bytes::BytesMut;
use tokio::time::Instant;

use super::protocol::{Protocol, Way};
use super::{Place, Show};
use hookcast_core::codec::json;

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "long-poll",
    content_type: "application/json",
    way: Way::LongPoll,
    write: |record, _, out| {
        if let Ok(text) = json::check(&record.data) {
            out.extend_from_slice(text.as_bytes());
        } else {
            let text = serde_json::Value::from(String::from_utf8_lossy(&record.data));
            out.extend_from_slice(text.to_string().as_bytes());
        }
    },
};

/// Most events of one answer.
const ANSWER_EVENTS_MAX: u64 = 100;
/// Time for which an answer gathers events, and that an empty one takes.
const GATHERING: Duration = Duration::from_millis(100);
const EMPTY_AFTER: Duration = Duration::from_secs(1);

/// The events behind number `after`, no earlier than the rate says.
pub(super) async fn answer(show: Arc<Show>, after: u64) -> HttpResponse {
    let mut place = Place::new(show, after);
    let mut body = BytesMut::from(&b"{\"events\":["[..]);
    // The first event of a connection is due at once, which of an answer means: one interval after the one before.
    place.next += 1;
    let ready_at = place.due().max(place.began_at + if place.show.rate > 0.0 { GATHERING } else { Duration::ZERO });
    place.next -= 1;
    if place.record().is_none() {
        tokio::time::sleep(EMPTY_AFTER).await;
    } else {
        tokio::time::sleep_until(ready_at).await;
    }
    let now = Instant::now();
    while place.next - place.first < ANSWER_EVENTS_MAX && (place.next == place.first || place.due() < now) {
        let Some(record) = place.record() else { break };
        if place.next > place.first {
            body.extend_from_slice(b",");
        }
        (place.show.protocol.write)(record, place.next, &mut body);
        place.next += 1;
    }
    body.extend_from_slice(format!("],\"next\":\"{}\"}}", place.next - 1).as_bytes());
    HttpResponse::Ok().insert_header((CONTENT_TYPE, PROTOCOL.content_type)).body(body.freeze())
}
