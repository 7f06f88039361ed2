//! Events for the tests of every crate; the product itself uses none.

use bytes::Bytes;

use super::event::data_form;
use super::page::PageBuilder;
use super::{Event, NewEvent, Seq, Topic};
use crate::clock::Timestamp;

/// An order at `seq` with these data and every attribute but a subject.
///
/// # Panics
/// Never: the topic is one, and the page has one event.
#[must_use]
pub fn order(seq: u64, content_type: &str, data: &[u8]) -> Event {
    let new = NewEvent {
        topic: Topic::parse("orders.eu").expect("invariant: it is a topic"),
        id: "o-1".to_owned(),
        own_id: true,
        source: "/shop".to_owned(),
        kind: "order.created".to_owned(),
        subject: None,
        time: Some("2026-03-01T12:30:00Z".to_owned()),
        arrived_at: Timestamp(1_772_000_000_000),
        content_type: content_type.to_owned(),
        data_schema: None,
        extensions: vec![("region".to_owned(), "north".to_owned())],
        hops: 0,
        form: data_form(content_type, data),
        data: Bytes::copy_from_slice(data),
    };
    let mut builder = PageBuilder::starting_at(Seq(seq));
    builder.push(&new);
    builder.finish().events_after(Seq::ZERO).next().expect("invariant: it was just pushed")
}
