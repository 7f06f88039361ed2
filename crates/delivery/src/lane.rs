//! One lane: a thread's share of the subscriptions, and the tasks that move it.
//!
//! The reader offers new pages, the feeder serves desks that lag, workers post, the timer wakes desks whose time has come, the
//! saver writes progress. All run on one arbiter and meet in a [`Floor`] between awaits; nothing is locked.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::attempt::{self, Address, Mark};
use super::bodies::Bodies;
use super::consent::ask::Identity;
use super::crew::{Crew, Taken};
use super::endings::Endings;
use super::floor::{Assignment, Floor};
use super::limits::LimitBook;
use super::metrics::LaneCounts;
use super::notice::Notice;
use super::parcel::Parcel;
use super::renderings::Renderings;
use super::steps::Steps;
use super::torn::Shared;
use super::{gathering, sorting};
use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::subscription::{Activity, Ordinal, PayloadForm, SubscriptionRecord};
use hookcast_core::model::{ErrorKind, Event, Outcome, Seq};
use hookcast_log::follow::Follow;
use hookcast_log::storage::{Ledger, StorageError};
use hookcast_net::client::WireClient;
use hookcast_net::tls::Tls;
use hookcast_registry::Registry;
use hookcast_supervise::{Panic, Supervisor, caught};

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
    /// Whether successful attempts are remembered.
    pub remembers_successes: bool,
    /// Limits that subscriptions share over all lanes.
    pub limits: Arc<LimitBook>,
    /// How the relay calls itself when it asks endpoints for their consent.
    pub identity: Identity,
    /// Where events are filled in that take long.
    pub renderings: Arc<Renderings>,
    /// Where notices go.
    pub notices: mpsc::Sender<Notice>,
    /// Who watches the lane's tasks.
    pub supervisor: Supervisor,
    /// Stops the lane.
    pub cancel: CancellationToken,
}

/// A lane's state as its tasks share it.
pub struct Lane {
    /// What it works with.
    pub context: LaneContext,
    /// What its tasks are called in the log and behind `/task/`.
    pub name: String,
    /// The desks.
    pub floor: Shared<Floor>,
    /// Totals that are shown as metrics.
    pub counts: LaneCounts,
    /// Wakes the feeder.
    pub hunger: Notify,
    /// Wakes whoever brings events to recovery jobs.
    pub replays: Notify,
    /// Wakes the saver.
    pub dirt: Notify,
    /// Wakes the timer task when an earlier time was set.
    pub alarm: Notify,
    /// Held by whoever saves.
    pub saving: tokio::sync::Mutex<()>,
    /// Subscriptions that endpoints disabled.
    pub endings: Rc<Endings>,
    /// Bodies of batches that were made lately.
    pub bodies: RefCell<Bodies>,
    client: WireClient,
    addresses: RefCell<Addresses>,
    crew: RefCell<Crew<(Assignment, Timestamp)>>,
    random: RefCell<fastrand::Rng>,
    begun: Instant,
    steps: Steps,
}

impl Lane {
    /// A lane over prepared desks.
    #[must_use]
    pub fn new(context: LaneContext, name: String, floor: Floor, client: WireClient) -> Rc<Self> {
        Rc::new(Self {
            context,
            endings: Endings::of_lane(&name),
            name,
            floor: Shared::new(floor),
            counts: LaneCounts::default(),
            hunger: Notify::new(),
            replays: Notify::new(),
            dirt: Notify::new(),
            alarm: Notify::new(),
            saving: tokio::sync::Mutex::default(),
            bodies: RefCell::default(),
            client,
            addresses: RefCell::default(),
            crew: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            begun: Instant::now(),
            steps: Steps::default(),
        })
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.context.clock.now();
        if !self.steps.is_smooth(now) {
            self.follow_clock(now);
        }
        now
    }

    /// Moves what is waited for when the wall clock was moved. While the floor is borrowed, the next look does.
    fn follow_clock(&self, now: Timestamp) {
        let Some(mut floor) = self.floor.try_borrow_mut() else { return self.steps.look_again() };
        let by_ms = self.steps.look(now, self.begun.elapsed());
        if by_ms != 0 {
            tracing::warn!(by_ms, "the wall clock was moved; what is waited for moves with it");
            floor.shift(by_ms);
            self.alarm.notify_one();
        }
    }

    /// Uniform in `0.0..1.0`.
    pub fn chance(&self) -> f64 {
        self.random.borrow_mut().f64()
    }

    /// Attempts in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.crew.borrow().in_flight()
    }

    /// Forgets the connections of origins that are no longer posted to, and what was prepared for subscriptions that are not.
    pub fn sweep_connections(&self) {
        self.client.sweep();
        self.addresses.borrow_mut().sweep(self.now());
        self.floor.borrow_mut().sieve.sweep();
        self.bodies.borrow_mut().clear();
    }

    /// Sees to it that somebody takes what is ready, and that timers, feeder and saver know what changed.
    pub fn stir(self: &Rc<Self>) {
        if self.floor.borrow().has_ready() {
            self.give_out(self.now());
        }
        self.tell();
    }

    /// Says that something could not be read and is tried again; a lane that ends tries nothing again, and its storage may be closed.
    pub fn tell_unread(&self, error: &StorageError, what: std::fmt::Arguments<'_>) {
        if !self.context.cancel.is_cancelled() {
            tracing::error!(%error, "{what} could not be read; trying again");
        }
    }

    /// Tells the saver and those who read notices what changed.
    fn tell(&self) {
        if self.floor.borrow().wants_save() {
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

    /// Gives everything that may go out now to workers, as far as there are any.
    fn give_out(self: &Rc<Self>, now: Timestamp) {
        while self.floor.borrow().has_ready() && self.crew.borrow().has_hands() {
            let Some(assignment) = self.next(now) else { return };
            let taken = self.crew.borrow_mut().give((assignment, now));
            if let Taken::New(number) = taken {
                let lane = Rc::clone(self);
                self.spawn("worker", async move { lane.work(number).await });
            }
        }
    }

    /// The next attempt to make, if there is one; none once the lane stops.
    fn next(self: &Rc<Self>, now: Timestamp) -> Option<Assignment> {
        if self.context.cancel.is_cancelled() || self.floor.is_torn() {
            return None;
        }
        let mut floor = self.floor.borrow_mut();
        let timer_before = floor.next_timer();
        let assignment = floor.next(now);
        if floor.next_timer() != timer_before {
            self.alarm.notify_one();
        }
        if std::mem::take(&mut floor.has_moved) {
            self.hunger.notify_one();
            drop(floor);
            sorting::begin(self);
        }
        assignment
    }

    /// Starts a task of this lane. Its panic is the lane's: what it was about may be half done.
    pub(super) fn spawn(&self, part: &str, task: impl Future<Output = ()> + 'static) {
        self.context.supervisor.essential(format!("{}/{part}", self.name), task).spawn_local();
    }

    /// One worker: takes an attempt, makes it, settles it, for ever.
    async fn work(self: Rc<Self>, number: usize) {
        let seat = Seat { crew: &self.crew, is_taken: Cell::new(false) };
        let mut next = None;
        loop {
            let (assignment, began) = match next.take() {
                Some(next) => next,
                None => poll_fn(|cx| self.crew.borrow_mut().poll_job(number, cx)).await,
            };
            seat.is_taken.set(true);
            let attempt = caught(pin!(self.attempt(&assignment, began))).await;
            let now = self.now();
            let (outcome, event) = attempt.unwrap_or_else(|panic| broken(&assignment, &panic, (began, now)));
            self.settle(&assignment, &outcome, event, (began, now));
            self.crew.borrow_mut().end();
            seat.is_taken.set(false);
            // What became free by this is taken by this worker; others are woken only for what there is besides.
            if let Some(assignment) = self.next(now) {
                self.crew.borrow_mut().go_on();
                next = Some((assignment, now));
                self.give_out(now);
            }
        }
    }

    /// Whether what was made of the event at `seq` earlier still holds: nothing there was purged since.
    pub(super) fn is_current(&self, seq: Seq) -> bool {
        seq > self.context.follow.purged_to()
    }

    async fn attempt(&self, assignment: &Assignment, began: Timestamp) -> (Outcome, Option<Event>) {
        if let Some(batch) = &assignment.job.batch {
            return (gathering::post(self, assignment, batch, began).await, None);
        }
        let parcel = match assignment.job.parcel.as_ref().filter(|_| self.is_current(assignment.job.seq)) {
            Some(parcel) => Rc::clone(parcel),
            None => match self.context.follow.get(assignment.job.seq).await {
                Ok(Some(event)) => Rc::new(Parcel::new(event)),
                Ok(None) => return (Outcome::event_gone(), None),
                Err(_) => return (Outcome::failed(ErrorKind::Storage, 0), None),
            },
        };
        let Some(address) = self.address(&assignment.record) else {
            return (Outcome::failed(ErrorKind::Protocol, 0), Some(parcel.event().clone()));
        };
        let log_id = self.context.follow.log_id();
        let mark = Mark::of(&assignment.job);
        let filled;
        let content = match (address.payload, &address.filled) {
            (PayloadForm::Binary, _) => parcel.binary(log_id),
            (PayloadForm::Template, Some(template)) => {
                match template.content(parcel.event(), log_id, (assignment.ordinal, &self.context.renderings)).await {
                    Ok(content) => {
                        filled = content;
                        &filled
                    }
                    Err(outcome) => return (outcome, Some(parcel.event().clone())),
                }
            }
            (PayloadForm::Structured | PayloadForm::Template, _) => parcel.structured(log_id),
        };
        let outcome = attempt::post(&self.client, &address, content, mark, began).await;
        // Only what is remembered of a failure needs the event.
        let event = (!outcome.is_success()).then(|| parcel.event().clone());
        (outcome, event)
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

    /// Takes an outcome in; `times` are when the attempt began and ended.
    fn settle(self: &Rc<Self>, assignment: &Assignment, outcome: &Outcome, event: Option<Event>, times: (Timestamp, Timestamp)) {
        self.counts.record(outcome);
        let effect = {
            let mut floor = self.floor.borrow_mut();
            let effect = floor.settle(assignment, event, outcome, times, self.chance());
            let hungry = floor.has_hungry();
            drop(floor);
            if hungry {
                self.hunger.notify_one();
            }
            if assignment.job.replay().is_some() {
                self.replays.notify_one();
            }
            effect
        };
        if !outcome.is_success() {
            tracing::debug!(subscription.id = %assignment.record.spec.id, event.seq = %assignment.job.seq,
                attempt.number = assignment.job.attempt, outcome = outcome.describe(), duration_ms = outcome.latency_ms,
                "attempt failed");
        }
        if let Some(reason) = effect.disable {
            self.disable(assignment, reason);
        }
        self.tell();
    }

    /// Sends nothing more at once; the registry stores and says it, unless another URL is there by now. A stop waits a while
    /// for that.
    fn disable(self: &Rc<Self>, assignment: &Assignment, reason: hookcast_core::model::subscription::DisabledReason) {
        let mut floor = self.floor.borrow_mut();
        let Some(stopped) = floor.stopped(assignment.ordinal, Activity::Disabled(reason)) else { return };
        let stopped = Arc::new(stopped);
        floor.redefine(&stopped);
        drop(floor);
        let (lane, ending, now) = (Rc::clone(self), self.endings.begin(), self.now());
        self.spawn("disabling", async move {
            if ending.store(&lane.context.registry, &stopped, reason, now).await {
                lane.floor.borrow_mut().notices.push(Notice::disabled(&stopped, reason.word()));
            }
            lane.tell();
        });
    }
}

/// What an attempt came to that panicked: it failed as any other may, and is nobody's fault but the relay's.
fn broken(assignment: &Assignment, panic: &Panic, times: (Timestamp, Timestamp)) -> (Outcome, Option<Event>) {
    Panic::count("attempt");
    tracing::error!(subscription.id = %assignment.record.spec.id, event.seq = %assignment.job.seq,
        attempt.number = assignment.job.attempt, %panic, "an attempt panicked; it counts as one that failed");
    let latency_ms = u32::try_from(times.1.since(times.0).as_millis()).unwrap_or(u32::MAX);
    let event = assignment.job.parcel.as_ref().map(|parcel| parcel.event().clone());
    (Outcome::failed(ErrorKind::Internal, latency_ms), event)
}

/// A worker's part of what is in flight, given back also when the worker panics.
struct Seat<'a> {
    crew: &'a RefCell<Crew<(Assignment, Timestamp)>>,
    is_taken: Cell<bool>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.is_taken.get() {
            self.crew.borrow_mut().end();
        }
    }
}
