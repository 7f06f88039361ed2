//! Filters that make texts where the engine's own would grow, or search, without bound, and `range`.

use std::collections::BTreeSet;

use minijinja::{Error, Value};

use super::values::{Capped, OUTPUT_BYTES_MAX, VALUE_BYTES, charge, json, made, printed, refuse, too_long, worded};

/// Most numbers in a `range`.
const RANGE_MAX: i64 = 1000;
/// Widest indentation.
const INDENT_MAX: usize = 32;

/// JSON that stays JSON wherever it is put: `<`, `>`, `&` and `'` are escaped. What is not there is `null`.
pub(super) fn to_json(value: &Value) -> Result<Value, Error> {
    let json = json(value)?;
    let mut safe = Capped(String::with_capacity(json.len()));
    let mut rest = json.as_str();
    while let Some(at) = rest.bytes().position(|b| matches!(b, b'<' | b'>' | b'&' | b'\'')) {
        safe.push(&rest[..at])?;
        safe.push(match rest.as_bytes()[at] {
            b'<' => "\\u003c",
            b'>' => "\\u003e",
            b'&' => "\\u0026",
            _ => "\\u0027",
        })?;
        rest = &rest[at + 1..];
    }
    safe.push(rest)?;
    made(Value::from(safe.0))
}

/// The items of a list, texts as they are, with `between` between them.
pub(super) fn join(value: &Value, between: Option<&str>) -> Result<Value, Error> {
    let between = between.unwrap_or_default();
    let mut joined = Capped::default();
    charge(super::values::text_bytes(value))?;
    for (index, item) in value.try_iter()?.enumerate() {
        charge(VALUE_BYTES)?;
        if index > 0 {
            charge(between.len() as u64)?;
            joined.push(between)?;
        }
        joined.push(&printed(&item)?)?;
    }
    made(Value::from(joined.0))
}

/// The texts of a row of `~`.
pub(super) fn joined(texts: &Value) -> Result<Value, Error> {
    let mut joined = Capped::default();
    for text in texts.try_iter()? {
        let other = if text.as_str().is_none() { worded(&text)?.to_string() } else { String::new() };
        let text = text.as_str().unwrap_or(&other);
        charge(text.len() as u64)?;
        joined.push(text)?;
    }
    made(Value::from(joined.0))
}

/// A text with one part of it put in place of another.
pub(super) fn replace(value: &Value, from: &str, to: &str) -> Result<Value, Error> {
    let value = printed(value)?;
    charge((value.len() + from.len() + to.len()) as u64)?;
    let times = if from.is_empty() { value.chars().count() + 1 } else { value.matches(from).count() };
    let made_bytes =
        (value.len() - times.saturating_mul(from.len()).min(value.len())).saturating_add(times.saturating_mul(to.len()));
    if made_bytes > OUTPUT_BYTES_MAX {
        return Err(too_long());
    }
    made(Value::from(value.replace(from, to)))
}

/// At most so many characters, the last one a `…` when there were more.
pub(super) fn truncate(value: &Value, characters: Option<usize>) -> Result<Value, Error> {
    let most = characters.unwrap_or(255);
    let text = printed(value)?;
    if text.chars().count() <= most {
        return made(Value::from(text.into_owned()));
    }
    made(Value::from(text.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect::<String>()))
}

/// Every line but the first moved to the right.
pub(super) fn indent(value: &Value, width: usize) -> Result<Value, Error> {
    let value = printed(value)?;
    let width = width.min(INDENT_MAX);
    if value.matches('\n').count().saturating_mul(width).saturating_add(value.len()) > OUTPUT_BYTES_MAX {
        return Err(too_long());
    }
    made(Value::from(value.replace('\n', &format!("\n{}", " ".repeat(width)))))
}

/// A text without white space at its ends, or without any of these characters there.
pub(super) fn trim(value: &Value, characters: Option<&str>) -> Result<Value, Error> {
    let worded = worded(value)?;
    let other = if worded.as_str().is_none() { worded.to_string() } else { String::new() };
    let text = worded.as_str().unwrap_or(&other);
    // The engine compares each character with all of them.
    charge(VALUE_BYTES + text.len() as u64 + characters.map_or(0, |characters| VALUE_BYTES * characters.len() as u64))?;
    let trimmed = match characters {
        None => text.trim(),
        Some(characters) => {
            let characters: BTreeSet<char> = characters.chars().collect();
            text.trim_matches(|c: char| characters.contains(&c))
        }
    };
    made(Value::from(trimmed))
}

/// The numbers from `0`, or from `first` up to `end`, without it.
pub(super) fn range(first: i64, end: Option<i64>) -> Result<Value, Error> {
    let (first, end) = end.map_or((0, first), |end| (first, end));
    if end.saturating_sub(first) > RANGE_MAX {
        return Err(refuse(format!("a range of more than {RANGE_MAX} numbers")));
    }
    made(Value::from((first..end).collect::<Vec<i64>>()))
}
