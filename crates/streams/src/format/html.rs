//! `html`: a page that never ends, in a frame: one whole script an event, which calls a function of the page around it.
//!
//! Browsers hold a page back until it has some length, so it begins with padding. Scripts run by a nonce that stands in the
//! policy of the page, nothing else runs or loads, and only this relay's pages and those of the configured origins may show
//! it. A page of another origin cannot be called: its frame sends `{hookcast: event, callback: name}` as a message instead.
//!
//! Spec: HTML, "Restrictions for contents of script elements"; Content Security Policy 3.

use std::sync::LazyLock;

use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, REFERRER_POLICY};
use bytes::{BufMut, BytesMut};

use super::{Format, Notice, Prologue, Style, random_word};
use hookcast_core::codec::cloudevents;
use hookcast_core::model::Event;

/// Bytes of a comment that make browsers show what they have.
const PADDING_BYTES: usize = 1024;
/// The function that is called when no other is named.
const CALLBACK: &str = "hookcast";
/// Room for what stands around the data of most events.
const AROUND_BYTES: usize = 512;

/// What scripts are known by: one for the life of the process, so that an event is encoded once for all. That no event gets
/// out of its script does not rest on it.
static NONCE: LazyLock<String> = LazyLock::new(random_word);

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "html",
    media_type: "text/html",
    aliases: &[],
    has_envelope: false,
    // A browser that is shown a stream takes anything; frames name the format.
    yields: true,
    gap_ends: false,
    head: write_head,
    opening: write_opening,
    event: write_event,
    heartbeat: |out, _| out.put_u8(b' '),
    notice: write_notice,
    closing: |out: &mut BytesMut| out.put_slice(b"</body></html>\n"),
};

fn write_head(headers: &mut HeaderMap, origins: &[String]) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = |origins: &[String]| {
        let rules = format!("default-src 'none'; script-src 'nonce-{}'; base-uri 'none'; form-action 'none'", *NONCE);
        let around = origins.iter().fold(" 'self'".to_owned(), |around, origin| around + " " + origin);
        HeaderValue::try_from(format!("{rules}; frame-ancestors{around}"))
    };
    // An origin that cannot stand in a policy opens nothing.
    let is_origin = |origin: &&String| !origin.bytes().any(|b| matches!(b, b';' | b',' | b' ' | b'*'));
    let origins: Vec<String> = origins.iter().filter(is_origin).cloned().collect();
    let policy = policy(&origins).or_else(|_| policy(&[])).expect("invariant: the policy is ASCII");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
}

fn write_opening(out: &mut BytesMut, prologue: &Prologue<'_>) {
    let callback = prologue.style.callback.as_deref().unwrap_or(CALLBACK);
    put(out, "<!doctype html><html><head><meta charset=\"utf-8\"><title>hookcast</title></head><body>\n<!--");
    out.put_bytes(b' ', PADDING_BYTES);
    put(out, "-->\n");
    write_script(out, |out| {
        // A window of another origin may not be asked for anything; the policy says whose pages it can be.
        put(out, "(function(name){try{return parent.document}catch(e){}var around=parent;");
        put(out, "parent=name.split('.').reduceRight(function(inner,word){var outer={};outer[word]=inner;return outer},");
        put(out, "function(event){around.postMessage({hookcast:event,callback:name},'*')})})(\"");
        put(out, callback);
        put(out, "\")");
    });
}

fn write_event(out: &mut BytesMut, event: &Event, style: &Style) {
    let mut form = BytesMut::with_capacity(event.fields().data.len() + AROUND_BYTES);
    cloudevents::write_event(&mut form, event);
    write_call(out, &form, style);
}

fn write_notice(out: &mut BytesMut, notice: &Notice, style: &Style) {
    let mut form = BytesMut::new();
    notice.write_json_form(&mut form);
    write_call(out, &form, style);
}

fn write_call(out: &mut BytesMut, form: &[u8], style: &Style) {
    write_script(out, |out| {
        put(out, "parent.");
        put(out, style.callback.as_deref().unwrap_or(CALLBACK));
        out.put_u8(b'(');
        write_literal(out, form);
        out.put_u8(b')');
    });
}

fn write_script(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    put(out, "<script nonce=\"");
    put(out, &NONCE);
    put(out, "\">");
    write(out);
    put(out, "</script>\n");
}

/// Appends JSON as an expression of JavaScript with the same value, safe inside a script of a page.
///
/// A member `__proto__` means something else in a literal, twice of it even nothing at all: such text is parsed instead.
fn write_literal(out: &mut BytesMut, json: &[u8]) {
    let has = |word: &[u8]| memchr::memmem::find(json, word).is_some();
    // Each letter of the name may be written as an escape.
    if has(b"__proto__") || has(b"\\u00") {
        put(out, "JSON.parse(\"");
        write_escaped(out, json, true);
        put(out, "\")");
    } else {
        write_escaped(out, json, false);
    }
}

/// `<`, `>`, `&` and the two line ends of Unicode stand inside strings only, where an escape means the same.
fn write_escaped(out: &mut BytesMut, json: &[u8], is_quoted: bool) {
    let mut written = 0;
    for (at, &byte) in json.iter().enumerate() {
        let (escape, length) = match byte {
            b'<' => ("\\u003c", 1),
            b'>' => ("\\u003e", 1),
            b'&' => ("\\u0026", 1),
            b'"' if is_quoted => ("\\\"", 1),
            b'\\' if is_quoted => ("\\\\", 1),
            0xE2 if json[at..].starts_with("\u{2028}".as_bytes()) => ("\\u2028", 3),
            0xE2 if json[at..].starts_with("\u{2029}".as_bytes()) => ("\\u2029", 3),
            _ => continue,
        };
        out.put_slice(&json[written..at]);
        put(out, escape);
        written = at + length;
    }
    out.put_slice(&json[written..]);
}

fn put(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
}
