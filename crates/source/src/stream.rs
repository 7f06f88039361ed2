//! Bodies that are one endless sequence of records: checks the answer, undoes gzip, feeds a framing, hands records on.
//!
//! A new protocol of this kind is a [`Framing`] and nothing else.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::connection::{UpstreamResponse, media_type};
use super::reconnect::{Ending, EndingClass};
use super::record::Record;
use super::{Said, Session, Source};
use hookcast_core::codec::gzip::{GzipDecoder, GzipFault};
use hookcast_core::codec::{Frame, SkipReason};
use hookcast_core::model::ResumeToken;

/// What a framing found in a body.
pub(super) enum Part {
    /// A record.
    Record(Record),
    /// Something without content.
    KeepAlive,
    /// A record that is left out, and its beginning.
    Skipped(SkipReason, Bytes),
    /// The wish for a delay between connections.
    Retry(Duration),
    /// A position without an event.
    Moved(Option<ResumeToken>),
    /// Word about the stream rather than of it.
    Said(Box<Said>),
    /// Nothing that follows can be read: the word for why, and a sentence.
    Broken(&'static str, String),
}

impl Part {
    /// What a framing of JSON records found.
    pub(super) fn of(frame: Frame) -> Self {
        match frame {
            Frame::Record(data) => Self::Record(Record { data, is_json: true, ..Record::default() }),
            Frame::KeepAlive => Self::KeepAlive,
            Frame::Skipped(reason, head) => Self::Skipped(reason, head),
        }
    }
}

/// Whether a body may be JSON by its media type: servers name these formats in a dozen ways or not at all; what it surely is
/// not is refused.
pub(super) fn is_json_or_unnamed(media_type: Option<&str>) -> bool {
    media_type.is_none_or(|name| name.contains("json") || matches!(name, "text/plain" | "application/octet-stream" | ""))
}

/// What a 204 means where it does not tell to stay away.
pub(super) fn nothing_to_send() -> Ending {
    Ending::new(EndingClass::Failed, "empty", "the upstream has nothing to send (204)")
}

/// Cuts a body into parts; without I/O.
pub(super) trait Framing: Send {
    /// The `Accept` header.
    fn accept(&self) -> &'static str;
    /// Whether a body of this media type (lower case, no parameters) is read.
    fn reads(&self, media_type: Option<&str>) -> bool;
    /// Looks at the whole `Content-Type` of an answer whose media type is read.
    ///
    /// # Errors
    /// The [`Ending`] when something is missing there.
    fn opened(&mut self, _content_type: Option<&str>) -> Result<(), Ending> {
        Ok(())
    }
    /// What a 204 means.
    fn no_content(&self) -> Ending;
    /// A new body begins, asked for from `resume`.
    fn begin(&mut self, resume: Option<&ResumeToken>);
    /// The next part complete inside `chunk`; `None` when the chunk is used up.
    fn next(&mut self, chunk: &mut Bytes) -> Option<Part>;
    /// The body is over; `clean` = as the other side meant it.
    fn finish(&mut self, clean: bool) -> Option<Part>;
}

/// Reads an upstream through a framing.
pub(super) struct StreamSource<F>(pub(super) F);

#[async_trait]
impl<F: Framing> Source for StreamSource<F> {
    async fn run(&mut self, session: &mut Session) -> Ending {
        let response = match session.request(self.0.accept()).await {
            Ok(response) => response,
            Err(ending) => return ending,
        };
        let mut body = match self.open(response) {
            Ok(body) => body,
            Err(ending) => return ending,
        };
        session.connected().await;
        self.0.begin(session.resume());
        let ending = self.read(&mut body, session).await;
        let last = if ending.class == EndingClass::Cancelled { None } else { self.0.finish(ending.slug == EOF) };
        if let Some(part) = last
            && let Err(stopped) = take(part, session).await
        {
            return stopped;
        }
        match session.flush().await {
            Ok(()) => ending,
            Err(stopped) => stopped,
        }
    }
}

/// The word for a clean end.
const EOF: &str = "eof";

struct OpenBody {
    raw: Box<dyn super::UpstreamBody>,
    gzip: Option<GzipDecoder>,
}

impl<F: Framing> StreamSource<F> {
    fn open(&mut self, response: UpstreamResponse) -> Result<OpenBody, Ending> {
        if response.status.as_u16() == 204 {
            return Err(self.0.no_content());
        }
        let found = media_type(&response.headers);
        if !self.0.reads(found.as_deref()) {
            let found = found.unwrap_or_else(|| "none".to_owned());
            let detail = format!("the upstream answers with content type {found:.80}");
            return Err(Ending::new(EndingClass::Failed, "content_type", detail));
        }
        self.0.opened(response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()))?;
        let gzip = is_gzip(&response.headers)?.then(GzipDecoder::new);
        Ok(OpenBody { raw: response.body, gzip })
    }

    async fn read(&mut self, body: &mut OpenBody, session: &mut Session) -> Ending {
        loop {
            // What is there already goes into the same batch; nothing gathered waits for what is not.
            let next = match session.ready_chunk(body.raw.as_mut()) {
                Some(next) => next,
                None => match session.flush().await {
                    Ok(()) => session.next_chunk(body.raw.as_mut()).await,
                    Err(stopped) => return stopped,
                },
            };
            let step = match next {
                Err(ending) => return ending,
                Ok(None) => {
                    let end = body.gzip.as_ref().map_or(Ok(()), GzipDecoder::finish);
                    return end
                        .map_or_else(decode_ending, |()| Ending::new(EndingClass::Lost, EOF, "the upstream ended the stream"));
                }
                Ok(Some(chunk)) => match &mut body.gzip {
                    None => self.take_chunk(chunk, session).await,
                    Some(gzip) => {
                        gzip.feed(chunk);
                        self.take_decoded(gzip, session).await
                    }
                },
            };
            if let Err(ending) = step {
                return ending;
            }
        }
    }

    async fn take_decoded(&mut self, gzip: &mut GzipDecoder, session: &mut Session) -> Result<(), Ending> {
        while let Some(piece) = gzip.next_piece().map_err(decode_ending)? {
            self.take_chunk(piece, session).await?;
        }
        Ok(())
    }

    async fn take_chunk(&mut self, mut chunk: Bytes, session: &mut Session) -> Result<(), Ending> {
        while let Some(part) = self.0.next(&mut chunk) {
            take(part, session).await?;
            if session.is_full() {
                session.hand_on().await?;
            }
        }
        Ok(())
    }
}

async fn take(part: Part, session: &mut Session) -> Result<(), Ending> {
    match part {
        Part::Record(record) => session.record(record),
        Part::KeepAlive => {}
        Part::Skipped(reason, head) => session.skipped(reason, head),
        Part::Retry(delay) => session.retry(delay),
        Part::Moved(resume) => session.moved(resume),
        Part::Said(said) => return session.said(*said).await,
        Part::Broken(slug, detail) => return Err(Ending::new(EndingClass::Failed, slug, detail)),
    }
    Ok(())
}

pub(super) fn is_gzip(headers: &HeaderMap) -> Result<bool, Ending> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.as_bytes().to_ascii_lowercase());
    match (codings.next().as_deref().map(<[u8]>::trim_ascii), codings.next()) {
        (None | Some(b"" | b"identity"), None) => Ok(false),
        (Some(b"gzip" | b"x-gzip"), None) => Ok(true),
        _ => {
            let detail = "the upstream answers in a content coding that was not asked for and is not gzip";
            Err(Ending::new(EndingClass::Failed, "content_encoding", detail))
        }
    }
}

pub(super) fn decode_ending(fault: GzipFault) -> Ending {
    let (class, slug) = match fault {
        GzipFault::Corrupt => (EndingClass::Failed, "decode"),
        GzipFault::Truncated => (EndingClass::Lost, "truncated"),
        GzipFault::DecompressionLimit => (EndingClass::Failed, "decompression_limit"),
    };
    Ending::new(class, slug, fault.to_string())
}
