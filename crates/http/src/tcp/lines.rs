//! The two lines that a client of the door without HTTP begins with: its token, and what it wants.
//!
//! ```text
//! lines   = token end request end
//! token   = one word of visible ASCII; "-" where no token is asked for
//! request = patterns *( 1*SP name "=" value )
//! end     = LF / CR LF / NUL
//! ```
//!
//! Names are those of a stream over HTTP, values percent-encoded as there. What ends the first line ends everything that is sent
//! back. Pure.

use crate::ask::{self, Query};
use crate::problem::Problem;
use hookcast_core::model::PatternList;
use hookcast_streams::Ask;
use hookcast_streams::format::{self, FORMATS};
use hookcast_streams::start::Start;
use std::time::Duration;

/// What a request may name.
const PARAMETERS: &[&str] = &["since", "last_event_id", "types", "filter", "limit", "max_duration", "heartbeat"];
/// Stands where a token would, when none is asked for.
const NO_TOKEN: &[u8] = b"-";

/// What stands behind each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    LineFeed,
    Nul,
}

/// Both lines, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines<'a> {
    /// `None` for `-`.
    pub(super) token: Option<&'a [u8]>,
    pub(super) ending: Ending,
    request: &'a [u8],
}

impl Ending {
    pub(super) fn as_char(self) -> char {
        match self {
            Self::LineFeed => '\n',
            Self::Nul => '\0',
        }
    }
}

impl<'a> Lines<'a> {
    /// Looks for both lines in what came so far; `None` while they are not complete. What stands behind them is not looked at.
    ///
    /// # Errors
    /// `token_line` when the first line is not one word, as the first line of every HTTP request and every TLS handshake is not.
    pub(super) fn read(said: &'a [u8]) -> Result<Option<Self>, Problem> {
        let end = said.iter().position(|byte| matches!(byte, b'\n' | 0));
        let first = without_return(&said[..end.unwrap_or(said.len())]);
        let is_word = first.iter().all(u8::is_ascii_graphic) && !(first.is_empty() && end.is_some());
        // A line that is under way may still get its end behind a carriage return.
        if !is_word {
            let detail = "the first line is a token, or `-` where none is asked for; the second `<patterns> since=… types=…`";
            return Err(Problem::of_slug("token_line", 400, detail));
        }
        let Some(end) = end else { return Ok(None) };
        let (ending, rest) = (if said[end] == 0 { Ending::Nul } else { Ending::LineFeed }, &said[end + 1..]);
        let Some(end) = rest.iter().position(|byte| *byte == said[end]) else { return Ok(None) };
        let token = Some(first).filter(|token| *token != NO_TOKEN);
        Ok(Some(Self { token, ending, request: without_return(&rest[..end]) }))
    }

    /// What the second line asks for.
    ///
    /// # Errors
    /// As for a stream over HTTP: `topics`, `unknown_parameter`, and the names of parameters.
    pub(super) fn ask(&self) -> Result<Ask, Problem> {
        let refuse = |detail: String| Problem::of_slug("topics", 422, detail);
        let text = std::str::from_utf8(self.request).map_err(|_| refuse("the second line is not UTF-8".to_owned()))?;
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let patterns: PatternList = words.next().unwrap_or_default().parse().map_err(|error| refuse(format!("{error}")))?;
        let query = words.collect::<Vec<_>>().join("&");
        let query = Query::read(&query, PARAMETERS)?;
        Ok(Ask {
            patterns,
            types: ask::types(&query)?,
            filter: ask::filter(&query)?,
            format: match self.ending {
                Ending::LineFeed => &FORMATS[0],
                Ending::Nul => &format::NUL_ENDED,
            },
            style: format::Style::default(),
            padding: false,
            start: start(&query)?,
            limit: ask::limit(&query)?,
            max_duration: ask::duration(&query, "max_duration", Duration::from_millis(1), Duration::MAX)?,
            heartbeat: ask::duration(&query, "heartbeat", hookcast_streams::HEARTBEAT_MIN, hookcast_streams::HEARTBEAT_MAX)?,
            origins: Vec::new(),
        })
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn start(query: &Query<'_>) -> Result<Start, Problem> {
    if let Some(id) = query.get("last_event_id") {
        return Start::parse_last_event_id(id.as_bytes())
            .map_err(|error| Problem::of_slug("last_event_id", 400, error.to_string()));
    }
    let since = query.get("since").unwrap_or("latest");
    Start::parse_since(since).map_err(|error| Problem::of_slug("since", 422, error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use hookcast_core::model::Seq;

    fn slug(said: &[u8]) -> Result<(), &'static str> {
        let lines = Lines::read(said).map_err(|problem| problem.slug())?.ok_or("more")?;
        lines.ask().map(drop).map_err(|problem| problem.slug())
    }

    #[test]
    fn both_lines_are_read_whatever_ends_them() {
        for (said, ending) in [
            (&b"secret\na.*,b since=7 limit=3\nrest"[..], Ending::LineFeed),
            (b"secret\r\na.*,b  since=7 limit=3\r\n", Ending::LineFeed),
            (b"secret\0a.*,b since=7 limit=3\0rest\0", Ending::Nul),
        ] {
            let lines = Lines::read(said).unwrap().unwrap();
            assert_eq!((lines.token, lines.ending), (Some(&b"secret"[..]), ending));
            let ask = lines.ask().unwrap();
            assert_eq!((ask.patterns.to_string(), ask.start, ask.limit), ("a.*,b".to_owned(), Start::After(Seq(7)), Some(3)));
            assert_eq!(ask.format.name, if ending == Ending::Nul { "nul" } else { "ndjson" });
        }
        assert_eq!(Lines::read(b"-\na\n").unwrap().unwrap().token, None);
    }

    #[test]
    fn every_parameter_is_read() {
        let said = b"-\na types=x,y filter=data.n%20%3E%201 max_duration=1m heartbeat=5s last_event_id=9 since=earliest\n";
        let ask = Lines::read(said).unwrap().unwrap().ask().unwrap();
        assert_eq!((ask.types.len(), ask.filter.as_deref()), (2, Some("data.n > 1")));
        assert_eq!((ask.start, ask.heartbeat), (Start::After(Seq(9)), Some(Duration::from_secs(5))));
        assert_eq!(ask.max_duration, Some(Duration::from_mins(1)));
    }

    #[test]
    fn what_is_no_request_is_refused_by_name() {
        for (said, wanted) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], "token_line"),
            (b"POST ", "token_line"),
            (b"\x16\x03\x01\x02\x00\x01", "token_line"),
            (b"\n", "token_line"),
            (b"\r\na\r\n", "token_line"),
            (b"\xfftoken\na\n", "token_line"),
            (b"-", "more"),
            (b"-\r", "more"),
            (b"-\na", "more"),
            (b"-\na\0", "more"),
            (b"-\n\n", "topics"),
            (b"-\na..b\n", "topics"),
            (b"-\n\xff\n", "topics"),
            (b"-\na b\n", "unknown_parameter"),
            (b"-\na format=sse\n", "unknown_parameter"),
            (b"-\na limit=1 limit=2\n", "unknown_parameter"),
            (b"-\na since=never\n", "since"),
            (b"-\na last_event_id=x\n", "last_event_id"),
            (b"-\na heartbeat=1ms\n", "heartbeat"),
            (b"-\na filter=data.\n", "filter"),
            (b"-\na types=\n", "types"),
        ] {
            assert_eq!(slug(said), Err(wanted), "{}", said.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it_and_more_bytes_never_unsay_what_was_read(said in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..64) {
            let whole = Lines::read(&said);
            if let Ok(Some(early)) = Lines::read(&said[..cut.min(said.len())]) {
                prop_assert_eq!(whole.unwrap().unwrap(), early);
            }
        }
    }
}
