//! Behaviour of the CloudEvents codec.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::{Event, PageBuilder, Seq};

fn event_of(new: &NewEvent) -> Event {
    let mut builder = PageBuilder::starting_at(Seq(42));
    builder.push(new);
    builder.finish().get(Seq(42)).unwrap()
}

fn new_event(content_type: &str, data: &[u8]) -> NewEvent {
    let topic = Topic::parse("wikipedia.edits").unwrap();
    let attributes = Attributes { content_type: Some(content_type.to_owned()), ..Attributes::default() };
    let defaults = EventDefaults {
        topic: &topic,
        id: "i-1".to_owned(),
        source: "/sources/w",
        content_type: "application/json",
        arrived_at: Timestamp(1_700_000_000_123),
    };
    attributes.into_event(Bytes::copy_from_slice(data), defaults)
}

fn json_of(new: &NewEvent) -> String {
    let mut out = Vec::new();
    write_event(&mut out, &event_of(new));
    String::from_utf8(out).unwrap()
}

fn structured(text: &str) -> Result<CloudEvent, CloudEventError> {
    decode_structured(&Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn the_json_form_is_one_line_in_a_fixed_order() {
    let mut new = new_event("application/json", b"{\n  \"a\":\r\n 1}");
    new.subject = Some("s \"1\"".to_owned());
    new.data_schema = Some("https://example.com/s".to_owned());
    new.extensions = vec![("traceparent".to_owned(), "00-1".to_owned()), ("seq".to_owned(), "7".to_owned())];
    assert_eq!(
        json_of(&new),
        "{\"specversion\":\"1.0\",\"id\":\"i-1\",\"source\":\"/sources/w\",\"type\":\"message\",\"subject\":\"s \\\"1\\\"\",\
         \"time\":\"2023-11-14T22:13:20.123Z\",\"topic\":\"wikipedia.edits\",\"seq\":\"42\",\
         \"datacontenttype\":\"application/json\",\"dataschema\":\"https://example.com/s\",\"traceparent\":\"00-1\",\
         \"data\":{   \"a\":   1}}"
    );
}

#[test]
fn text_becomes_a_string_and_bytes_become_base64() {
    assert!(json_of(&new_event("text/plain", b"a\n\"\x01\t")).ends_with(",\"data\":\"a\\n\\\"\\u0001\\t\"}"));
    assert!(json_of(&new_event("image/png", b"\xff\x00")).ends_with(",\"data_base64\":\"/wA=\"}"));
    assert!(json_of(&new_event("application/json", b"not json")).ends_with(",\"data\":\"not json\"}"));
    assert!(json_of(&new_event("text/plain", b"")).ends_with("\"datacontenttype\":\"text/plain\"}"));
}

#[test]
fn structured_data_keeps_its_bytes() {
    let text = r#"{"specversion":"1.0","id":"a","source":"/s","type":"t","time":"2018-04-05T03:56:24Z","topic":"evil","seq":"1",
        "count":5,"flag":true,"gone":null,"data": { "x" : 1.00 , "y":"é" } }"#;
    let event = structured(text).unwrap();
    assert_eq!(event.data, "{ \"x\" : 1.00 , \"y\":\"é\" }");
    let attributes = event.attributes;
    assert_eq!(attributes.content_type.as_deref(), Some("application/json"));
    assert_eq!(attributes.time.as_deref(), Some("2018-04-05T03:56:24Z"));
    assert_eq!(attributes.extensions, [("count".to_owned(), "5".to_owned()), ("flag".to_owned(), "true".to_owned())]);
}

#[test]
fn other_content_types_unpack_their_data() {
    let head = r#"{"specversion":"1.0","id":"a","source":"/s","type":"t""#;
    let data = |rest: &str| structured(&format!("{head},{rest}}}")).map(|event| event.data);
    assert_eq!(data(r#""datacontenttype":"text/plain","data":"a\nb""#).unwrap(), "a\nb");
    assert_eq!(data(r#""datacontenttype":"application/json; charset=utf-8","data":"a""#).unwrap(), "\"a\"");
    assert_eq!(data(r#""data_base64":"/wA=""#).unwrap(), &b"\xff\x00"[..]);
    assert_eq!(structured(&format!("{head}}}")).unwrap().data, "");
    let wrong_field = |rest: &str| data(rest).unwrap_err().field().map(str::to_owned);
    assert_eq!(wrong_field(r#""datacontenttype":"text/plain","data":{}"#).as_deref(), Some("data"));
    assert_eq!(wrong_field(r#""data_base64":"***""#).as_deref(), Some("data_base64"));
    assert_eq!(wrong_field(r#""data_base64":"/wA=","data":1"#).as_deref(), Some("data_base64"));
    assert_eq!(wrong_field(r#""time":"yesterday""#).as_deref(), Some("time"));
    assert_eq!(wrong_field(r#""ext":{}"#).as_deref(), Some("ext"));
    assert_eq!(wrong_field(r#""ext":1.5"#).as_deref(), Some("ext"));
    assert_eq!(wrong_field(r#""subject":"""#).as_deref(), Some("subject"));
    assert_eq!(wrong_field(r#""id":"b""#).as_deref(), Some("id"));
}

#[test]
fn errors_name_what_is_wrong() {
    assert_eq!(structured("{}"), Err(CloudEventError::Missing("specversion")));
    assert_eq!(structured(r#"{"specversion":"1.0"}"#), Err(CloudEventError::Missing("id")));
    assert_eq!(structured(r#"{"specversion":"0.3","id":"a"}"#).unwrap_err().field(), Some("specversion"));
    assert_eq!(structured("[]"), Err(CloudEventError::Shape));
    assert!(matches!(structured("{"), Err(CloudEventError::Json(_))));
    let batch = |text: &str| decode_batch(&Bytes::copy_from_slice(text.as_bytes()), 2);
    let one = r#"{"specversion":"1.0","id":"a","source":"/s","type":"t","data":1}"#;
    assert_eq!(batch(&format!("[{one} , {one}]")).unwrap().len(), 2);
    assert_eq!(batch(&format!("[{one},{{}}]")), Err((Some(1), CloudEventError::Missing("specversion"))));
    assert_eq!(batch(&format!("[{one},{one},{one}]")), Err((None, CloudEventError::TooMany(2))));
    assert_eq!(batch(one), Err((None, CloudEventError::Shape)));
    assert_eq!(batch("[]"), Ok(Vec::new()));
}

#[test]
fn headers_are_percent_encoded_both_ways() {
    assert_eq!(encode_value("Euro € \"😀\" 100%"), "Euro%20%E2%82%AC%20%22%F0%9F%98%80%22%20100%25");
    assert_eq!(encode_value("/a?b=c&d=~!"), "/a?b=c&d=~!");
    assert_eq!(decode_value(b"Euro%20%e2%82%AC").as_deref(), Some("Euro €"));
    assert_eq!(decode_value(b"\"a \\\" %22\"").as_deref(), Some("a \" \""));
    assert_eq!(decode_value(b"100%").as_deref(), Some("100%"));
    assert_eq!(decode_value(b"%ff"), None);
}

#[test]
fn binary_headers_become_attributes() {
    let headers: [(&str, &[u8]); 8] = [
        ("Host", b"example.com"),
        ("CE-SpecVersion", b"1.0"),
        ("ce-id", b"1234"),
        ("ce-type", b"com.example"),
        ("ce-seq", b"1"),
        ("ce-topic", b"evil"),
        ("ce-my", b"%C3%A9"),
        ("ce-datacontenttype", b"text/html"),
    ];
    let attributes = decode_headers(headers.into_iter()).unwrap();
    assert_eq!(attributes.id.as_deref(), Some("1234"));
    assert_eq!(attributes.content_type, None);
    assert_eq!(attributes.extensions, [("my".to_owned(), "é".to_owned())]);
    let twice: [(&str, &[u8]); 2] = [("ce-id", b"1"), ("Ce-Id", b"2")];
    assert_eq!(decode_headers(twice.into_iter()).unwrap_err().field(), Some("ce-id"));
    assert!(decode_headers([("ce-id", &b"%ff"[..])].into_iter()).is_err());
    assert!(decode_headers([("ce-specversion", &b"0.3"[..])].into_iter()).is_err());
}

fn any_event() -> impl Strategy<Value = NewEvent> {
    let text = "[^\\p{C}]{1,12}";
    let data = prop_oneof![
        "\\{\"[a-z]\":( |\n|\r\n)(1|\"\\\\n\u{e9}\"|\\[\\])\n?\\}".prop_map(|json| ("application/json", json.into_bytes())),
        "(?s).{1,20}".prop_map(|text| ("text/plain; charset=utf-8", text.into_bytes())),
        prop::collection::vec(any::<u8>(), 1..20).prop_map(|bytes| ("application/octet-stream", bytes)),
    ];
    let extensions = prop::collection::btree_map("x[a-z0-9]{1,5}", text, 0..4);
    (text, text, text, prop::option::of(text), extensions, data).prop_map(
        |(id, source, kind, subject, extensions, (content_type, data))| {
            let mut event = new_event(content_type, &data);
            (event.id, event.own_id, event.source, event.kind, event.subject) = (id, true, source, kind, subject);
            event.time = Some("2018-04-05T03:56:24Z".to_owned());
            event.extensions = extensions.into_iter().collect();
            event
        },
    )
}

proptest! {
    #[test]
    fn the_json_form_comes_back_as_it_went(event in any_event()) {
        let line = json_of(&event);
        prop_assert!(!line.contains(['\n', '\r']));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        let read = structured(&line).unwrap();
        let mut expected = event.data.to_vec();
        if event.form == DataForm::Json {
            expected.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
            // White space around a JSON value does not belong to it.
            expected = expected.trim_ascii().to_vec();
        }
        prop_assert_eq!(&read.data[..], &expected[..]);
        let again = read.attributes;
        prop_assert_eq!(again.id.as_deref(), Some(event.id.as_str()));
        prop_assert_eq!(again.source.as_deref(), Some(event.source.as_str()));
        prop_assert_eq!(again.kind.as_deref(), Some(event.kind.as_str()));
        prop_assert_eq!(again.subject, event.subject);
        prop_assert_eq!(again.time, event.time);
        prop_assert_eq!(again.content_type.as_deref(), Some(event.content_type.as_str()));
        prop_assert_eq!(again.extensions, event.extensions);
    }

    #[test]
    fn the_headers_come_back_as_they_went(event in any_event()) {
        let mut headers = Vec::new();
        for_each_header(&event_of(&event), |name, value| {
            assert!(value.bytes().all(|b| (0x21..0x7f).contains(&b)));
            headers.push((name.to_owned(), value.as_bytes().to_vec()));
        });
        let read = decode_headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))).unwrap();
        prop_assert_eq!(read.id.as_deref(), Some(event.id.as_str()));
        prop_assert_eq!(read.subject, event.subject);
        prop_assert_eq!(read.time, event.time);
        prop_assert_eq!(read.extensions, event.extensions);
    }

    #[test]
    fn any_text_is_a_json_string(text in any::<String>()) {
        let mut out = Vec::new();
        write_json_text(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
