//! Deliveries: every subscription is a durable cursor over the log whose writer is a POST.
//!
//! Subscriptions are spread over lanes, one thread each. This file starts and stops the lanes and brings changes and questions
//! to the right one; a lane itself is [`lane`]. It knows the log, the ledger and the registry, and nothing of HTTP servers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use hookcast_core::model::subscription::{Activity, Ordinal, PARTITIONS, SubscriptionRecord};
use hookcast_log::storage::{Lease, StorageError, StorageErrorKind};
use hookcast_net::dial::Gate;
use hookcast_registry::RegistryChange;

pub mod addresses;
pub mod attempt;
pub mod attempts;
pub mod batch;
pub mod bodies;
pub mod book;
pub mod checkpoint;
pub mod circuit;
pub mod consent;
pub mod crew;
pub mod desk;
pub mod endings;
pub mod filled;
pub mod floor;
mod gathering;
pub mod inspect;
pub mod job;
pub mod journal;
pub mod lane;
pub mod limiter;
pub mod limits;
pub mod matcher;
pub mod metrics;
pub mod notice;
pub mod order;
pub mod pace;
pub mod parcel;
pub mod policy;
pub mod question;
mod reading;
pub mod recovery;
pub mod renderings;
mod replaying;
pub mod replays;
mod saving;
pub mod sieve;
mod sorting;
mod start;
mod steps;
pub mod telling;
pub mod tokens;
pub mod torn;
pub mod undelivered;
pub mod window;

use checkpoint::PartitionProgress;
use consent::Consents;
use consent::ask::Asker;
use lane::LaneContext;
use question::Question;
use start::{LaneStart, PartitionStart};

/// Commands that may wait for one lane.
const COMMANDS_MAX: usize = 1024;
/// Most lanes; there is no use for more than partitions.
pub const LANES_MAX: usize = PARTITIONS as usize;

/// What a lane is told.
#[derive(Debug)]
pub(crate) enum LaneCommand {
    /// A definition changed.
    Change(RegistryChange),
    /// Which of these fail?
    Failing(Vec<Ordinal>, oneshot::Sender<Vec<Ordinal>>),
    /// A question about a subscription.
    Ask(Arc<SubscriptionRecord>, Question),
    /// Finish what is in flight within this time, save, answer.
    Stop(Duration, oneshot::Sender<()>),
}

/// A lane that is to begin, on the thread that it is to live on.
pub struct LaneBegin(LaneStart);

impl LaneBegin {
    /// Begins it; there must be a `LocalSet` around.
    pub fn spawn_local(self) {
        start::live_here(self.0);
    }
}

/// The running lanes. Cheap to clone.
#[derive(Clone)]
pub struct Lanes {
    inboxes: Arc<[mpsc::Sender<LaneCommand>]>,
    context: LaneContext,
    /// How many of the registry's changes were brought to their lanes.
    routed: watch::Receiver<u64>,
    consents: Consents,
}

impl Lanes {
    /// Takes over all partitions and starts `count` lanes (at least one, at most [`LANES_MAX`]).
    ///
    /// # Errors
    /// When storage does not give the progress, or it is damaged.
    pub async fn start(count: usize, context: LaneContext, gate: &Gate) -> Result<Self, StorageError> {
        // A thread for each.
        let on_its_own = |lane: LaneBegin| {
            Arbiter::new().spawn_fn(move || lane.spawn_local());
        };
        Self::start_by(count, context, gate, on_its_own).await
    }

    /// As [`Lanes::start`]; whoever calls says where each lane runs, which needs a `LocalSet` of its own around it.
    ///
    /// # Errors
    /// As [`Lanes::start`].
    pub async fn start_by(
        count: usize,
        context: LaneContext,
        gate: &Gate,
        mut spawn: impl FnMut(LaneBegin),
    ) -> Result<Self, StorageError> {
        let count = count.clamp(1, LANES_MAX);
        let (records, changes, announced) = context.registry.listen();
        let mut by_partition: HashMap<u16, Vec<Arc<SubscriptionRecord>>> = HashMap::new();
        for record in records {
            by_partition.entry(record.ordinal.partition()).or_default().push(record);
        }
        let mut starts: Vec<Vec<PartitionStart>> = (0..count).map(|_| Vec::new()).collect();
        for partition in 0..PARTITIONS {
            let records = by_partition.remove(&partition).unwrap_or_default();
            let start = take_over(&context, partition, records).await?;
            starts[usize::from(partition) % count].push(start);
        }
        let mut lanes = Vec::with_capacity(count);
        for (number, partitions) in (1..).zip(starts) {
            let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
            spawn(LaneBegin(LaneStart {
                name: format!("shard-{number}"),
                partitions,
                context: context.clone(),
                gate: gate.clone(),
                inbox,
            }));
            lanes.push(commands);
        }
        let (told, routed) = watch::channel(announced);
        let asker = Asker { gate: gate.clone(), tls: context.tls.clone(), identity: context.identity.clone() };
        let consents =
            Consents::start(&context.registry, asker, Arc::clone(&context.clock), &context.supervisor, context.cancel.clone());
        let lanes = Self { inboxes: lanes.into(), context, routed, consents };
        lanes.context.supervisor.essential("routing", lanes.clone().route(changes, told)).spawn();
        Ok(lanes)
    }

    /// Brings changes of definitions to the lane they concern, in order.
    async fn route(self, mut changes: mpsc::UnboundedReceiver<RegistryChange>, told: watch::Sender<u64>) {
        while let Some(change) = changes.recv().await {
            let ordinal = match &change {
                RegistryChange::Put { record, .. } => record.ordinal,
                RegistryChange::Removed { ordinal, .. } => *ordinal,
            };
            if self.lane_of(ordinal).send(LaneCommand::Change(change)).await.is_err() {
                return;
            }
            told.send_modify(|count| *count += 1);
        }
    }

    fn lane_of(&self, ordinal: Ordinal) -> &mpsc::Sender<LaneCommand> {
        &self.inboxes[self.number_of(ordinal)]
    }

    fn number_of(&self, ordinal: Ordinal) -> usize {
        usize::from(ordinal.partition()) % self.inboxes.len()
    }

    /// Who asks endpoints whether they want deliveries.
    #[must_use]
    pub fn consents(&self) -> &Consents {
        &self.consents
    }

    /// Waits until the lane of a subscription goes by every definition that is in force now.
    pub async fn caught_up(&self, record: &Arc<SubscriptionRecord>) {
        let _ = self.ask(record, Question::Nothing).await;
    }

    /// Asks the lane of a subscription; `None` when the lane does not know it (any more). The question arrives behind every
    /// change that was announced before it was asked.
    async fn ask<T>(&self, record: &Arc<SubscriptionRecord>, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let announced = self.context.registry.announced();
        self.routed.clone().wait_for(|routed| *routed >= announced).await.ok()?;
        let (reply, answer) = oneshot::channel();
        let command = LaneCommand::Ask(Arc::clone(record), question(reply));
        self.lane_of(record.ordinal).send(command).await.ok()?;
        answer.await.ok()
    }

    /// Which of these subscriptions fail, with one question to each lane; `None` when a lane does not answer any more.
    pub async fn failing(&self, records: &[Arc<SubscriptionRecord>]) -> Option<HashSet<Ordinal>> {
        let announced = self.context.registry.announced();
        self.routed.clone().wait_for(|routed| *routed >= announced).await.ok()?;
        let mut by_lane: BTreeMap<usize, Vec<Ordinal>> = BTreeMap::new();
        for record in records.iter().filter(|record| record.activity == Activity::Active) {
            by_lane.entry(self.number_of(record.ordinal)).or_default().push(record.ordinal);
        }
        let mut answers = Vec::with_capacity(by_lane.len());
        for (number, ordinals) in by_lane {
            let (reply, answer) = oneshot::channel();
            self.inboxes[number].send(LaneCommand::Failing(ordinals, reply)).await.ok()?;
            answers.push(answer);
        }
        let mut failing = HashSet::new();
        for answer in answers {
            failing.extend(answer.await.ok()?);
        }
        Some(failing)
    }

    /// Lets every lane finish what is in flight within `grace`, and saves all progress.
    pub async fn stop(&self, grace: Duration) {
        self.context.cancel.cancel();
        let mut answers = Vec::new();
        for lane in &*self.inboxes {
            let (reply, answer) = oneshot::channel();
            if lane.send(LaneCommand::Stop(grace, reply)).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            let _ = answer.await;
        }
    }

    /// A token that is cancelled when the lanes stop.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.context.cancel.clone()
    }
}

/// Takes one partition over and reads what is known of its subscriptions.
async fn take_over(
    context: &LaneContext,
    partition: u16,
    records: Vec<Arc<SubscriptionRecord>>,
) -> Result<PartitionStart, StorageError> {
    let lease: Lease = context.ledger.lease(partition).await?;
    let checkpoint = context.ledger.load(partition).await?;
    let progress = PartitionProgress::decode(&checkpoint).ok_or_else(|| {
        StorageError::new(StorageErrorKind::Corrupt, format!("the checkpoint of partition {partition} does not read"))
    })?;
    let (retries, dead) = context.ledger.exceptions(partition).await?;
    let jobs = context.ledger.running_jobs(partition).await?;
    Ok(PartitionStart { lease, progress, records, retries, dead, jobs })
}
