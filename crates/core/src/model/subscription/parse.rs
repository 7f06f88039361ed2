//! The REST and TOML form of a subscription, read into a checked [`Definition`], every mistake at once.
//!
//! Owns the names, defaults and limits of the form. Knows no storage and no network: whether a URL may be dialled is asked of
//! a [`UrlJudge`], randomness comes in as an argument. Writing the form back is [`form`]'s part, keys are [`keys`]'.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{
    Auth, Batch, OnDead, OnFull, Ordering, PayloadForm, RateLimit, RetryPolicy, StartFrom, SubscriptionId, SubscriptionRecord,
    Template, Verify,
};
use crate::model::fields::{Errors, Fields, child, quoted, text};
use crate::model::headers::{HeaderUse, lower_names, read_headers};
use crate::model::topic::{PATTERNS_MAX, PatternList, TopicPattern};

pub use crate::model::fields::FieldError;
pub use form::{Keys, rest_form, whole_form};
pub use judge::{NoJudge, TextJudge, UrlJudge};
pub use keys::{
    PRIVATE_KEY_PREFIX, PUBLIC_KEY_PREFIX, Random, SECRET_PREFIX, SignatureInput, decode_private_key, decode_secret, generate_id,
    generate_secret, generate_secret_of, is_public_key, parse_secret, parse_secret_of, public_key_of, read_scheme_word,
};

pub(in crate::model) mod access;
pub mod form;
mod judge;
pub mod keys;
mod parts;
mod shape;

/// What a definition is judged by besides its own grammar.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Which URLs are acceptable.
    pub urls: &'a dyn UrlJudge,
    /// Which filters, templates, certificates and names of groups are.
    pub texts: &'a dyn TextJudge,
    /// `timeout` of a definition that names none.
    pub timeout: Duration,
    /// `max_in_flight` of a definition that names none.
    pub max_in_flight: u32,
}

impl<'a> Rules<'a> {
    /// The built-in defaults: 15 s, 16 in flight; texts are not judged.
    pub fn new(urls: &'a dyn UrlJudge) -> Self {
        Self { urls, texts: &NoJudge, timeout: Duration::from_secs(15), max_in_flight: 16 }
    }
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("timeout", &self.timeout)
            .field("max_in_flight", &self.max_in_flight)
            .finish_non_exhaustive()
    }
}

/// Longest `timeout`.
pub const TIMEOUT_MAX: Duration = Duration::from_mins(1);
/// Shortest `timeout`.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Most attempts at the same time.
pub const IN_FLIGHT_MAX: u32 = 4096;
/// Most retries that may wait.
pub const RETRYING_MAX: u32 = 100_000;
/// Most attempts for one event.
pub const ATTEMPTS_MAX: u32 = 1000;
/// Most entries of a retry schedule.
pub const SCHEDULE_MAX: usize = 100;
/// Longest delay in a retry schedule.
pub const RETRY_DELAY_MAX: Duration = Duration::from_hours(30 * 24);
/// Highest sustained rate and burst.
pub const RATE_MAX: u32 = 1_000_000;
/// Most event types in one definition.
pub const TYPES_MAX: usize = 256;
/// Most `metadata` entries.
pub const METADATA_MAX: usize = 50;
/// Longest `metadata` key, in bytes.
pub const METADATA_KEY_BYTES_MAX: usize = 64;

/// `disable_after` of a definition that names none.
pub const DISABLE_AFTER: Duration = Duration::from_hours(5 * 24);
/// Shortest and longest `disable_after`.
pub const DISABLE_AFTER_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(365 * 24);

/// The retry schedule of a definition that names none.
const SCHEDULE_DEFAULT: [u64; 9] = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Names a definition may hold.
const NAMES: &[&str] = &[
    "id",
    "url",
    "topics",
    "types",
    "from",
    "signature",
    "headers",
    "payload",
    "rate_limit",
    "max_in_flight",
    "max_retrying",
    "on_full",
    "retry",
    "timeout",
    "description",
    "metadata",
    "enabled",
    "filter",
    "ordering",
    "batch",
    "template",
    "verify",
    "limit_group",
    "auth",
    "ca_pem",
    "on_dead",
    "disable_after",
    "header_names",
    "state",
    "reason",
    "declared",
    "made_by",
    "websub",
    "revision",
    "created_at",
    "updated_at",
];
/// Names that only answers hold.
const READ_ONLY: &[&str] =
    &["header_names", "state", "reason", "declared", "made_by", "websub", "revision", "created_at", "updated_at"];
/// A subscription as asked for: checked, but not yet joined with what is stored about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name, when given in the body or in the path.
    pub id: Option<SubscriptionId>,
    /// Canonical callback URL.
    pub url: String,
    /// Which topics.
    pub topics: PatternList,
    /// Which event types; empty = all.
    pub types: Vec<String>,
    /// Where to start, if this creates the subscription.
    pub from: StartFrom,
    /// Which of them, by their content.
    pub filter: Option<Box<str>>,
    /// Schemes and keys, when given; absent keeps what is stored, or makes a `standard` key.
    pub signature: Option<Vec<SignatureInput>>,
    /// Headers added to each delivery, lower-case names.
    pub headers: BTreeMap<String, String>,
    /// What the body is.
    pub payload: PayloadForm,
    /// The template of [`PayloadForm::Template`].
    pub template: Option<Box<Template>>,
    /// How events are gathered into one request.
    pub batch: Option<Batch>,
    /// In which order they go out.
    pub ordering: Ordering,
    /// What a dead letter means for the order.
    pub on_dead: OnDead,
    /// How the endpoint proves that it wants deliveries.
    pub verify: Verify,
    /// What the relay shows it besides signatures.
    pub auth: Option<Box<Auth>>,
    /// Certificates that it is trusted by.
    pub ca_pem: Option<Box<str>>,
    /// Name of the limits that it shares with others.
    pub limit_group: Option<Box<str>>,
    /// Time of nothing but failure after which it is disabled.
    pub disable_after: Duration,
    /// Attempts a second; absent = no limit.
    pub rate_limit: Option<RateLimit>,
    /// Attempts at the same time.
    pub max_in_flight: u32,
    /// Retries that may wait.
    pub max_retrying: u32,
    /// What happens when they do.
    pub on_full: OnFull,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// Longest whole attempt.
    pub timeout: Duration,
    /// Free text for people.
    pub description: String,
    /// Free text by key, for programs.
    pub metadata: BTreeMap<String, String>,
    /// `enabled`, when given; absent = `true` for a new subscription, unchanged for a stored one.
    pub enabled: Option<bool>,
}

/// Reads the body of a POST (`id` absent) or a PUT (`id` from the path), or one `[[subscriptions]]` table.
///
/// # Errors
/// Every mistake, at most [`FIELD_ERRORS_MAX`](crate::model::fields::FIELD_ERRORS_MAX).
pub fn parse_definition(value: &Value, id: Option<&str>, rules: &Rules<'_>) -> Result<Definition, Vec<FieldError>> {
    let errors = Errors::default();
    let definition = read(value, id, rules, &errors);
    errors.finish(definition)
}

/// Reads the body of a seek: `{"to": …}`, a position as in `from`.
///
/// # Errors
/// Every mistake.
pub fn parse_seek(value: &Value) -> Result<StartFrom, Vec<FieldError>> {
    let errors = Errors::default();
    let position = Fields::open(value, "", &["to"], &errors).and_then(|fields| {
        fields.require("to");
        parts::read_from(&fields, "to")
    });
    errors.finish(position)
}

/// Reads a position, as `from` has it, under `name`; `None` when it is absent or wrong.
#[must_use]
pub fn read_position(fields: &Fields<'_>, name: &str) -> Option<StartFrom> {
    parts::read_from(fields, name)
}

/// Applies a merge patch (RFC 7396) to the REST form of a stored subscription and reads the result.
///
/// Keys and header values that the patch does not name stay; header names meet regardless of case. A URL that the patch does
/// not name is not judged again.
///
/// # Errors
/// Every mistake; also `from` (422), which acts at creation only.
pub fn merge_patch(current: &SubscriptionRecord, patch: &Value, rules: &Rules<'_>) -> Result<Definition, Vec<FieldError>> {
    let errors = Errors::default();
    let Value::Object(members) = patch else {
        errors.wrong_type("", patch, "an object");
        return errors.finish(None);
    };
    if members.get("from").is_some_and(|from| !from.is_null()) {
        errors.push("/from", "from", "acts at creation only; move the cursor with POST …/seek");
    }
    let mut members = members.clone();
    if let Some(Value::Object(headers)) = members.get("headers") {
        let lowered = lower_names(headers, "/headers", &errors);
        members.insert("headers".to_owned(), Value::Object(lowered));
    }
    let url_is_new = members.get("url").is_some();
    let mut document = form::document(current);
    merge(&mut document, &Value::Object(members));
    let keep_url = |url: &str| Ok(url.to_owned());
    let rules = if url_is_new { *rules } else { Rules { urls: &keep_url, ..*rules } };
    let definition = read(&document, Some(current.spec.id.as_str()), &rules, &errors);
    errors.finish(definition)
}

/// RFC 7396 §2.
pub(in crate::model) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, change) in changes {
        if change.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

fn read(value: &Value, path_id: Option<&str>, rules: &Rules<'_>, errors: &Errors) -> Option<Definition> {
    let fields = Fields::open(value, "", NAMES, errors)?;
    for name in READ_ONLY.iter().filter(|name| fields.get(name).is_some()) {
        fields.refuse(name, "read_only", "is shown in answers only and cannot be set");
    }
    fields.require("url");
    fields.require("topics");
    let id = read_id(&fields, path_id);
    let url = read_url(&fields, rules.urls);
    let topics = read_topics(&fields);
    let types = read_types(&fields);
    let timeout_range = TIMEOUT_MIN..=TIMEOUT_MAX;
    let payload = shape::read_payload(&fields);
    let template = shape::read_template(&fields, payload, rules);
    let batch = shape::read_batch(&fields);
    if batch.is_some() && payload == PayloadForm::Template {
        fields.refuse("batch", "batch", "a template makes the body of one event; leave one of the two out");
    }
    let ordering = shape::read_ordering(&fields);
    let on_dead = shape::read_on_dead(&fields, &ordering);
    let definition = Definition {
        id,
        url: url.unwrap_or_default(),
        // A list that could not be read was noted as a mistake, so this stand-in never leaves `Errors::finish`.
        topics: topics.or_else(|| "**".parse().ok())?,
        types,
        from: parts::read_from(&fields, "from").unwrap_or(StartFrom::Latest),
        filter: parts::read_filter(&fields, rules),
        signature: keys::read_signature(&fields),
        headers: read_headers(&fields, HeaderUse::Delivery),
        payload,
        template,
        batch,
        ordering,
        on_dead,
        verify: access::read_verify(&fields),
        auth: access::read_auth(&fields, rules, access::KINDS),
        ca_pem: access::read_ca(&fields, rules),
        limit_group: parts::read_limit_group(&fields, rules),
        disable_after: fields.duration("disable_after", DISABLE_AFTER_RANGE, "disable_after").unwrap_or(DISABLE_AFTER),
        rate_limit: parts::read_rate_limit(&fields),
        max_in_flight: fields.count("max_in_flight", 1..=IN_FLIGHT_MAX).unwrap_or(rules.max_in_flight),
        max_retrying: fields.count("max_retrying", 1..=RETRYING_MAX).unwrap_or(1000),
        on_full: match fields.choice("on_full", &["wait", "dead"], "on_full") {
            Some("dead") => OnFull::Dead,
            _ => OnFull::Wait,
        },
        retry: parts::read_retry(&fields),
        timeout: fields.duration("timeout", timeout_range, "timeout").unwrap_or(rules.timeout),
        description: fields.short_text("description").unwrap_or_default().to_owned(),
        metadata: parts::read_metadata(&fields),
        enabled: fields.flag("enabled"),
    };
    Some(definition)
}

fn read_id(fields: &Fields<'_>, path_id: Option<&str>) -> Option<SubscriptionId> {
    let given = fields.text("id");
    if let (Some(given), Some(path)) = (given, path_id)
        && given != path
    {
        fields.refuse("id", "id", format!("is {}, but the path says {}", quoted(given), quoted(path)));
        return None;
    }
    let text = path_id.or(given)?;
    let id = SubscriptionId::parse(text);
    if id.is_none() {
        fields.refuse("id", "id", format!("{} is not an id; allowed: 1 to 64 letters, digits, '_' and '-'", quoted(text)));
    }
    id
}

/// Reads the member `url` and has it judged; the canonical URL.
pub(in crate::model) fn read_url(fields: &Fields<'_>, judge: &dyn UrlJudge) -> Option<String> {
    judge.check_url(fields.text("url")?).map_err(|(slug, detail)| fields.refuse("url", slug, detail)).ok()
}

fn read_topics(fields: &Fields<'_>) -> Option<PatternList> {
    let items = fields.list("topics", PATTERNS_MAX)?;
    let errors = fields.errors();
    let before = errors.count();
    let mut patterns = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let pointer = child(&fields.at("topics"), &index.to_string());
        let Some(given) = text(item, pointer.clone(), errors) else { continue };
        match TopicPattern::parse(given) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => errors.push(pointer, "topics", format!("{}: {error}", quoted(given))),
        }
    }
    if errors.count() > before {
        return None;
    }
    PatternList::new(patterns).map_err(|error| fields.refuse("topics", "topics", error.to_string())).ok()
}

fn read_types(fields: &Fields<'_>) -> Vec<String> {
    let mut types = Vec::new();
    for (index, item) in fields.list("types", TYPES_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&fields.at("types"), &index.to_string());
        let Some(given) = text(item, pointer.clone(), fields.errors()) else { continue };
        if !parts::is_event_type(given) {
            let detail = format!(
                "{} is not an event type; allowed: 1 to 256 bytes without spaces, control characters and empty parts between dots",
                quoted(given)
            );
            fields.errors().push(pointer, "event_type", detail);
        } else if !types.iter().any(|known| known == given) {
            types.push(given.to_owned());
        }
    }
    types
}

#[cfg(test)]
mod tests;
