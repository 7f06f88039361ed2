//! Decoding of publish requests and what is answered.

use actix_web::body::MessageBody as _;
use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::HttpLimits;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{NewEvent, Seq};

fn decode(headers: &[(&'static str, &str)], body: Bytes) -> Result<Vec<NewEvent>, Problem> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let topic = Topic::parse("t").unwrap();
    let limits = HttpLimits { event_bytes: 64, batch_events: 8, ..HttpLimits::default() };
    let request = Request { headers: &map, topic: &topic, now: Timestamp(5), limits };
    let mut events = Vec::new();
    decode::events(&request, Form::of(&map)?, body, &mut |event: &NewEvent| events.push(event.clone()))?;
    Ok(events)
}

#[test]
fn lines_share_the_memory_of_the_body() {
    let body = Bytes::from_static(b"{\"a\":1}\n[2]\n");
    let events = decode(&[("content-type", "Application/X-NDJSON; charset=utf-8")], body.clone()).unwrap();
    let range = body.as_ptr_range();
    assert!(events.iter().all(|event| range.contains(&event.data.as_ptr())));
    assert!(events.iter().all(|event| !event.own_id && event.arrived_at == Timestamp(5)) && events[0].id != events[1].id);
}

#[test]
fn what_ingest_refuses_says_when_to_come_back() {
    let rows = [
        (IngestError::Busy, 503, "busy", Some("1")),
        (IngestError::Full(None), 507, "storage_full", Some("10")),
        (IngestError::Unavailable, 503, "storage_unavailable", Some("1")),
        (IngestError::Unknown, 503, "outcome_unknown", Some("1")),
        (IngestError::Mismatch { index: 2 }, 409, "idempotency_mismatch", None),
    ];
    for (error, status, slug, retry_after) in rows {
        let problem = refused(&error);
        let response = problem.response();
        assert_eq!((response.status().as_u16(), problem.slug()), (status, slug));
        assert_eq!(response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap()), retry_after);
    }
}

#[test]
fn the_answer_is_json_whatever_the_ids_hold() {
    let placed = [Placed::new(Seq(0)), Placed::repeat(Seq(u64::MAX))];
    let body = accepted(["a\"\\é", "b"].into_iter(), &placed).into_body().try_into_bytes().unwrap();
    let expected = serde_json::json!({"accepted": 1, "duplicates": 1, "events": [
        {"id": "a\"\\é", "seq": 0, "duplicate": false}, {"id": "b", "seq": u64::MAX, "duplicate": true},
    ]});
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
}

proptest! {
    #[test]
    fn any_body_is_refused_or_gives_sound_events(
        kind in prop::sample::select(vec![
            "application/json", "text/plain", "application/x-ndjson", "application/cloudevents+json",
            "application/cloudevents-batch+json",
        ]),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            "[\\[\\]{}\":,0-9a-z \n\r]{0,80}".prop_map(String::into_bytes),
        ],
        key in prop::option::of("[ -~]{1,12}"),
    ) {
        let mut headers = vec![("content-type", kind)];
        headers.extend(key.as_deref().map(|key| ("idempotency-key", key)));
        if let Ok(events) = decode(&headers, Bytes::from(body)) {
            prop_assert!(!events.is_empty());
            for event in events {
                prop_assert!(event.check().is_ok());
            }
        }
    }
}
