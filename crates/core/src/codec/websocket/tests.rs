//! Frames held against another implementation, whole and cut anywhere.

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame as Other, FrameHeader};

use super::*;

const MASK: [u8; 4] = [0x12, 0x00, 0xff, 0x5a];

/// A frame as a client that is not ours writes it.
fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { is_final, opcode, mask: Some(MASK), ..FrameHeader::default() };
    let mut out = Vec::new();
    Other::from_payload(header, payload.to_vec().into()).format(&mut out).unwrap();
    out
}

const TEXT: OpCode = OpCode::Data(Data::Text);
const MORE: OpCode = OpCode::Data(Data::Continue);
const PING: OpCode = OpCode::Control(Control::Ping);
const CLOSE: OpCode = OpCode::Control(Control::Close);

/// Everything that bytes say, handed in so many at a time.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Message>, Violation> {
    let (mut decoder, mut said) = (Decoder::default(), Vec::new());
    for piece in bytes.to_vec().chunks_mut(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let (taken, message) = decoder.next(rest)?;
            said.extend(message);
            rest = &mut rest[taken..];
        }
    }
    Ok(said)
}

fn all_at_once(bytes: &[u8]) -> Result<Vec<Message>, Violation> {
    decode(bytes, bytes.len().max(1))
}

fn text(text: &str) -> Message {
    Message::Text(Some(text.to_owned()))
}

#[test]
fn control_frames_stand_between_the_parts_of_a_message() {
    let bytes = [
        frame(TEXT, false, "ä".as_bytes().split_at(1).0),
        frame(PING, true, b"now"),
        frame(MORE, false, b""),
        frame(MORE, true, "ä".as_bytes().split_at(1).1),
        frame(OpCode::Control(Control::Pong), true, b"x"),
        frame(TEXT, true, b""),
        frame(CLOSE, true, b"\x03\xe8bye"),
    ]
    .concat();
    let wanted = [Message::Ping(b"now".to_vec()), text("ä"), Message::Pong, text(""), Message::Close(Some(1000))];
    for piece in [1, 2, 3, 7, 1000] {
        assert_eq!(decode(&bytes, piece).unwrap(), wanted, "{piece}");
    }
}

#[test]
fn a_long_text_is_judged_and_not_kept() {
    let long = "ü".repeat(MESSAGE_BYTES_MAX / 2);
    assert_eq!(decode(&frame(TEXT, true, long.as_bytes()), 511).unwrap(), [Message::Text(None)]);
    let mut decoder = Decoder::default();
    let mut bytes = frame(TEXT, true, long.as_bytes());
    let end = bytes.len() - 1;
    assert_eq!(decoder.next(&mut bytes[..end]), Ok((end, None)));
    assert!(decoder.text.capacity() <= 2 * TEXT_BYTES_KEPT, "{}", decoder.text.capacity());
}

#[test]
fn what_breaks_the_protocol_is_told_by_its_code() {
    let large = vec![b'x'; MESSAGE_BYTES_MAX];
    let unmasked = |first: u8| vec![first, 0x03, b'a', b'b', b'c'];
    for (what, bytes, code) in [
        ("unmasked", unmasked(0x81), 1002),
        ("first reserved bit", vec![0xc1, 0x80], 1002),
        ("second reserved bit", vec![0xa1, 0x80], 1002),
        ("third reserved bit", vec![0x91, 0x80], 1002),
        ("reserved data opcode", vec![0x83, 0x80], 1002),
        ("reserved control opcode", vec![0x8b, 0x80], 1002),
        ("fragmented ping", frame(PING, false, b"x"), 1002),
        ("ping of 126 bytes", frame(PING, true, &[0; 126]), 1002),
        ("continuation of nothing", frame(MORE, true, b"x"), 1002),
        ("message in a message", [frame(TEXT, false, b"x"), frame(TEXT, true, b"y")].concat(), 1002),
        ("long form of a short length", vec![0x81, 0xfe, 0, 5], 1002),
        ("longest form of a medium length", vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 1002),
        ("half a close code", frame(CLOSE, true, b"\x03"), 1002),
        ("close code that is never sent", frame(CLOSE, true, &1005u16.to_be_bytes()), 1002),
        ("close code of nobody", frame(CLOSE, true, &5000u16.to_be_bytes()), 1002),
        ("not UTF-8", frame(TEXT, true, b"a\xff"), 1007),
        ("half a character at the end", frame(TEXT, true, b"\xc3"), 1007),
        ("a surrogate", frame(TEXT, true, b"\xed\xa0\x80"), 1007),
        ("reason that is not UTF-8", frame(CLOSE, true, b"\x03\xe8\xff"), 1007),
        ("a frame too large", frame(TEXT, true, &[&large[..], b"x"].concat()), 1009),
        ("a length with its highest bit", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1009),
        ("a message too large", [frame(TEXT, false, &large), frame(MORE, true, b"x")].concat(), 1009),
    ] {
        for piece in [1, 1000] {
            assert_eq!(decode(&bytes, piece).map_err(Violation::code), Err(code), "{what}");
        }
    }
}

#[test]
fn a_frame_too_large_is_refused_by_its_head() {
    let mut head = frame(TEXT, true, &vec![b'x'; 1024 * 1024])[..10].to_vec();
    assert_eq!(Decoder::default().next(&mut head), Err(Violation::TooLarge));
}

#[test]
fn as_many_frames_are_counted_as_were_begun() {
    let mut bytes = [frame(PING, true, b""), frame(TEXT, false, b"a"), frame(MORE, true, b"b")].concat();
    let (mut decoder, mut at) = (Decoder::default(), 0);
    while at < bytes.len() {
        at += decoder.next(&mut bytes[at..]).unwrap().0;
    }
    assert_eq!(decoder.frames(), 3);
}

#[test]
fn a_reason_is_cut_between_two_characters() {
    let mut out = BytesMut::new();
    write_close(&mut out, Some(1008), &"ö".repeat(100));
    assert_eq!(out.len(), 2 + 2 + 122);
    assert!(std::str::from_utf8(&out[4..]).is_ok());
    out.clear();
    write_close(&mut out, None, "");
    assert_eq!(out[..], [0x88, 0]);
}

proptest! {
    #[test]
    fn another_implementation_reads_what_is_written(
        before in 0usize..5,
        length in prop_oneof![0usize..300, 65_400usize..65_700, Just(200_000)],
    ) {
        let mut out = BytesMut::from(&vec![b'-'; before][..]);
        write_frame(&mut out, Opcode::Text, |out| out.put_bytes(b'x', length));
        let mut cursor = std::io::Cursor::new(&out[before..]);
        let (header, bytes) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        prop_assert_eq!((header.is_final, header.opcode, header.mask, bytes), (true, TEXT, None, length as u64));
        let head_bytes = usize::try_from(cursor.position()).unwrap();
        prop_assert_eq!(header.len(bytes), head_bytes, "the shortest form");
        prop_assert!(out[before + head_bytes..].iter().all(|b| *b == b'x'));
        prop_assert_eq!(out.len(), before + head_bytes + length);
        prop_assert!(out[..before].iter().all(|b| *b == b'-'));
    }

    #[test]
    fn any_cutting_gives_the_same_messages(
        messages in prop::collection::vec((".{0,80}", 1usize..5, any::<bool>()), 1..6),
        piece in 1usize..40,
    ) {
        let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
        for (content, parts, with_ping) in &messages {
            let size = content.len().div_ceil(*parts).max(1);
            let mut chunks: Vec<&[u8]> = content.as_bytes().chunks(size).collect();
            if chunks.is_empty() {
                chunks.push(b"");
            }
            let last = chunks.len() - 1;
            for (at, chunk) in chunks.into_iter().enumerate() {
                bytes.extend(frame(if at == 0 { TEXT } else { MORE }, at == last, chunk));
                if *with_ping {
                    bytes.extend(frame(PING, true, b"p"));
                    if at < last {
                        wanted.push(Message::Ping(b"p".to_vec()));
                    }
                }
            }
            wanted.push(Message::Text((content.len() <= TEXT_BYTES_KEPT).then(|| content.clone())));
            if *with_ping {
                wanted.push(Message::Ping(b"p".to_vec()));
            }
        }
        prop_assert_eq!(decode(&bytes, piece), Ok(wanted));
    }

    #[test]
    fn no_bytes_make_it_panic_and_cuttings_agree(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        piece in 1usize..9,
    ) {
        prop_assert_eq!(decode(&bytes, piece), all_at_once(&bytes));
    }
}
