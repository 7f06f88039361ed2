//! What counts as an answer.

use super::*;

fn answer(status: u16, body: &str) -> Answer {
    Answer { status: Some(status), body: body.as_bytes().to_vec(), is_whole: true, ..Answer::default() }
}

#[test]
fn only_the_whole_challenge_is_an_echo() {
    for echo in ["abc", " abc\r\n", r#"{"challenge":"abc"}"#, r#"{ "type": "x", "challenge": "abc" }"#] {
        assert_eq!(answer(200, echo).echoes("abc"), Ok(()), "{echo}");
        assert_eq!(answer(204, echo).echoes("abc"), Ok(()), "{echo}");
        assert_eq!(answer(500, echo).echoes("abc"), Err(Refusal::Status(500)));
        assert_eq!(answer(302, echo).echoes("abc"), Err(Refusal::Status(302)));
        let cut = Answer { is_whole: false, ..answer(200, echo) };
        assert_eq!(cut.echoes("abc"), Err(Refusal::WrongEcho));
    }
    for other in
        ["", "ab", "abcd", "\"abc\"", "challenge=abc", r#"{"challenge":"abd"}"#, r#"["abc"]"#, r#"{"challenge":["abc"]}"#]
    {
        assert_eq!(answer(200, other).echoes("abc"), Err(Refusal::WrongEcho), "{other}");
    }
}

#[test]
fn an_origin_and_a_rate_must_be_allowed() {
    let verdict = |pairs: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        allowed(&headers, "relay.example")
    };
    let ours = (ALLOWED_ORIGIN, "Relay.Example");
    assert_eq!(verdict(&[ours]), Ok(None));
    assert_eq!(verdict(&[(ALLOWED_ORIGIN, "*"), (ALLOWED_RATE, "*")]), Ok(None));
    assert_eq!(verdict(&[(ALLOWED_ORIGIN, "a.example"), ours, (ALLOWED_RATE, " 120 ")]), Ok(Some(120)));
    assert_eq!(verdict(&[ours, (ALLOWED_RATE, "99999999999")]), Ok(Some(u32::MAX)));
    for none in ["0", "", "-1", "1.5", "many"] {
        assert_eq!(verdict(&[ours, (ALLOWED_RATE, none)]), Err(Refusal::NoRate), "{none}");
    }
    for other in ["", "relay.example.evil.example", "example", "null"] {
        assert_eq!(verdict(&[(ALLOWED_ORIGIN, other)]), Err(Refusal::OriginNotAllowed), "{other}");
    }
    assert_eq!(verdict(&[]), Err(Refusal::OriginNotAllowed));
}

#[test]
fn challenges_differ_and_fit_into_a_query() {
    let (one, two) = (challenge(), challenge());
    assert_ne!(one, two);
    assert!(one.len() == 43 && one.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{one}");
    let target = Target::parse("https://a.example/hook?x=1&y=%2B").unwrap().with_query(&[("challenge", &one)]);
    assert_eq!(target.path_and_query(), format!("/hook?x=1&y=%2B&challenge={one}"));
}

#[test]
fn a_shortage_behind_a_question_that_went_out_does_not_make_it_unasked() {
    let is_own_fault = |verdict| Asked { verdict, ..Asked::broken(Timestamp(0)) }.is_own_fault();
    assert!(is_own_fault(Err(Refusal::Own(Shortage::Emfile))));
    let asked = Refusal::Own(Shortage::Emfile).once_asked();
    assert_eq!(asked.word(), "own_fault");
    assert!(!is_own_fault(Err(asked)));
    assert_eq!(Refusal::WrongEcho.once_asked(), Refusal::WrongEcho);
}
