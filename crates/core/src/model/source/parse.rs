//! The REST and TOML form of a source, read into a checked [`SourceSpec`], every mistake at once, and written back.
//!
//! Owns the names, defaults and limits of the form. Which protocols exist and which URLs may be dialled are the caller's to
//! say. Values of headers and query parameters are write-only, as are credentials.

use std::time::Duration;

use serde_json::{Value, json};

use super::access;
use super::own::{self, OwnSettings, webhook};
use super::{OnReusedId, SourceRecord, SourceSettings, SourceSpec};
use crate::model::fields::{Errors, FieldError, Fields, nearest, quoted};
use crate::model::headers::{HeaderUse, lower_names, read_headers};
use crate::model::subscription::is_id;
use crate::model::subscription::parse::{Random, TextJudge, UrlJudge, generate_id, merge, read_url};
use crate::model::topic::Topic;
use crate::units::format_duration;

/// Shortest and longest `settings.idle_timeout`.
pub const IDLE_TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
/// Largest `settings.max_event_bytes`.
pub const EVENT_BYTES_MAX: u64 = 64 << 20;
/// Longest `settings.body`, in bytes.
pub const REQUEST_BODY_BYTES_MAX: usize = 64 * 1024;

/// Names a definition may hold.
const NAMES: &[&str] = &[
    "name",
    "protocol",
    "url",
    "topic",
    "headers",
    "query",
    "auth",
    "ca_pem",
    "settings",
    "enabled",
    "header_names",
    "query_names",
    "path",
    "state",
    "resume_token",
    "declared",
    "made_by",
    "revision",
    "created_at",
    "updated_at",
];
/// Names that only answers hold.
const READ_ONLY: &[&str] = &[
    "header_names",
    "query_names",
    "path",
    "state",
    "resume_token",
    "declared",
    "made_by",
    "revision",
    "created_at",
    "updated_at",
];
/// Names of `settings` that every protocol has.
const SETTINGS: &[&str] =
    &["id", "type", "subject", "time", "content_type", "method", "body", "idle_timeout", "max_event_bytes", "on_reused_id"];

/// What a source is judged by besides its own grammar.
#[derive(Clone, Copy)]
pub struct SourceRules<'a> {
    /// Which URLs are acceptable.
    pub urls: &'a dyn UrlJudge,
    /// Which protocols there are.
    pub protocols: &'a [&'a str],
    /// Which certificates and keys are.
    pub texts: &'a dyn TextJudge,
}

impl std::fmt::Debug for SourceRules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceRules").field("protocols", &self.protocols).finish_non_exhaustive()
    }
}

/// Reads the body of a POST (`name` absent) or a PUT (`name` from the path), or one `[[sources]]` table.
///
/// A source without a name gets a generated one.
///
/// # Errors
/// Every mistake, at most [`FIELD_ERRORS_MAX`](crate::model::fields::FIELD_ERRORS_MAX).
pub fn parse_source(
    value: &Value,
    name: Option<&str>,
    rules: &SourceRules<'_>,
    random: Random<'_>,
) -> Result<SourceSpec, Vec<FieldError>> {
    let errors = Errors::default();
    let spec = read(value, name, rules, random, &errors);
    errors.finish(spec)
}

/// Applies a merge patch (RFC 7396) to the REST form of a stored source and reads the result.
///
/// Header values, parameters and credentials that the patch does not name stay. A URL is judged again when the patch names it
/// or the protocol.
///
/// # Errors
/// Every mistake.
pub fn merge_source(current: &SourceRecord, patch: &Value, rules: &SourceRules<'_>) -> Result<SourceSpec, Vec<FieldError>> {
    let errors = Errors::default();
    let Value::Object(members) = patch else {
        errors.wrong_type("", patch, "an object");
        return errors.finish(None);
    };
    let mut members = members.clone();
    if let Some(Value::Object(headers)) = members.get("headers") {
        let lowered = lower_names(headers, "/headers", &errors);
        members.insert("headers".to_owned(), Value::Object(lowered));
    }
    let url_is_new = members.get("url").is_some() || members.get("protocol").is_some();
    let mut document = form(&current.spec);
    document["headers"] = json!(current.spec.headers);
    current.spec.settings.access.write_whole(&mut document);
    if let Some(settings) = document["settings"].as_object_mut() {
        current.spec.settings.own.add_secrets(settings);
    }
    merge(&mut document, &Value::Object(members));
    let keep_url = |url: &str| Ok(url.to_owned());
    let rules = if url_is_new { *rules } else { SourceRules { urls: &keep_url, ..*rules } };
    let spec = read(&document, Some(&current.spec.name), &rules, &mut |_| {}, &errors);
    errors.finish(spec)
}

/// What GET shows of a stored source; the observed `state` and counts are the caller's to add.
#[must_use]
pub fn source_form(record: &SourceRecord) -> Value {
    let mut value = form(&record.spec);
    if record.spec.protocol == webhook::PROTOCOL {
        value["path"] = webhook::path(&record.spec.name).into();
    }
    value["header_names"] = json!(record.spec.headers.keys().collect::<Vec<_>>());
    record.spec.settings.access.show(&mut value);
    value["resume_token"] = json!(record.resume_token);
    value["declared"] = json!(record.declared);
    value["made_by"] = json!(record.made_by);
    value["revision"] = json!(record.revision);
    value["created_at"] = json!(record.created_at.to_string());
    value["updated_at"] = json!(record.updated_at.to_string());
    value
}

/// Everything settable but headers, query and credentials.
fn form(spec: &SourceSpec) -> Value {
    let settings = &spec.settings;
    let mut form = json!({
        "name": spec.name,
        "protocol": spec.protocol,
        "url": spec.url,
        "topic": spec.topic,
        "ca_pem": settings.access.ca_pem,
        "settings": {
            "id": settings.id,
            "type": settings.kind,
            "subject": settings.subject,
            "time": settings.time,
            "content_type": settings.content_type,
            "method": settings.method,
            "body": settings.body,
            "idle_timeout": format_duration(settings.idle_timeout),
            "max_event_bytes": settings.max_event_bytes,
            "on_reused_id": settings.on_reused_id.word(),
        },
        "enabled": spec.enabled,
    });
    if spec.protocol == webhook::PROTOCOL
        && let Some(members) = form.as_object_mut()
    {
        members.remove("url");
    }
    if let Some(shown) = form["settings"].as_object_mut() {
        if spec.protocol == webhook::PROTOCOL {
            shown.remove("on_reused_id");
        }
        settings.own.show(shown);
    }
    form
}

fn read(
    value: &Value,
    path_name: Option<&str>,
    rules: &SourceRules<'_>,
    random: Random<'_>,
    errors: &Errors,
) -> Option<SourceSpec> {
    let fields = Fields::open(value, "", NAMES, errors)?;
    for name in READ_ONLY.iter().filter(|name| fields.get(name).is_some()) {
        fields.refuse(name, "read_only", "is shown in answers only and cannot be set");
    }
    for name in ["protocol", "topic"] {
        fields.require(name);
    }
    let name = read_name(&fields, path_name, random);
    let protocol = read_protocol(&fields, rules.protocols);
    let url = match protocol.as_deref() {
        Some(webhook::PROTOCOL) => is_called(&fields),
        Some("websocket") => {
            fields.require("url");
            own::websocket::read_url(&fields, rules.urls)
        }
        _ => {
            fields.require("url");
            read_url(&fields, rules.urls)
        }
    };
    let topic = read_topic(&fields);
    let headers = read_headers(&fields, HeaderUse::Source);
    let mut settings = read_settings(&fields, protocol.as_deref().unwrap_or_default(), rules);
    settings.access = access::read(&fields, rules);
    let enabled = fields.flag("enabled").unwrap_or(true);
    Some(SourceSpec { name: name?, protocol: protocol?, url: url?, topic: topic?, headers, settings, enabled })
}

/// A source that is called calls nobody: it has no URL, and no request to be put together.
fn is_called(fields: &Fields<'_>) -> Option<String> {
    if fields.get("url").is_some() {
        fields.refuse("url", "url", "a source of webhooks has none; senders post to the `path` that its GET shows");
        return None;
    }
    let is_empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
    for (name, slug) in [("headers", "headers"), ("query", "query"), ("auth", "auth"), ("ca_pem", "ca_pem")] {
        if fields.get(name).is_some_and(|value| !is_empty(value)) {
            fields.refuse(name, slug, "a source of webhooks sends no request");
        }
    }
    Some(String::new())
}

fn read_name(fields: &Fields<'_>, path_name: Option<&str>, random: Random<'_>) -> Option<String> {
    let given = fields.text("name");
    if let (Some(given), Some(path)) = (given, path_name)
        && given != path
    {
        fields.refuse("name", "id", format!("is {}, but the path says {}", quoted(given), quoted(path)));
        return None;
    }
    let Some(name) = path_name.or(given) else {
        // A name of a wrong type was noted already; what is made up for it never leaves `Errors::finish`.
        return Some(generate_id(random).to_string());
    };
    if !is_id(name) {
        fields.refuse("name", "id", format!("{} is not a name; allowed: 1 to 64 letters, digits, '_' and '-'", quoted(name)));
        return None;
    }
    Some(name.to_owned())
}

fn read_protocol(fields: &Fields<'_>, protocols: &[&str]) -> Option<String> {
    let given = fields.text("protocol")?;
    if protocols.contains(&given) {
        return Some(given.to_owned());
    }
    let hint = nearest(given, protocols).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    let detail = format!("{} is not known; allowed: {}{hint}", quoted(given), protocols.join(", "));
    fields.refuse("protocol", "protocol", detail);
    None
}

fn read_topic(fields: &Fields<'_>) -> Option<Topic> {
    let given = fields.text("topic")?;
    match Topic::parse(given) {
        Ok(topic) if topic.is_own() => {
            fields.refuse("topic", "topic", "topics that begin with `hookcast` are the relay's own");
            None
        }
        Ok(topic) => Some(topic),
        Err(error) => {
            fields.refuse("topic", "topic", format!("{}: {error}", quoted(given)));
            None
        }
    }
}

fn read_settings(fields: &Fields<'_>, protocol: &str, rules: &SourceRules<'_>) -> SourceSettings {
    let default = SourceSettings::default();
    let own = own::row(protocol);
    let nothing = json!({});
    let given = fields.get("settings").filter(|given| !given.is_null()).unwrap_or(&nothing);
    let names = [SETTINGS, own.map_or(&[], |own| own.names)].concat();
    let Some(settings) = Fields::open(given, fields.at("settings"), &names, fields.errors()) else { return default };
    let body = settings.text("body").map(str::to_owned);
    if body.as_ref().is_some_and(|body| body.len() > REQUEST_BODY_BYTES_MAX) {
        settings.refuse("body", "too_long", format!("has more than {REQUEST_BODY_BYTES_MAX} bytes"));
    }
    let method = settings.choice("method", &["GET", "POST"], "method").unwrap_or("GET");
    if body.is_some() && method == "GET" {
        settings.refuse("body", "body", "needs `method` \"POST\"");
    }
    if protocol == webhook::PROTOCOL && (method != "GET" || body.is_some()) {
        settings.refuse("method", "method", "a source of webhooks sends no request");
    }
    if protocol == webhook::PROTOCOL && settings.get("on_reused_id").is_some_and(|given| !given.is_null()) {
        let detail = "a source of webhooks has none: a known id is a repeat, whatever the bytes, because senders build them anew";
        settings.refuse("on_reused_id", "on_reused_id", detail);
    }
    SourceSettings {
        id: read_json_pointer(&settings, "id"),
        kind: read_json_pointer(&settings, "type"),
        subject: read_json_pointer(&settings, "subject"),
        time: read_json_pointer(&settings, "time"),
        content_type: read_content_type(&settings),
        method: method.to_owned(),
        body,
        idle_timeout: settings.duration("idle_timeout", IDLE_TIMEOUT, "idle_timeout").unwrap_or(default.idle_timeout),
        max_event_bytes: settings.size("max_event_bytes", 1..=EVENT_BYTES_MAX).unwrap_or(default.max_event_bytes),
        on_reused_id: settings
            .choice("on_reused_id", &OnReusedId::WORDS, "on_reused_id")
            .and_then(OnReusedId::of_word)
            .unwrap_or_default(),
        own: own.map_or(OwnSettings::None, |own| (own.read)(&settings, rules)),
        ..default
    }
}

/// RFC 6901 §3.
pub(super) fn read_json_pointer(settings: &Fields<'_>, name: &str) -> Option<String> {
    let given = settings.short_text(name)?;
    let escapes_are_sound = given.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if given.starts_with('/') && escapes_are_sound {
        return Some(given.to_owned());
    }
    settings.refuse(name, "json_pointer", format!("{} is not a JSON pointer such as \"/data/id\"", quoted(given)));
    None
}

/// RFC 9110 §8.3.1, as far as it matters for a header line.
fn read_content_type(settings: &Fields<'_>) -> Option<String> {
    let given = settings.short_text("content_type")?;
    let (kind, subtype) = given.split_once('/').unwrap_or_default();
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let subtype = subtype.split(';').next().unwrap_or_default().trim_end();
    if is_name(kind) && is_name(subtype) && given.is_ascii() {
        return Some(given.to_owned());
    }
    settings.refuse(
        "content_type",
        "content_type",
        format!("{} is not a media type such as \"application/json\"", quoted(given)),
    );
    None
}

#[cfg(test)]
mod tests;
