//! Makes pages, exceptions and records for the storage tests.

use std::sync::Arc;

use bytes::Bytes;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::KeptException;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::source::{SourcePosition, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Event, Exception, ExceptionState, NewEvent, Page, PageBuilder, ResumeToken, Seq, Topic};
use hookcast_log::storage::{Append, Lease, LedgerChange, Store};
use serde_json::json;

/// A page of `count` events from `first` on that all arrived at `at_ms`.
pub(crate) fn page(first: u64, count: u64, at_ms: i64) -> Arc<Page> {
    page_of(first, count, at_ms, 20)
}

/// The same with so many data bytes an event.
pub(crate) fn page_of(first: u64, count: u64, at_ms: i64, data_bytes: usize) -> Arc<Page> {
    let mut builder = PageBuilder::starting_at(Seq(first));
    for seq in first..first + count {
        builder.push(&event(seq, at_ms, data_bytes));
    }
    builder.finish()
}

fn event(seq: u64, at_ms: i64, data_bytes: usize) -> NewEvent {
    NewEvent {
        topic: Topic::parse(if seq.is_multiple_of(2) { "orders.even" } else { "orders.odd" }).unwrap(),
        id: format!("event-{seq}"),
        own_id: true,
        source: "/tests".to_owned(),
        kind: "order.made".to_owned(),
        subject: None,
        time: None,
        arrived_at: Timestamp(at_ms),
        content_type: "text/plain".to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Text,
        data: Bytes::from(format!("{seq:0>data_bytes$}")),
    }
}

/// Appends these pages at the head.
pub(crate) async fn append(store: &Store, pages: Vec<Arc<Page>>) {
    let expected_head = store.log.bounds().await.unwrap().head;
    store.log.append(Append { pages, expected_head, ..Append::default() }).await.unwrap();
}

/// All positions that can be read.
pub(crate) async fn positions(store: &Store) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), Seq::ZERO);
    loop {
        let pages = store.log.read(after, 64 * 1024).await.unwrap().pages;
        let Some(last) = pages.last() else { return found };
        found.extend(pages.iter().flat_map(|page| page.events_after(after).map(|event| event.seq().0).collect::<Vec<_>>()));
        after = last.last();
    }
}

/// The positions of events.
pub(crate) fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq().0).collect()
}

/// A change that does nothing yet.
pub(crate) fn change(lease: Lease) -> LedgerChange {
    LedgerChange::new(lease)
}

/// An exception without its event.
pub(crate) fn exception(ordinal: u64, seq: u64, state: ExceptionState, due_ms: i64) -> KeptException {
    let exception = Exception {
        ordinal: Ordinal(ordinal),
        seq: Seq(seq),
        state,
        attempts: 3,
        sent: 4,
        due_at: Timestamp(due_ms),
        since: Timestamp(due_ms - 10),
        reason: "status_500".to_owned(),
        has_old_batch_id: false,
    };
    KeptException { exception, event: None }
}

/// A failed attempt.
pub(crate) fn attempt(seq: u64, n: u32, at_ms: i64) -> Attempt {
    Attempt {
        seq: Seq(seq),
        n,
        at: Timestamp(at_ms),
        outcome: "failure".to_owned(),
        status: Some(500),
        error: Some("status".to_owned()),
        latency_ms: 12,
        response: Some("no".to_owned()),
    }
}

/// Takes the partition of a subscription and puts these exceptions.
pub(crate) async fn put(store: &Store, exceptions: Vec<KeptException>) {
    for kept in exceptions {
        let lease = store.ledger.lease(kept.exception.ordinal.partition()).await.unwrap();
        let put = vec![kept];
        store.ledger.commit(vec![LedgerChange { put, ..change(lease) }]).await.unwrap();
    }
}

/// Takes the partition of a subscription and clears an exception.
pub(crate) async fn clear(store: &Store, ordinal: u64, seq: u64) {
    let lease = store.ledger.lease(Ordinal(ordinal).partition()).await.unwrap();
    let clear = vec![(Ordinal(ordinal), Seq(seq))];
    store.ledger.commit(vec![LedgerChange { clear, ..change(lease) }]).await.unwrap();
}

/// A subscription as the catalog keeps it.
pub(crate) fn subscription(id: &str) -> SubscriptionRecord {
    serde_json::from_value(json!({
        "spec": {
            "id": id, "url": "https://example.com/hook", "topics": ["orders.*"], "types": [],
            "signatures": [{"scheme": "standard", "keys": [{"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}]}],
            "disable_after": 432_000_000,
            "headers": {"x-a": "b"}, "payload": "binary", "rate_limit": {"per_second": 2.5, "burst": 4},
            "max_in_flight": 8, "max_retrying": 100, "on_full": "wait",
            "retry": {"max_attempts": 5, "schedule": [1000, 5000], "jitter": 0.2}, "timeout": 15000,
            "description": "", "metadata": {},
        },
        "ordinal": 0, "revision": 0, "activity": {"disabled": "gone"}, "starts_after": 7,
        "revisions": [{"from_seq": 8, "topics": ["orders.*"], "types": []}],
        "declared": false, "created_at": 1, "updated_at": 2,
    }))
    .unwrap()
}

/// A position of the source as [`source`] makes it.
pub(crate) fn position(name: &str, token: &str) -> SourcePosition {
    position_of(&source(name), token)
}

/// A position of the upstream that this record reads.
pub(crate) fn position_of(record: &SourceRecord, token: &str) -> SourcePosition {
    let token = ResumeToken::parse(token).unwrap();
    SourcePosition { source: record.spec.name.clone(), incarnation: record.incarnation(), token }
}

/// A source as the catalog keeps it.
pub(crate) fn source(name: &str) -> SourceRecord {
    serde_json::from_value(json!({
        "spec": {
            "name": name, "protocol": "sse", "url": "https://example.com/stream", "topic": "orders", "headers": {},
            "settings": {
                "id": null, "type": null, "subject": null, "time": null, "content_type": null, "method": "GET",
                "body": null, "idle_timeout": {"secs": 90, "nanos": 0}, "max_event_bytes": 1024,
            },
            "enabled": true,
        },
        "revision": 0, "declared": false, "resume_token": null, "created_at": 1, "updated_at": 2,
    }))
    .unwrap()
}
