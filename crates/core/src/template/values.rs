//! What values cost, and what is made of them: texts and lists with caps, every byte of them charged before it is there.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::io;

use minijinja::value::{DynObject, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::meter;

/// Longest text that is made, in bytes; also the longest result of a template.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// What a value costs besides its text: about what it takes in memory.
pub(super) const VALUE_BYTES: u64 = 32;
/// What a byte of JSON is charged: it takes longer to make than to copy.
const JSON_FACTOR: u64 = 4;
/// Lists in lists and objects in objects.
const DEPTH_MAX: u32 = 300;

pub(super) fn refuse(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

pub(super) fn too_long() -> Error {
    refuse(format!("a text of more than {OUTPUT_BYTES_MAX} bytes"))
}

/// Takes bytes from what the rendering has left.
pub(super) fn charge(bytes: u64) -> Result<(), Error> {
    if meter::spend(bytes) { Ok(()) } else { Err(refuse("takes too much work")) }
}

/// The length of a text; nothing for anything else.
pub(super) fn text_bytes(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.len() as u64)
}

/// Walks a value with all that is in it, and charges it. The result is its size.
pub(super) fn weigh(value: &Value) -> Result<u64, Error> {
    weigh_inner(value, 0)
}

fn weigh_inner(value: &Value, depth: u32) -> Result<u64, Error> {
    if depth > DEPTH_MAX {
        return Err(refuse("lists and objects are nested too deep"));
    }
    let mut bytes = VALUE_BYTES + text_bytes(value);
    charge(bytes)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                bytes += weigh_inner(&item, depth + 1)?;
            }
        }
        ValueKind::Map => {
            for (key, item) in value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten() {
                bytes += weigh_inner(&key, depth + 1)? + weigh_inner(&item, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(bytes)
}

/// The length of the longest text in a value that was weighed.
pub(super) fn longest_text(value: &Value) -> u64 {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter().into_iter().flatten().map(|item| longest_text(&item)).max(),
        ValueKind::Map => {
            let pairs = value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten();
            pairs.map(|(key, item)| longest_text(&key).max(longest_text(&item))).max()
        }
        _ => Some(text_bytes(value)),
    }
    .unwrap_or(0)
}

/// Charges what a filter made; what would be made later, while it is walked, is made now.
pub(super) fn made(value: Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        if text.len() > OUTPUT_BYTES_MAX {
            return Err(too_long());
        }
        charge(VALUE_BYTES + text.len() as u64)?;
        return Ok(value);
    }
    match value.kind() {
        ValueKind::Iterable => {
            let mut list = Vec::new();
            for item in value.try_iter()? {
                charge(VALUE_BYTES)?;
                list.push(item);
            }
            Ok(Value::from(list))
        }
        ValueKind::Seq | ValueKind::Map => {
            charge(VALUE_BYTES * (1 + value.len().unwrap_or(0) as u64))?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// Lists and objects as the text that the engine makes of them; anything else as it is.
pub(super) fn worded(value: &Value) -> Result<Value, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain) {
        return Ok(value.clone());
    }
    weigh(value)?;
    let mut text = Capped::default();
    write!(text, "{value}").map_err(|_| too_long())?;
    Ok(Value::from(text.0))
}

/// A value as it is printed: texts as they are, nothing for what is not there, the rest as JSON has it.
pub(super) fn printed(value: &Value) -> Result<Cow<'_, str>, Error> {
    let text = match value.kind() {
        ValueKind::Undefined => Cow::Borrowed(""),
        ValueKind::None => Cow::Borrowed("null"),
        ValueKind::Bool if value.is_true() => Cow::Borrowed("true"),
        ValueKind::Bool => Cow::Borrowed("false"),
        ValueKind::Map | ValueKind::Seq => Cow::Owned(json(value)?),
        ValueKind::Iterable | ValueKind::Plain => worded(value)?.to_string().into(),
        _ => value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed),
    };
    charge(text.len() as u64)?;
    Ok(text)
}

/// A value as JSON. It ends where a text would be too long, so what it looks at is no more than what it makes.
pub(super) fn json(value: &Value) -> Result<String, Error> {
    let mut json = CappedBytes(Vec::new());
    serde_json::to_writer(&mut json, value)
        .map_err(|error| if error.is_io() { too_long() } else { refuse(format!("cannot be written as JSON: {error}")) })?;
    charge(JSON_FACTOR * json.0.len() as u64)?;
    String::from_utf8(json.0).map_err(|error| refuse(error.to_string()))
}

/// A text that takes as much as a text may have.
#[derive(Default)]
pub(super) struct Capped(pub(super) String);

impl Capped {
    /// Puts a text behind it.
    ///
    /// # Errors
    /// When it would be too long.
    pub(super) fn push(&mut self, text: &str) -> Result<(), Error> {
        self.write_str(text).map_err(|_| too_long())
    }
}

impl fmt::Write for Capped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// The same, as bytes.
struct CappedBytes(Vec<u8>);

impl io::Write for CappedBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
