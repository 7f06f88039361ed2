//! Frames in every cutting.

use super::*;
use proptest::prelude::*;

/// Everything that bytes in these pieces hold, and the fault they end with.
fn read(pieces: &[&[u8]], sender: Sender, bytes_max: usize) -> (Vec<WsItem>, Option<WsFault>) {
    let mut decoder = WsDecoder::new(sender, bytes_max);
    let mut items = Vec::new();
    for piece in pieces {
        let mut chunk = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut chunk) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(fault) => return (items, Some(fault)),
            }
        }
        assert!(chunk.is_empty());
    }
    (items, None)
}

fn of_server(bytes: &[u8]) -> (Vec<WsItem>, Option<WsFault>) {
    let whole = read(&[bytes], Sender::Server, 1000);
    let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&bytewise, Sender::Server, 1000), whole, "any cutting gives the same");
    whole
}

fn text(data: &'static str) -> WsItem {
    WsItem::Text(Bytes::from_static(data.as_bytes()))
}

#[test]
fn the_examples_of_the_standard_are_read() {
    // Spec: RFC 6455 §5.7.
    assert_eq!(of_server(&[0x81, 5, b'H', b'e', b'l', b'l', b'o']).0, [text("Hello")]);
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read(&[&masked], Sender::Client, 10).0, [text("Hello")]);
    assert_eq!(of_server(&[0x01, 3, b'H', b'e', b'l', 0x80, 2, b'l', b'o']).0, [text("Hello")]);
    assert_eq!(of_server(&[0x89, 2, b'h', b'i']).0, [WsItem::Ping(Bytes::from_static(b"hi"))]);
    let long = [&[0x82, 0x7e, 0x01, 0x00][..], &[7; 256]].concat();
    assert_eq!(of_server(&long).0, [WsItem::Binary(Bytes::from(vec![7; 256]))]);
    let longer = [&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0][..], &vec![7; 65_536]].concat();
    assert_eq!(read(&[&longer], Sender::Server, 65_536).0, [WsItem::Binary(Bytes::from(vec![7; 65_536]))]);
}

#[test]
fn control_frames_may_stand_inside_a_message() {
    let bytes = [0x01, 1, b'a', 0x8a, 0, 0x89, 0, 0x80, 1, b'b', 0x81, 0, 0x88, 0];
    let (items, fault) = of_server(&bytes);
    assert_eq!(items, [WsItem::Pong, WsItem::Ping(Bytes::new()), text("ab"), text(""), WsItem::Close(None, String::new())]);
    assert_eq!(fault, None);
    assert_eq!(of_server(&[0x88, 4, 3, 0xf4, b'o', b'k']).0, [WsItem::Close(Some(1012), "ok".to_owned())]);
}

#[test]
fn what_breaks_the_protocol_has_the_close_code_for_it() {
    let cases: &[(&[u8], u16)] = &[
        (&[0xc1, 1, b'a'], 1002),
        (&[0x83, 0], 1002),
        (&[0x81, 0x81, 1, 2, 3, 4, 5], 1002),
        (&[0x09, 0], 1002),
        (&[0x89, 126, 0, 126], 1002),
        (&[0x80, 1, b'a'], 1002),
        (&[0x01, 1, b'a', 0x81, 1, b'b'], 1002),
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
        (&[0x88, 1, 3], 1002),
        (&[0x88, 2, 0x03, 0xed], 1002),
        (&[0x88, 2, 0x03, 0xe7], 1002),
        (&[0x88, 2, 0x13, 0x88], 1002),
        (&[0x88, 3, 0x03, 0xe8, 0xff], 1007),
        (&[0x81, 2, 0xc3, 0x28], 1007),
        (&[0x01, 1, 0xc3, 0x80, 1, 0x28], 1007),
    ];
    for (bytes, code) in cases {
        let (items, fault) = of_server(bytes);
        assert_eq!((items, fault.map(WsFault::code)), (Vec::new(), Some(*code)), "{bytes:x?}");
    }
    assert_eq!(read(&[&[0x81, 1, b'a']], Sender::Client, 10).1.map(WsFault::code), Some(1002));
}

#[test]
fn a_message_over_the_cap_is_left_out_and_not_held() {
    let mut decoder = WsDecoder::new(Sender::Server, 10);
    let mut head = Bytes::from_static(&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(decoder.next(&mut head), Ok(None));
    let mut left: u64 = 1 << 32;
    let block = Bytes::from(vec![b'x'; 1 << 20]);
    while left > block.len() as u64 {
        assert_eq!(decoder.next(&mut block.clone()), Ok(None));
        assert!(decoder.message.as_ref().unwrap().data.capacity() <= 1024);
        left -= block.len() as u64;
    }
    let item = decoder.next(&mut block.clone()).unwrap();
    assert_eq!(item, Some(WsItem::Skipped(SkipReason::EventTooLarge, Bytes::from(vec![b'x'; 256]))));
    assert!(!decoder.is_inside());
    assert_eq!(decoder.next(&mut Bytes::from_static(&[0x81, 1, b'a'])), Ok(Some(text("a"))));
}

#[test]
fn fragments_are_counted() {
    let mut decoder = WsDecoder::new(Sender::Server, 10);
    assert_eq!(decoder.next(&mut Bytes::from_static(&[0x01, 0])), Ok(None));
    let mut ended = None;
    for n in 2.. {
        if let Err(fault) = decoder.next(&mut Bytes::from_static(&[0x00, 0])) {
            ended = Some((n, fault));
            break;
        }
    }
    assert_eq!(ended, Some((FRAGMENTS_MAX + 1, WsFault::Fragments)));
}

#[test]
fn a_reason_is_cut_between_characters() {
    let mut out = BytesMut::new();
    write_close(&mut out, 1008, &"ä".repeat(100), None);
    assert_eq!(of_server(&out).0, [WsItem::Close(Some(1008), "ä".repeat(61))]);
}

proptest! {
    #[test]
    fn frames_that_are_written_are_read_in_any_cutting(
        messages in prop::collection::vec((any::<bool>(), "[a-zä]{0,300}", any::<Option<[u8; 4]>>()), 1..8),
        cuts in prop::collection::vec(1usize..40, 1..200),
        is_client in any::<bool>(),
    ) {
        let sender = if is_client { Sender::Client } else { Sender::Server };
        let (mut out, mut wanted) = (BytesMut::new(), Vec::new());
        for (is_text, data, mask) in &messages {
            let mask = is_client.then(|| mask.unwrap_or([1, 2, 3, 4]));
            let opcode = if *is_text { Opcode::Text } else { Opcode::Binary };
            write_frame(&mut out, opcode, data.as_bytes(), mask);
            let data = Bytes::copy_from_slice(data.as_bytes());
            wanted.push(if *is_text { WsItem::Text(data) } else { WsItem::Binary(data) });
        }
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = &out[..];
        for cut in cuts {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        pieces.push(rest);
        prop_assert_eq!(read(&pieces, sender, 2000), (wanted, None));
    }

    #[test]
    fn what_is_shown_of_a_message_that_is_too_large_is_its_beginning_in_any_cutting(length in 51u8..126, at in 0usize..200) {
        let bytes: Vec<u8> = [0x81, length].into_iter().chain(0..length).collect();
        let (left, right) = bytes.split_at(at.min(bytes.len()));
        let shown = Bytes::copy_from_slice(&bytes[2..]);
        prop_assert_eq!(read(&[left, right], Sender::Server, 50), (vec![WsItem::Skipped(SkipReason::EventTooLarge, shown)], None));
    }

    #[test]
    fn any_bytes_are_read_or_refused_alike_in_any_cutting(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
        for sender in [Sender::Server, Sender::Client] {
            let (left, right) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(read(&[left, right], sender, 50), read(&[&bytes], sender, 50));
        }
    }
}
