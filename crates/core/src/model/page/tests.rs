//! Pages give back what they took, and damaged ones are errors.

use super::*;
use crate::model::event::NewEvent;
use proptest::prelude::*;

fn event(topic: &str, id: &str, data: &[u8]) -> NewEvent {
    NewEvent {
        topic: Topic::parse(topic).unwrap(),
        id: id.to_owned(),
        own_id: true,
        source: "/publish".to_owned(),
        kind: "message".to_owned(),
        subject: Some("s".to_owned()),
        time: None,
        arrived_at: Timestamp(1_700_000_000_000),
        content_type: "text/plain".to_owned(),
        data_schema: None,
        extensions: vec![("traceparent".to_owned(), "00-1".to_owned())],
        hops: 1,
        form: DataForm::Text,
        data: Bytes::copy_from_slice(data),
    }
}

proptest! {
    #[test]
    fn a_page_gives_back_every_event_it_took(
        events in prop::collection::vec(("[a-c]{1,2}", "[a-z0-9]{1,20}", prop::collection::vec(any::<u8>(), 0..200)), 1..40),
    ) {
        let events: Vec<_> = events.iter().map(|(t, i, d)| event(t, i, d)).collect();
        let mut builder = PageBuilder::starting_at(Seq(7));
        for new in &events { builder.push(new); }
        let page = Arc::new(Page::decode(builder.finish().bytes().clone()).unwrap());
        prop_assert_eq!(page.last(), Seq(6 + events.len() as u64));
        let back: Vec<_> = page.events_after(Seq(0)).map(|e| e.to_new_event()).collect();
        prop_assert_eq!(back, events);
    }

    #[test]
    fn records_encoded_beforehand_make_the_same_page(
        before in "[a-d]",
        events in prop::collection::vec(("[a-c]{1,2}", "[a-z0-9]{1,20}", prop::collection::vec(any::<u8>(), 0..200)), 1..40),
    ) {
        let events: Vec<_> = events.iter().map(|(t, i, d)| event(t, i, d)).collect();
        let mut records = Records::default();
        for event in &events {
            records.push(event);
        }
        let builder = || {
            // Another event first, so that topics have other numbers in the page than in the request.
            let mut builder = PageBuilder::starting_at(Seq(7));
            builder.push(&event(&before, "before", b"x"));
            builder
        };
        let (mut direct, mut copied) = (builder(), builder());
        for (event, record) in events.iter().zip(records.iter()) {
            prop_assert_eq!((record.id(), record.arrived_at(), record.topic()), (&*event.id, event.arrived_at, &event.topic));
            prop_assert_eq!(copied.push_record(record), direct.push(event));
        }
        let (copied, direct) = (copied.finish(), direct.finish());
        prop_assert_eq!(copied.bytes(), direct.bytes());
    }

    #[test]
    fn a_damaged_page_is_an_error_and_never_a_panic(at in 0usize..400, bit in 0u8..8, cut in 0usize..400) {
        let mut builder = PageBuilder::starting_at(Seq(1));
        builder.push(&event("a", "1", b"hello"));
        builder.push(&event("b", "2", b"world"));
        let whole = builder.finish().bytes().to_vec();
        let mut flipped = whole.clone();
        let at = at % flipped.len();
        flipped[at] ^= 1 << bit;
        prop_assert!(Page::decode(flipped.into()).is_err());
        let cut = cut % whole.len();
        prop_assert!(Page::decode(Bytes::copy_from_slice(&whole[..cut])).is_err());
    }
}

#[test]
fn events_after_a_position_start_behind_it() {
    let mut builder = PageBuilder::starting_at(Seq(10));
    for id in ["a", "b", "c"] {
        builder.push(&event("t", id, b"x"));
    }
    let page = builder.finish();
    let seqs = |after| page.events_after(Seq(after)).map(|e| e.seq().0).collect::<Vec<_>>();
    assert_eq!(seqs(0), [10, 11, 12]);
    assert_eq!(seqs(10), [11, 12]);
    assert_eq!(seqs(12), [0u64; 0]);
}
