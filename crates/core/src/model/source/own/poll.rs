//! Settings of `long-poll` and `poll`: where a list, its cursor and its next page are, and how often is asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{OwnSettings, Row};
use crate::model::fields::{Fields, quoted};
use crate::model::source::parse::read_json_pointer;
use crate::units::format_duration;

/// Shortest and longest `min_interval`, and `interval`.
pub const MIN_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
/// See [`MIN_INTERVAL`].
pub const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 7);
/// Largest `max_body_bytes`, and what it is when absent.
pub const BODY_BYTES_MAX: u64 = 64 << 20;
const BODY_BYTES_DEFAULT: u64 = 16 << 20;

/// Where the URL of the next page is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NextPage {
    /// In the header `Link`, as `rel=next`.
    Link,
    /// In the body: a JSON pointer.
    Body(String),
}

/// In which order a list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListOrder {
    /// Oldest first.
    OldestFirst,
    /// Newest first.
    NewestFirst,
}

impl ListOrder {
    const fn word(self) -> &'static str {
        match self {
            Self::OldestFirst => "oldest_first",
            Self::NewestFirst => "newest_first",
        }
    }
}

/// Settings of `long-poll` and `poll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollSettings {
    /// Whether the upstream holds a request until something is there.
    pub is_long: bool,
    /// Shortest time between two requests that bring nothing (`long-poll`), or the usual one (`poll`).
    pub every: Duration,
    /// JSON pointer to the list; absent = the body is the list, or one item.
    pub items: Option<String>,
    /// JSON pointer to the next cursor.
    pub cursor: Option<String>,
    /// Query parameter that carries it.
    pub cursor_param: Option<String>,
    /// Where the URL of the next page is.
    pub next: Option<NextPage>,
    /// Whether `ETag` and `Last-Modified` are the position.
    pub by_headers: bool,
    /// The list's order; absent = oldest first, feeds newest first.
    pub order: Option<ListOrder>,
    /// Longest body, in bytes.
    pub body_bytes_max: u64,
}

const LONG_NAMES: &[&str] = &["items", "cursor", "cursor_param", "next", "position", "order", "min_interval", "max_body_bytes"];
const NAMES: &[&str] = &["items", "cursor", "cursor_param", "order", "interval", "max_body_bytes"];

pub(super) const LONG_ROW: Row =
    Row { protocol: "long-poll", names: LONG_NAMES, read: |settings, _| OwnSettings::Poll(read_long(settings)) };
pub(super) const ROW: Row = Row { protocol: "poll", names: NAMES, read: |settings, _| OwnSettings::Poll(read(settings)) };

impl PollSettings {
    /// What a definition that says nothing means.
    #[must_use]
    pub const fn new(is_long: bool) -> Self {
        Self {
            is_long,
            every: if is_long { Duration::from_secs(1) } else { Duration::from_mins(1) },
            items: None,
            cursor: None,
            cursor_param: None,
            next: None,
            by_headers: !is_long,
            order: None,
            body_bytes_max: BODY_BYTES_DEFAULT,
        }
    }

    pub(super) fn show(&self, settings: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| settings.insert(name.to_owned(), value);
        put("items", json!(self.items));
        put("cursor", json!(self.cursor));
        put("cursor_param", json!(self.cursor_param));
        put("order", json!(self.order.map(ListOrder::word)));
        put("max_body_bytes", json!(self.body_bytes_max));
        if self.is_long {
            put("min_interval", json!(format_duration(self.every)));
            put("position", json!(if self.by_headers { "headers" } else { "body" }));
            put(
                "next",
                match &self.next {
                    None => Value::Null,
                    Some(NextPage::Link) => json!("link"),
                    Some(NextPage::Body(pointer)) => json!(pointer),
                },
            );
        } else {
            put("interval", json!(format_duration(self.every)));
        }
    }
}

fn read_long(settings: &Fields<'_>) -> PollSettings {
    let default = PollSettings::new(true);
    let next = match settings.short_text("next") {
        Some("link") => Some(NextPage::Link),
        Some(_) => read_json_pointer(settings, "next").map(NextPage::Body),
        None => None,
    };
    let by_headers = settings.choice("position", &["body", "headers"], "position") == Some("headers");
    let named = [settings.get("cursor").is_some(), next.is_some(), by_headers].into_iter().filter(|named| *named).count();
    if named > 1 {
        settings.refuse("position", "position", "allowed: one of `cursor`, `next` and `position` \"headers\"");
    }
    let every = settings.duration("min_interval", MIN_INTERVAL, "min_interval").unwrap_or(default.every);
    PollSettings { every, next, by_headers, ..read_common(settings, default) }
}

fn read(settings: &Fields<'_>) -> PollSettings {
    let default = PollSettings::new(false);
    let every = settings.duration("interval", INTERVAL, "interval").unwrap_or(default.every);
    PollSettings { every, ..read_common(settings, default) }
}

fn read_common(settings: &Fields<'_>, default: PollSettings) -> PollSettings {
    let order = match settings.choice("order", &["oldest_first", "newest_first"], "order") {
        Some("newest_first") => Some(ListOrder::NewestFirst),
        Some(_) => Some(ListOrder::OldestFirst),
        None => None,
    };
    let cursor_param = settings.short_text("cursor_param").map(str::to_owned);
    if cursor_param.is_some() && settings.get("cursor").is_none() {
        settings.refuse("cursor_param", "cursor_param", format!("needs `cursor`, such as {}", quoted("/next")));
    }
    PollSettings {
        items: read_json_pointer(settings, "items"),
        cursor: read_json_pointer(settings, "cursor"),
        cursor_param,
        order,
        body_bytes_max: settings.size("max_body_bytes", 1024..=BODY_BYTES_MAX).unwrap_or(default.body_bytes_max),
        ..default
    }
}
