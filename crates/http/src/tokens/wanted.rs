//! What a token is asked to be, read from a body, and whether its maker may make it. Pure.

use serde_json::Value;

use crate::auth::{Caller, Scope};
use crate::problem::{self, Problem};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::TopicPattern;
use hookcast_core::model::administration::TokenLimits;
use hookcast_core::model::fields::{Errors, FieldError, Fields, child, quoted, short_text, text};
use hookcast_core::model::subscription::is_id;
use hookcast_core::model::topic::{PATTERNS_MAX, PatternList};

/// Names a body may hold.
const NAMES: &[&str] = &["name", "scopes", "topics", "expires_at", "limits"];
/// Highest limit.
const LIMIT_MAX: u32 = 1_000_000;

/// A token as asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) scopes: Vec<Scope>,
    /// Empty = all.
    pub(super) topics: Vec<TopicPattern>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) limits: TokenLimits,
}

/// Reads a body; every mistake at once.
pub(super) fn read(body: &Value, now: Timestamp) -> Result<Wanted, Vec<FieldError>> {
    let errors = Errors::default();
    let wanted = Fields::open(body, "", NAMES, &errors).map(|fields| {
        for name in ["name", "scopes"] {
            fields.require(name);
        }
        Wanted {
            name: name(&fields),
            scopes: scopes(&fields),
            topics: topics(&fields),
            expires_at: expires_at(&fields, now),
            limits: limits(&fields),
        }
    });
    errors.finish(wanted)
}

fn name(fields: &Fields<'_>) -> String {
    let given = fields.text("name");
    if let Some(given) = given.filter(|given| !is_id(given)) {
        let detail = format!("{} is not allowed; allowed: 1 to 64 letters, digits, '_' and '-'", quoted(given));
        fields.refuse("name", "id", detail);
    }
    given.unwrap_or_default().to_owned()
}

fn scopes(fields: &Fields<'_>) -> Vec<Scope> {
    let words = || Scope::ALL.map(Scope::word).join(", ");
    let mut scopes = Vec::new();
    let Some(items) = fields.list("scopes", Scope::ALL.len()) else { return scopes };
    if items.is_empty() {
        fields.refuse("scopes", "scope", format!("is empty; allowed: {}", words()));
    }
    for (index, item) in items.iter().enumerate() {
        let pointer = child(&fields.at("scopes"), &index.to_string());
        let Some(given) = text(item, pointer.clone(), fields.errors()) else { continue };
        match Scope::parse(given) {
            Some(scope) if scopes.contains(&scope) => {}
            Some(scope) => scopes.push(scope),
            None => fields.errors().push(pointer, "scope", format!("{} is no scope; allowed: {}", quoted(given), words())),
        }
    }
    scopes
}

fn topics(fields: &Fields<'_>) -> Vec<TopicPattern> {
    let mut patterns = Vec::new();
    let Some(items) = fields.list("topics", PATTERNS_MAX) else { return patterns };
    if items.is_empty() {
        // Left out it means all; an empty list may be somebody's idea of none.
        fields.refuse(
            "topics",
            "topics",
            "is empty; allowed: patterns such as \"acme.**\", or no `topics` at all for every topic",
        );
    }
    for (index, item) in items.iter().enumerate() {
        let pointer = child(&fields.at("topics"), &index.to_string());
        let Some(given) = short_text(item, pointer.clone(), fields.errors()) else { continue };
        match TopicPattern::parse(given) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => fields.errors().push(pointer, "topics", format!("{}: {error}", quoted(given))),
        }
    }
    patterns
}

fn expires_at(fields: &Fields<'_>, now: Timestamp) -> Option<Timestamp> {
    let given = fields.text("expires_at")?;
    match Timestamp::parse_rfc3339(given) {
        Ok(end) if end > now => return Some(end),
        Ok(_) => fields.refuse("expires_at", "expires_at", "lies in the past"),
        Err(_) => {
            let detail = format!("{} is no time; allowed: RFC 3339, such as \"2030-01-31T12:00:00Z\"", quoted(given));
            fields.refuse("expires_at", "expires_at", detail);
        }
    }
    None
}

fn limits(fields: &Fields<'_>) -> TokenLimits {
    let known = ["subscriptions", "sources", "streams", "publish_per_second"];
    let Some(limits) = fields.object("limits", &known) else { return TokenLimits::default() };
    TokenLimits {
        subscriptions: limits.count("subscriptions", 0..=LIMIT_MAX),
        sources: limits.count("sources", 0..=LIMIT_MAX),
        streams: limits.count("streams", 0..=LIMIT_MAX),
        publish_per_second: limits.count("publish_per_second", 1..=LIMIT_MAX),
    }
}

impl Wanted {
    /// Refuses what goes beyond its maker; and, where there is no token yet, a first one that could not make others.
    pub(super) fn check_maker(&self, caller: &Caller) -> Result<(), Problem> {
        let Some(maker) = caller.token() else { return self.check_first() };
        if let Some(scope) = self.scopes.iter().find(|scope| !maker.scopes.contains(scope)) {
            let detail = format!("the token `{}` lacks the scope `{}` and cannot give it", maker.name, scope.word());
            return Err(Problem::new(problem::SCOPE, detail));
        }
        if maker.limits != TokenLimits::default() {
            let detail = "a token with limits of its own cannot make tokens: those would have the limits anew";
            return Err(Problem::new(problem::TOKEN_LIMIT, detail));
        }
        if caller.is_limited() && self.topics.is_empty() {
            caller.unlimited()?;
        }
        for pattern in &self.topics {
            let alone: PatternList = pattern.as_str().parse().map_err(|_| Problem::not_found())?;
            caller.follow(&alone)?;
        }
        match (maker.expires_at, self.expires_at) {
            (Some(end), given) if given.is_none_or(|given| given > end) => {
                let detail = format!("is later than the end of the token that makes it, {end}");
                Err(Problem::of_slug("expires_at", 422, detail.clone()).at("/expires_at", detail))
            }
            _ => Ok(()),
        }
    }

    fn check_first(&self) -> Result<(), Problem> {
        let is_whole = self.scopes.contains(&Scope::Manage)
            && self.topics.is_empty()
            && self.expires_at.is_none()
            && self.limits == TokenLimits::default();
        let detail = "from the first token on tokens are asked for; it needs the scope `manage`, every topic, no end and no limits, \
                      or nobody could make others";
        if is_whole { Ok(()) } else { Err(Problem::of_slug("first_token", 422, detail)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slugs(body: &Value) -> Vec<&'static str> {
        read(body, Timestamp(0)).err().unwrap_or_default().into_iter().map(|error| error.slug).collect()
    }

    #[test]
    fn every_field_is_read() {
        let body = json!({"name": "acme", "scopes": ["read", "stream", "read"], "topics": ["acme.**"],
            "expires_at": "2030-01-01T00:00:00Z", "limits": {"streams": 3, "publish_per_second": 50}});
        let wanted = read(&body, Timestamp(0)).unwrap();
        assert_eq!(wanted.name, "acme");
        assert_eq!(wanted.scopes, [Scope::Read, Scope::Stream]);
        assert_eq!((wanted.limits.streams, wanted.limits.publish_per_second), (Some(3), Some(50)));
    }

    #[test]
    fn each_mistake_is_told() {
        assert_eq!(slugs(&json!({})), ["missing_field", "missing_field"]);
        assert_eq!(slugs(&json!({"id": "mine", "name": "a", "scopes": ["read"]})), ["unknown_field"]);
        let body = json!({"name": "a b", "scopes": ["root"], "topics": [], "expires_at": "1960-01-01T00:00:00Z", "limits": {"streems": 1}});
        assert_eq!(slugs(&body), ["id", "scope", "topics", "expires_at", "unknown_field"]);
    }

    #[test]
    fn the_first_token_can_make_others() {
        let first = |body: Value| read(&body, Timestamp(0)).unwrap().check_first().is_ok();
        assert!(first(json!({"name": "a", "scopes": ["manage"]})));
        assert!(!first(json!({"name": "a", "scopes": ["read"]})));
        assert!(!first(json!({"name": "a", "scopes": ["manage"], "topics": ["a.**"]})));
    }
}
