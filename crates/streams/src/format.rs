//! The formats a stream can have: one file and one row of [`FORMATS`] each, and the choice among them.
//!
//! A format turns events, gaps, resets and silence into bytes and knows nothing of clients, rings or connections. Encoding
//! the same event twice gives the same bytes.

use std::rc::Rc;

use actix_web::http::header::HeaderMap;
use bytes::{BufMut, BytesMut};

use hookcast_core::model::{Event, Seq};

mod html;
mod json_seq;
mod length;
mod list;
mod multipart;
mod ndjson;
mod nul;
mod raw;
mod sse;
mod ws;

/// Bytes that fill the buffers on the way for a client that asks for them.
pub const PADDING_BYTES: usize = 2048;
/// Longest name of a function that takes events.
pub const CALLBACK_BYTES_MAX: usize = 64;
/// Header of a format without notices: what retention took in front of the first event, `1-5`.
pub const UNSAID_GAP: &str = "hookcast-gap";
/// Header of a format without notices: the head of a log that the position asked for is beyond.
pub const UNSAID_RESET: &str = "hookcast-reset";

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
    /// Whether `Accept` chooses it only when it takes no other: its media type is asked for by those who mean something else.
    pub yields: bool,
    /// Whether the response ends where a gap begins, because the format has no way to tell of it.
    pub gap_ends: bool,
    /// Adds to the head of the response, or changes it; takes the origins whose pages may show it.
    pub head: fn(&mut HeaderMap, &[String]),
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
pub const FORMATS: &[Format] =
    &[ndjson::FORMAT, sse::FORMAT, json_seq::FORMAT, raw::FORMAT, length::FORMAT, multipart::FORMAT, html::FORMAT, ws::FORMAT];

/// What a request that is upgraded to a WebSocket asks for, whatever it accepts otherwise.
pub const WEBSOCKET: &str = ws::FORMAT.name;

/// Elements of a JSON list, each with a comma behind it; for answers that end.
pub static LIST: Format = list::FORMAT;
/// JSON forms that end in NUL; for connections without HTTP, where nothing else says a format.
pub static NUL_ENDED: Format = nul::FORMAT;

impl Format {
    /// Whether nothing is sent into silence.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let mut out = BytesMut::new();
        (self.heartbeat)(&mut out, Seq::ZERO);
        out.is_empty()
    }
}

/// The head of a format that needs nothing of its own.
fn plain(_: &mut HeaderMap, _: &[String]) {}

/// Appends what every reader skips until it is long enough, if the client asked for that.
fn write_padding(out: &mut BytesMut, prologue: &Prologue<'_>, skipped: &[u8]) {
    if prologue.padding {
        for _ in 0..PADDING_BYTES.div_ceil(skipped.len()) {
            out.put_slice(skipped);
        }
    }
}

/// Digits that nobody guesses.
fn random_word() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("invariant: the system has random bytes");
    bytes.iter().fold(String::new(), |word, byte| word + &format!("{byte:02x}"))
}

/// Whether this may name a function of a page: words joined by dots, nothing that ends a call or begins another.
#[must_use]
pub fn is_callback(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.');
    name.len() <= CALLBACK_BYTES_MAX
        && name.bytes().next().is_some_and(|first| is_part(first) && first != b'.' && !first.is_ascii_digit())
        && name.bytes().all(is_part)
}

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
    // What yields comes behind all that do not; of equals the earlier row stays.
    let rank = |(quality, format): &(u16, &Format)| (!format.yields, *quality);
    let best = best.reduce(|best, next| if rank(&next) > rank(&best) { next } else { best });
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
mod tests;
