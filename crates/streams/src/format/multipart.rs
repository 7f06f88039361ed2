//! `multipart`: a part an event, with the event's own type and bytes, each replacing the one before.
//!
//! The boundary stands directly behind each part, so that a reader has a part as soon as it is whole; the line end of the
//! boundary comes with the next part, so that the end adds no part of its own. Data that holds the boundary is sent in base64
//! (`Content-Transfer-Encoding`): no event can make a part.
//!
//! Spec: RFC 2046, section 5.1; the HTML standard, `multipart/x-mixed-replace`.

use std::sync::LazyLock;

use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Prologue, Style, random_word, write_padding};
use hookcast_core::codec::cloudevents::{encode_value, for_each_header};
use hookcast_core::model::{Event, Seq};

/// What stands for a type that cannot stand in a head.
const ANY_TYPE: &str = "application/octet-stream";

/// Stands between parts: one for the life of the process, so that an event is encoded once for all. Its underscore is not in
/// the alphabet of base64.
static BOUNDARY: LazyLock<String> = LazyLock::new(|| format!("hookcast_{}", random_word()));

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "multipart",
    media_type: "multipart/x-mixed-replace",
    aliases: &[],
    has_envelope: false,
    yields: false,
    gap_ends: false,
    head: write_head,
    opening: write_opening,
    event: write_event,
    heartbeat: |_, _| {},
    notice: write_notice,
    closing: |out| out.put_slice(b"--\r\n"),
};

fn write_head(headers: &mut HeaderMap, _: &[String]) {
    let value = format!("multipart/x-mixed-replace; boundary={}", *BOUNDARY);
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(value).expect("invariant: a boundary is ASCII"));
}

fn write_opening(out: &mut BytesMut, prologue: &Prologue<'_>) {
    // What stands before the first boundary is for nobody.
    write_padding(out, prologue, b"\r\n");
    put(out, &["--", &BOUNDARY]);
}

fn write_event(out: &mut BytesMut, event: &Event, _: &Style) {
    let fields = event.fields();
    let is_value = !fields.content_type.is_empty() && fields.content_type.bytes().all(|b| b >= b' ' && b != 0x7F);
    let content_type = if is_value { fields.content_type } else { ANY_TYPE };
    let encoded = memchr::memmem::find(fields.data, BOUNDARY.as_bytes()).map(|_| STANDARD.encode(fields.data));
    let body = encoded.as_ref().map_or(fields.data, |text| text.as_bytes());
    write_lines(out, content_type, body.len(), event.seq());
    if encoded.is_some() {
        put(out, &["content-transfer-encoding: base64\r\n"]);
    }
    for_each_header(event, |name, value| put(out, &[name, ": ", value, "\r\n"]));
    write_body(out, body);
}

fn write_notice(out: &mut BytesMut, notice: &Notice, _: &Style) {
    let data = notice.data();
    write_lines(out, "application/json", data.len(), notice.seq());
    put(out, &["ce-specversion: 1.0\r\nce-source: /hookcast\r\nce-type: ", &encode_value(notice.kind()), "\r\n"]);
    write_body(out, data.as_bytes());
}

/// The end of the boundary's line, and what every part says of itself.
fn write_lines(out: &mut BytesMut, content_type: &str, length: usize, seq: Seq) {
    let (length, seq) = (length.to_string(), seq.to_string());
    put(out, &["\r\ncontent-type: ", content_type, "\r\ncontent-length: ", &length, "\r\nhookcast-seq: ", &seq, "\r\n"]);
}

fn write_body(out: &mut BytesMut, body: &[u8]) {
    put(out, &["\r\n"]);
    out.put_slice(body);
    put(out, &["\r\n--", &BOUNDARY]);
}

fn put(out: &mut BytesMut, pieces: &[&str]) {
    for piece in pieces {
        out.put_slice(piece.as_bytes());
    }
}
