//! Bodies of parts: `multipart/x-mixed-replace`, where each part takes the place of the last, and `multipart/mixed`.
//!
//! What stands before the first boundary and behind the closing one is passed over. A part that says its length is given out
//! as soon as it is there; one that does not, at the boundary behind it. Both line ends are read, because cameras and scripts
//! send either. Spec: RFC 2046 §5.1.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;

use super::SkipReason;

/// Largest head of a part, in bytes.
pub const PART_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest boundary. Spec: RFC 2046 §5.1.1 says 70; some senders take more.
pub const BOUNDARY_BYTES_MAX: usize = 200;

/// What is found in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartItem {
    /// A part.
    Part {
        /// The `Content-Type` of its head, as it stands there.
        content_type: Option<String>,
        /// Its bytes; empty for a part that only shows that the sender is alive.
        data: Bytes,
    },
    /// A part that is left out.
    Skipped(SkipReason),
}

/// Why the rest of a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartFault {
    /// The head of a part is longer than [`PART_HEAD_BYTES_MAX`].
    #[error("the head of a part has more than {PART_HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// A part says two lengths, or one that is no number.
    #[error("the length of a part is not a number")]
    BadLength,
}

/// The `boundary` of a content type, quoted or not.
#[must_use]
pub fn boundary_of(content_type: &str) -> Option<String> {
    let (_, parameters) = content_type.split_once(';')?;
    let mut rest = parameters;
    loop {
        let (name, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (value, behind) = if let Some(quoted) = value.strip_prefix('"') {
            unquoted(quoted)?
        } else {
            let end = value.find(';').unwrap_or(value.len());
            (value[..end].trim_end().to_owned(), &value[end..])
        };
        if name.trim().eq_ignore_ascii_case("boundary") {
            return (!value.is_empty() && value.len() <= BOUNDARY_BYTES_MAX).then_some(value);
        }
        rest = behind.trim_start().strip_prefix(';')?;
    }
}

/// The text up to the closing quotation mark, and what stands behind that. Spec: RFC 9110 §5.6.4.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// Reads parts from chunks while holding at most one part and one chunk.
#[derive(Debug)]
pub struct MultipartDecoder {
    held: BytesMut,
    /// A line feed and the boundary with its two dashes.
    delimiter: memmem::Finder<'static>,
    place: Place,
    /// How much of what is held was searched.
    searched: usize,
    part_bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In what belongs to no part, until a boundary.
    Outside,
    Head,
    /// In a part that ends at a boundary; its bytes begin behind the first line feed.
    Open {
        content_type: Option<String>,
        is_long: bool,
    },
    /// In a part of which so many bytes are missing.
    Counted {
        content_type: Option<String>,
        length: usize,
    },
    /// In a part over the cap of which so many bytes are missing.
    Passing(usize),
    Closed,
}

/// A boundary among what is held.
struct Found {
    /// Where the part before it ends.
    part_end: usize,
    /// Where the next thing begins.
    next: usize,
    is_last: bool,
}

impl MultipartDecoder {
    /// A decoder that skips parts longer than `part_bytes_max`.
    #[must_use]
    pub fn new(boundary: &str, part_bytes_max: usize) -> Self {
        let delimiter = memmem::Finder::new(format!("\n--{boundary}").as_bytes()).into_owned();
        // The first boundary needs no line end before it.
        Self { held: BytesMut::from("\n"), delimiter, place: Place::Outside, searched: 0, part_bytes_max }
    }

    /// Whether the closing boundary was read: nothing follows.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.place == Place::Closed
    }

    /// The next part that is complete with `chunk`; `None` when the chunk is used up.
    ///
    /// # Errors
    /// [`PartFault`], after which the rest of the body means nothing.
    pub fn next(&mut self, chunk: &mut Bytes) -> Option<Result<PartItem, PartFault>> {
        if self.place == Place::Closed {
            chunk.clear();
            return None;
        }
        self.held.extend_from_slice(chunk);
        chunk.clear();
        loop {
            let step = match std::mem::replace(&mut self.place, Place::Outside) {
                Place::Outside => self.outside(),
                Place::Head => self.head(),
                Place::Open { content_type, is_long } => self.open(content_type, is_long),
                Place::Counted { content_type, length } => self.counted(content_type, length),
                Place::Passing(missing) => self.passing(missing),
                Place::Closed => {
                    self.place = Place::Closed;
                    Step::Wait
                }
            };
            match step {
                Step::On => {}
                Step::Wait => return None,
                Step::Item(item) => return Some(Ok(item)),
                Step::Fault(fault) => return Some(Err(fault)),
            }
        }
    }

    /// The end of the body: a part that has not come whole.
    pub fn finish(&mut self) -> Option<PartItem> {
        let is_inside = !matches!(std::mem::replace(&mut self.place, Place::Closed), Place::Outside | Place::Closed);
        let has_content = self.held.iter().any(|byte| !byte.is_ascii_whitespace());
        self.held.clear();
        (is_inside && has_content).then_some(PartItem::Skipped(SkipReason::Partial))
    }

    fn outside(&mut self) -> Step {
        let Some(found) = self.find() else {
            self.forget_searched();
            self.place = Place::Outside;
            return Step::Wait;
        };
        self.pass(&found);
        Step::On
    }

    fn head(&mut self) -> Step {
        let mut lines = 0;
        // A head without a line is its blank line alone.
        let end = memchr::memchr_iter(b'\n', &self.held).find(|end| {
            let line = &self.held[lines..*end];
            lines = end + 1;
            matches!(line, b"" | b"\r")
        });
        if end.unwrap_or(self.held.len()) > PART_HEAD_BYTES_MAX {
            return Step::Fault(PartFault::HeadTooLong);
        }
        let Some(end) = end else {
            self.place = Place::Head;
            return Step::Wait;
        };
        let fields = PartHead::read(&self.held[..end]);
        // The line feed of the blank line stays: a boundary may follow it directly.
        self.held.advance(end);
        self.searched = 0;
        let content_type = fields.content_type;
        self.place = match fields.length {
            Err(()) => return Step::Fault(PartFault::BadLength),
            Ok(None) => Place::Open { content_type, is_long: false },
            Ok(Some(length)) => {
                self.held.advance(1);
                if length > self.part_bytes_max { Place::Passing(length) } else { Place::Counted { content_type, length } }
            }
        };
        Step::On
    }

    fn open(&mut self, content_type: Option<String>, is_long: bool) -> Step {
        let Some(found) = self.find() else {
            // Behind the line feed at the front, and the CR that may belong to the boundary.
            let is_long = is_long || self.searched > self.part_bytes_max + 2;
            if is_long {
                self.forget_searched();
            }
            self.place = Place::Open { content_type, is_long };
            return Step::Wait;
        };
        let data = match found.part_end {
            0 => Bytes::new(),
            end => Bytes::copy_from_slice(&self.held[1..end]),
        };
        self.pass(&found);
        if is_long || data.len() > self.part_bytes_max {
            return Step::Item(PartItem::Skipped(SkipReason::EventTooLarge));
        }
        Step::Item(PartItem::Part { content_type, data })
    }

    fn counted(&mut self, content_type: Option<String>, length: usize) -> Step {
        if self.held.len() < length {
            self.place = Place::Counted { content_type, length };
            return Step::Wait;
        }
        let data = self.held.split_to(length).freeze();
        self.place = Place::Outside;
        Step::Item(PartItem::Part { content_type, data })
    }

    fn passing(&mut self, missing: usize) -> Step {
        let some = missing.min(self.held.len());
        self.held.advance(some);
        if some < missing {
            self.place = Place::Passing(missing - some);
            return Step::Wait;
        }
        self.place = Place::Outside;
        Step::Item(PartItem::Skipped(SkipReason::EventTooLarge))
    }

    /// Goes on behind a boundary.
    fn pass(&mut self, found: &Found) {
        self.held.advance(found.next);
        self.searched = 0;
        self.place = if found.is_last { Place::Closed } else { Place::Head };
        if found.is_last {
            self.held = BytesMut::new();
        }
    }

    /// The next boundary whose line is complete. Notes how far nothing has to be searched again.
    fn find(&mut self) -> Option<Found> {
        let width = self.delimiter.needle().len();
        while let Some(offset) = self.delimiter.find(&self.held[self.searched..]) {
            let at = self.searched + offset;
            let behind = &self.held[at + width..];
            let part_end = if at > 0 && self.held[at - 1] == b'\r' { at - 1 } else { at };
            if behind.starts_with(b"--") {
                return Some(Found { part_end, next: at + width + 2, is_last: true });
            }
            let padding = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
            match behind.get(padding) {
                Some(b'\n') => return Some(Found { part_end, next: at + width + padding + 1, is_last: false }),
                // The line is not there yet, unless it is far too long to be one.
                None | Some(b'-') if padding + 1 >= behind.len() && padding <= PART_HEAD_BYTES_MAX => {
                    self.searched = at;
                    return None;
                }
                _ => self.searched = at + 1,
            }
        }
        // All but what may be the beginning of a boundary.
        self.searched = self.searched.max((self.held.len() + 1).saturating_sub(width));
        None
    }

    /// Lets go of what no boundary can begin in; the byte before one stays.
    fn forget_searched(&mut self) {
        let some = self.searched.saturating_sub(1);
        self.held.advance(some);
        self.searched -= some;
    }
}

enum Step {
    On,
    Wait,
    Item(PartItem),
    Fault(PartFault),
}

#[derive(Debug)]
struct PartHead {
    content_type: Option<String>,
    length: Result<Option<usize>, ()>,
}

impl PartHead {
    fn read(head: &[u8]) -> Self {
        let mut content_type = None;
        let mut length = Ok(None);
        for line in head.split(|byte| *byte == b'\n') {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            let Ok(value) = std::str::from_utf8(value) else { continue };
            if name.eq_ignore_ascii_case(b"content-type") && !value.is_empty() {
                content_type = Some(value.to_owned());
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let read = if digits { value.parse().map_err(|_| ()) } else { Err(()) };
                length = match (length, read) {
                    (Ok(None), Ok(read)) => Ok(Some(read)),
                    (Ok(Some(known)), Ok(read)) if known == read => Ok(Some(read)),
                    _ => Err(()),
                };
            }
        }
        Self { content_type, length }
    }
}

#[cfg(test)]
mod tests;
