//! Responses whole, in pieces, and broken.

use super::{Fault, Framing, HEAD_BYTES_MAX, Taker};
use proptest::prelude::*;
use std::fmt::Write as _;

/// Head and body, one behind the other.
#[derive(Default)]
struct Seen(Vec<u8>);

impl Taker for Seen {
    fn head(&mut self, head: &[u8]) -> Result<(), Fault> {
        assert!(self.0.is_empty(), "one head an answer");
        self.0.extend_from_slice(head);
        Ok(())
    }

    fn body(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }
}

/// What passes of `wire`, cut at `cuts`; with the state at the end.
fn run(wire: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Framing), Fault> {
    let mut framing = Framing::new();
    framing.begin();
    let mut seen = Seen::default();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(wire.len());
    let mut at = 0;
    for cut in cuts {
        let piece = &wire[at..cut];
        at = cut;
        framing.feed(piece, &mut seen)?;
    }
    Ok((seen.0, framing))
}

fn whole(wire: &str) -> Result<(String, bool, bool), Fault> {
    let (out, framing) = run(wire.as_bytes(), &[])?;
    Ok((String::from_utf8(out).unwrap(), framing.is_reading(), framing.is_last()))
}

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n";
const DECHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nok";
const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[test]
fn a_response_passes_unchanged_and_ends_where_it_ends() {
    for wire in [PLAIN, EMPTY, "HTTP/1.1 200 OK\ncontent-length : 0\n\n"] {
        assert_eq!(whole(wire), Ok((wire.to_owned(), false, false)), "{wire}");
    }
    assert_eq!(whole(CHUNKED), Ok((DECHUNKED.to_owned(), false, false)));
}

#[test]
fn interim_responses_are_skipped() {
    for interim in ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        assert_eq!(whole(&format!("{interim}{interim}{PLAIN}")), Ok((PLAIN.to_owned(), false, false)));
    }
    assert_eq!(whole(&"HTTP/1.1 102 x\r\n\r\n".repeat(9)), Err(Fault::Interim));
    assert_eq!(whole("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Err(Fault::Switching));
}

#[test]
fn bytes_behind_the_end_are_withheld_and_end_the_connection() {
    for (wire, passed) in [(PLAIN, PLAIN), (CHUNKED, DECHUNKED), (EMPTY, EMPTY)] {
        assert_eq!(whole(&format!("{wire}HTTP/1.1 200 OK\r\n\r\n")), Ok((passed.to_owned(), false, true)), "{wire}");
    }
}

#[test]
fn a_body_without_length_is_read_to_the_end_of_the_connection() {
    let (out, reading, last) = whole("HTTP/1.1 200 OK\r\n\r\nhello").unwrap();
    assert_eq!((out.as_str(), reading, last), ("HTTP/1.1 200 OK\r\n\r\nhello", true, true));
}

#[test]
fn control_bytes_in_a_head_do_not_spoil_the_answer() {
    let wire = "HTTP/1.1 200 OK\r\nX: \u{1b}[2J\t\0\u{7f}\r\nContent-Length: 3\r\n\r\n\u{1b}[J";
    let clean = "HTTP/1.1 200 OK\r\nX: ?[2J\t??\r\nContent-Length: 3\r\n\r\n\u{1b}[J";
    assert_eq!(whole(wire), Ok((clean.to_owned(), false, false)));
    let (out, _) = run(wire.as_bytes(), &[5, 20, 30]).unwrap();
    assert_eq!(out, clean.as_bytes());
}

#[test]
fn connections_that_end_are_known() {
    for wire in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: x, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert!(whole(wire).unwrap().2, "{wire}");
    }
    assert!(!whole("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").unwrap().2);
}

#[test]
fn what_is_no_response_is_refused_at_once() {
    let head = "HTTP/1.1 200 OK\r\n";
    for (wire, fault) in [
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), Fault::NotHttp),
        ("<html>".to_owned(), Fault::NotHttp),
        ("HTTP/2 200\r\n\r\n".to_owned(), Fault::NotHttp),
        ("HTTP/1.1 20 OK\r\n\r\n".to_owned(), Fault::StatusLine),
        ("HTTP/1.1  200 OK\r\n\r\n".to_owned(), Fault::StatusLine),
        (format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), Fault::LengthConflict),
        (format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"), Fault::LengthConflict),
        (format!("{head}Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), Fault::LengthConflict),
        (format!("{head}Content-Length: +5\r\n\r\n"), Fault::Length),
        (format!("{head}Content-Length: 5, 5\r\n\r\n"), Fault::Length),
        (format!("{head}Transfer-Encoding: gzip\r\n\r\n"), Fault::Coding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Fault::Coding),
        (format!("{head}x: {}", "a".repeat(HEAD_BYTES_MAX)), Fault::HeadTooLarge),
        (format!("{head}x: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX)), Fault::HeadTooLarge),
    ] {
        assert_eq!(whole(&wire), Err(fault), "{}", &wire[..wire.len().min(80)]);
    }
}

#[test]
fn broken_chunks_end_the_answer_and_the_connection() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in ["zz\r\n", "\r\n", "2\r\nokX", "0\r\ntrailer: x\r\n\r\n", "11111111111111111\r\n"] {
        let (_, reading, last) = whole(&format!("{head}{body}")).unwrap();
        assert!(!reading && last, "{body}");
    }
}

#[test]
fn the_next_response_is_followed_too() {
    let mut framing = Framing::new();
    for _ in 0..3 {
        let mut seen = Seen::default();
        framing.begin();
        assert_eq!(framing.feed(PLAIN.as_bytes(), &mut seen), Ok(()));
        assert_eq!(seen.0, PLAIN.as_bytes());
        assert!(!framing.is_reading() && !framing.is_last());
    }
    // Nothing is due now: whatever comes is withheld.
    let mut seen = Seen::default();
    assert_eq!(framing.feed(PLAIN.as_bytes(), &mut seen), Ok(()));
    assert!(seen.0.is_empty() && framing.is_last());
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        interim in any::<bool>(),
        chunked in any::<bool>(),
        sizes in prop::collection::vec(1_usize..40, 0..5),
        surplus in "[ -~]{0,10}",
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut wire = if interim { "HTTP/1.1 103 Early Hints\r\n\r\n".to_owned() } else { String::new() };
        let mut expected = String::new();
        let body = |size: usize| "b".repeat(size);
        if chunked {
            expected += "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            wire += &expected;
            for size in &sizes {
                write!(wire, "{size:x}\r\n{}\r\n", body(*size)).unwrap();
            }
            wire += "0\r\n\r\n";
            expected += &body(sizes.iter().sum());
        } else {
            let length: usize = sizes.iter().sum();
            write!(expected, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", body(length)).unwrap();
            wire += &expected;
        }
        wire += &surplus;
        let (out, framing) = run(wire.as_bytes(), &cuts).unwrap();
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        prop_assert!(!framing.is_reading());
        prop_assert_eq!(framing.is_last(), !surplus.is_empty());
    }

    #[test]
    fn no_bytes_make_it_panic(wire in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let _ = run(&wire, &cuts);
        let mut head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        head.extend(wire);
        let _ = run(&head, &cuts);
    }
}
