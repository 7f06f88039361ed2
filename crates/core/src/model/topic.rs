//! Topics and the patterns that choose among them.
//!
//! Topic: tokens of `[A-Za-z0-9_-]` joined by `.`, at most [`TOPIC_BYTES_MAX`] bytes. Pattern: `*` stands for exactly one
//! token, `**` as the last token for one or more, `**` alone for everything. Topics whose first token is `hookcast` are the
//! relay's own: only a pattern whose first token is literally `hookcast` matches them.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest topic or pattern, in bytes.
pub const TOPIC_BYTES_MAX: usize = 255;
/// Most patterns in one list.
pub const PATTERNS_MAX: usize = 64;
/// First token of the relay's own topics.
pub const OWN_TOKEN: &str = "hookcast";

/// Why a text is not a topic or a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Nothing between two dots, or nothing at all.
    #[error("a topic is one or more tokens joined by '.', none of them empty")]
    EmptyToken,
    /// More than [`TOPIC_BYTES_MAX`] bytes.
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// A character outside `[A-Za-z0-9_-]`.
    #[error("a topic token holds only letters, digits, '_' and '-'; {0:?} is none of them")]
    Character(char),
    /// `**` somewhere else than at the end.
    #[error("'**' may only be the last token of a pattern")]
    DoubleStarInside,
    /// More than [`PATTERNS_MAX`] patterns, or none.
    #[error("a list holds 1 to {PATTERNS_MAX} patterns")]
    ListLength,
}

/// The name under which an event is kept, such as `wikipedia.edits`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks and takes a topic name.
    ///
    /// # Errors
    /// [`TopicError`] when the text breaks the grammar of topics.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if text.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::TooLong);
        }
        for token in text.split('.') {
            check_token(token)?;
        }
        Ok(Self(text.into()))
    }

    /// Takes a name that was checked before it was stored.
    #[must_use]
    pub fn trusted(text: &str) -> Self {
        Self(text.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the relay's own topics (`hookcast` or `hookcast.…`).
    #[must_use]
    pub fn is_own(&self) -> bool {
        first_token(&self.0) == OWN_TOKEN
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Topic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Chooses topics: literal tokens, `*` and a final `**`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern(Arc<str>);

impl TopicPattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// [`TopicError`] when the text breaks the grammar of patterns.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if text.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::TooLong);
        }
        let mut tokens = text.split('.').peekable();
        while let Some(token) = tokens.next() {
            match token {
                "*" => {}
                "**" if tokens.peek().is_none() => {}
                "**" => return Err(TopicError::DoubleStarInside),
                literal => check_token(literal)?,
            }
        }
        Ok(Self(text.into()))
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it chooses the relay's own topics, which only those do that name them.
    #[must_use]
    pub fn is_own(&self) -> bool {
        first_token(&self.0) == OWN_TOKEN
    }

    /// The topic this pattern names, when it has no wildcard.
    #[must_use]
    pub fn literal(&self) -> Option<Topic> {
        (!self.0.contains('*')).then(|| Topic::trusted(&self.0))
    }

    /// Whether the pattern chooses `topic`.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if first_token(topic) == OWN_TOKEN && first_token(&self.0) != OWN_TOKEN {
            return false;
        }
        let mut names = topic.split('.');
        for token in self.0.split('.') {
            match (token, names.next()) {
                ("**", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(name)) if literal == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether every topic that `inner` chooses is chosen by this pattern too.
    #[must_use]
    pub fn covers(&self, inner: &Self) -> bool {
        if first_token(&inner.0) == OWN_TOKEN && first_token(&self.0) != OWN_TOKEN {
            return false;
        }
        let mut theirs = inner.0.split('.');
        for token in self.0.split('.') {
            match (token, theirs.next()) {
                ("**", Some(_)) => return true,
                ("*", Some(other)) if other != "**" => {}
                (literal, Some(other)) if literal == other => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One or more patterns; a topic is chosen when any of them chooses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatternList(Arc<[TopicPattern]>);

impl PatternList {
    /// Takes 1 to [`PATTERNS_MAX`] patterns.
    ///
    /// # Errors
    /// [`TopicError::ListLength`] for none or too many.
    pub fn new(patterns: Vec<TopicPattern>) -> Result<Self, TopicError> {
        if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
            return Err(TopicError::ListLength);
        }
        Ok(Self(patterns.into()))
    }

    /// The patterns of all these lists, each once, however many.
    #[must_use]
    pub fn joined<'a>(lists: impl Iterator<Item = &'a Self>) -> Self {
        let mut all: Vec<TopicPattern> = Vec::new();
        for pattern in lists.flat_map(|list| list.0.iter()) {
            if !all.contains(pattern) {
                all.push(pattern.clone());
            }
        }
        Self(all.into())
    }

    /// The patterns, in the order given.
    #[must_use]
    pub fn patterns(&self) -> &[TopicPattern] {
        &self.0
    }

    /// Whether any pattern chooses `topic`.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }
}

/// Reads a comma-separated list.
impl FromStr for PatternList {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::new(text.split(',').map(|part| TopicPattern::parse(part.trim())).collect::<Result<_, _>>()?)
    }
}

/// Writes the comma-separated form.
impl fmt::Display for PatternList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(pattern.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for PatternList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(TopicPattern::as_str))
    }
}

impl<'de> Deserialize<'de> for PatternList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let patterns = texts.iter().map(|text| TopicPattern::parse(text)).collect::<Result<_, _>>();
        patterns.and_then(Self::new).map_err(serde::de::Error::custom)
    }
}

fn first_token(text: &str) -> &str {
    text.split('.').next().unwrap_or_default()
}

fn check_token(token: &str) -> Result<(), TopicError> {
    if token.is_empty() {
        return Err(TopicError::EmptyToken);
    }
    match token.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))) {
        Some(c) => Err(TopicError::Character(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        TopicPattern::parse(pattern).unwrap().matches(topic)
    }

    #[test]
    fn stars_stand_for_whole_tokens() {
        assert!(matches("a.*", "a.b"));
        assert!(!matches("a.*", "a"));
        assert!(!matches("a.*", "a.b.c"));
        assert!(matches("a.**", "a.b.c"));
        assert!(!matches("a.**", "a"));
        assert!(matches("**", "a"));
        assert!(matches("*.b", "a.b"));
    }

    #[test]
    fn own_topics_need_a_literal_first_token() {
        assert!(!matches("**", "hookcast.ops"));
        assert!(!matches("*.ops", "hookcast.ops"));
        assert!(matches("hookcast.*", "hookcast.ops"));
        assert!(matches("**", "hookcastle.ops"));
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a b", "a\n", "é", "a.*b"] {
            assert!(Topic::parse(text).is_err(), "{text:?}");
            assert!(TopicPattern::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(TopicPattern::parse("**.a"), Err(TopicError::DoubleStarInside));
        assert_eq!(Topic::parse(&"a".repeat(256)), Err(TopicError::TooLong));
        assert!(Topic::parse(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn covering_follows_matching() {
        let covers = |a: &str, b: &str| TopicPattern::parse(a).unwrap().covers(&TopicPattern::parse(b).unwrap());
        assert!(covers("acme.**", "acme.*"));
        assert!(covers("acme.**", "acme.x.**"));
        assert!(!covers("acme.*", "acme.**"));
        assert!(!covers("**", "hookcast.ops"));
        assert!(!covers("acme.**", "acme"));
    }

    fn token() -> impl Strategy<Value = String> {
        "[ab]{1,2}"
    }

    proptest! {
        #[test]
        fn a_pattern_agrees_with_its_regular_expression_reading(
            topic in prop::collection::vec(token(), 1..5),
            pattern in prop::collection::vec(prop_oneof![token(), Just("*".to_owned())], 1..5),
            tail in any::<bool>(),
        ) {
            let mut pattern = pattern;
            if tail { pattern.push("**".to_owned()); }
            let expected = if tail {
                topic.len() >= pattern.len()
                    && pattern[..pattern.len() - 1].iter().zip(&topic).all(|(p, t)| p == "*" || p == t)
            } else {
                topic.len() == pattern.len() && pattern.iter().zip(&topic).all(|(p, t)| p == "*" || p == t)
            };
            prop_assert_eq!(matches(&pattern.join("."), &topic.join(".")), expected);
        }
    }
}
