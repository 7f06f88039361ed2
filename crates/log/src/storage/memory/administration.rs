//! Tokens and acts in memory.

use async_trait::async_trait;

use super::Memory;
use crate::storage::{ACTS_MAX, Administration, Result, StoredTokens, limit_of};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::administration::{Act, TokenRecord};

#[async_trait]
impl Administration for Memory {
    async fn tokens(&self) -> Result<StoredTokens> {
        let state = self.state();
        Ok(StoredTokens { tokens: state.tokens.values().cloned().collect(), is_guarded: state.is_guarded })
    }

    async fn change_tokens(&self, stored: Vec<TokenRecord>, gone: Vec<String>) -> Result<()> {
        let state = &mut *self.state();
        state.is_guarded |= !stored.is_empty();
        state.tokens.extend(stored.into_iter().map(|record| (record.id.clone(), record)));
        for id in gone {
            state.tokens.remove(&id);
        }
        Ok(())
    }

    async fn note(&self, acts: Vec<Act>, oldest: Timestamp) -> Result<()> {
        let state = &mut *self.state();
        for act in acts {
            state.acts_noted += 1;
            state.acts.push_back(Act { id: state.acts_noted, ..act });
        }
        while state.acts.len() as u64 > ACTS_MAX || state.acts.front().is_some_and(|act| act.at < oldest) {
            state.acts.pop_front();
        }
        Ok(())
    }

    async fn acts(&self, after: u64, limit: u32) -> Result<Vec<Act>> {
        let state = self.state();
        Ok(state.acts.iter().filter(|act| act.id > after).take(limit_of(limit)).cloned().collect())
    }
}
