//! Proof of consent: endpoints that must agree before the first delivery are asked, again and again until they do.
//!
//! One task for all of them, beside the lanes: a subscription that need not be asked costs nothing here. What an endpoint
//! agreed to is stored in its record through the registry, and the lane hears of it from there. `plan` says who is due, `ask`
//! sends one question, `callback` is the way to agree later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::Attempt;
use hookcast_core::model::subscription::{Consent, SubscriptionRecord};
use hookcast_log::storage::StorageError;
use hookcast_registry::{Registry, RegistryChange};
use hookcast_supervise::{Supervisor, caught};

pub mod ask;
pub mod callback;
pub mod plan;

use ask::{Asked, Asker, HeldToken};
use plan::{Plan, Round};

pub use plan::Verification;

/// Endpoints that are asked at the same time.
pub const ASKED_AT_ONCE_MAX: usize = 32;
/// Longest sleep of the task while somebody waits to be asked: so soon it notices that the clock was moved.
const SLEEP_MAX: Duration = Duration::from_secs(2);

/// Who asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Consents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    asker: Asker,
    clock: Arc<dyn Clock>,
    begun: Instant,
    plan: Mutex<Plan>,
    /// Held by every question on its way.
    turns: Arc<Semaphore>,
    /// Wakes the task when a turn is free or somebody is due at another time.
    wake: Notify,
    supervisor: Supervisor,
    cancel: CancellationToken,
}

impl Consents {
    /// Starts to ask whoever has to be asked, until `cancel` is cancelled.
    #[must_use]
    pub fn start(
        registry: &Registry,
        asker: Asker,
        clock: Arc<dyn Clock>,
        supervisor: &Supervisor,
        cancel: CancellationToken,
    ) -> Self {
        let (records, changes, _) = registry.listen();
        let consents = Self(Arc::new(Inner {
            registry: registry.clone(),
            asker,
            clock,
            begun: Instant::now(),
            plan: Mutex::default(),
            turns: Arc::new(Semaphore::new(ASKED_AT_ONCE_MAX)),
            wake: Notify::new(),
            supervisor: supervisor.clone(),
            cancel,
        }));
        consents.see_all(&records);
        let (asking, mut listening) = (consents.clone(), Some(changes));
        let ask = async move || {
            let changes = listening.take().unwrap_or_else(|| {
                let (records, changes, _) = asking.0.registry.listen();
                asking.see_all(&records);
                changes
            });
            asking.keep_asking(changes).await;
        };
        supervisor.restarted("verification", ask).spawn();
        consents
    }

    /// How the asking of a subscription stands.
    #[must_use]
    pub fn verification(&self, record: &SubscriptionRecord) -> Verification {
        let agreed_at = record.consent.as_deref().filter(|_| record.is_verified()).map(|consent| consent.at);
        let standing = self.0.plan().standing(record.ordinal).filter(|_| agreed_at.is_none());
        standing.unwrap_or(Verification { last_attempt_at: agreed_at, ..Verification::default() })
    }

    /// Asks now, whatever was agreed and whenever it is due; an endpoint that agreed before keeps what it agreed to if it
    /// does not answer well now.
    pub async fn ask(&self, record: &Arc<SubscriptionRecord>) -> Attempt {
        let _turn = self.0.turns.acquire().await;
        let asked = self.0.ask(record, None).await;
        if let Some(error) = asked.attempt.error.as_ref().filter(|_| !asked.is_own_fault()) {
            self.0.plan().note(record.ordinal, error.clone(), asked.attempt.at);
        }
        asked.attempt
    }

    /// Takes the consent of an endpoint that gave it by [`callback`]: so many deliveries a minute, or any number.
    ///
    /// # Errors
    /// As the catalog fails.
    pub async fn agree(&self, record: &Arc<SubscriptionRecord>, per_minute: Option<u32>) -> Result<(), StorageError> {
        self.0.grant(record, per_minute, self.0.clock.now()).await
    }

    fn see_all(&self, records: &[Arc<SubscriptionRecord>]) {
        let now = self.0.clock.now();
        for record in records {
            self.0.plan().see(record, now);
        }
    }

    async fn keep_asking(&self, mut changes: UnboundedReceiver<RegistryChange>) {
        let inner = &self.0;
        loop {
            while let Some((turn, round)) = inner.next_round() {
                let asking = Arc::clone(inner);
                let ask = async move {
                    asking.make(&round).await;
                    drop(turn);
                    asking.wake.notify_one();
                };
                inner.supervisor.single("verification/question", ask).spawn();
            }
            let due = inner.sleep();
            tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Some(RegistryChange::Put { record, .. }) => inner.plan().see(&record, inner.clock.now()),
                    Some(RegistryChange::Removed { ordinal, .. }) => inner.plan().forget(ordinal),
                    None => return,
                },
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
                () = inner.wake.notified() => {}
                () = inner.cancel.cancelled() => return,
            }
        }
    }
}

impl Inner {
    /// The plan, by the clock as it is set now.
    fn plan(&self) -> MutexGuard<'_, Plan> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.follow(self.clock.now(), self.begun.elapsed());
        plan
    }

    /// Whoever is due, when there is a turn for it.
    fn next_round(&self) -> Option<(OwnedSemaphorePermit, Round)> {
        let turn = Arc::clone(&self.turns).try_acquire_owned().ok()?;
        let round = self.plan().take(self.clock.now())?;
        Some((turn, round))
    }

    /// Time until somebody is due; none while nobody is, or while there is no turn anyway.
    fn sleep(&self) -> Option<Duration> {
        let at = self.plan().next_due().filter(|_| self.turns.available_permits() > 0)?;
        // Never a spin: timers are no finer than this.
        Some(at.since(self.clock.now()).clamp(Duration::from_millis(1), SLEEP_MAX))
    }

    async fn make(&self, round: &Round) {
        let asked = tokio::select! {
            biased;
            asked = self.ask(&round.record, round.token.clone()) => asked,
            () = self.cancel.cancelled() => return,
        };
        if asked.is_own_fault() {
            self.plan().postpone(round, asked.token, self.clock.now(), fastrand::f64());
        } else if let Some(error) = asked.attempt.error {
            tracing::info!(subscription.id = %round.record.spec.id, error, "the endpoint did not agree to deliveries");
            let times = (asked.attempt.at, self.clock.now());
            self.plan().settle(round, error, times, fastrand::f64());
        }
    }

    /// As [`Inner::ask_and_store`]; a question that panics failed as any other may.
    async fn ask(&self, record: &Arc<SubscriptionRecord>, token: Option<HeldToken>) -> Asked {
        // In a box: questions are rare, and who asks need not be as large.
        caught(Box::pin(self.ask_and_store(record, token))).await.unwrap_or_else(|panic| {
            panic.tell("verification/question", "it counts as one that failed");
            Asked::broken(self.clock.now())
        })
    }

    /// Asks, and stores what was agreed to; what cannot be stored was not agreed to.
    async fn ask_and_store(&self, record: &Arc<SubscriptionRecord>, token: Option<HeldToken>) -> Asked {
        let now = self.clock.now();
        let mut asked = self.asker.ask(record, token, now).await;
        if let Ok(per_minute) = asked.verdict
            && let Err(error) = self.grant(record, per_minute, now).await
        {
            tracing::error!(subscription.id = %record.spec.id, %error, "the consent of an endpoint is not stored");
            "failure".clone_into(&mut asked.attempt.outcome);
            asked.attempt.error = Some("storage".to_owned());
        }
        asked
    }

    async fn grant(&self, record: &Arc<SubscriptionRecord>, per_minute: Option<u32>, now: Timestamp) -> Result<(), StorageError> {
        let spec = &record.spec;
        let consent = Consent { url: spec.url.clone(), verify: spec.verify, at: now, per_minute };
        let agreed = self.registry.change(record, move |present: &SubscriptionRecord| {
            // Another endpoint than the one that was asked has agreed to nothing.
            consent.is_for(&present.spec).then(|| SubscriptionRecord { consent: Some(Box::new(consent)), ..present.clone() })
        });
        agreed.await.map(|_| ())
    }
}
