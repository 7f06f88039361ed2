//! Parts of bodies, however they are cut.

use super::*;
use crate::codec::cut::any_cutting;
use proptest::prelude::*;

fn items(pieces: &[&[u8]]) -> Vec<Result<PartItem, PartFault>> {
    let mut decoder = MultipartDecoder::new("B", 16);
    let mut items = Vec::new();
    for piece in pieces {
        let mut chunk = Bytes::copy_from_slice(piece);
        while let Some(item) = decoder.next(&mut chunk) {
            let is_fault = item.is_err();
            items.push(item);
            if is_fault {
                return items;
            }
        }
        assert!(chunk.is_empty());
    }
    items.extend(decoder.finish().map(Ok));
    items
}

#[allow(clippy::unnecessary_wraps, reason = "compared with what a decoder gives")]
fn part(content_type: Option<&str>, data: &'static str) -> Result<PartItem, PartFault> {
    Ok(PartItem::Part { content_type: content_type.map(str::to_owned), data: Bytes::from_static(data.as_bytes()) })
}

#[allow(clippy::unnecessary_wraps, reason = "compared with what a decoder gives")]
fn skipped(reason: SkipReason) -> Result<PartItem, PartFault> {
    Ok(PartItem::Skipped(reason))
}

#[test]
fn boundaries_are_found_quoted_or_not() {
    for (content_type, boundary) in [
        ("multipart/x-mixed-replace; boundary=abc", Some("abc")),
        ("multipart/x-mixed-replace;Boundary=\"a b;c\"; x=1", Some("a b;c")),
        ("multipart/mixed; charset=utf-8; boundary = --abc ; x=y", Some("--abc")),
        ("multipart/mixed; x=\"boundary=no\"; boundary=yes", Some("yes")),
        ("multipart/mixed; boundary=\"a\\\"b\"", Some("a\"b")),
        ("multipart/mixed", None),
        ("multipart/mixed; boundary=", None),
        ("multipart/mixed; boundary=\"open", None),
    ] {
        assert_eq!(boundary_of(content_type).as_deref(), boundary, "{content_type}");
    }
    assert_eq!(boundary_of(&format!("multipart/mixed; boundary={}", "x".repeat(201))), None);
}

#[test]
fn parts_stand_between_boundaries() {
    let body = b"preamble\r\n--B\r\nContent-Type: text/plain\r\n\r\none\r\n--B \r\n\r\ntwo\r\nlines\r\n--B--\r\nepilogue\r\n--B\r\n\r\nno";
    assert_eq!(items(&[body]), [part(Some("text/plain"), "one"), part(None, "two\r\nlines")]);
    assert_eq!(items(&[b"--B\ncontent-type:a/b\n\none\n--B\n\ntwo\n--B--"]), [part(Some("a/b"), "one"), part(None, "two")]);
}

#[test]
fn a_part_with_a_length_is_given_out_before_the_next_boundary() {
    let mut decoder = MultipartDecoder::new("B", 16);
    let mut chunk = Bytes::from_static(b"--B\r\nContent-Length: 8\r\nContent-Type: a/b\r\n\r\n1\n--B\r\n2");
    assert_eq!(decoder.next(&mut chunk), Some(part(Some("a/b"), "1\n--B\r\n2")));
    assert_eq!(
        items(&[b"--B\r\nContent-Length: 1\r\n\r\n1\r\n--B\r\n\r\n2\r\n--B"]),
        [part(None, "1"), skipped(SkipReason::Partial)]
    );
}

#[test]
fn empty_parts_and_what_only_looks_like_a_boundary_are_told_apart() {
    assert_eq!(
        items(&[b"--B\r\na: b\r\n\r\n--B\r\n\r\n\r\n--B\r\n\r\n-\r\n--BB\r\n-\r\n--B--"]),
        [part(None, ""), part(None, ""), part(None, "-\r\n--BB\r\n-"),]
    );
}

#[test]
fn long_and_cut_parts_are_skipped_and_heads_without_end_refused() {
    let long = [b"--B\r\n\r\n", &[b'x'; 40][..], b"\r\n--B\r\n\r\n1\r\n--B--"].concat();
    assert_eq!(items(&[&long]), [skipped(SkipReason::EventTooLarge), part(None, "1")]);
    let counted = [b"--B\r\ncontent-length: 40\r\n\r\n", &[b'x'; 40][..], b"\r\n--B\r\n\r\n1\r\n--B--"].concat();
    assert_eq!(items(&[&counted]), [skipped(SkipReason::EventTooLarge), part(None, "1")]);
    assert_eq!(items(&[b"--B\r\n\r\ncut"]), [skipped(SkipReason::Partial)]);
    assert_eq!(items(&[b"no boundary at all"]), []);
    let head = [b"--B\r\nx: ", &[b'x'; PART_HEAD_BYTES_MAX][..]].concat();
    assert_eq!(items(&[&head]), [Err(PartFault::HeadTooLong)]);
    for length in ["-1", "1, 1", "x", "99999999999999999999999"] {
        let head = format!("--B\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(items(&[head.as_bytes()]), [Err(PartFault::BadLength)], "{length}");
    }
    assert_eq!(items(&[b"--B\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"]), [Err(PartFault::BadLength)]);
}

#[test]
fn a_part_at_the_cap_passes_however_it_is_cut() {
    for (length, is_whole) in [(15, true), (16, true), (17, false)] {
        let body = [b"--B\r\n\r\n", &vec![b'x'; length][..], b"\r\n--B\r\n"].concat();
        let single: Vec<&[u8]> = body.chunks(1).collect();
        for pieces in [vec![&body[..]], single] {
            let found = items(&pieces);
            assert_eq!(matches!(found[..], [Ok(PartItem::Part { .. })]), is_whole, "{length}: {found:?}");
        }
    }
}

#[test]
fn what_is_held_is_bounded() {
    let mut decoder = MultipartDecoder::new("B", 16);
    for piece in [&b"--B\r\n\r\n"[..]].into_iter().chain(std::iter::repeat_n(&[b'x'; 100][..], 100)) {
        assert_eq!(decoder.next(&mut Bytes::copy_from_slice(piece)), None);
        assert!(decoder.held.len() <= 16 + 100 + 10, "{}", decoder.held.len());
    }
}

proptest! {
    #[test]
    fn cutting_changes_nothing(
        text in "(--B\r\n|\r\n|\n|--B|--B--|content-length: 3\r\n|a/b|x|\r|-| ){0,24}",
        cuts in prop::collection::vec(0usize..90, 0..6),
    ) {
        let body = format!("--B\r\n{text}");
        let pieces = any_cutting(body.as_bytes(), cuts);
        prop_assert_eq!(items(&pieces), items(&[body.as_bytes()]));
        let single: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        prop_assert_eq!(items(&single), items(&[body.as_bytes()]));
    }
}
