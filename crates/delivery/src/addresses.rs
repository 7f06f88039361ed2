//! What is prepared for the subscriptions that a lane posts for, and forgotten for those it has not posted for lately.
//!
//! A prepared address is several times as large as a definition, so a subscription that sleeps does without. It does not post.

use std::collections::HashMap;
use std::rc::Rc;

use super::attempt::Address;
use super::tokens::Tokens;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_net::tls::Tls;

#[derive(Debug)]
struct Prepared {
    revision: u64,
    address: Rc<Address>,
    /// Whether it was asked for since the last sweep.
    used: bool,
}

/// The prepared addresses of a lane, and the tokens that they show.
#[derive(Debug, Default)]
pub struct Addresses {
    prepared: HashMap<Ordinal, Prepared>,
    tokens: Tokens,
}

impl Addresses {
    /// The address of a definition, made again when the definition changed; `None` when a stored one does not read any more.
    pub fn get(&mut self, record: &SubscriptionRecord, tls: &Tls) -> Option<Rc<Address>> {
        if let Some(known) = self.prepared.get_mut(&record.ordinal)
            && known.revision == record.revision
        {
            known.used = true;
            return Some(Rc::clone(&known.address));
        }
        match Address::of(&record.spec, tls, &mut self.tokens) {
            Ok(mut address) => {
                if record.websub.is_some() {
                    address.sign_for_websub();
                }
                let address = Rc::new(address);
                let prepared = Prepared { revision: record.revision, address: Rc::clone(&address), used: true };
                self.prepared.insert(record.ordinal, prepared);
                Some(address)
            }
            Err(error) => {
                tracing::error!(subscription.id = %record.spec.id, %error, "a stored subscription cannot be addressed");
                None
            }
        }
    }

    /// Forgets a subscription that was removed.
    pub fn forget(&mut self, ordinal: Ordinal) {
        if let Some(filled) = self.prepared.remove(&ordinal).as_ref().and_then(|gone| gone.address.filled.as_deref()) {
            filled.retire();
        }
    }

    /// Forgets what was not asked for since the last sweep; a token that is good is kept.
    pub fn sweep(&mut self, now: Timestamp) {
        self.prepared.retain(|_, prepared| std::mem::take(&mut prepared.used));
        if self.prepared.capacity() > 4 * self.prepared.len().max(64) {
            self.prepared.shrink_to_fit();
        }
        self.tokens.sweep(now);
    }
}
