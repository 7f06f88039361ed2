//! The protocol `raw`: records of any bytes that end with a line end or a zero byte, no position to resume from.
//!
//! A record is text when it is UTF-8; with `settings.content_type` it is what that says. Empty records are keep-alives.

use bytes::Bytes;

use super::reconnect::Ending;
use super::record::Record;
use super::stream::{Framing, Part, StreamSource, nothing_to_send};
use super::{Protocol, record_bytes_max};
use hookcast_core::codec::lines::{Line, LineDecoder};
use hookcast_core::codec::{SkipReason, json};
use hookcast_core::model::ResumeToken;
use hookcast_core::model::event::is_json_type;
use hookcast_core::model::source::SourceSpec;
use hookcast_core::model::source::own::OwnSettings;
use hookcast_core::model::source::own::raw::Delimiter;

pub(super) const PROTOCOL: Protocol =
    Protocol { name: "raw", check: |_| Ok(()), open: |spec| Box::new(StreamSource(Raw::new(spec))) };

struct Raw {
    decoder: LineDecoder,
    end: u8,
    record_bytes_max: usize,
    says_json: bool,
}

impl Raw {
    fn new(spec: &SourceSpec) -> Self {
        let delimiter = if let OwnSettings::Raw(raw) = &spec.settings.own { raw.delimiter } else { Delimiter::default() };
        let end = match delimiter {
            Delimiter::Lf => b'\n',
            Delimiter::Nul => 0,
        };
        let record_bytes_max = record_bytes_max(&spec.settings);
        let says_json = spec.settings.content_type.as_deref().is_some_and(is_json_type);
        Self { decoder: LineDecoder::ended_by(end, record_bytes_max), end, record_bytes_max, says_json }
    }

    fn part(&self, line: Line) -> Part {
        match line {
            Line::TooLong => Part::Skipped(SkipReason::LineTooLong, Bytes::new()),
            Line::Whole(line) if line.is_empty() => Part::KeepAlive,
            Line::Whole(data) => {
                let is_json = self.says_json && json::check(&data).is_ok();
                let is_text = is_json || std::str::from_utf8(&data).is_ok();
                let content_type = (!is_text).then(|| "application/octet-stream".to_owned());
                Part::Record(Record { data, is_json, content_type, ..Record::default() })
            }
        }
    }
}

impl Framing for Raw {
    fn accept(&self) -> &'static str {
        "*/*"
    }

    /// Anything but a page: that is what a server shows to those whom it wants to log in.
    fn reads(&self, media_type: Option<&str>) -> bool {
        !matches!(media_type, Some("text/html" | "application/xhtml+xml"))
    }

    fn no_content(&self) -> Ending {
        nothing_to_send()
    }

    fn begin(&mut self, _: Option<&ResumeToken>) {
        self.decoder = LineDecoder::ended_by(self.end, self.record_bytes_max);
    }

    fn next(&mut self, chunk: &mut Bytes) -> Option<Part> {
        self.decoder.next(chunk).map(|line| self.part(line))
    }

    fn finish(&mut self, clean: bool) -> Option<Part> {
        Some(match self.decoder.finish()? {
            Line::Whole(cut) if !clean => Part::Skipped(SkipReason::Partial, cut),
            line => self.part(line),
        })
    }
}
