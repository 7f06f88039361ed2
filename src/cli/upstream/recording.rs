//! A recording: the events of a file.
//!
//! Reads NDJSON and SSE, plain or gzip. Pure but for the one function that opens the file.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;

use hookcast_core::codec::sse::{SseDecoder, SseItem};

/// Largest recording, unpacked, in bytes; it is held in memory.
pub(super) const RECORDING_BYTES_MAX: u64 = 256 << 20;

/// One event of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Option<String>,
    pub(super) data: Bytes,
}

/// Reads a recording from a file.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<Record>> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let too_large = || std::io::Error::other("it is larger than 256 MiB");
    let limited = |mut from: Box<dyn std::io::Read>| {
        let mut bytes = Vec::new();
        from.by_ref().take(RECORDING_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > RECORDING_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
    };
    let mut bytes = limited(Box::new(std::fs::File::open(path)?))?;
    if bytes.starts_with(&GZIP) {
        bytes = limited(Box::new(flate2::read::MultiGzDecoder::new(std::io::Cursor::new(bytes))))?;
    }
    Ok(parse(Bytes::from(bytes)))
}

/// Takes a text as SSE when its first line that is no comment is a field of SSE, else one event a line.
pub(super) fn parse(bytes: Bytes) -> Vec<Record> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b":")).unwrap_or_default();
    let is_sse = [&b"data:"[..], b"event:", b"id:", b"retry:"].iter().any(|field| first.starts_with(field));
    if is_sse { parse_sse(bytes) } else { parse_lines(&bytes) }
}

fn parse_sse(mut bytes: Bytes) -> Vec<Record> {
    let mut decoder = SseDecoder::new(usize::try_from(RECORDING_BYTES_MAX).unwrap_or(usize::MAX), "");
    // A file may end without the empty line that ends an event.
    let mut end = Bytes::from_static(b"\n\n");
    let mut records = Vec::new();
    for chunk in [&mut bytes, &mut end] {
        while let Some(item) = decoder.next(chunk) {
            if let SseItem::Event(event) = item {
                records.push(Record { kind: event.kind, data: event.data });
            }
        }
    }
    records
}

fn parse_lines(bytes: &Bytes) -> Vec<Record> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.map(|line| Record { kind: None, data: bytes.slice_ref(line) }).collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::protocol;
    use super::*;

    fn written(text: &'static str, protocol: &str) -> Vec<String> {
        let protocol = protocol::parse(protocol).unwrap();
        let write = |(index, record): (usize, Record)| {
            let mut out = BytesMut::new();
            (protocol.write)(&record, index as u64 + 1, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        parse(Bytes::from_static(text.as_bytes())).into_iter().enumerate().map(write).collect()
    }

    #[test]
    fn lines_are_served_as_lines_or_as_events() {
        let text = "{\"a\":1}\r\n\n{\"a\":2}";
        assert_eq!(written(text, "ndjson"), ["{\"a\":1}\n", "{\"a\":2}\n"]);
        assert_eq!(written(text, "sse"), ["id: 1\ndata: {\"a\":1}\n\n", "id: 2\ndata: {\"a\":2}\n\n"]);
    }

    #[test]
    fn events_are_served_as_events_or_as_lines() {
        let text = ": hello\n\nid: x\nevent: edit\ndata: {\ndata: \"a\":1}\n\ndata: 2";
        assert_eq!(written(text, "sse"), ["id: 1\nevent: edit\ndata: {\ndata: \"a\":1}\n\n", "id: 2\ndata: 2\n\n"]);
        assert_eq!(written(text, "ndjson"), ["{ \"a\":1}\n", "2\n"]);
    }

    #[test]
    fn every_other_framing_says_where_an_event_ends() {
        let text = "event: edit\ndata: {\ndata: \"a\":1}\n\n";
        assert_eq!(written(text, "json-seq"), ["\u{1e}{\n\"a\":1}\n"]);
        assert_eq!(written(text, "length"), ["10\r\n{ \"a\":1}\r\n"]);
        assert_eq!(written(text, "raw"), ["{ \"a\":1}\n"]);
        let part = "--hookcast-part\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{\n\"a\":1}\r\n";
        assert_eq!(written(text, "multipart"), [part]);
    }
}
