//! One lane: a thread's share of the subscriptions, and the tasks that move it.
//!
//! The reader offers new pages, the feeder serves desks that lag, workers post, the timer wakes desks whose time has come, the
//! saver writes progress. All run on one arbiter and meet in a [`Floor`] between awaits; nothing is locked.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::attempt::{self, Address};
use super::floor::{Assignment, Floor};
use super::metrics::LaneCounts;
use super::notice::Notice;
use super::parcel::Parcel;
use super::policy;
use crate::clock::{Clock, Timestamp};
use crate::follow::Follow;
use crate::model::subscription::{Activity, Ordinal, PayloadForm, SubscriptionRecord};
use crate::model::{ErrorKind, Event, Outcome};
use crate::net::client::WireClient;
use crate::net::tls::Tls;
use crate::registry::Registry;
use crate::storage::Ledger;

/// Attempts that one lane makes at the same time.
pub const SLOTS_MAX: u32 = 4096;

/// Distance of tries to store that a subscription is disabled.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// What a lane works with.
#[derive(Clone)]
pub struct LaneContext {
    /// The log.
    pub follow: Follow,
    /// Where progress is kept.
    pub ledger: Arc<dyn Ledger>,
    /// Where a subscription is disabled.
    pub registry: Registry,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Trust for https endpoints.
    pub tls: Tls,
    /// Where notices go.
    pub notices: mpsc::Sender<Notice>,
    /// Stops the lane.
    pub cancel: CancellationToken,
}

/// A lane's state as its tasks share it.
pub struct Lane {
    /// What it works with.
    pub context: LaneContext,
    /// The desks.
    pub floor: RefCell<Floor>,
    /// Totals that are shown as metrics.
    pub counts: LaneCounts,
    /// Wakes the feeder.
    pub hunger: Notify,
    /// Wakes the saver.
    pub dirt: Notify,
    /// Wakes the timer task when an earlier time was set.
    pub alarm: Notify,
    /// Held by whoever saves.
    pub saving: tokio::sync::Mutex<()>,
    client: WireClient,
    addresses: RefCell<Addresses>,
    idle: RefCell<Vec<Waker>>,
    workers: RefCell<Workers>,
    random: RefCell<fastrand::Rng>,
}

#[derive(Debug, Default)]
struct Workers {
    started: u32,
    in_flight: u32,
}

impl Lane {
    /// A lane over prepared desks.
    #[must_use]
    pub fn new(context: LaneContext, floor: Floor, client: WireClient) -> Rc<Self> {
        Rc::new(Self {
            context,
            floor: RefCell::new(floor),
            counts: LaneCounts::default(),
            hunger: Notify::new(),
            dirt: Notify::new(),
            alarm: Notify::new(),
            saving: tokio::sync::Mutex::default(),
            client,
            addresses: RefCell::default(),
            idle: RefCell::default(),
            workers: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
        })
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// Uniform in `0.0..1.0`.
    pub fn chance(&self) -> f64 {
        self.random.borrow_mut().f64()
    }

    /// Attempts in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.workers.borrow().in_flight
    }

    /// Forgets the connections of origins that are no longer posted to, and what was prepared for subscriptions that are not.
    pub fn sweep_connections(&self) {
        self.client.sweep();
        self.addresses.borrow_mut().sweep();
    }

    /// Sees to it that somebody takes what is ready, and that timers, feeder and saver know what changed.
    pub fn stir(self: &Rc<Self>) {
        if self.floor.borrow().has_ready() {
            self.wake_worker();
        }
        if self.floor.borrow().journal.is_dirty() {
            self.dirt.notify_one();
        }
        self.speak();
    }

    /// Hands notices on; when nobody takes them in time they are counted and left out, for deliveries must not wait.
    fn speak(&self) {
        let mut floor = self.floor.borrow_mut();
        if floor.notices.is_empty() {
            return;
        }
        for notice in floor.notices.drain(..) {
            if self.context.notices.try_send(notice).is_err() {
                metrics::counter!("hookcast_notices_left_out_total").increment(1);
            }
        }
    }

    fn wake_worker(self: &Rc<Self>) {
        if let Some(waker) = self.idle.borrow_mut().pop() {
            waker.wake();
            return;
        }
        let mut workers = self.workers.borrow_mut();
        if workers.started < SLOTS_MAX {
            workers.started += 1;
            let lane = Rc::clone(self);
            actix_rt::spawn(async move { lane.work().await });
        }
    }

    /// One worker: takes an attempt, makes it, settles it, for ever.
    async fn work(self: Rc<Self>) {
        loop {
            let assignment = self.next_assignment().await;
            self.workers.borrow_mut().in_flight += 1;
            let began = self.now();
            let (outcome, event) = self.attempt(&assignment, began).await;
            self.settle(&assignment, &outcome, event, began);
            self.workers.borrow_mut().in_flight -= 1;
        }
    }

    async fn next_assignment(self: &Rc<Self>) -> Assignment {
        std::future::poll_fn(|cx| {
            if !self.context.cancel.is_cancelled() {
                let mut floor = self.floor.borrow_mut();
                let timer_before = floor.next_timer();
                let assignment = floor.next(self.now());
                if floor.next_timer() != timer_before {
                    self.alarm.notify_one();
                }
                let more = floor.has_ready();
                drop(floor);
                if let Some(assignment) = assignment {
                    if more {
                        self.wake_worker();
                    }
                    return Poll::Ready(assignment);
                }
            }
            self.idle.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn attempt(&self, assignment: &Assignment, began: Timestamp) -> (Outcome, Option<Event>) {
        let parcel = match &assignment.job.parcel {
            Some(parcel) => Rc::clone(parcel),
            None => match self.context.follow.get(assignment.job.seq).await {
                Ok(Some(event)) => Rc::new(Parcel::new(event)),
                Ok(None) => {
                    let word = Some(policy::NO_LONGER_KEPT.to_owned());
                    return (Outcome { word, ..attempt::failed(ErrorKind::Storage, 0) }, None);
                }
                Err(_) => return (attempt::failed(ErrorKind::Storage, 0), None),
            },
        };
        let Some(address) = self.address(&assignment.record) else {
            return (attempt::failed(ErrorKind::Protocol, 0), Some(parcel.event().clone()));
        };
        let log_id = self.context.follow.log_id();
        let content = match address.payload {
            PayloadForm::Binary => parcel.binary(log_id),
            PayloadForm::Structured => parcel.structured(log_id),
        };
        let outcome = attempt::post(&self.client, &address, content, assignment.job.attempt, began).await;
        (outcome, Some(parcel.event().clone()))
    }

    /// The prepared address of a definition, made again when the definition changed.
    pub fn address(&self, record: &SubscriptionRecord) -> Option<Rc<Address>> {
        self.addresses.borrow_mut().get(record, &self.context.tls)
    }

    /// The wire client, for pings.
    #[must_use]
    pub fn client(&self) -> &WireClient {
        &self.client
    }

    /// Forgets what was prepared for a removed subscription.
    pub fn forget_address(&self, ordinal: Ordinal) {
        self.addresses.borrow_mut().forget(ordinal);
    }

    fn settle(self: &Rc<Self>, assignment: &Assignment, outcome: &Outcome, event: Option<Event>, began: Timestamp) {
        self.counts.record(outcome);
        let effect = {
            let mut floor = self.floor.borrow_mut();
            let effect = floor.settle(assignment, event, outcome, (began, self.now()), self.chance());
            let hungry = floor.has_hungry();
            drop(floor);
            if hungry {
                self.hunger.notify_one();
            }
            effect
        };
        if !outcome.is_success() {
            tracing::debug!(subscription.id = %assignment.record.spec.id, event.seq = %assignment.job.seq,
                attempt.number = assignment.job.attempt, outcome = outcome.describe(), duration_ms = outcome.latency_ms,
                "attempt failed");
        }
        if let Some(reason) = effect.disable {
            tracing::warn!(subscription.id = %assignment.record.spec.id, ?reason, "subscription disabled by its receiver");
            self.disable(assignment, reason);
        }
        self.stir();
    }

    fn disable(self: &Rc<Self>, assignment: &Assignment, reason: crate::model::subscription::DisabledReason) {
        // The lane stops at once; the registry's own word of it follows when it is durable.
        let mut stopped = SubscriptionRecord::clone(&assignment.record);
        stopped.activity = Activity::Disabled(reason);
        let mut floor = self.floor.borrow_mut();
        floor.notices.extend(Notice::disabled(&stopped, reason.word()));
        floor.redefine(&Arc::new(stopped));
        drop(floor);
        let lane = Rc::clone(self);
        let (id, now) = (assignment.record.spec.id.clone(), self.now());
        let ordinal = assignment.ordinal;
        actix_rt::spawn(async move {
            let still_there = || lane.context.registry.get(id.as_str()).is_some_and(|record| record.ordinal == ordinal);
            while still_there() && !lane.context.cancel.is_cancelled() {
                match lane.context.registry.set_activity(&id, Activity::Disabled(reason), now).await {
                    Ok(_) => return,
                    Err(error) => {
                        tracing::error!(subscription.id = %id, %error, "the disabled state is not stored; trying again");
                    }
                }
                tokio::time::sleep(STORE_AGAIN).await;
            }
        });
    }
}
