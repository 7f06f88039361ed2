//! Behaviour of the event-stream codec; the vectors of the specification run in `tests/it/codecs.rs`.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::SkipReason;
use crate::model::Seq;

fn items_of(pieces: &[&[u8]], event_bytes_max: usize) -> (Vec<SseItem>, String) {
    let mut decoder = SseDecoder::new(event_bytes_max, "");
    let mut items = Vec::new();
    for piece in pieces {
        let mut chunk = Bytes::copy_from_slice(piece);
        items.extend(std::iter::from_fn(|| decoder.next(&mut chunk)));
        assert!(chunk.is_empty());
    }
    (items, decoder.last_event_id().to_string())
}

fn data_of(body: &[u8], event_bytes_max: usize) -> Vec<String> {
    let items = items_of(&[body], event_bytes_max).0;
    let texts = items.into_iter().filter_map(|item| match item {
        SseItem::Event(event) => Some(String::from_utf8(event.data.to_vec()).unwrap()),
        SseItem::Skipped(reason) => Some(format!("skipped {}", reason.as_str())),
        _ => None,
    });
    texts.collect()
}

#[test]
fn an_inherited_id_is_not_the_events_own() {
    let (items, last) = items_of(&[b"id: 1\ndata: a\n\ndata: b\n\nid:\ndata: c\n\n"], 100);
    let ids: Vec<_> = items
        .iter()
        .map(|item| match item {
            SseItem::Event(event) => (event.id.as_deref(), &*event.last_event_id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [(Some("1"), "1"), (None, "1"), (None, "")]);
    assert_eq!(last, "");
}

#[test]
fn an_event_over_the_cap_is_skipped_alone_but_its_id_counts() {
    let body = b"id: 7\ndata: 123456789\n\ndata: ok\n\n";
    assert_eq!(data_of(body, 8), ["skipped event_too_large", "ok"]);
    assert_eq!(items_of(&[body], 8).1, "7");
    assert_eq!(data_of(body, 9), ["123456789", "ok"]);
    let many = [b"data: a\n".repeat(1000), b"\ndata: ok\n\n".to_vec()].concat();
    assert_eq!(data_of(&many, 1998), ["skipped event_too_large", "ok"]);
}

#[test]
fn an_overlong_line_is_not_held() {
    for (line, outcome) in [("data: ", vec!["skipped event_too_large", "ok"]), (":", vec!["ok"])] {
        let mut decoder = SseDecoder::new(100, "");
        let mut found = Vec::new();
        let piece = "x".repeat(700);
        for text in [line, &piece, &piece, &piece, "\n\n", "data: ok\n\n"] {
            let mut chunk = Bytes::copy_from_slice(text.as_bytes());
            found.extend(std::iter::from_fn(|| decoder.next(&mut chunk)));
        }
        let texts: Vec<_> = found
            .iter()
            .filter_map(|item| match item {
                SseItem::Event(event) => Some(std::str::from_utf8(&event.data).unwrap()),
                SseItem::Skipped(SkipReason::EventTooLarge) => Some("skipped event_too_large"),
                _ => None,
            })
            .collect();
        assert_eq!(texts, outcome);
    }
}

#[test]
fn retry_is_read_at_once_and_cut() {
    let (items, _) = items_of(&[b"retry: 0\nretry: 999999999999999999999\nretry: 1x\nretry: -1\n"], 100);
    assert_eq!(items, [SseItem::Retry(Duration::ZERO), SseItem::Retry(Duration::from_millis(RETRY_MS_MAX))]);
}

#[test]
fn a_heartbeat_moves_the_position_without_an_event() {
    let mut out = Vec::new();
    write_heartbeat(&mut out, Seq(42));
    assert_eq!(items_of(&[&out], 100), (vec![SseItem::Comment(Bytes::from_static(b" hb"))], "42".to_owned()));
}

#[test]
fn a_forged_block_inside_data_stays_data() {
    let mut out = Vec::new();
    write_block(&mut out, Some("1\nid: 9"), Some("x\r\ndata: forged"), b"event: msg\ndata: forged\n\rid: 3\r\n");
    let (items, last) = items_of(&[&out], 1000);
    assert_eq!(items.len(), 1);
    assert_eq!(last, "1id: 9");
    let SseItem::Event(event) = &items[0] else { panic!("an event") };
    assert_eq!(event.data, "event: msg\ndata: forged\n\nid: 3\n");
    assert_eq!(event.kind.as_deref(), Some("xdata: forged"));
}

proptest! {
    #[test]
    fn cutting_changes_nothing(
        parts in prop::collection::vec(prop::sample::select(vec![
            "data", "id", "event", "retry", ":", ": ", " ", "\r", "\n", "\r\n", "\u{feff}", "\u{20ac}", "7", "x", "\0",
        ]), 0..40),
        cap in 3usize..40,
    ) {
        let body = parts.concat();
        let whole = items_of(&[body.as_bytes()], cap);
        for cut in 0..body.len() {
            prop_assert_eq!(&items_of(&[&body.as_bytes()[..cut], &body.as_bytes()[cut..]], cap), &whole);
        }
        let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        prop_assert_eq!(&items_of(&bytes, cap), &whole);
    }

    #[test]
    fn what_is_written_is_read_back(id in "[^\r\n\0]{1,9}", kind in "[^\r\n\0]{1,9}", data in "(a|\u{e9}|\n|\r| |:|data: |\u{2028}){0,12}") {
        let mut out = Vec::new();
        write_block(&mut out, Some(&id), Some(&kind), data.as_bytes());
        let (items, _) = items_of(&[&out], 1000);
        prop_assert_eq!(items.len(), 1);
        let SseItem::Event(event) = &items[0] else { panic!("an event") };
        prop_assert_eq!(event.id.as_deref(), Some(id.as_str()));
        prop_assert_eq!(event.kind.as_deref().unwrap_or("message"), kind.as_str());
        let expected = data.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(&event.data[..], expected.as_bytes());
    }
}
