//! The formats a stream can have: one file and one row of [`FORMATS`] each, and the choice among them.
//!
//! A format turns events, gaps, resets and silence into bytes and knows nothing of clients, rings or connections. Encoding
//! the same event twice gives the same bytes.

use std::rc::Rc;

use bytes::{BufMut, BytesMut};

use crate::model::{Event, Seq};

mod ndjson;
mod nul;
mod sse;

/// What stands around an event's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// What the format does by itself.
    #[default]
    Native,
    /// The JSON form of `CloudEvents`.
    CloudEvents,
}

/// How one selection of events is dressed: what differs between streams of the same format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Style {
    /// What stands around the data.
    pub envelope: Envelope,
    /// The function of a page that takes events; a checked name.
    pub callback: Option<Rc<str>>,
}

/// What comes before everything, client by client.
#[derive(Clone, Debug)]
pub struct Prologue<'a> {
    /// A number that differs from client to client.
    pub spread: u32,
    /// Whether the client asked for bytes that fill the buffers on the way.
    pub padding: bool,
    /// How its events are dressed.
    pub style: &'a Style,
}

/// Something the relay itself has to say inside a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Retention took these positions, both inclusive, before they could be sent.
    Gap {
        /// First position missing.
        from: Seq,
        /// Last position missing.
        to: Seq,
    },
    /// The position asked for is beyond the log; the stream goes on live behind `head`.
    Reset {
        /// Newest position of the log.
        head: Seq,
    },
}

impl Notice {
    /// Event type it is sent under.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "hookcast.gap",
            Self::Reset { .. } => "hookcast.reset",
        }
    }

    /// Where a reader that has seen it stands.
    #[must_use]
    pub fn seq(&self) -> Seq {
        match *self {
            Self::Gap { to, .. } => to,
            Self::Reset { head } => head,
        }
    }

    /// Its data: `{"from":1,"to":2}` or `{"head":3}`.
    #[must_use]
    pub fn data(&self) -> String {
        match self {
            Self::Gap { from, to } => format!("{{\"from\":{from},\"to\":{to}}}"),
            Self::Reset { head } => format!("{{\"head\":{head}}}"),
        }
    }

    /// Appends its JSON form, one line without its end.
    pub fn write_json_form(&self, out: &mut BytesMut) {
        let (kind, seq, data) = (self.kind(), self.seq(), self.data());
        let id = match self {
            Self::Gap { from, to } => format!("gap-{from}-{to}"),
            Self::Reset { head } => format!("reset-{head}"),
        };
        let form = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/hookcast\",\"type\":\"{kind}\",\"topic\":\"hookcast.stream\",\
             \"seq\":\"{seq}\",\"datacontenttype\":\"application/json\",\"data\":{data}}}"
        );
        out.put_slice(form.as_bytes());
    }
}

/// How a stream is written.
#[derive(Debug)]
pub struct Format {
    /// Its name in `?format=`.
    pub name: &'static str,
    /// What `Content-Type` says and `Accept` asks for.
    pub media_type: &'static str,
    /// Other media types that ask for it.
    pub aliases: &'static [&'static str],
    /// Whether `envelope=cloudevents` changes anything.
    pub has_envelope: bool,
    /// Whether the response ends where a gap begins, because the format has no way to tell of it.
    pub gap_ends: bool,
    /// Appends what comes before everything.
    pub opening: fn(&mut BytesMut, &Prologue<'_>),
    /// Appends one event.
    pub event: fn(&mut BytesMut, &Event, &Style),
    /// Appends what is sent into silence, with the position scanned so far; may append nothing.
    pub heartbeat: fn(&mut BytesMut, Seq),
    /// Appends a gap or a reset.
    pub notice: fn(&mut BytesMut, &Notice, &Style),
    /// Appends what stands behind everything when the stream ends as meant; may append nothing.
    pub closing: fn(&mut BytesMut),
}

/// Every format; the first is the default.
pub const FORMATS: &[Format] = &[ndjson::FORMAT, sse::FORMAT];
/// JSON forms that end in NUL; for connections without HTTP, where nothing else says a format.
pub static NUL_ENDED: Format = nul::FORMAT;

/// None of the formats was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked:?} is not a format of streams; there are {}", names())]
pub struct UnknownFormat {
    /// What was asked for, shortened.
    pub asked: String,
}

fn names() -> String {
    let names: Vec<_> = FORMATS.iter().map(|format| format!("{} ({})", format.name, format.media_type)).collect();
    names.join(", ")
}

/// Chooses by name, else by an `Accept` header; without either the first of [`FORMATS`].
///
/// # Errors
/// [`UnknownFormat`] when the name is not one, or `Accept` takes none of the media types.
///
/// Spec: RFC 9110, section 12.5.1.
pub fn negotiate(name: Option<&str>, accept: Option<&str>) -> Result<&'static Format, UnknownFormat> {
    let unknown = |asked: &str| UnknownFormat { asked: asked.chars().take(80).collect() };
    if let Some(name) = name {
        return FORMATS.iter().find(|format| format.name == name).ok_or_else(|| unknown(name));
    }
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return Ok(&FORMATS[0]) };
    let ranges: Vec<Range<'_>> = accept.split(',').filter_map(Range::parse).collect();
    let best = FORMATS.iter().filter_map(|format| quality(format, &ranges).map(|quality| (quality, format)));
    // Of equals the earlier row stays.
    let best = best.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, format)| format).ok_or_else(|| unknown(accept))
}

/// One entry of an `Accept` header.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// Thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(Self { kind, subtype, quality: quality.map_or(1000, thousandths) })
    }

    /// How closely it names the media type: 2 exactly, 1 by its kind, 0 as anything.
    fn closeness(&self, media_type: &str) -> Option<u8> {
        let (kind, subtype) = media_type.split_once('/')?;
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (asked, "*") if asked.eq_ignore_ascii_case(kind) => Some(1),
            (asked, exact) if asked.eq_ignore_ascii_case(kind) && exact.eq_ignore_ascii_case(subtype) => Some(2),
            _ => None,
        }
    }
}

/// What the closest entry grants a format; `None` for none or zero.
fn quality(format: &Format, ranges: &[Range<'_>]) -> Option<u16> {
    let types = || std::iter::once(&format.media_type).chain(format.aliases);
    let closest = types().flat_map(|media_type| {
        ranges.iter().filter_map(move |range| range.closeness(media_type).map(|closeness| (closeness, range.quality)))
    });
    closest.max().map(|(_, quality)| quality).filter(|quality| *quality > 0)
}

fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digit = |at: usize| fraction.as_bytes().get(at).filter(|b| b.is_ascii_digit()).map_or(0, |b| u16::from(b - b'0'));
    if whole == "0" { digit(0) * 100 + digit(1) * 10 + digit(2) } else { 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_accept(accept: &str) -> Option<&'static str> {
        negotiate(None, Some(accept)).ok().map(|format| format.name)
    }

    #[test]
    fn a_name_wins_over_accept() {
        assert_eq!(negotiate(Some("sse"), Some("application/x-ndjson")).unwrap().name, "sse");
        assert!(negotiate(Some("xml"), Some("*/*")).is_err());
        assert!(negotiate(Some(""), None).is_err());
    }

    #[test]
    fn accept_chooses_by_quality_and_closeness() {
        assert_eq!(negotiate(None, None).unwrap().name, "ndjson");
        assert_eq!(by_accept(""), Some("ndjson"));
        assert_eq!(by_accept("*/*"), Some("ndjson"));
        assert_eq!(by_accept("text/event-stream"), Some("sse"));
        assert_eq!(by_accept("Text/Event-Stream, */*"), Some("ndjson"));
        assert_eq!(by_accept("text/event-stream, */*;q=0.5"), Some("sse"));
        assert_eq!(by_accept("application/x-ndjson;q=0, */*"), Some("sse"));
        assert_eq!(by_accept("application/ndjson;q=0.9, text/event-stream;q=0.8"), Some("ndjson"));
        assert_eq!(by_accept("text/html,application/xhtml+xml,*/*;q=0.8"), Some("ndjson"));
        assert_eq!(by_accept("text/*"), Some("sse"));
        assert_eq!(by_accept("image/png"), None);
        assert_eq!(by_accept("text/event-stream;q=0"), None);
        assert_eq!(by_accept("nonsense"), None);
    }

    #[test]
    fn names_and_media_types_are_distinct() {
        for (index, format) in FORMATS.iter().enumerate() {
            assert!(FORMATS[..index].iter().all(|other| other.name != format.name && other.media_type != format.media_type));
        }
    }

    #[test]
    fn the_json_form_of_a_notice_is_json() {
        for notice in [Notice::Gap { from: Seq(6), to: Seq(100) }, Notice::Reset { head: Seq(7) }] {
            let mut out = BytesMut::new();
            notice.write_json_form(&mut out);
            let form: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(form["type"], notice.kind());
            assert_eq!(form["seq"], notice.seq().to_string());
            assert_eq!(form["data"].to_string(), notice.data());
        }
    }
}
