//! Reads the section `[websub]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::WebSub;
use hookcast_core::model::fields::{Fields, child, quoted, text};
use hookcast_core::model::topic::{PATTERNS_MAX, TopicPattern};

/// Reads the section; `ages` are the leases that can be meant.
pub(super) fn read(fields: &Fields<'_>, ages: RangeInclusive<Duration>) -> WebSub {
    let default = WebSub::default();
    let mut topics = Vec::new();
    for (index, item) in fields.list("topics", PATTERNS_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&fields.at("topics"), &index.to_string());
        let Some(given) = text(item, pointer.clone(), fields.errors()) else { continue };
        match TopicPattern::parse(given) {
            Ok(pattern) => topics.push(pattern),
            Err(error) => fields.errors().push(pointer, "topics", format!("{}: {error}", quoted(given))),
        }
    }
    let lease_max = fields.duration("lease_max", ages.clone(), "range").unwrap_or(default.lease_max);
    let lease_default = fields.duration("lease_default", ages, "range").unwrap_or(default.lease_default.min(lease_max));
    if lease_default > lease_max {
        fields.refuse("lease_default", "range", "is longer than `websub.lease_max`");
    }
    WebSub { topics, lease_default, lease_max, public_url: public_url(fields).unwrap_or_default() }
}

/// A URL that paths of the relay can be put behind; without a slash at its end.
fn public_url(fields: &Fields<'_>) -> Option<String> {
    let given = fields.text("public_url").filter(|given| !given.is_empty())?;
    let url = url::Url::parse(given).ok().filter(|url| {
        let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain && !url.as_str().contains(['<', '>', '"'])
    });
    if url.is_none() {
        let detail = format!("{} is no base URL; allowed: one such as \"https://relay.example.com\"", quoted(given));
        fields.refuse("public_url", "public_url", detail);
    }
    url.map(|url| url.as_str().trim_end_matches('/').to_owned())
}
