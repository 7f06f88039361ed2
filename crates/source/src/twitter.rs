//! What Twitter's streams say about themselves between their messages: never data, always a notice, sometimes an order to
//! forget an event.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Said;
use super::reconnect::Ending;
use super::stream::{Framing, Part, is_json_or_unnamed, nothing_to_send};
use hookcast_core::codec::messages::MessageDecoder;
use hookcast_core::model::ResumeToken;

/// Names that stand alone in a message about the stream, and the notice that each becomes.
const WORDS: &[(&str, &str)] = &[
    ("delete", "source.delete"),
    ("limit", "source.limit"),
    ("disconnect", "source.disconnect"),
    ("warning", "source.warning"),
    ("scrub_geo", "source.scrub_geo"),
    ("status_withheld", "source.status_withheld"),
    ("user_withheld", "source.user_withheld"),
    ("close", "source.close"),
    ("info", "source.info"),
];

/// What a message says about its stream; `None` when it is data. Of data it looks at a few bytes only.
fn said(message: &[u8]) -> Option<Said> {
    let inner = message.trim_ascii().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let begins_with = |word: &str| inner.strip_prefix(word.as_bytes()).is_some_and(|rest| rest.starts_with(b"\""));
    let (word, kind) = WORDS.iter().find(|(word, _)| begins_with(word))?;
    let mut whole: Map<String, Value> = serde_json::from_slice(message).ok()?;
    if whole.len() != 1 {
        return None;
    }
    let data = whole.remove(*word).filter(Value::is_object)?;
    let purge = if *word == "delete" { id_of(&data) } else { None };
    Some(Said { kind, data, purge })
}

/// The id of the event that a `delete` names.
fn id_of(delete: &Value) -> Option<String> {
    let what = delete.get("status").or_else(|| delete.get("direct_message"))?;
    match what.get("id_str").or_else(|| what.get("id"))? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// A framing whose messages about the stream are told apart from data.
pub(super) struct Profiled<F>(pub(super) F);

impl<F: Framing> Framing for Profiled<F> {
    fn accept(&self) -> &'static str {
        self.0.accept()
    }

    fn reads(&self, media_type: Option<&str>) -> bool {
        self.0.reads(media_type)
    }

    fn opened(&mut self, content_type: Option<&str>) -> Result<(), Ending> {
        self.0.opened(content_type)
    }

    fn no_content(&self) -> Ending {
        self.0.no_content()
    }

    fn begin(&mut self, resume: Option<&ResumeToken>) {
        self.0.begin(resume);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        self.0.next(chunk).map(sorted)
    }

    fn finish(&mut self, clean: bool) -> Option<Part> {
        self.0.finish(clean).map(sorted)
    }
}

fn sorted(part: Part) -> Part {
    match part {
        Part::Record(record) => said(&record.data).map_or(Part::Record(record), |said| Part::Said(Box::new(said))),
        other => other,
    }
}

/// Messages that end with CR LF, without lengths.
pub(super) struct Messages {
    decoder: MessageDecoder,
    message_bytes_max: usize,
}

impl Messages {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { decoder: MessageDecoder::new(message_bytes_max), message_bytes_max }
    }
}

impl Framing for Messages {
    fn accept(&self) -> &'static str {
        super::ndjson::ACCEPT
    }

    fn reads(&self, media_type: Option<&str>) -> bool {
        is_json_or_unnamed(media_type)
    }

    fn no_content(&self) -> Ending {
        nothing_to_send()
    }

    fn begin(&mut self, _: Option<&ResumeToken>) {
        self.decoder = MessageDecoder::new(self.message_bytes_max);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        self.decoder.next(chunk).map(Part::of)
    }

    fn finish(&mut self, clean: bool) -> Option<Part> {
        self.decoder.finish(clean).map(Part::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_alone_under_a_known_name_is_no_data() {
        for (message, kind, purge) in [
            (r#"{"limit":{"track":12}}"#, "source.limit", None),
            (r#"{"disconnect":{"code":4,"reason":"x"}}"#, "source.disconnect", None),
            (r#"{"warning":{"code":"FALLING_BEHIND"}}"#, "source.warning", None),
            (r#" { "delete" : {"status":{"id":1,"id_str":"17"}}} "#, "source.delete", Some("17")),
            (r#"{"delete":{"status":{"id":18446744073709551615}}}"#, "source.delete", Some("18446744073709551615")),
            (r#"{"delete":{"user":{}}}"#, "source.delete", None),
            (r#"{"status_withheld":{"id":1}}"#, "source.status_withheld", None),
        ] {
            let said = said(message.as_bytes()).unwrap();
            assert_eq!((said.kind, said.purge.as_deref()), (kind, purge), "{message}");
        }
    }

    #[test]
    fn everything_else_is_data() {
        for message in [
            r#"{"text":"{\"limit\":{}}"}"#,
            r#"{"limit":{"track":1},"text":"a"}"#,
            r#"{"limit":12}"#,
            r#"{"limits":{}}"#,
            r#"{"l\u0069mit":{}}"#,
            "[1]",
            "12",
            "{}",
        ] {
            assert_eq!(said(message.as_bytes()), None, "{message}");
        }
    }
}
