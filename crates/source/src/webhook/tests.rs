//! What becomes of a webhook: its id, its type, its content.

use serde_json::json;

use super::*;
use hookcast_core::model::source::parse::{SourceRules, parse_source};
use hookcast_core::model::subscription::parse::NoJudge;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn door(settings: &serde_json::Value) -> Door {
    let any = |url: &str| Ok(url.to_owned());
    let form = json!({"name": "a", "protocol": "webhook", "topic": "in", "settings": settings});
    let spec =
        parse_source(&form, None, &SourceRules { urls: &any, protocols: &["webhook"], texts: &NoJudge }, &mut |_| {}).unwrap();
    assert_eq!(super::super::check_settings(&spec), Ok(()));
    Door::new(&SourceRecord::new(spec, NOW), Arc::default()).unwrap()
}

fn event(door: &Door, headers: &[(&str, &str)], arrival: Arrival) -> NewEvent {
    let header = |name: &str| headers.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| *value);
    let event = door.event(&header, arrival, NOW);
    assert_eq!(event.check(), Ok(()));
    event
}

fn json(text: &'static str) -> Arrival {
    Arrival { content_type: Some("application/json".to_owned()), body: Bytes::from_static(text.as_bytes()), ..Arrival::default() }
}

#[test]
fn what_a_sender_says_in_headers_that_no_event_may_have_is_left_out() {
    let door = door(&json!({"verify": {"scheme": "github", "secret": "sixteen letters!"}}));
    let long = "x".repeat(300);
    let made = event(&door, &[("x-github-event", &long), ("x-github-delivery", &long)], json("{}"));
    assert!(!made.own_id && made.kind == "message");
    let made = event(&door, &[("x-github-event", "push"), ("x-github-delivery", "d1")], json("{}"));
    assert_eq!((made.id.as_str(), made.own_id, made.kind.as_str()), ("d1", true, "push"));
    assert_eq!((made.source.as_str(), made.topic.as_str()), ("/sources/a", "in"));
}

#[test]
fn a_content_type_is_kept_when_an_event_may_have_it() {
    let door = door(&json!({"verify": {"scheme": "none"}}));
    let typed = |content_type: Option<&str>, body: &'static [u8]| {
        let arrival =
            Arrival { content_type: content_type.map(str::to_owned), body: Bytes::from_static(body), ..Arrival::default() };
        let made = event(&door, &[], arrival);
        (made.content_type, made.form)
    };
    assert_eq!(typed(Some("text/plain; charset=utf-8"), b"a"), ("text/plain; charset=utf-8".to_owned(), DataForm::Text));
    assert_eq!(typed(Some("application/json"), b"{"), ("application/json".to_owned(), DataForm::Text));
    assert_eq!(typed(None, b"{}"), (UNKNOWN_TYPE.to_owned(), DataForm::Text));
    assert_eq!(typed(Some(&"a/b".repeat(500)), b"\xff"), (UNKNOWN_TYPE.to_owned(), DataForm::Binary));
}

#[test]
fn attributes_of_a_cloudevent_are_taken_where_the_sender_has_no_place_of_its_own() {
    let door = door(&json!({"verify": {"scheme": "none"}}));
    let attributes = || Attributes {
        id: Some("ce-1".to_owned()),
        kind: Some("made".to_owned()),
        subject: Some("s".to_owned()),
        time: Some("2026-01-01T00:00:00Z".to_owned()),
        ..Attributes::default()
    };
    let made = event(&door, &[], Arrival { attributes: Some(attributes()), hops: 3, ..json("{\"type\":\"inner\"}") });
    assert_eq!((made.id.as_str(), made.own_id, made.kind.as_str(), made.hops), ("ce-1", true, "made", 3));
    assert_eq!((made.subject.as_deref(), made.time.as_deref()), (Some("s"), Some("2026-01-01T00:00:00Z")));
    let standard =
        super::tests::door(&json!({"verify": {"scheme": "standard", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}));
    let made =
        event(&standard, &[("webhook-id", "msg_1")], Arrival { attributes: Some(attributes()), ..json("{\"type\":\"inner\"}") });
    assert_eq!((made.id.as_str(), made.kind.as_str()), ("msg_1", "made"), "the id that is signed");
    let made = event(&standard, &[("webhook-id", "msg_1")], json("{\"type\":\"inner\"}"));
    assert_eq!(made.kind, "inner");
}

#[test]
fn what_the_definition_names_comes_first() {
    let settings = json!({"verify": {"scheme": "stripe", "secret": "sixteen letters!"}, "id": "/n", "type": "/k"});
    let door = door(&settings);
    let made = event(&door, &[("stripe-signature", "t=1,v1=0")], json(r#"{"id":"evt_1","type":"t","n":7,"k":"own"}"#));
    assert_eq!((made.id.as_str(), made.kind.as_str()), ("7", "own"));
    let made = event(&door, &[("stripe-signature", "t=1,v1=0")], json(r#"{"id":"evt_1","type":"t"}"#));
    assert!(made.own_id && made.id.starts_with("sha256-"), "{}", made.id);
}
