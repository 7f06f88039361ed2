//! The `WebSub` hub: callbacks that subscribe themselves to topics, for a while.
//!
//! Spec: WebSub, W3C Recommendation of 23 January 2018. A subscriber of the hub is an ordinary subscription with a lease, so
//! that retries, limits and dead letters are those of all. This file owns who may subscribe to what, how much of it may be
//! under way, and the end of leases; [`request`] reads, [`intent`] verifies. Knows nothing of HTTP servers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use url::Url;

use hookcast_core::clock::Clock;
use hookcast_core::model::subscription::parse::UrlJudge;
use hookcast_core::model::{PatternList, SubscriptionId, TopicPattern};
use hookcast_log::follow::Follow;
use hookcast_log::storage::StorageErrorKind;
use hookcast_net::fetch::Fetcher;
use hookcast_net::target::Target;
use hookcast_registry::{Registry, RegistryChange};
use hookcast_supervise::Supervisor;

pub mod intent;
pub mod leases;
pub mod pending;
pub mod request;

use leases::{Leases, end_of};
use pending::Pending;
use request::{Intent, Invalid, Mode, RequestRules};

/// Subscriptions that the hub makes, at most; beside `limits.subscriptions`.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Distance of tries to remove a subscription whose lease is over.
const REMOVE_AGAIN: Duration = Duration::from_secs(5);
/// Longest sleep of the task, in case the clock is set.
const SLEEP_MAX: Duration = Duration::from_hours(1);

/// What the operator says of the hub.
#[derive(Clone, Debug, Default)]
pub struct HubSettings {
    /// Topics that anybody may subscribe to; none = no hub.
    pub topics: Vec<TopicPattern>,
    /// Lease of a subscriber that names none.
    pub lease_default: Duration,
    /// Longest lease.
    pub lease_max: Duration,
    /// Where the relay is reached from outside, without a slash at its end; absent = as the request says.
    pub public_url: Option<String>,
}

/// What the hub works with.
#[derive(Clone)]
pub struct HubContext {
    /// Where its subscriptions are kept.
    pub registry: Registry,
    /// The log, for where a new subscription starts.
    pub follow: Follow,
    /// Decides which callbacks may be dialled.
    pub urls: Arc<dyn UrlJudge + Send + Sync>,
    /// The way out.
    pub fetcher: Fetcher,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// `timeout` of its subscriptions.
    pub timeout: Duration,
    /// `max_in_flight` of its subscriptions.
    pub max_in_flight: u32,
    /// Most subscriptions of the relay.
    pub subscriptions_max: usize,
    /// Who watches the tasks of the hub.
    pub supervisor: Supervisor,
    /// Ends the hub.
    pub cancel: CancellationToken,
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// It cannot be understood.
    Invalid(Invalid),
    /// Too much is under way.
    Busy,
}

/// The hub.
pub struct Hub {
    settings: HubSettings,
    /// Path of the public URL.
    base_path: String,
    context: HubContext,
    pending: Pending,
    leases: Mutex<Leases>,
    /// Held by whoever makes, renews or ends a subscription.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a request is called while its callback is asked.
const ERRAND: &str = "websub-request";

impl Hub {
    /// Starts the hub, which also ends leases that were given before; without topics it does only that.
    #[must_use]
    pub fn start(settings: HubSettings, context: HubContext) -> Arc<Self> {
        let (records, changes, _) = context.registry.listen();
        let base_path = settings.public_url.as_deref().and_then(|url| Url::parse(url).ok());
        let base_path = base_path.map(|url| url.path().trim_end_matches('/').to_owned()).unwrap_or_default();
        let mut leases = Leases::default();
        for record in &records {
            leases.see(record);
        }
        let (pending, turn) = (Pending::default(), tokio::sync::Mutex::default());
        let hub = Arc::new(Self { settings, base_path, context, pending, leases: Mutex::new(leases), turn });
        let (ending, mut listening) = (Arc::clone(&hub), Some(changes));
        let end = async move || {
            let changes = listening.take().unwrap_or_else(|| {
                let (records, changes, _) = ending.context.registry.listen();
                for record in &records {
                    ending.leases().see(record);
                }
                changes
            });
            ending.end_leases(changes).await;
        };
        hub.context.supervisor.restarted("websub-leases", end).spawn();
        hub
    }

    /// Whether there is anything to subscribe to.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.settings.topics.is_empty()
    }

    /// Whether anybody may subscribe to everything that these choose.
    #[must_use]
    pub fn offers(&self, patterns: &PatternList) -> bool {
        let offered = &self.settings.topics;
        patterns.patterns().iter().all(|wanted| offered.iter().any(|pattern| pattern.covers(wanted)))
    }

    /// The value of the `Link` header of what tells of these topics; `seen_at` is the URL under which a request reached the
    /// relay, without a path, if that is known. `None` for topics that are not offered.
    #[must_use]
    pub fn discovery(&self, patterns: &PatternList, seen_at: Option<&str>) -> Option<String> {
        let base = self.settings.public_url.as_deref().or(seen_at)?;
        self.offers(patterns).then(|| self.link(base, &format!("{base}/v1/topics/{patterns}")))
    }

    /// `Link` of a hub below `base` and a topic (WebSub section 4, RFC 8288).
    fn link(&self, base: &str, topic: &str) -> String {
        let base = self.settings.public_url.as_deref().unwrap_or(base);
        format!("<{base}/websub>; rel=\"hub\", <{topic}>; rel=\"self\"")
    }

    /// Takes a request: the form's bytes. What it asks for happens later, if the callback confirms it.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is sent then.
    pub fn submit(self: &Arc<Self>, form: &[u8]) -> Result<(), SubmitError> {
        let rules = RequestRules {
            base_path: &self.base_path,
            urls: self.context.urls.as_ref(),
            lease_default: self.settings.lease_default,
            lease_max: self.settings.lease_max,
        };
        let intent = request::read(form, &rules).map_err(SubmitError::Invalid)?;
        let id = intent::subscription_id(&intent.callback, &intent.patterns);
        let is_there = self.context.registry.get(id.as_str()).is_some_and(|record| record.websub.is_some());
        if intent.mode == Mode::Unsubscribe && !is_there && !self.pending.has(&id) {
            // Nothing to end, and nobody to be bothered with it.
            return Ok(());
        }
        let host = Target::parse(&intent.callback).map(|target| target.host().to_string()).unwrap_or_default();
        let place = self.pending.enter(&id, &host).ok_or(SubmitError::Busy)?;
        let supervisor = &self.context.supervisor;
        match self.refusal(&intent, is_there) {
            Some(reason) => drop(supervisor.single(ERRAND, Arc::clone(self).deny(intent, reason, place)).spawn()),
            None => drop(supervisor.single(ERRAND, Arc::clone(self).settle(intent, id, place)).spawn()),
        }
        Ok(())
    }

    /// Why a subscriber that asked well gets nothing.
    fn refusal(&self, intent: &Intent, is_there: bool) -> Option<&'static str> {
        if intent.mode == Mode::Unsubscribe {
            return None;
        }
        let is_full = self.leases().len() >= SUBSCRIPTIONS_MAX || self.context.registry.len() >= self.context.subscriptions_max;
        match self.offers(&intent.patterns) {
            false => Some("this hub does not offer the topic"),
            true if is_full && !is_there => Some("this hub has as many subscriptions as it may have"),
            true => None,
        }
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end_leases(&self, mut changes: UnboundedReceiver<RegistryChange>) {
        loop {
            let now = self.context.clock.now();
            loop {
                let Some(id) = self.leases().take_over(now) else { break };
                self.end(&id).await;
            }
            let next = self.leases().next_end();
            let wait = next.map(|end| end.since(self.context.clock.now()).clamp(Duration::from_millis(1), SLEEP_MAX));
            tokio::select! {
                change = changes.recv() => match change {
                    Some(RegistryChange::Put { record, .. }) => self.leases().see(&record),
                    Some(RegistryChange::Removed { id, .. }) => self.leases().forget(&id),
                    None => return,
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = self.context.cancel.cancelled() => return,
            }
        }
    }

    /// Removes a subscription that is over; one that was renewed in the meantime stays.
    async fn end(&self, id: &SubscriptionId) {
        let _turn = self.turn.lock().await;
        let now = self.context.clock.now();
        let Some(record) = self.context.registry.get(id.as_str()) else { return };
        if end_of(&record).is_none_or(|end| end > now) {
            return;
        }
        match self.context.registry.delete(&record).await {
            // Changed meanwhile: that was announced, and its end is looked at once more.
            Err(error) if error.kind == StorageErrorKind::Conflict => {}
            Ok(_) => tracing::info!(subscription.id = %id, "the lease of a WebSub subscriber is over"),
            Err(error) => {
                tracing::error!(subscription.id = %id, %error, "a WebSub subscription that is over is not removed; trying again");
                self.leases().set(id.clone(), now.plus(REMOVE_AGAIN));
            }
        }
    }
}
