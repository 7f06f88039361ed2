//! How a source shows the upstream who it is, and whom it trusts.
//!
//! Owns the token that one source holds. Tokens come through the relay's own trust, requests go out with the source's own. Must
//! not know protocols. Spec: RFC 7617, RFC 6750, RFC 6749 §4.4.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::SourceContext;
use super::connection::{ConnectFault, UpstreamClient};
use super::reconnect::{Ending, EndingClass};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::SourceSpec;
use hookcast_core::model::subscription::Auth;
use hookcast_net::token::{TokenError, basic, bearer};

/// Where a token is asked for, and with what.
#[derive(Clone, Copy)]
pub struct TokenRequest<'a> {
    /// The token endpoint.
    pub url: &'a str,
    /// Id and secret.
    pub client: (&'a str, &'a str),
    /// What it is asked for.
    pub scopes: &'a [String],
    /// Certificates that are trusted besides those of the machine.
    pub ca_pem: Option<&'a str>,
}

/// Holds a secret.
impl std::fmt::Debug for TokenRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRequest").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The credentials of one source at work.
pub(super) struct Credentials {
    /// Asks for tokens.
    base: Arc<dyn UpstreamClient>,
    /// Why requests cannot go out with the source's own trust.
    fault: Option<ConnectFault>,
    held: Option<(HeaderValue, Timestamp)>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("fault", &self.fault).finish_non_exhaustive()
    }
}

/// What was put onto a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing that could be had anew.
    Fixed,
    /// A token that was held.
    HeldToken,
}

impl Credentials {
    /// Those of a source; its connections then have the trust and identity that it wants.
    pub(super) fn of(spec: &SourceSpec, context: &mut SourceContext) -> Self {
        let access = &spec.settings.access;
        let base = Arc::clone(&context.client);
        let identity = match access.auth.as_deref() {
            Some(Auth::Mtls { cert_pem, key_pem }) => Some((cert_pem.as_str(), key_pem.expose())),
            _ => None,
        };
        let mut fault = None;
        if access.ca_pem.is_some() || identity.is_some() {
            match base.with(access.ca_pem.as_deref(), identity) {
                Ok(own) => context.client = own,
                Err(error) => fault = Some(error),
            }
        }
        Self { base, fault, held: None }
    }

    /// Puts what the upstream wants to see onto a request.
    ///
    /// # Errors
    /// The [`Ending`] when there is no token, or the source's certificates cannot be used.
    pub(super) async fn show(&mut self, spec: &SourceSpec, headers: &mut HeaderMap, now: Timestamp) -> Result<Shown, Ending> {
        if let Some(fault) = &self.fault {
            return Err(Ending::new(EndingClass::Denied, fault.slug, fault.detail.clone()));
        }
        let access = &spec.settings.access;
        let (value, shown) = match access.auth.as_deref() {
            None | Some(Auth::Mtls { .. }) => return Ok(Shown::Fixed),
            Some(Auth::Basic { username, password }) => (basic(username, password.expose()), Shown::Fixed),
            Some(Auth::Bearer { token }) => (bearer(token.expose()), Shown::Fixed),
            Some(Auth::Oauth2 { token_url, client_id, client_secret, scopes }) => {
                let client = (client_id.as_str(), client_secret.expose());
                let request = TokenRequest { url: token_url, client, scopes, ca_pem: access.ca_pem.as_deref() };
                self.token(request, now).await?
            }
        };
        headers.insert(AUTHORIZATION, value);
        Ok(shown)
    }

    async fn token(&mut self, request: TokenRequest<'_>, now: Timestamp) -> Result<(HeaderValue, Shown), Ending> {
        if let Some((value, _)) = self.held.as_ref().filter(|(_, until)| now < *until) {
            return Ok((value.clone(), Shown::HeldToken));
        }
        let token = self.base.token(request).await.map_err(|error| {
            let class =
                if matches!(error, TokenError::Refused(400..=403, _)) { EndingClass::Denied } else { EndingClass::Failed };
            Ending::new(class, "auth", error.to_string())
        })?;
        let value = bearer(&token.text);
        self.held = Some((value.clone(), token.used_until(now)));
        Ok((value, Shown::Fixed))
    }

    /// Forgets a token that was refused.
    pub(super) fn refused(&mut self) {
        self.held = None;
    }
}
