//! Bearer tokens that a lane holds: fetched by one for all that need the same, used until shortly before their end.
//!
//! `net/token.rs` asks for them. This file keeps them, and lets those who come meanwhile wait for the one request that is under
//! way; what came of it, be it a failure, holds for all who waited.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;

use hookcast_core::clock::Timestamp;
use hookcast_net::client::AuthKey;
use hookcast_net::dial::Gate;
use hookcast_net::token::{TokenEndpoint, TokenError};
use hookcast_supervise::deadline::within;

/// Credentials whose tokens a lane keeps; those beyond are asked for by each subscription on its own.
pub const TOKEN_SOURCES_MAX: usize = 4096;

/// Where the tokens of one set of credentials come from, and the one that is good now.
pub struct TokenSource {
    endpoint: TokenEndpoint,
    held: RefCell<Option<Held>>,
    /// Held by whoever asks the endpoint.
    turn: Mutex<()>,
    /// Requests that have ended.
    ended: Cell<u64>,
    failure: RefCell<Option<TokenError>>,
}

struct Held {
    text: Rc<str>,
    until: Timestamp,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl TokenSource {
    /// A source that holds nothing yet.
    #[must_use]
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { endpoint, held: RefCell::default(), turn: Mutex::default(), ended: Cell::new(0), failure: RefCell::default() }
    }

    /// The token to show now, fetched if there is none; takes at most `limit`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn token(&self, gate: &Gate, now: Timestamp, limit: Duration) -> Result<Rc<str>, TokenError> {
        if let Some(text) = self.good(now) {
            return Ok(text);
        }
        let ended = self.ended.get();
        let fetching = async {
            let _turn = self.turn.lock().await;
            if let Some(text) = self.good(now) {
                return Ok(text);
            }
            if let Some(failure) = self.failure.borrow().clone()
                && self.ended.get() != ended
            {
                return Err(failure);
            }
            let fetched = self.endpoint.fetch(gate, limit).await;
            self.ended.set(self.ended.get() + 1);
            *self.failure.borrow_mut() = fetched.as_ref().err().cloned();
            let token = fetched?;
            let until = token.used_until(now);
            let text: Rc<str> = token.text.into();
            *self.held.borrow_mut() = Some(Held { text: Rc::clone(&text), until });
            Ok(text)
        };
        within(limit, fetching).await.unwrap_or(Err(TokenError::Timeout))
    }

    /// Forgets a token that was refused, unless another has taken its place.
    pub fn refuse(&self, text: &Rc<str>) {
        let mut held = self.held.borrow_mut();
        if held.as_ref().is_some_and(|held| Rc::ptr_eq(&held.text, text)) {
            *held = None;
        }
    }

    fn good(&self, now: Timestamp) -> Option<Rc<str>> {
        self.held.borrow().as_ref().filter(|held| now < held.until).map(|held| Rc::clone(&held.text))
    }
}

/// The sources of a lane.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<AuthKey, Rc<TokenSource>>);

impl Tokens {
    /// The source for these credentials, made on first use.
    ///
    /// # Errors
    /// Whatever `make` gives.
    pub fn source<E>(&mut self, key: &AuthKey, make: impl FnOnce() -> Result<TokenEndpoint, E>) -> Result<Rc<TokenSource>, E> {
        if let Some(known) = self.0.get(key) {
            return Ok(Rc::clone(known));
        }
        let source = Rc::new(TokenSource::new(make()?));
        if self.0.len() < TOKEN_SOURCES_MAX {
            self.0.insert(key.clone(), Rc::clone(&source));
        }
        Ok(source)
    }

    /// Forgets what nobody uses and holds no good token.
    pub fn sweep(&mut self, now: Timestamp) {
        self.0.retain(|_, source| Rc::strong_count(source) > 1 || source.good(now).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_net::tls::Tls;
    use hookcast_net::token::MARGIN;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn endpoint() -> Result<TokenEndpoint, hookcast_net::TargetError> {
        TokenEndpoint::new("https://id.example.com/", Tls::new(&[]).unwrap(), ("a", "b"), &[])
    }

    fn holding(source: &TokenSource, text: &str, until: Timestamp) -> Rc<str> {
        let text: Rc<str> = text.into();
        *source.held.borrow_mut() = Some(Held { text: Rc::clone(&text), until });
        text
    }

    #[test]
    fn a_refused_token_is_forgotten_but_not_its_successor() {
        let source = TokenSource::new(endpoint().unwrap());
        let first = holding(&source, "first", NOW.plus(MARGIN));
        assert_eq!(source.good(NOW).as_deref(), Some("first"));
        source.refuse(&first);
        assert_eq!(source.good(NOW), None);
        holding(&source, "second", NOW.plus(MARGIN));
        source.refuse(&first);
        assert_eq!(source.good(NOW).as_deref(), Some("second"));
        assert_eq!(source.good(NOW.plus(MARGIN)), None);
        assert!(!format!("{source:?}").contains("second"));
    }

    #[test]
    fn a_good_token_outlives_its_user_and_a_bad_one_does_not() {
        let mut tokens = Tokens::default();
        let key = AuthKey::of(&["a"]);
        let source = tokens.source(&key, endpoint).unwrap();
        tokens.sweep(NOW);
        assert!(Rc::ptr_eq(&source, &tokens.source(&key, endpoint).unwrap()), "it is in use");
        holding(&source, "t", NOW.plus(MARGIN));
        drop(source);
        tokens.sweep(NOW);
        assert_eq!(tokens.0.len(), 1);
        tokens.sweep(NOW.plus(MARGIN));
        assert_eq!(tokens.0.len(), 0);
    }
}
