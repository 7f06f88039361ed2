//! How far a polled upstream has come: cursor, next page, or validators, and how they stand in a resume token. Pure.
//!
//! A cursor or URL alone is the token as it is; with validators the token is a JSON object. Spec: RFC 8288 (Link), RFC 9110 §8.8.

use std::collections::VecDeque;

use hyper::header::{ETAG, HeaderMap, HeaderName, LAST_MODIFIED, LINK};
use serde::{Deserialize, Serialize};
use url::Url;

use hookcast_core::model::ResumeToken;
use hookcast_core::model::source::RESUME_TOKEN_BYTES_MAX;
use hookcast_core::model::source::own::poll::PollSettings;

use super::known::Known;

/// Longest validator that is kept, in bytes.
const VALIDATOR_BYTES_MAX: usize = 1024;
/// Cursors that are remembered, to notice one that comes again.
const CURSORS_MAX: usize = 32;

/// How far an upstream has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Position {
    /// The last cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
    /// URL of the page that is asked for next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<String>,
    /// Hash of the last body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<String>,
    /// Items of the last list.
    #[serde(skip_serializing_if = "Known::is_empty")]
    pub(super) known: Known,
}

impl Position {
    /// What a token says; one that was made by other settings says nothing.
    pub(super) fn of(token: Option<&ResumeToken>, settings: &PollSettings) -> Self {
        let Some(token) = token.map(ResumeToken::as_str) else { return Self::default() };
        if settings.by_headers {
            serde_json::from_str(token).unwrap_or_default()
        } else if settings.next.is_some() {
            Self { next: Some(token.to_owned()), ..Self::default() }
        } else if settings.cursor.is_some() {
            Self { cursor: Some(token.to_owned()), ..Self::default() }
        } else {
            Self::default()
        }
    }

    /// The token; `Ok(None)` when there is no position.
    ///
    /// # Errors
    /// When it cannot be one.
    pub(super) fn token(&self, settings: &PollSettings) -> Result<Option<ResumeToken>, ()> {
        if !settings.by_headers {
            let text = self.cursor.as_deref().or(self.next.as_deref());
            return text.map(|text| ResumeToken::parse(text).ok_or(())).transpose();
        }
        let bare = Self { known: Known::default(), ..self.clone() };
        if bare == Self::default() && self.known.is_empty() {
            return Ok(None);
        }
        let used = serde_json::to_string(&bare).map_err(|_| ())?.len() + "\"known\":\"\",".len();
        let room = RESUME_TOKEN_BYTES_MAX.checked_sub(used).ok_or(())?;
        let kept = Self { known: self.known.newest(room), ..bare };
        serde_json::to_string(&kept).ok().and_then(|text| ResumeToken::parse(&text)).map(Some).ok_or(())
    }

    /// What `{resume}` in a template stands for.
    pub(super) fn told(&self) -> Option<&str> {
        self.cursor.as_deref().or(self.next.as_deref())
    }

    /// Takes the validators of an answer over.
    pub(super) fn take_validators(&mut self, headers: &HeaderMap) {
        let find = |name: HeaderName| {
            let text = headers.get(name)?.to_str().ok()?;
            (!text.is_empty() && text.len() <= VALIDATOR_BYTES_MAX).then(|| text.to_owned())
        };
        (self.etag, self.modified) = (find(ETAG), find(LAST_MODIFIED));
    }
}

/// Why a URL cannot be the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadNext {
    /// It is none, or too long.
    Malformed,
    /// It leads to another scheme, host or port.
    OtherOrigin,
}

/// The absolute URL of a next page that `page` names.
pub(super) fn next_url(page: &str, reference: &str) -> Result<String, BadNext> {
    if reference.len() > RESUME_TOKEN_BYTES_MAX || reference.chars().any(char::is_control) {
        return Err(BadNext::Malformed);
    }
    let page = Url::parse(page).map_err(|_| BadNext::Malformed)?;
    let mut next = page.join(reference).map_err(|_| BadNext::Malformed)?;
    next.set_fragment(None);
    let has_user = !next.username().is_empty() || next.password().is_some();
    if page.origin() != next.origin() || has_user {
        return Err(BadNext::OtherOrigin);
    }
    Ok(next.to_string())
}

/// The target of `rel=next` among the links of an answer.
pub(super) fn link_next(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(next_of_links)
}

fn next_of_links(mut rest: &str) -> Option<String> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, behind) = rest.strip_prefix('<')?.split_once('>')?;
        let mut is_next = false;
        rest = behind;
        while let Some(parameter) = rest.trim_start().strip_prefix(';') {
            let (name, value, behind) = link_parameter(parameter);
            is_next |=
                name.eq_ignore_ascii_case("rel") && value.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"));
            rest = behind;
        }
        if is_next {
            return Some(target.to_owned());
        }
        rest = rest.trim_start();
        if !rest.starts_with(',') {
            return None;
        }
    }
}

/// Name, value and what follows of one parameter.
fn link_parameter(text: &str) -> (&str, &str, &str) {
    let end = text.find(['=', ';', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let Some(value) = rest.strip_prefix('=') else { return (name.trim(), "", rest) };
    if let Some((quoted, behind)) = value.trim_start().strip_prefix('"').and_then(|inner| inner.split_once('"')) {
        return (name.trim(), quoted, behind);
    }
    let (bare, behind) = value.split_at(value.find([';', ',']).unwrap_or(value.len()));
    (name.trim(), bare.trim(), behind)
}

/// The cursors of late, to notice one that goes back.
#[derive(Debug, Default)]
pub(super) struct Cursors(VecDeque<String>);

impl Cursors {
    /// Notes the cursor of an answer; whether it lies before the last one: a smaller number, or one that was there before.
    pub(super) fn goes_back(&mut self, last: Option<&str>, cursor: &str) -> bool {
        if last == Some(cursor) {
            return false;
        }
        let goes_back = match (last.and_then(number), number(cursor)) {
            (Some(last), Some(new)) => new < last,
            _ => self.0.iter().any(|earlier| earlier == cursor),
        };
        if goes_back {
            self.0.clear();
        }
        if self.0.len() == CURSORS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(cursor.to_owned());
        goes_back
    }
}

fn number(text: &str) -> Option<u128> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_say_what_the_settings_need() {
        let mut settings = PollSettings::new(true);
        settings.cursor = Some("/next".to_owned());
        let position = Position { cursor: Some("42".to_owned()), ..Position::default() };
        let token = position.token(&settings).unwrap().unwrap();
        assert_eq!(token.as_str(), "42");
        assert_eq!(Position::of(Some(&token), &settings), position);
        for bad in ["a\r\nb".to_owned(), "a".repeat(4097), String::new()] {
            assert_eq!(Position { cursor: Some(bad), ..Position::default() }.token(&settings), Err(()));
        }
        let poll = PollSettings::new(false);
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static("W/\"a\""));
        let mut position = Position::default();
        assert_eq!(position.token(&poll), Ok(None));
        position.take_validators(&headers);
        let token = position.token(&poll).unwrap().unwrap();
        assert_eq!(token.as_str(), r#"{"etag":"W/\"a\""}"#);
        assert_eq!(Position::of(Some(&token), &poll), position);
        assert_eq!(Position::of(ResumeToken::parse("17").as_ref(), &poll), Position::default());
    }

    #[test]
    fn a_long_list_fills_the_token_and_no_more() {
        let poll = PollSettings::new(false);
        let mut position = Position { body: Some("0123456789abcdef".to_owned()), ..Position::default() };
        position.known = (0..2000).collect();
        let token = position.token(&poll).unwrap().unwrap();
        assert!((RESUME_TOKEN_BYTES_MAX - 16..=RESUME_TOKEN_BYTES_MAX).contains(&token.as_str().len()));
        let kept = Position::of(Some(&token), &poll).known;
        assert!(kept.holds(1999) && !kept.holds(0));
    }

    #[test]
    fn the_next_page_is_of_the_same_origin() {
        let page = "https://example.test/a/b?c=1";
        assert_eq!(next_url(page, "?c=2").as_deref(), Ok("https://example.test/a/b?c=2"));
        assert_eq!(next_url(page, "/x#y").as_deref(), Ok("https://example.test/x"));
        assert_eq!(next_url(page, "https://example.test:443/z").as_deref(), Ok("https://example.test/z"));
        for other in [
            "https://other.example.test/",
            "http://example.test/",
            "//other.test/",
            "https://example.test:444/",
            "https://a:b@example.test/",
            "javascript:1",
        ] {
            assert_eq!(next_url(page, other), Err(BadNext::OtherOrigin), "{other}");
        }
        assert_eq!(next_url(page, "a\r\nb"), Err(BadNext::Malformed));
        assert_eq!(next_url(page, "https://[/"), Err(BadNext::Malformed));
    }

    #[test]
    fn links_are_read_as_the_standard_has_them() {
        let next = |text: &str| next_of_links(text);
        assert_eq!(next("<a>; rel=\"next\"").as_deref(), Some("a"));
        assert_eq!(next("<a>; rel=prev, <b,c>; title=\"x, <d>; rel=next\"; rel=\"foo NEXT\"").as_deref(), Some("b,c"));
        assert_eq!(next("<a>;rel=next;type=x").as_deref(), Some("a"));
        assert_eq!(next("<a>; rel=prev"), None);
        assert_eq!(next("a; rel=next"), None);
        assert_eq!(next("<a; rel=next"), None);
    }

    #[test]
    fn a_cursor_goes_back_when_it_is_smaller_or_was_there_before() {
        let mut cursors = Cursors::default();
        assert!(!cursors.goes_back(None, "5"));
        assert!(!cursors.goes_back(Some("5"), "5"));
        assert!(!cursors.goes_back(Some("5"), "10"));
        assert!(cursors.goes_back(Some("10"), "9"));
        assert!(!cursors.goes_back(Some("9"), "a"));
        assert!(!cursors.goes_back(Some("a"), "b"));
        assert!(cursors.goes_back(Some("b"), "a"));
    }

    proptest! {
        #[test]
        fn any_link_header_is_read(text in "[<>;,=\" a-e]{0,40}") {
            if let Some(target) = next_of_links(&text) {
                let bracketed = format!("<{target}>");
                prop_assert!(text.contains(&bracketed));
            }
        }
    }
}
