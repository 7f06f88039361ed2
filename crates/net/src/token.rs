//! Bearer tokens by client credentials: one request to a token endpoint, and what its answer says.
//!
//! Owns the form of the request and the judgement of the answer. Keeps no token and knows no subscription. Spec: RFC 6749 §4.4,
//! §2.3.1 (`client_secret_basic`), §5.1 and §5.2; RFC 6750.

use super::dial::{DialError, Gate};
use super::fetch::{FetchError, FetchRequest, Fetcher, HeaderMap, HeaderValue, Method};
use super::shortage::Shortage;
use super::target::{Target, TargetError};
use super::tls::Tls;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_core::future::BoxFuture;
use hookcast_core::clock::Timestamp;
use hookcast_supervise::deadline::within;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use url::form_urlencoded;

/// Largest answer of a token endpoint.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How long a token is used whose answer does not say how long it is good.
const LIFE_DEFAULT: Duration = Duration::from_mins(5);
/// A token is not used any more this long before its end.
pub const MARGIN: Duration = Duration::from_secs(30);
/// No token is used for longer than this.
const LIFE_MAX: Duration = Duration::from_hours(24);

/// A token endpoint, and what is asked of it.
pub struct TokenEndpoint {
    target: Target,
    tls: Tls,
    headers: HeaderMap,
    body: Bytes,
}

/// Holds credentials.
impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint").field("target", &self.target.as_str()).finish_non_exhaustive()
    }
}

/// A token as it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its text, which can stand in a header.
    pub text: String,
    /// How long it is good, as the endpoint says.
    pub life: Duration,
}

impl Token {
    /// Until when it is used: not any more [`MARGIN`] before its end, or in the last fifth of a short life.
    #[must_use]
    pub fn used_until(&self, now: Timestamp) -> Timestamp {
        now.plus(self.life.saturating_sub(MARGIN.min(self.life / 5)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Why there is no token; never repeats what the endpoint said beyond its error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It cannot be reached, or what came is no HTTP: the word of the failure.
    #[error("the token endpoint cannot be used: {0}")]
    Unreachable(&'static str),
    /// The relay itself lacks what it takes to ask.
    #[error(transparent)]
    Own(Shortage),
    /// It refused.
    #[error("the token endpoint answered {0}{1}")]
    Refused(u16, String),
    /// Its answer is no token.
    #[error("the token endpoint {0}")]
    Unusable(&'static str),
    /// The deadline of the attempt passed.
    #[error("the token endpoint did not answer in time")]
    Timeout,
}

impl TokenEndpoint {
    /// Prepares the request; `url` was judged when it was set, and its address is judged again at every dial.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn new(url: &str, tls: Tls, client: (&str, &str), scopes: &[String]) -> Result<Self, TargetError> {
        let target = Target::parse(url)?;
        let mut headers = HeaderMap::new();
        headers.insert("authorization", basic(&form_encoded(client.0), &form_encoded(client.1)));
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        headers.insert("connection", HeaderValue::from_static("close"));
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("grant_type", "client_credentials");
        if !scopes.is_empty() {
            body.append_pair("scope", &scopes.join(" "));
        }
        Ok(Self { target, tls, headers, body: body.finish().into() })
    }

    /// Asks for a token, within `limit` all in all.
    ///
    /// # Errors
    /// See [`TokenError`].
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub async fn fetch(&self, gate: &Gate, limit: Duration) -> Result<Token, TokenError> {
        within(limit, self.asking(gate, limit)).await.unwrap_or(Err(TokenError::Timeout))
    }

    /// One object for what stands below, so that no crate that asks compiles it again.
    #[inline(never)]
    fn asking<'a>(&'a self, gate: &'a Gate, limit: Duration) -> BoxFuture<'a, Result<Token, TokenError>> {
        Box::pin(self.ask(gate, limit))
    }

    async fn ask(&self, gate: &Gate, limit: Duration) -> Result<Token, TokenError> {
        let request = FetchRequest {
            method: Method::POST,
            target: &self.target,
            headers: self.headers.clone(),
            body: self.body.clone(),
            head_timeout: limit,
        };
        let mut response = Fetcher::new(gate.clone(), self.tls.clone()).fetch(request).await.map_err(|error| match error {
            FetchError::Timeout => TokenError::Timeout,
            FetchError::Dial(DialError::Own(shortage)) => TokenError::Own(shortage),
            error => TokenError::Unreachable(error.slug()),
        })?;
        let mut body = Vec::new();
        while let Some(chunk) = response.body.next_chunk().await {
            body.extend_from_slice(&chunk.map_err(|error| TokenError::Unreachable(error.slug()))?);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(TokenError::Unusable("answered more than 64 KiB"));
            }
        }
        judge(response.status, &body)
    }
}

/// The value of an `authorization` header of RFC 7617.
///
/// # Panics
/// Never: base64 can stand in a header.
#[must_use]
pub fn basic(username: &str, password: &str) -> HeaderValue {
    let text = format!("Basic {}", BASE64.encode(format!("{username}:{password}")));
    let mut value = HeaderValue::from_str(&text).expect("invariant: base64 can stand in a header");
    value.set_sensitive(true);
    value
}

/// The value of an `authorization` header of RFC 6750; the token was checked to be able to stand in one.
///
/// # Panics
/// When it cannot.
#[must_use]
pub fn bearer(token: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).expect("invariant: a token can stand in a header");
    value.set_sensitive(true);
    value
}

fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What an answer says.
fn judge(status: u16, body: &[u8]) -> Result<Token, TokenError> {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    #[derive(Deserialize)]
    struct Grant {
        access_token: String,
        token_type: String,
        /// Some write it as a text.
        expires_in: Option<serde_json::Value>,
    }
    if status != 200 {
        let code = serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.error).unwrap_or_default();
        let is_code = (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return Err(TokenError::Refused(status, if is_code { format!(" {code}") } else { String::new() }));
    }
    let grant: Grant = serde_json::from_slice(body).map_err(|_| TokenError::Unusable("answered something that is no token"))?;
    if !grant.token_type.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Unusable("gave a token of another type than `Bearer`"));
    }
    let text = grant.access_token;
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Unusable("gave a token that cannot stand in a header"));
    }
    let seconds = |value: serde_json::Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let life = grant.expires_in.and_then(seconds).filter(|seconds| *seconds >= 0.0);
    let life = life.map_or(LIFE_DEFAULT, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(LIFE_MAX).min(LIFE_MAX));
    Ok(Token { text, life })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_grant_is_read() {
        let life = |body: &str| judge(200, body.as_bytes()).unwrap().life.as_secs();
        assert_eq!(life(r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#), 3600);
        assert_eq!(life(r#"{"access_token":"a","token_type":"Bearer","expires_in":"60","x":1}"#), 60);
        assert_eq!(life(r#"{"access_token":"a","token_type":"Bearer"}"#), 300);
        assert_eq!(life(r#"{"access_token":"a","token_type":"Bearer","expires_in":-1}"#), 300);
        assert_eq!(life(r#"{"access_token":"a","token_type":"Bearer","expires_in":1e300}"#), 86_400);
    }

    #[test]
    fn what_is_no_grant_is_refused_without_repeating_it() {
        for body in [
            "",
            "null",
            "{}",
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a\nb","token_type":"Bearer"}"#,
            r#"{"access_token":"secret","token_type":"mac"}"#,
        ] {
            let error = judge(200, body.as_bytes()).unwrap_err();
            assert!(matches!(error, TokenError::Unusable(_)) && !error.to_string().contains("secret"), "{body}");
        }
        let told = |body: &str| judge(400, body.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            told(r#"{"error":"invalid_client","error_description":"secret"}"#),
            "the token endpoint answered 400 invalid_client"
        );
        assert_eq!(told(r#"{"error":"<script>"}"#), "the token endpoint answered 400");
        assert_eq!(told("secret"), "the token endpoint answered 400");
    }

    #[test]
    fn the_request_is_that_of_the_standard_and_debug_output_shows_no_secret() {
        let tls = Tls::new(&[]).unwrap();
        let scopes = ["a".to_owned(), "b:c".to_owned()];
        let endpoint = TokenEndpoint::new("https://id.example.com/token", tls, ("me & you", "s:e%t"), &scopes).unwrap();
        assert_eq!(endpoint.body, "grant_type=client_credentials&scope=a+b%3Ac");
        let shown = endpoint.headers["authorization"].to_str().unwrap().to_owned();
        let decoded = BASE64.decode(shown.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(decoded, b"me+%26+you:s%3Ae%25t");
        assert!(!format!("{endpoint:?}{:?}", endpoint.headers).contains(&shown));
    }

    proptest! {
        #[test]
        fn any_answer_is_judged(status in 100_u16..1000, body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(token) = judge(status, &body) {
                prop_assert!(token.text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
