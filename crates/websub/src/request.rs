//! What a subscriber asks of the hub, read from a form. Pure.
//!
//! Spec: WebSub (W3C Recommendation, 23 January 2018) section 5.1. Parameters that it does not know are passed over; a known
//! one given twice, or a malformed one, is refused. The topic is known by its path, whatever host it is reached under.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Url, form_urlencoded};

use hookcast_core::model::PatternList;
use hookcast_core::model::subscription::Secret;
use hookcast_core::model::subscription::parse::UrlJudge;

/// Longest `hub.secret`, in bytes: the specification says less than 200.
pub const SECRET_BYTES_MAX: usize = 199;
/// Longest `hub.topic`, in bytes.
pub const TOPIC_URL_BYTES_MAX: usize = 2048;
/// Where topics begin in the path of their URL.
const TOPICS_PATH: &str = "/v1/topics/";
/// The parameters that are looked at.
const KNOWN: [&str; 5] = ["hub.mode", "hub.callback", "hub.topic", "hub.secret", "hub.lease_seconds"];

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To get what comes in.
    Subscribe,
    /// No more.
    Unsubscribe,
}

impl Mode {
    /// The word of `hub.mode`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
        }
    }
}

/// A request that can be understood; whether the subscriber meant it is not known yet.
#[derive(Clone, Debug)]
pub struct Intent {
    /// What is wanted.
    pub mode: Mode,
    /// Canonical URL of the subscriber.
    pub callback: String,
    /// The topic's URL as given.
    pub topic: String,
    /// What that URL chooses.
    pub patterns: PatternList,
    /// Where the relay is reached, by the topic's URL: everything before `/v1/topics/`.
    pub base: String,
    /// What deliveries are to be signed with.
    pub secret: Option<Secret>,
    /// How long the subscription lasts, in whole seconds.
    pub lease: Duration,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The parameter or the rule.
    pub slug: &'static str,
    /// For a person.
    pub detail: String,
}

/// What requests are judged by.
#[derive(Clone, Copy)]
pub struct RequestRules<'a> {
    /// Path of the relay's public URL, without a slash at its end; empty for most.
    pub base_path: &'a str,
    /// Which callbacks may be dialled.
    pub urls: &'a dyn UrlJudge,
    /// Lease of a request that names none.
    pub lease_default: Duration,
    /// Longest lease; a longer one is cut.
    pub lease_max: Duration,
}

/// Reads the form of a request.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(form: &[u8], rules: &RequestRules<'_>) -> Result<Intent, Invalid> {
    let mut found: [Option<Cow<'_, str>>; KNOWN.len()] = Default::default();
    for (name, value) in form_urlencoded::parse(form) {
        let Some(place) = KNOWN.iter().position(|known| *known == name) else { continue };
        if found[place].replace(value).is_some() {
            return Err(invalid("hub_parameter", format!("`{}` is given twice", KNOWN[place])));
        }
    }
    let [mode, callback, topic, secret, lease] = found;
    let required = |value: Option<Cow<'_, str>>, name: &str| {
        let given = value.filter(|text| !text.is_empty());
        given.map(Cow::into_owned).ok_or_else(|| invalid("hub_parameter", format!("`{name}` is missing")))
    };
    let mode = match &*required(mode, "hub.mode")? {
        "subscribe" => Mode::Subscribe,
        "unsubscribe" => Mode::Unsubscribe,
        _ => return Err(invalid("hub_mode", "`hub.mode` is something else than `subscribe` or `unsubscribe`")),
    };
    let callback = required(callback, "hub.callback")?;
    let callback =
        rules.urls.check_url(&callback).map_err(|(slug, detail)| invalid(slug, format!("`hub.callback`: {detail}")))?;
    let topic = required(topic, "hub.topic")?;
    let (base, patterns) = read_topic(&topic, rules.base_path)?;
    let secret = secret.map(|text| read_secret(&text)).transpose()?;
    let lease = read_lease(lease.as_deref().unwrap_or_default(), rules)?;
    Ok(Intent { mode, callback, topic, patterns, base, secret, lease })
}

fn read_secret(text: &str) -> Result<Secret, Invalid> {
    if text.is_empty() || text.len() > SECRET_BYTES_MAX {
        return Err(invalid("hub_secret", format!("`hub.secret` has {} bytes; allowed: 1 to {SECRET_BYTES_MAX}", text.len())));
    }
    Ok(Secret::trusted(text.to_owned()))
}

fn read_lease(text: &str, rules: &RequestRules<'_>) -> Result<Duration, Invalid> {
    let wanted = match text {
        "" => rules.lease_default,
        digits if digits.len() <= 18 && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse() != Ok(0) => {
            Duration::from_secs(digits.parse().unwrap_or(u64::MAX))
        }
        _ => return Err(invalid("hub_lease_seconds", "`hub.lease_seconds` is no whole number of seconds from 1")),
    };
    Ok(Duration::from_secs(wanted.min(rules.lease_max).as_secs().max(1)))
}

/// What a topic's URL chooses, and what stands before `/v1/topics/` in it.
fn read_topic(text: &str, base_path: &str) -> Result<(String, PatternList), Invalid> {
    let wrong = |detail: &str| Err(invalid("hub_topic", format!("`hub.topic` {detail}")));
    // It comes back in a `Link` header between angle brackets.
    if text.len() > TOPIC_URL_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\".contains(&b)) {
        return wrong("is no URL of at most 2048 visible ASCII characters");
    }
    let Some(url) = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) else {
        return wrong("is no http or https URL");
    };
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return wrong("has a query, a fragment or a user name; a topic has none");
    }
    let Some(list) = url.path().strip_prefix(base_path).and_then(|path| path.strip_prefix(TOPICS_PATH)) else {
        return wrong("is no topic of this relay; topics are /v1/topics/{pattern}");
    };
    match percent_decode_str(list).decode_utf8().ok().and_then(|list| list.parse().ok()) {
        Some(patterns) => Ok((format!("{}{base_path}", url.origin().ascii_serialization()), patterns)),
        None => wrong("does not name a topic or a pattern such as `orders.*`"),
    }
}

fn invalid(slug: &'static str, detail: impl Into<String>) -> Invalid {
    Invalid { slug, detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_form(form: &str, base_path: &str) -> Result<Intent, &'static str> {
        let urls = |url: &str| if url.starts_with("https://") { Ok(url.to_owned()) } else { Err(("scheme", String::new())) };
        let hour = Duration::from_hours(1);
        let rules = RequestRules { base_path, urls: &urls, lease_default: hour, lease_max: 2 * hour };
        read(form.as_bytes(), &rules).map_err(|invalid| invalid.slug)
    }

    const GOOD: &str = "hub.mode=subscribe&hub.callback=https%3A%2F%2Fa.example%2Fcb%3Fx%3D1&hub.topic=https%3A%2F%2Fany.example%2Fv1%2Ftopics%2Forders.*";

    #[test]
    fn a_request_is_read_as_it_is_meant() {
        let intent = read_form(&format!("{GOOD}&hub.secret=s%20s&hub.lease_seconds=60&hub.foo=bar&foo=1&foo=2"), "").unwrap();
        assert_eq!((intent.mode, &*intent.callback), (Mode::Subscribe, "https://a.example/cb?x=1"));
        assert_eq!((intent.patterns.to_string(), &*intent.base), ("orders.*".to_owned(), "https://any.example"));
        assert_eq!(intent.topic, "https://any.example/v1/topics/orders.*");
        assert_eq!(intent.secret.as_ref().map(Secret::expose), Some("s s"));
        assert_eq!(intent.lease, Duration::from_mins(1));
        assert!(!format!("{intent:?}").contains("s s"));
    }

    #[test]
    fn leases_are_cut_and_have_a_default() {
        let lease = |text: &str| read_form(&format!("{GOOD}&hub.lease_seconds={text}"), "").map(|intent| intent.lease.as_secs());
        assert_eq!((lease(""), lease("7200"), lease("999999999999")), (Ok(3600), Ok(7200), Ok(7200)));
        for wrong in ["0", "-1", "1.5", "%2B5", "ten", "9999999999999999999"] {
            assert_eq!(lease(wrong), Err("hub_lease_seconds"), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        let long = "x".repeat(200);
        for (form, slug) in [
            (String::new(), "hub_parameter"),
            (GOOD.replace("subscribe", "publish"), "hub_mode"),
            (GOOD.replace("https%3A%2F%2Fa", "http%3A%2F%2Fa"), "scheme"),
            (format!("{GOOD}&hub.mode=unsubscribe"), "hub_parameter"),
            (format!("{GOOD}&hub.secret="), "hub_secret"),
            (format!("{GOOD}&hub.secret={long}"), "hub_secret"),
            (GOOD.replace("&hub.topic", "&hub.tropic"), "hub_parameter"),
            (GOOD.replace("topics", "tropics"), "hub_topic"),
            (GOOD.replace("orders.*", "orders..x"), "hub_topic"),
            (GOOD.replace("orders.*", "orders%2Fstream"), "hub_topic"),
            (GOOD.replace("orders.*", "orders%3Fa=1"), "hub_topic"),
            (GOOD.replace("orders.*", "orders%3E"), "hub_topic"),
            (GOOD.replace("any.example", "me%40any.example"), "hub_topic"),
        ] {
            assert_eq!(read_form(&form, "").err(), Some(slug), "{form}");
        }
    }

    #[test]
    fn a_public_path_stands_before_the_topic() {
        let below = GOOD.replace("any.example%2F", "any.example%2Frelay%2F");
        assert_eq!(read_form(&below, "/relay").unwrap().base, "https://any.example/relay");
        assert!(read_form(&below, "").is_err() && read_form(GOOD, "/relay").is_err());
        let escaped = read_form(&GOOD.replace("orders.*", "a.%252A%2Cb"), "").unwrap();
        assert_eq!(escaped.patterns.to_string(), "a.*,b");
    }

    proptest! {
        #[test]
        fn no_form_breaks_the_reader(form in "[a-z.=&%0-9]{0,120}") {
            let _ = read_form(&form, "");
            let _ = read_form(&format!("{GOOD}&{form}"), "");
        }
    }
}
