//! A thousand events of many kinds: recorded ones, and what is hard to write in one format or another.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::Relay;

const RECORDED: &str = include_str!("../../data/formats/events.ndjson");
/// How many events a client is to receive.
pub(super) const EVENTS: usize = 1_000;

/// What is published.
pub(super) struct Event {
    id: String,
    kind: &'static str,
    content_type: &'static str,
    /// Its bytes.
    pub(super) data: Vec<u8>,
    is_text: bool,
}

/// Data that has broken writers and readers of streams, with its type; whether it holds a line feed stands in front.
const HARD: &[(bool, &str, &[u8])] = &[
    (false, "text/plain; charset=utf-8", "é \u{2028} \u{2029} </script><!--<script> ]]> & \u{feff}".as_bytes()),
    (false, "application/octet-stream", b"\xff\x00\x1e\x80 --hookcast"),
    (false, "application/octet-stream", b""),
    (false, "text/plain", b"a\rdata: forged\r\rid: 999999"),
    (
        false,
        "application/json",
        "{\"t\":\"\u{2028}</script>\",\"__proto__\":{\"x\":1},\"u\":\"\\u0000\\ud83d\\ude00\"}".as_bytes(),
    ),
    (true, "text/plain", b"x\n\ndata: forged\nid: 999999\n\n\x1e{\"seq\":\"1\"}\n12\r\n--b--\r\n"),
    (true, "application/octet-stream", b"\n\xfe\r\n--\r\n\r\n"),
    (true, "application/json", b"{\n  \"pretty\": [\r\n    1,\t2\n  ]\n}"),
];

/// The events; without those that hold a line feed for a format that tells events apart by it.
pub(super) fn events(with_line_feeds: bool) -> Vec<Event> {
    let recorded: Vec<&str> = RECORDED.lines().collect();
    let hard: Vec<_> = HARD.iter().filter(|(has_line_feed, ..)| with_line_feeds || !has_line_feed).collect();
    let mut events = Vec::with_capacity(EVENTS);
    for n in 0..EVENTS {
        // Every fourth is a hard one.
        let (has_line_feed, content_type, data) = match n % 4 {
            3 => *hard[n / 4 % hard.len()],
            _ => (false, "application/json", recorded[n % recorded.len()].as_bytes()),
        };
        let kind = match (has_line_feed, n % 3) {
            (true, _) => "odd",
            (_, 0) => "message",
            _ => "line",
        };
        let is_text = content_type != "application/octet-stream";
        events.push(Event { id: format!("e{n}"), kind, content_type, data: data.to_vec(), is_text });
    }
    events
}

impl Event {
    fn is_json(&self) -> bool {
        self.content_type == "application/json"
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.data).unwrap()
    }

    /// Its member in a batch of events; JSON stays as it is written.
    fn published(&self) -> String {
        let mut attributes = json!({"specversion": "1.0", "id": self.id, "source": "/t", "type": self.kind});
        let members = attributes.as_object_mut().unwrap();
        members.insert("datacontenttype".to_owned(), json!(self.content_type));
        if !self.is_text && !self.data.is_empty() {
            members.insert("data_base64".to_owned(), json!(STANDARD.encode(&self.data)));
        } else if self.is_text && !self.is_json() {
            members.insert("data".to_owned(), json!(self.text()));
        }
        let text = attributes.to_string();
        if !self.is_json() {
            return text;
        }
        format!("{},\"data\":{}}}", text.strip_suffix('}').unwrap(), self.text())
    }

    /// What the JSON form says of it: id, data, data in base64.
    pub(super) fn as_form(&self) -> Value {
        let base64 = if self.is_text || self.data.is_empty() { Value::Null } else { json!(STANDARD.encode(&self.data)) };
        let data = match (self.is_text, self.is_json()) {
            (false, _) => Value::Null,
            (true, true) => serde_json::from_slice(&self.data).unwrap(),
            (true, false) => json!(self.text()),
        };
        json!([self.id, data, base64])
    }

    /// What a reader of an event stream gets.
    pub(super) fn as_sse(&self) -> Value {
        if !self.is_text {
            return json!(STANDARD.encode(&self.data));
        }
        json!(self.text().replace("\r\n", "\n").replace('\r', "\n"))
    }

    /// Its bytes, in base64.
    pub(super) fn as_bytes(&self) -> Value {
        json!(STANDARD.encode(&self.data))
    }
}

/// Publishes these in one request; their positions.
pub(super) async fn publish(relay: &Relay, topic: &str, events: &[Event]) -> Vec<u64> {
    let members: Vec<String> = events.iter().map(Event::published).collect();
    let url = format!("{}/v1/topics/{topic}/events", relay.url);
    let request = relay.client.post(url).header("content-type", "application/cloudevents-batch+json");
    let response = request.body(format!("[{}]", members.join(","))).send().await.unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 202, "{answer}");
    answer["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}
