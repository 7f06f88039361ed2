//! Single values of a definition, and how foreign texts stand in a message.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use super::{Errors, FieldError, SHORT_TEXT_CHARS_MAX};
use crate::units::{UnitError, format_duration, parse_duration};

/// How much of a foreign text is repeated in a message, in characters.
const QUOTE_CHARS_MAX: usize = 64;

/// A text; notes another type.
pub fn text<'a>(value: &'a Value, pointer: String, errors: &Errors) -> Option<&'a str> {
    if !value.is_string() {
        errors.wrong_type(pointer, value, "a text");
    }
    value.as_str()
}

/// A text of at most [`SHORT_TEXT_CHARS_MAX`] characters without control characters.
pub fn short_text<'a>(value: &'a Value, pointer: String, errors: &Errors) -> Option<&'a str> {
    let given = text(value, pointer.clone(), errors)?;
    if let Some(control) = given.chars().find(|c| c.is_control()) {
        errors.push(pointer, "control_character", format!("holds the control character U+{:04X}", u32::from(control)));
        return None;
    }
    if given.chars().count() > SHORT_TEXT_CHARS_MAX {
        errors.push(pointer, "too_long", format!("has more than {SHORT_TEXT_CHARS_MAX} characters"));
        return None;
    }
    Some(given)
}

/// A duration text inside `range`, whose breach is noted as `slug`.
pub fn duration(
    value: &Value,
    pointer: String,
    range: &RangeInclusive<Duration>,
    slug: &'static str,
    errors: &Errors,
) -> Option<Duration> {
    let (from, to) = (format_duration(*range.start()), format_duration(*range.end()));
    let wanted = format!("a text from \"{from}\" to \"{to}\", units ms, s, m, h, d");
    let given = match value {
        Value::String(given) => given,
        Value::Number(number) => {
            let detail = format!("{number} needs a unit; allowed: {wanted}");
            errors.note(FieldError { pointer, slug: "duration_needs_unit", detail, status: 400 });
            return None;
        }
        other => {
            errors.wrong_type(pointer, other, &wanted);
            return None;
        }
    };
    let given_quoted = quoted(given);
    match parse_duration(given) {
        Ok(value) if range.contains(&value) => return Some(value),
        Ok(_) | Err(UnitError::TooLarge) => {
            errors.push(pointer, slug, format!("{given_quoted} is out of range; allowed: {wanted}"));
        }
        Err(UnitError::NeedsUnit) => {
            errors.push(pointer, "duration_needs_unit", format!("{given_quoted} needs a unit; allowed: {wanted}"));
        }
        Err(UnitError::Malformed) => errors.push(pointer, slug, format!("{given_quoted} is not a duration; allowed: {wanted}")),
    }
    None
}

/// The JSON pointer of `name` under `parent`.
pub fn child(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A foreign text as it may stand in a message: quoted, escaped, cut.
pub fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", cut.escape_debug())
}

/// The known name that `given` was most likely meant to be.
pub fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    // Comparing a name costs its length squared; no known name is this long.
    if given.len() > QUOTE_CHARS_MAX {
        return None;
    }
    // One slip, or one in three characters of a longer name.
    let slips_max = (given.chars().count() / 3).max(1);
    let scored = known.iter().map(|name| (strsim::osa_distance(given, name), *name));
    scored.filter(|(slips, _)| *slips <= slips_max).min_by_key(|(slips, _)| *slips).map(|(_, name)| name)
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
