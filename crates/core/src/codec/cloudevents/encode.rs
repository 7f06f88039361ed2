//! Writes the JSON form of an event of the log: one line, no tree in between.

use std::fmt::{self, Write as _};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;

use super::{WrittenData, is_reserved, written_form};
use crate::model::Event;

/// Appends the JSON form of `event`: one line without its end.
///
/// JSON data is the stored slice with line breaks between tokens replaced by spaces; other text is a JSON string, anything
/// else `data_base64`. Empty data has no member at all. Members stand in this order: `specversion`, `id`, `source`, `type`,
/// `subject`, `time`, `topic`, `seq`, `datacontenttype`, `dataschema`, extensions, data.
pub fn write_event(out: &mut impl BufMut, event: &Event) {
    let fields = event.fields();
    out.put_slice(b"{\"specversion\":\"1.0\",\"id\":");
    write_json_text(out, fields.id);
    member(out, b",\"source\":", fields.source);
    member(out, b",\"type\":", fields.kind);
    if let Some(subject) = fields.subject {
        member(out, b",\"subject\":", subject);
    }
    match fields.time {
        Some(time) => member(out, b",\"time\":", time),
        None => display(out, b",\"time\":\"", event.arrived_at()),
    }
    member(out, b",\"topic\":", event.topic().as_str());
    display(out, b",\"seq\":\"", event.seq());
    member(out, b",\"datacontenttype\":", fields.content_type);
    if let Some(schema) = fields.data_schema {
        member(out, b",\"dataschema\":", schema);
    }
    for (name, value) in fields.extensions().filter(|(name, _)| !is_reserved(name)) {
        out.put_u8(b',');
        write_json_text(out, name);
        member(out, b":", value);
    }
    if !fields.data.is_empty() {
        match written_form(fields.form, fields.data) {
            WrittenData::Json(json) => {
                out.put_slice(b",\"data\":");
                write_on_one_line(out, json);
            }
            WrittenData::Text(text) => member(out, b",\"data\":", text),
            WrittenData::Base64(bytes) => display(out, b",\"data_base64\":\"", Base64Display::new(bytes, &STANDARD)),
        }
    }
    out.put_u8(b'}');
}

/// Appends `text` as a JSON string with its quotes.
pub fn write_json_text(out: &mut impl BufMut, text: &str) {
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.put_slice(&bytes[written..at]);
        out.put_slice(&[b'\\', short]);
        if short == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.put_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        written = at + 1;
    }
    out.put_slice(&bytes[written..]);
    out.put_u8(b'"');
}

fn member(out: &mut impl BufMut, name: &[u8], value: &str) {
    out.put_slice(name);
    write_json_text(out, value);
}

/// Appends a value that needs no escaping, behind `name` (with its opening quote), and the closing quote.
fn display(out: &mut impl BufMut, name: &[u8], value: impl fmt::Display) {
    struct Text<'a, B>(&'a mut B);
    impl<B: BufMut> fmt::Write for Text<'_, B> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.put_slice(text.as_bytes());
            Ok(())
        }
    }
    out.put_slice(name);
    write!(Text(out), "{value}").expect("invariant: a growing buffer takes every text");
    out.put_u8(b'"');
}

/// Valid JSON has line breaks only between tokens, so each may become a space.
fn write_on_one_line(out: &mut impl BufMut, mut json: &[u8]) {
    while let Some(end) = memchr::memchr2(b'\n', b'\r', json) {
        out.put_slice(&json[..end]);
        out.put_u8(b' ');
        json = &json[end + 1..];
    }
    out.put_slice(json);
}
