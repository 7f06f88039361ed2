//! The relay as its commands see it: requests through the same gate as everything else, open to the one place named.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use url::Url;

use super::{EXIT_FAILED, Exit, RelayArgs};
use hookcast_net::dial::Gate;
use hookcast_net::fetch::{FetchError, FetchRequest, FetchResponse, Fetcher, HeaderMap, HeaderName, HeaderValue, Method};
use hookcast_net::socket::Socket;
use hookcast_net::tls::Tls;
use hookcast_net::{AllowEntry, EgressRules, ResolverChoice, Target};

/// Environment variable with the token for the relay.
const TOKEN_VARIABLE: &str = "HOOKCAST_TOKEN";
/// Longest wait for the head of an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Most of an answer that is kept.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A place somebody named on the command line: any address, http or https.
#[derive(Debug)]
pub(super) struct Place {
    fetcher: Fetcher,
    base: Url,
    headers: HeaderMap,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Place {
    /// Takes a URL; opens no connection yet.
    pub(super) fn new(url: &str) -> Result<Self, Exit> {
        let target = Target::parse(url).map_err(|error| failed(format!("{url}: {error}")))?;
        let port = target.port();
        let mut entries = vec![format!("0.0.0.0/0:{port}"), format!("[::/0]:{port}")];
        if target.url().domain().is_some() {
            entries.push(format!("{}:{port}", target.host()));
        }
        let allow: Result<Vec<AllowEntry>, _> = entries.iter().map(|entry| entry.parse()).collect();
        let allow = allow.map_err(|error| failed(format!("{url}: {error}")))?;
        let rules = EgressRules::new(allow, true, ResolverChoice::System, Vec::new());
        let gate = Gate::open(rules).map_err(|error| failed(error.to_string()))?;
        let tls = Tls::new(&[]).map_err(|error| failed(error.to_string()))?;
        Ok(Self { fetcher: Fetcher::new(gate, tls), base: target.url().clone(), headers: HeaderMap::new() })
    }

    /// The relay of `--url`, with the token of `--token` or the environment.
    pub(super) fn relay(args: &RelayArgs) -> Result<Self, Exit> {
        let mut relay = Self::new(&args.url)?;
        let token = args.token.clone().or_else(|| std::env::var(TOKEN_VARIABLE).ok()).filter(|token| !token.is_empty());
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| failed("the token holds characters that no token has"))?;
            value.set_sensitive(true);
            relay.headers.insert("authorization", value);
        }
        relay.headers.insert("user-agent", HeaderValue::from_static(concat!("hookcast/", env!("CARGO_PKG_VERSION"))));
        Ok(relay)
    }

    /// The URL named, with `segments` added to its path.
    pub(super) fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// What goes out with every request: the token, and who asks.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Connects, for what leaves HTTP behind.
    pub(super) async fn socket(&self, url: &Url) -> Result<Socket, FetchError> {
        let target = Target::parse(url.as_str()).map_err(|error| FetchError::Protocol(error.to_string()))?;
        Ok(self.fetcher.open(&target).await?)
    }

    /// The URL named.
    pub(super) fn url(&self) -> &Url {
        &self.base
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn open(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<FetchResponse, FetchError> {
        let target = Target::parse(url.as_str()).map_err(|error| FetchError::Protocol(error.to_string()))?;
        let mut all = self.headers.clone();
        for (name, value) in headers {
            let unusable = || FetchError::Protocol(format!("the header {name} cannot be sent"));
            let value = HeaderValue::from_str(value).map_err(|_| unusable())?;
            all.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?, value);
        }
        self.fetcher.fetch(FetchRequest { method, target: &target, headers: all, body, head_timeout: HEAD_TIMEOUT }).await
    }

    /// Posts and reads the answer, at most 64 MiB of it.
    pub(super) async fn post(&self, url: &Url, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, FetchError> {
        self.send(Method::POST, url, headers, body).await
    }

    /// Sends a request and reads the answer, at most 64 MiB of it.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, FetchError> {
        let mut response = self.open(method, url, headers, body).await?;
        let mut kept = BytesMut::new();
        let reading = async {
            while let Some(Ok(chunk)) = response.body.next_chunk().await {
                let room = ANSWER_BYTES_MAX - kept.len();
                kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if kept.len() == ANSWER_BYTES_MAX {
                    break;
                }
            }
        };
        // The status decides; a body that breaks off or lingers only shortens what is shown.
        let _ = tokio::time::timeout(HEAD_TIMEOUT, reading).await;
        Ok(Answer { status: response.status, headers: response.headers, body: kept.freeze() })
    }
}

/// What a refusal says, on one line: the `detail` of a problem, or the beginning of the body.
pub(super) fn refusal(status: u16, body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = problem["detail"]
        .as_str()
        .map_or_else(|| String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(), str::to_owned);
    format!("the relay answered {status}: {}", crate::telemetry::Foreign(detail.trim()))
}

/// A failure with the general exit code.
pub(super) fn failed(message: impl Into<String>) -> Exit {
    Exit::new(EXIT_FAILED, message)
}
