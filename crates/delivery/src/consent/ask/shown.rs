//! What a question shows of who asks, besides its signatures: the same as deliveries do.
//!
//! A token is fetched for each question, and kept only for one that could not be asked.

use std::time::Duration;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Auth, SubscriptionSpec};
use hookcast_net::dial::Gate;
use hookcast_net::fetch::{HeaderMap, HeaderValue};
use hookcast_net::shortage::Shortage;
use hookcast_net::tls::Tls;
use hookcast_net::token::{TokenEndpoint, TokenError, basic, bearer};

/// What a token endpoint gave for a question, in the form in which it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldToken {
    value: HeaderValue,
    until: Timestamp,
}

impl HeldToken {
    /// Whether it can still be shown.
    pub(super) fn is_good(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

#[cfg(test)]
impl HeldToken {
    /// One that is shown as this.
    pub(in crate::consent) fn of(value: &'static str, until: Timestamp) -> Self {
        Self { value: HeaderValue::from_static(value), until }
    }
}

/// Why there is nothing to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The relay lacked what it takes to ask for a token.
    Own(Shortage),
    /// There is no token to be had.
    Token,
    /// The definition cannot be put into a request.
    Unusable,
}

/// Puts into `headers` what the relay shows the endpoint besides signatures, as in deliveries: a token that is held, or is held
/// from now on.
pub(super) async fn authorize(
    (gate, tls): (&Gate, &Tls),
    spec: &SubscriptionSpec,
    now: Timestamp,
    held: &mut Option<HeldToken>,
    headers: &mut HeaderMap,
) -> Result<(), Missing> {
    let value = match spec.auth.as_deref() {
        None | Some(Auth::Mtls { .. }) => return Ok(()),
        Some(Auth::Basic { username, password }) => basic(username, password.expose()),
        Some(Auth::Bearer { token }) => bearer(token.expose()),
        Some(Auth::Oauth2 { token_url, client_id, client_secret, scopes }) => {
            let held = if let Some(held) = held {
                held
            } else {
                let tls = match spec.ca_pem.as_deref() {
                    Some(ca) => tls.also(ca).map_err(|_| Missing::Unusable)?,
                    None => tls.clone(),
                };
                let client = (client_id.as_str(), client_secret.expose());
                let endpoint = TokenEndpoint::new(token_url, tls, client, scopes).map_err(|_| Missing::Unusable)?;
                held.insert(fetch(&endpoint, gate, spec.timeout, now).await?)
            };
            held.value.clone()
        }
    };
    headers.insert("authorization", value);
    Ok(())
}

async fn fetch(endpoint: &TokenEndpoint, gate: &Gate, limit: Duration, now: Timestamp) -> Result<HeldToken, Missing> {
    let token = endpoint.fetch(gate, limit).await.map_err(|error| match error {
        TokenError::Own(shortage) => Missing::Own(shortage),
        _ => Missing::Token,
    })?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.text)).map_err(|_| Missing::Token)?;
    value.set_sensitive(true);
    Ok(HeldToken { value, until: token.used_until(now) })
}
