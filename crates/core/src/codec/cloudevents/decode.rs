//! Reads events in JSON form; the data of an event keeps its bytes as they stand in the body.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Attributes, CloudEvent, CloudEventError, is_json_content, wrong};
use crate::codec::json;
use crate::model::event::EXTENSIONS_MAX;

/// Most members of one event: the attributes of the specification, the extensions, the relay's own, the data.
const MEMBERS_MAX: usize = EXTENSIONS_MAX + 16;

/// Reads one event (`application/cloudevents+json`).
///
/// # Errors
/// [`CloudEventError`]; those about an attribute name it.
pub fn decode_structured(body: &Bytes) -> Result<CloudEvent, CloudEventError> {
    event_of(json::check(body)?, body)
}

/// Reads a batch (`application/cloudevents-batch+json`) of at most `events_max` events.
///
/// # Errors
/// The index of the event that is wrong, when it is one, and its [`CloudEventError`].
pub fn decode_batch(body: &Bytes, events_max: usize) -> Result<Vec<CloudEvent>, (Option<usize>, CloudEventError)> {
    let text = json::check(body).map_err(|fault| (None, fault.into()))?;
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| (None, CloudEventError::Shape))?;
    if items.len() > events_max {
        return Err((None, CloudEventError::TooMany(events_max)));
    }
    let events = items.iter().enumerate().map(|(index, item)| event_of(item.get(), body).map_err(|e| (Some(index), e)));
    events.collect()
}

/// `text` must be a part of `body` that is valid JSON.
fn event_of(text: &str, body: &Bytes) -> Result<CloudEvent, CloudEventError> {
    let Members(members) = serde_json::from_str(text).map_err(|_| CloudEventError::Shape)?;
    if members.len() > MEMBERS_MAX {
        return Err(wrong("extensions", "are too many"));
    }
    let mut attributes = Attributes::default();
    let (mut data, mut base64, mut version) = (None, None, false);
    for (name, value) in members {
        let place = match name.as_str() {
            "data" => &mut data,
            "data_base64" => &mut base64,
            _ => {
                version |= name == "specversion";
                if let Some(text) = attribute_text(&name, value)? {
                    attributes.set(&name, text)?;
                }
                continue;
            }
        };
        if place.replace(value).is_some() {
            return Err(wrong(&name, "is given twice"));
        }
    }
    let required = [
        ("specversion", version),
        ("id", attributes.id.is_some()),
        ("source", attributes.source.is_some()),
        ("type", attributes.kind.is_some()),
    ];
    if let Some((name, _)) = required.into_iter().find(|(_, given)| !given) {
        return Err(CloudEventError::Missing(name));
    }
    let data = data_of(&mut attributes, data, base64, body)?;
    Ok(CloudEvent { attributes, data })
}

fn data_of(
    attributes: &mut Attributes,
    data: Option<&RawValue>,
    base64: Option<&RawValue>,
    body: &Bytes,
) -> Result<Bytes, CloudEventError> {
    match (data, base64) {
        (Some(_), Some(_)) => Err(wrong("data_base64", "cannot be given together with \"data\"")),
        (None, None) => Ok(Bytes::new()),
        (Some(value), None) => {
            if is_json_content(attributes.content_type.as_deref()) {
                attributes.content_type.get_or_insert_with(|| "application/json".to_owned());
                return Ok(body.slice_ref(value.get().as_bytes()));
            }
            match serde_json::from_str::<String>(value.get()) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(wrong("data", "must be a string when \"datacontenttype\" is not JSON")),
            }
        }
        (None, Some(value)) => {
            attributes.content_type.get_or_insert_with(|| "application/octet-stream".to_owned());
            let text = serde_json::from_str::<String>(value.get()).ok();
            let bytes = text.and_then(|text| STANDARD.decode(text).ok());
            bytes.map(Bytes::from).ok_or_else(|| wrong("data_base64", "must be a string in base64"))
        }
    }
}

/// An attribute's value in its canonical text form; `None` for null, which means absent.
///
/// Spec: CloudEvents type system: Boolean, Integer (32 bits) and String are what JSON can carry.
fn attribute_text(name: &str, value: &RawValue) -> Result<Option<String>, CloudEventError> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(raw) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(wrong(name, "must be well-formed Unicode text")),
        },
        Some(b'n') => Ok(None),
        Some(b't' | b'f') => Ok(Some(raw.to_owned())),
        _ => match raw.parse::<i32>() {
            Ok(number) => Ok(Some(number.to_string())),
            Err(_) => Err(wrong(name, "must be a string, a truth value or a 32-bit integer")),
        },
    }
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct AsList;
        impl<'de> Visitor<'de> for AsList {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    // One more than allowed is enough to tell.
                    if members.len() <= MEMBERS_MAX {
                        members.push(member);
                    }
                }
                Ok(members)
            }
        }
        reader.deserialize_map(AsList).map(Self)
    }
}
