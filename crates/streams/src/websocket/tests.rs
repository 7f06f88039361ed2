//! What is answered to what a client says.

use super::*;

/// A masked frame with a short payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 0, 9, 200];
    let masked = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]);
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [first, 0x80 | length].into_iter().chain(mask).chain(masked).collect()
}

fn hear(session: &mut Session, bytes: &[u8]) {
    session.hear(&mut bytes.to_vec(), 1);
}

/// What a session that was told these bytes closes with.
fn closes(is_ours: bool, bytes: &[u8]) -> Option<u16> {
    let mut session = Session::new(is_ours);
    hear(&mut session, bytes);
    let frame = session.next_frame()?;
    assert_eq!(frame[0], 0x88);
    assert!(session.is_closed() && session.next_frame().is_none(), "nothing follows on a close");
    Some(u16::from_be_bytes([frame[2], frame[3]]))
}

#[test]
fn a_position_may_be_given_as_text_or_number() {
    for (text, seq) in [("{\"resume\":\"42\"}", 42), (" {\"resume\" : 7 } ", 7), ("{\"resume\":\"0\"}", 0)] {
        let mut session = Session::new(true);
        hear(&mut session, &frame(0x81, text.as_bytes()));
        assert_eq!(session.take_resume(), Some(Seq(seq)), "{text}");
        assert_eq!(session.take_resume(), None);
        let told = session.next_frame().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told[4..]).unwrap();
        assert_eq!((&told["type"], &told["data"]["after"]), (&"hookcast.resumed".into(), &seq.into()));
        assert_eq!(session.next_frame(), None);
    }
    assert_eq!(parse_resume("{\"resume\":\"99999999999999999999\"}"), Some(Seq(u64::MAX)));
    for text in [
        "",
        "{}",
        "[1]",
        "{\"resume\":-1}",
        "{\"resume\":\"-1\"}",
        "{\"resume\":1.5}",
        "{\"resume\":1,\"x\":2}",
        "{\"resume\":null}",
    ] {
        assert_eq!(closes(true, &frame(0x81, text.as_bytes())), Some(1008), "{text}");
    }
    assert_eq!(closes(false, &frame(0x81, b"{\"resume\":1}")), Some(1008), "not without the subprotocol");
}

#[test]
fn pings_of_one_piece_have_one_answer() {
    let mut session = Session::new(false);
    hear(&mut session, &[frame(0x89, b"one"), frame(0x8a, b""), frame(0x89, b"two")].concat());
    assert!(session.take_news() && !session.take_news());
    assert_eq!(session.next_frame().unwrap(), &b"\x8a\x03two"[..]);
    assert!(session.next_frame().is_none());
}

#[test]
fn a_close_is_answered_with_its_code_and_both_sides_are_done() {
    let mut session = Session::new(false);
    hear(&mut session, &frame(0x88, b"\x03\xe9going"));
    assert!(session.is_deaf());
    assert_eq!(session.next_frame().unwrap(), &b"\x88\x02\x03\xe9"[..]);
    assert_eq!(closes(false, &frame(0x88, b"\x0f\xa0")), Some(4000));
    let mut session = Session::new(false);
    hear(&mut session, &frame(0x88, b""));
    assert_eq!(session.next_frame().unwrap(), &b"\x88\x00"[..]);
}

#[test]
fn our_close_is_said_once_and_then_the_answer_is_listened_for() {
    let mut session = Session::new(true);
    session.end(Ending::Closing);
    hear(&mut session, &frame(0x82, b"late"));
    let close = session.next_frame().unwrap();
    assert_eq!((close[0], &close[2..4]), (0x88, &1001u16.to_be_bytes()[..]));
    assert!(!session.is_deaf());
    hear(&mut session, &[frame(0x89, b"x"), frame(0x88, b"\x03\xe9")].concat());
    assert!(session.is_deaf() && session.next_frame().is_none());
}

#[test]
fn what_is_not_understood_is_told_by_its_code() {
    assert_eq!(closes(true, &frame(0x82, b"bytes")), Some(1003));
    assert_eq!(closes(true, &frame(0x02, b"bytes")), Some(1003));
    assert_eq!(closes(true, b"\x81\x01a"), Some(1002));
    assert_eq!(closes(true, &frame(0x81, b"\xff")), Some(1007));
    assert_eq!(closes(true, b"\x81\xff\0\0\0\0\0\x10\0\0"), Some(1009));
    for (ending, code) in [(Ending::Done, 1000), (Ending::Revoked, 1008), (Ending::Broken, 1011)] {
        assert_eq!(ending.close().0, code);
    }
}

#[test]
fn a_hundred_frames_a_tick_are_heard_and_no_more() {
    let resume = frame(0x81, b"{\"resume\":1}");
    let hundred = resume.repeat(100);
    let mut session = Session::new(true);
    for tick in 1..=3 {
        session.hear(&mut hundred.clone(), tick);
        assert_eq!((session.take_resume(), session.next_frame().unwrap()[0]), (Some(Seq(1)), 0x81), "{tick}");
    }
    session.hear(&mut resume.clone(), 3);
    assert_eq!(session.next_frame().unwrap()[2..4], 1008u16.to_be_bytes());
    assert_eq!(closes(true, &frame(0x89, b"").repeat(101)), Some(1008), "pings count, too");
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
}
