//! The `ce-*` headers of the binary mode and the percent-encoding of their values.
//!
//! Spec: HTTP protocol binding 1.0.2, 3.1.3.2: space, the double quote, the percent sign and everything outside printable
//! ASCII are percent-encoded as UTF-8.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use super::{Attributes, CloudEventError, SPEC_VERSION, is_reserved, wrong};
use crate::model::Event;

const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
const PREFIX: &str = "ce-";

/// The value of an attribute as it stands in a header.
#[must_use]
pub fn encode_value(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, ENCODED).into()
}

/// The value of an attribute out of a header: quotes resolved, then percent-decoded; `None` when that is not UTF-8.
#[must_use]
pub fn decode_value(header: &[u8]) -> Option<String> {
    let header = header.trim_ascii();
    let unquoted: Cow<'_, [u8]> = match header {
        [b'"', inner @ .., b'"'] => {
            let mut text = Vec::with_capacity(inner.len());
            let mut bytes = inner.iter();
            while let Some(&byte) = bytes.next() {
                text.push(if byte == b'\\' { *bytes.next().unwrap_or(&byte) } else { byte });
            }
            Cow::Owned(text)
        }
        plain => Cow::Borrowed(plain),
    };
    String::from_utf8(percent_decode(&unquoted).collect()).ok()
}

/// Gathers the attributes from the headers of a request; names are compared without regard to case, others are passed over.
///
/// `Content-Type` is the caller's to put into [`Attributes::content_type`]; `ce-datacontenttype` is passed over.
///
/// # Errors
/// [`CloudEventError::Field`] naming the header.
pub fn decode_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Attributes, CloudEventError> {
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let Some((prefix, attribute)) = name.split_at_checked(PREFIX.len()) else { continue };
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            continue;
        }
        let attribute = attribute.to_ascii_lowercase();
        if matches!(attribute.as_str(), "datacontenttype" | "data" | "data_base64") {
            continue;
        }
        let text = decode_value(value).ok_or_else(|| wrong(&format!("ce-{attribute}"), "must be percent-encoded UTF-8"))?;
        attributes.set(&attribute, text).map_err(|error| match error {
            CloudEventError::Field { field, problem } => CloudEventError::Field { field: format!("ce-{field}"), problem },
            other => other,
        })?;
    }
    Ok(attributes)
}

/// Gives every `ce-*` header of an event, name and encoded value; `datacontenttype` is the content type of the request.
pub fn for_each_header(event: &Event, mut put: impl FnMut(&str, &str)) {
    let fields = event.fields();
    put("ce-specversion", SPEC_VERSION);
    put("ce-id", &encode_value(fields.id));
    put("ce-source", &encode_value(fields.source));
    put("ce-type", &encode_value(fields.kind));
    if let Some(subject) = fields.subject {
        put("ce-subject", &encode_value(subject));
    }
    match fields.time {
        Some(time) => put("ce-time", &encode_value(time)),
        None => put("ce-time", &event.arrived_at().to_string()),
    }
    if let Some(schema) = fields.data_schema {
        put("ce-dataschema", &encode_value(schema));
    }
    put("ce-topic", event.topic().as_str());
    put("ce-seq", &event.seq().to_string());
    let mut name = String::new();
    for (extension, value) in fields.extensions().filter(|(name, _)| !is_reserved(name)) {
        name.clear();
        name.push_str(PREFIX);
        name.push_str(extension);
        put(&name, &encode_value(value));
    }
}
