//! What a relay stands on.

use std::sync::Arc;

use hookcast_core::clock::Clock;
use hookcast_log::storage::Store;
use hookcast_supervise::readiness::Readiness;

/// What a relay stands on: given by whoever starts it over a store of their own.
#[derive(Debug)]
pub struct Foundation {
    /// Where everything is kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the store, and everything else, says that it cannot go on.
    pub readiness: Readiness,
}
