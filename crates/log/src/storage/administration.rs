//! What must be kept of administration: tokens made over REST, and who did what.

use async_trait::async_trait;

use super::Result;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::administration::{Act, TokenRecord};

/// Acts that are kept; older ones go.
pub const ACTS_MAX: u64 = 100_000;

/// The tokens, and whether there ever was one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTokens {
    /// Those there are, by id.
    pub tokens: Vec<TokenRecord>,
    /// Whether a token was ever made: then tokens are asked for, also when all of them are gone.
    pub is_guarded: bool,
}

/// Tokens and acts.
#[async_trait]
pub trait Administration: Send + Sync {
    /// Every token.
    ///
    /// # Errors
    /// As the backend fails.
    async fn tokens(&self) -> Result<StoredTokens>;

    /// Stores tokens over those of their ids and removes those of the ids in `gone`, all of it or nothing.
    ///
    /// # Errors
    /// As the backend fails.
    async fn change_tokens(&self, stored: Vec<TokenRecord>, gone: Vec<String>) -> Result<()>;

    /// Notes acts, whose ids are given here, and forgets those beyond [`ACTS_MAX`] and some of those before `oldest`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn note(&self, acts: Vec<Act>, oldest: Timestamp) -> Result<()>;

    /// Acts behind the id `after` by id, at most `limit`.
    ///
    /// # Errors
    /// As the backend fails.
    async fn acts(&self, after: u64, limit: u32) -> Result<Vec<Act>>;
}
