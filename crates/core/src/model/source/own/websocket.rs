//! Settings of `websocket`: what is said after the connection opens, where messages carry the position, and the URL's schemes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::parse::read_json_pointer;
use super::{OwnSettings, Row};
use crate::model::fields::{FieldError, Fields, child, quoted};
use crate::model::subscription::parse::UrlJudge;
use crate::units::format_duration;

/// Most messages in `subscribe` and in `resume_message`.
pub const MESSAGES_MAX: usize = 256;
/// Longest of them, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most names in `subprotocols`.
pub const SUBPROTOCOLS_MAX: usize = 16;
/// Shortest and longest `ping`.
const PING: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
/// Stands for the resume token.
const PLACE: &str = "{resume}";

/// Settings of `websocket`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSocketSettings {
    /// Names of protocols over WebSocket, most wanted first.
    pub subprotocols: Vec<String>,
    /// Sent, in order, once the connection stands: a text as it is, anything else as JSON.
    pub subscribe: Vec<Value>,
    /// Sent instead when there is a resume token, which takes the place of `{resume}`.
    pub resume_message: Vec<Value>,
    /// JSON pointer to the upstream's position in its messages.
    pub resume: Option<String>,
    /// Time between our pings.
    pub ping: Duration,
}

impl Default for WebSocketSettings {
    fn default() -> Self {
        Self {
            subprotocols: Vec::new(),
            subscribe: Vec::new(),
            resume_message: Vec::new(),
            resume: None,
            ping: Duration::from_secs(30),
        }
    }
}

pub(super) const ROW: Row = Row {
    protocol: "websocket",
    names: &["subprotocols", "subscribe", "resume_message", "resume", "ping"],
    read: |settings, _| OwnSettings::WebSocket(Box::new(read(settings))),
};

fn read(settings: &Fields<'_>) -> WebSocketSettings {
    if settings.get("method").is_some_and(|method| method != "GET") {
        settings.refuse("method", "method", "a WebSocket is asked for by GET");
    }
    WebSocketSettings {
        subprotocols: read_subprotocols(settings),
        subscribe: read_messages(settings, "subscribe"),
        resume_message: read_messages(settings, "resume_message"),
        resume: read_json_pointer(settings, "resume"),
        ping: settings.duration("ping", PING, "ping").unwrap_or(WebSocketSettings::default().ping),
    }
}

fn read_subprotocols(settings: &Fields<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (index, item) in settings.list("subprotocols", SUBPROTOCOLS_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&settings.at("subprotocols"), &index.to_string());
        let Some(name) = crate::model::fields::short_text(item, pointer.clone(), settings.errors()) else { continue };
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) || names.iter().any(|other| other == name) {
            let detail =
                format!("{} is not a name, or is there twice; allowed: letters, digits and !#$%&'*+-.^_`|~", quoted(name));
            settings.errors().push(pointer, "subprotocol", detail);
        }
        names.push(name.to_owned());
    }
    names
}

/// A list of messages; one message may stand alone.
fn read_messages(settings: &Fields<'_>, name: &str) -> Vec<Value> {
    let messages = match settings.get(name) {
        None => return Vec::new(),
        Some(Value::Array(_)) => settings.list(name, MESSAGES_MAX).unwrap_or_default().to_vec(),
        Some(one) => vec![one.clone()],
    };
    for (index, message) in messages.iter().enumerate() {
        let length = match message {
            Value::String(text) => text.len(),
            other => other.to_string().len(),
        };
        if length > MESSAGE_BYTES_MAX {
            let detail = format!("has more than {MESSAGE_BYTES_MAX} bytes");
            settings.errors().note(FieldError {
                pointer: child(&settings.at(name), &index.to_string()),
                slug: "too_long",
                detail,
                status: 422,
            });
        }
    }
    messages
}

impl WebSocketSettings {
    /// What is said once the connection stands, as texts.
    #[must_use]
    pub fn opening(&self, resume: Option<&str>) -> Vec<String> {
        match resume {
            Some(token) if !self.resume_message.is_empty() => {
                // As it stands inside a JSON string, which is where it nearly always goes.
                let quoted = Value::from(token).to_string();
                let escaped = &quoted[1..quoted.len() - 1];
                self.resume_message.iter().map(|message| text_of(message).replace(PLACE, escaped)).collect()
            }
            _ => self.subscribe.iter().map(text_of).collect(),
        }
    }

    pub(super) fn show(&self, settings: &mut Map<String, Value>) {
        settings.insert("subprotocols".to_owned(), self.subprotocols.clone().into());
        settings.insert("subscribe".to_owned(), self.subscribe.clone().into());
        settings.insert("resume_message".to_owned(), self.resume_message.clone().into());
        settings.insert("resume".to_owned(), self.resume.clone().into());
        settings.insert("ping".to_owned(), format_duration(self.ping).into());
    }
}

fn text_of(message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The pairs of schemes: as WebSocket URLs have them, and what is judged and dialled.
const SCHEMES: [(&str, &str); 2] = [("wss", "https"), ("ws", "http")];

/// The URL that is dialled for a `ws` or `wss` URL; any other URL as it is.
#[must_use]
pub fn dialled_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':') else { return url.to_owned() };
    let dialled = SCHEMES.iter().find(|(own, _)| scheme.eq_ignore_ascii_case(own)).map(|(_, dialled)| dialled);
    dialled.map_or_else(|| url.to_owned(), |dialled| format!("{dialled}:{rest}"))
}

/// Reads the member `url` with the schemes of WebSocket; judged as what is dialled, kept as it was given.
pub(in crate::model::source) fn read_url(fields: &Fields<'_>, judge: &dyn UrlJudge) -> Option<String> {
    let given = fields.text("url")?;
    let dialled = dialled_url(given);
    let judged = judge.check_url(&dialled).map_err(|(slug, detail)| fields.refuse("url", slug, detail)).ok()?;
    if dialled == given {
        return Some(judged);
    }
    let (scheme, rest) = judged.split_once(':')?;
    let own = SCHEMES.iter().find(|(_, dialled)| *dialled == scheme).map(|(own, _)| own)?;
    Some(format!("{own}:{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_token_takes_its_place_in_texts_and_in_json() {
        let settings = WebSocketSettings {
            subscribe: vec![json!("HELLO"), json!({"op": "subscribe"})],
            resume_message: vec![json!({"resume": "{resume}"}), json!("{\"cursor\":{resume}}")],
            ..WebSocketSettings::default()
        };
        assert_eq!(settings.opening(None), ["HELLO", "{\"op\":\"subscribe\"}"]);
        assert_eq!(settings.opening(Some("4\"2")), ["{\"resume\":\"4\\\"2\"}", "{\"cursor\":4\\\"2}"]);
        assert_eq!(WebSocketSettings::default().opening(Some("1")), [""; 0]);
    }

    #[test]
    fn schemes_of_websocket_are_dialled_as_http() {
        assert_eq!(dialled_url("wss://a.example/x?y=ws:"), "https://a.example/x?y=ws:");
        assert_eq!(dialled_url("WS://a.example"), "http://a.example");
        assert_eq!(dialled_url("https://a.example"), "https://a.example");
        assert_eq!(dialled_url("ftp://a.example"), "ftp://a.example");
    }
}
