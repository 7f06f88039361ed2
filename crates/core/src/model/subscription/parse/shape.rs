//! The fields that say what a delivery looks like and in which order deliveries go: payload, template, batch, ordering.

use std::time::Duration;

use super::Rules;
use crate::model::fields::{Fields, quoted};
use crate::model::headers::is_header_value;
use crate::model::subscription::payload::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_WAIT_MAX, TEMPLATE_BYTES_MAX};
use crate::model::subscription::{Batch, BatchFormat, OnDead, OrderKey, Ordering, PayloadForm, Template};

/// Longest key of an order, in bytes.
const ORDER_KEY_BYTES_MAX: usize = 256;
/// `content_type` of a template that names none.
const TEMPLATE_TYPE: &str = "application/json";

/// Reads `payload`; `binary` when it is absent or wrong.
pub(super) fn read_payload(fields: &Fields<'_>) -> PayloadForm {
    match fields.choice("payload", &["binary", "structured", "template"], "payload") {
        Some("structured") => PayloadForm::Structured,
        Some("template") => PayloadForm::Template,
        _ => PayloadForm::Binary,
    }
}

/// Reads `template`, which stands beside `payload: "template"` and nowhere else.
pub(super) fn read_template(fields: &Fields<'_>, payload: PayloadForm, rules: &Rules<'_>) -> Option<Box<Template>> {
    let template = fields.object("template", &["body", "content_type"]);
    match (&template, payload) {
        (None, PayloadForm::Template) if fields.get("template").is_none() => {
            fields.refuse("template", "missing_field", "is missing; the payload form `template` needs one");
        }
        (Some(_), PayloadForm::Binary | PayloadForm::Structured) => {
            fields.refuse("template", "template", "is used by the payload form `template` only; set `payload`");
        }
        _ => {}
    }
    let template = template?;
    template.require("body");
    let body = template.text("body")?;
    if body.len() > TEMPLATE_BYTES_MAX {
        template.refuse("body", "too_long", format!("has {} bytes; allowed: at most {TEMPLATE_BYTES_MAX}", body.len()));
    } else if let Err(problem) = rules.texts.template(body) {
        template.refuse("body", "template", problem);
    }
    let content_type = template.text("content_type").unwrap_or(TEMPLATE_TYPE);
    if content_type.is_empty() || content_type.len() > 256 || !is_header_value(content_type) {
        template.refuse("content_type", "content_type", format!("{} is not a media type", quoted(content_type)));
    }
    Some(Box::new(Template { body: body.to_owned(), content_type: content_type.to_owned() }))
}

/// Reads `batch`; every part has a default of its own.
pub(super) fn read_batch(fields: &Fields<'_>) -> Option<Batch> {
    let batch = fields.object("batch", &["max_events", "max_bytes", "max_wait", "format"])?;
    let format = match batch.choice("format", &["json-array", "ndjson", "cloudevents"], "batch_format") {
        Some("ndjson") => BatchFormat::Ndjson,
        Some("cloudevents") => BatchFormat::Cloudevents,
        _ => BatchFormat::JsonArray,
    };
    Some(Batch {
        max_events: batch.count("max_events", 1..=BATCH_EVENTS_MAX).unwrap_or(100),
        max_bytes: batch.count("max_bytes", 1..=BATCH_BYTES_MAX).unwrap_or(256 * 1024),
        max_wait: batch.duration("max_wait", Duration::ZERO..=BATCH_WAIT_MAX, "batch_wait").unwrap_or(Duration::from_millis(200)),
        format,
    })
}

/// Reads `ordering`; `none` when it is absent or wrong.
pub(super) fn read_ordering(fields: &Fields<'_>) -> Ordering {
    let Some(value) = fields.get("ordering") else { return Ordering::None };
    if value.is_object() {
        let Some(ordering) = fields.object("ordering", &["key"]) else { return Ordering::None };
        ordering.require("key");
        return ordering.text("key").and_then(|key| read_key(&ordering, key)).map_or(Ordering::None, Ordering::Key);
    }
    match fields.choice("ordering", &["none", "strict"], "ordering") {
        Some("strict") => Ordering::Strict,
        _ => Ordering::None,
    }
}

fn read_key(ordering: &Fields<'_>, key: &str) -> Option<OrderKey> {
    if key.len() > ORDER_KEY_BYTES_MAX {
        ordering.refuse("key", "ordering", format!("has {} bytes; allowed: at most {ORDER_KEY_BYTES_MAX}", key.len()));
        return None;
    }
    // RFC 6901 §3: `~` stands only before 0 and 1.
    let is_pointer = key.starts_with('/') && key.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    let attribute = key
        .strip_prefix("ce-")
        .filter(|name| (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    match attribute {
        _ if is_pointer => Some(OrderKey::Pointer(key.to_owned())),
        Some(name) => Some(OrderKey::Attribute(name.to_owned())),
        None => {
            let detail = format!(
                "{} is not a key; allowed: a JSON pointer such as \"/order/id\", or \"ce-\" and an attribute",
                quoted(key)
            );
            ordering.refuse("key", "ordering", detail);
            None
        }
    }
}

/// Reads `on_dead`; only kept order can be held up.
pub(super) fn read_on_dead(fields: &Fields<'_>, ordering: &Ordering) -> OnDead {
    match fields.choice("on_dead", &["skip", "block"], "on_dead") {
        Some("block") => {
            if *ordering == Ordering::None {
                fields.refuse("on_dead", "on_dead", "`block` needs an `ordering`: strict or {\"key\": …}");
            }
            OnDead::Block
        }
        _ => OnDead::Skip,
    }
}
