//! What is prepared for the subscriptions that a lane posts for, and forgotten for those it has not posted for lately.
//!
//! A prepared address is several times as large as a definition, so a subscription that sleeps does without. It does not post.

use std::collections::HashMap;
use std::rc::Rc;

use super::attempt::Address;
use crate::model::subscription::{Ordinal, SubscriptionRecord};
use crate::net::tls::Tls;

#[derive(Debug)]
struct Prepared {
    revision: u64,
    address: Rc<Address>,
    /// Whether it was asked for since the last sweep.
    used: bool,
}

/// The prepared addresses of a lane.
#[derive(Debug, Default)]
pub struct Addresses(HashMap<Ordinal, Prepared>);

impl Addresses {
    /// The address of a definition, made again when the definition changed; `None` when a stored one does not read any more.
    pub fn get(&mut self, record: &SubscriptionRecord, tls: &Tls) -> Option<Rc<Address>> {
        if let Some(known) = self.0.get_mut(&record.ordinal)
            && known.revision == record.revision
        {
            known.used = true;
            return Some(Rc::clone(&known.address));
        }
        match Address::of(&record.spec, tls) {
            Ok(mut address) => {
                if record.websub.is_some() {
                    address.sign_for_websub();
                }
                let address = Rc::new(address);
                let prepared = Prepared { revision: record.revision, address: Rc::clone(&address), used: true };
                self.0.insert(record.ordinal, prepared);
                Some(address)
            }
            Err(error) => {
                tracing::error!(subscription.id = %record.spec.id, %error, "a stored subscription cannot be addressed");
                None
            }
        }
    }

    /// Forgets a subscription.
    pub fn forget(&mut self, ordinal: Ordinal) {
        self.0.remove(&ordinal);
    }

    /// Forgets what was not asked for since the last sweep.
    pub fn sweep(&mut self) {
        self.0.retain(|_, prepared| std::mem::take(&mut prepared.used));
        if self.0.capacity() > 4 * self.0.len().max(64) {
            self.0.shrink_to_fit();
        }
    }
}
