//! The composite fields of a subscription: start position, rate limit, retry policy, metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    ATTEMPTS_MAX, METADATA_KEY_BYTES_MAX, METADATA_MAX, RATE_MAX, RETRY_DELAY_MAX, Rules, SCHEDULE_DEFAULT, SCHEDULE_MAX,
};
use crate::clock::Timestamp;
use crate::model::event::{Seq, TYPE_BYTES_MAX};
use crate::model::fields::{Fields, child, duration, quoted, short_text};
use crate::model::subscription::{RateLimit, RetryPolicy, StartFrom};

/// Whether a text may be the type of an event in a definition.
pub(super) fn is_event_type(text: &str) -> bool {
    let sound = |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control());
    text.len() <= TYPE_BYTES_MAX && text.split('.').all(sound)
}

/// Reads a position under `name`; `None` when it is absent or wrong.
pub(super) fn read_from(fields: &Fields<'_>, name: &str) -> Option<StartFrom> {
    let value = fields.get(name)?;
    let allowed = "allowed: \"latest\", \"earliest\", {\"seq\": n} or {\"time\": \"RFC 3339\"}";
    if let Some(word) = value.as_str() {
        return match word {
            "latest" => Some(StartFrom::Latest),
            "earliest" => Some(StartFrom::Earliest),
            other => {
                fields.refuse(name, "from", format!("{} is no position; {allowed}", quoted(other)));
                None
            }
        };
    }
    let position = fields.object(name, &["seq", "time"])?;
    match (position.get("seq"), position.get("time")) {
        (Some(_), None) => position.integer("seq", 1..=u64::MAX).map(|seq| StartFrom::Seq(Seq(seq))),
        (None, Some(_)) => {
            let given = position.text("time")?;
            let parsed = Timestamp::parse_rfc3339(given).ok();
            if parsed.is_none() {
                position.refuse("time", "from", format!("{} is not an RFC 3339 time with an offset", quoted(given)));
            }
            parsed.map(StartFrom::Time)
        }
        _ => {
            fields.refuse(name, "from", format!("names no position, or two; {allowed}"));
            None
        }
    }
}

/// Reads `rate_limit`; `burst` defaults to one second's worth.
pub(super) fn read_rate_limit(fields: &Fields<'_>) -> Option<RateLimit> {
    let limit = fields.object("rate_limit", &["per_second", "burst"])?;
    limit.require("per_second");
    let highest = f64::from(RATE_MAX);
    let per_second = limit.number("per_second").filter(|rate| {
        let sound = *rate > 0.0 && *rate <= highest;
        if !sound {
            limit.refuse("per_second", "rate_limit", format!("is {rate}; allowed: more than 0, at most {RATE_MAX}"));
        }
        sound
    });
    let burst = limit.number("burst").filter(|burst| {
        let sound = *burst >= 1.0 && *burst <= highest && burst.fract() == 0.0;
        if !sound {
            limit.refuse("burst", "rate_limit", format!("is {burst}; allowed: a whole number from 1 to {RATE_MAX}"));
        }
        sound
    });
    let per_second = per_second?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number between 1 and RATE_MAX")]
    let burst = burst.unwrap_or(per_second.ceil()) as u32;
    Some(RateLimit { per_second, burst })
}

/// Reads `limit_group`: the name of a group of `[limit_groups]`.
pub(super) fn read_limit_group(fields: &Fields<'_>, rules: &Rules<'_>) -> Option<Box<str>> {
    let name = fields.text("limit_group")?;
    if !rules.texts.has_limit_group(name) {
        let detail = format!("{} is no group; allowed: a name in [limit_groups] of the configuration", quoted(name));
        fields.refuse("limit_group", "limit_group", detail);
        return None;
    }
    Some(name.into())
}

/// Reads `filter`; the empty text reads as absent.
pub(super) fn read_filter(fields: &Fields<'_>, rules: &Rules<'_>) -> Option<Box<str>> {
    let given = fields.text("filter").filter(|text| !text.trim().is_empty())?;
    rules.texts.filter(given).map_err(|problem| fields.refuse("filter", "filter", problem)).ok()?;
    Some(given.into())
}

/// Reads `retry`; every part has a default of its own.
pub(super) fn read_retry(fields: &Fields<'_>) -> RetryPolicy {
    let default = RetryPolicy {
        max_attempts: 10,
        schedule: SCHEDULE_DEFAULT.iter().map(|secs| Duration::from_secs(*secs)).collect(),
        jitter: 0.2,
    };
    let Some(retry) = fields.object("retry", &["max_attempts", "schedule", "jitter"]) else { return default };
    let jitter = retry.number("jitter").filter(|jitter| {
        let sound = (0.0..=1.0).contains(jitter);
        if !sound {
            retry.refuse("jitter", "range", format!("is {jitter}; allowed: 0 to 1"));
        }
        sound
    });
    RetryPolicy {
        max_attempts: retry.count("max_attempts", 1..=ATTEMPTS_MAX).unwrap_or(default.max_attempts),
        schedule: read_schedule(&retry).unwrap_or(default.schedule),
        jitter: jitter.unwrap_or(default.jitter),
    }
}

fn read_schedule(retry: &Fields<'_>) -> Option<Vec<Duration>> {
    let items = retry.list("schedule", SCHEDULE_MAX)?;
    if items.is_empty() {
        retry.refuse("schedule", "retry_schedule", "is empty; allowed: 1 to 100 delays such as \"5s\"");
    }
    // A delay of zero would let one bad event spin.
    let range = Duration::from_millis(1)..=RETRY_DELAY_MAX;
    let read = |(index, item)| {
        let pointer = child(&retry.at("schedule"), &usize::to_string(&index));
        duration(item, pointer, &range, "retry_schedule", retry.errors())
    };
    Some(items.iter().enumerate().filter_map(read).collect())
}

/// Reads `metadata`: short texts by key.
pub(super) fn read_metadata(fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let Some(members) = fields.map("metadata") else { return metadata };
    for (name, value) in members.members() {
        if name.is_empty() || name.len() > METADATA_KEY_BYTES_MAX || name.chars().any(char::is_control) {
            let detail =
                format!("{} is not a key; allowed: 1 to {METADATA_KEY_BYTES_MAX} bytes, no control characters", quoted(name));
            members.refuse(name, "metadata", detail);
        }
        if let Some(value) = short_text(value, members.at(name), members.errors()) {
            metadata.insert(name.to_owned(), value.to_owned());
        }
    }
    if metadata.len() > METADATA_MAX {
        fields.refuse("metadata", "too_many", format!("has {} entries; allowed: at most {METADATA_MAX}", metadata.len()));
    }
    metadata
}
