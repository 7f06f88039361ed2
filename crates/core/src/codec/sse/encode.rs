//! Writes blocks of an event stream such that no payload can break out of its block. Which events are sent, and with which
//! id, is decided elsewhere.

use bytes::BufMut;

use crate::model::Seq;

/// Appends one block: `id:` and `event:` when given, then every line of `data` behind `data: `.
///
/// LF, CR and CR LF all end a line of `data`, so a reader gets LF for each of them. Line ends and NUL inside `id` or `kind`
/// are left out; they are refused at the door anyway. The type `message` is the reader's default and is not written.
pub fn write_block(out: &mut impl BufMut, id: Option<&str>, kind: Option<&str>, data: &[u8]) {
    if let Some(id) = id {
        write_field(out, b"id: ", id);
    }
    if let Some(kind) = kind.filter(|kind| *kind != "message") {
        write_field(out, b"event: ", kind);
    }
    write_lines(out, b"data: ", data);
    out.put_u8(b'\n');
}

/// Appends a comment, one line behind a colon for each line of `text`, and the end of a block.
pub fn write_comment(out: &mut impl BufMut, text: &str) {
    write_lines(out, b": ", text.as_bytes());
    out.put_u8(b'\n');
}

/// Appends the keep-alive: a comment and the position scanned so far, from which a reader may resume.
pub fn write_heartbeat(out: &mut impl BufMut, scanned: Seq) {
    out.put_slice(format!(": hb\nid: {scanned}\n\n").as_bytes());
}

fn write_field(out: &mut impl BufMut, name: &[u8], value: &str) {
    out.put_slice(name);
    for part in value.split(['\r', '\n', '\0']) {
        out.put_slice(part.as_bytes());
    }
    out.put_u8(b'\n');
}

fn write_lines(out: &mut impl BufMut, prefix: &[u8], mut rest: &[u8]) {
    loop {
        out.put_slice(prefix);
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
            out.put_slice(rest);
            out.put_u8(b'\n');
            return;
        };
        out.put_slice(&rest[..end]);
        out.put_u8(b'\n');
        let ended_by_crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(ended_by_crlf)..];
    }
}
