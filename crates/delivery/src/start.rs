//! How a lane comes to life from what was saved, and how it goes.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::LaneCommand;
use super::checkpoint::PartitionProgress;
use super::crew::SLOTS_MAX;
use super::desk::Desk;
use super::floor::Floor;
use super::lane::{Lane, LaneContext};
use super::matcher::Place;
use super::question;
use super::window::Progress;
use super::{reading, replaying, saving};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Exception, ExceptionState, RecoveryJob, Seq};
use hookcast_log::storage::{Lease, StorageErrorKind};
use hookcast_net::client::WireClient;
use hookcast_net::dial::Gate;
use hookcast_registry::RegistryChange;
use hookcast_supervise::caught;

/// What was saved of one partition.
#[derive(Debug)]
pub(super) struct PartitionStart {
    pub(super) lease: Lease,
    pub(super) progress: PartitionProgress,
    pub(super) records: Vec<Arc<SubscriptionRecord>>,
    pub(super) retries: Vec<Exception>,
    pub(super) dead: Vec<(Ordinal, u64)>,
    pub(super) jobs: Vec<RecoveryJob>,
}

/// What a lane is started with.
pub(super) struct LaneStart {
    /// What its tasks are called.
    pub(super) name: String,
    pub(super) partitions: Vec<PartitionStart>,
    pub(super) context: LaneContext,
    pub(super) gate: Gate,
    pub(super) inbox: mpsc::Receiver<LaneCommand>,
}

/// Starts the lane on this thread.
pub(super) fn live_here(start: LaneStart) {
    let (supervisor, name) = (start.context.supervisor.clone(), format!("{}/start", start.name));
    drop(supervisor.essential(name, run(start)).spawn_local());
}

async fn run(start: LaneStart) {
    let LaneStart { name, partitions, context, gate, mut inbox } = start;
    let mut floor = Floor::new(reader_start(&partitions, context.follow.head()), SLOTS_MAX);
    if context.remembers_successes {
        floor.journal.remember_successes();
    }
    floor.limit_by(Arc::clone(&context.limits));
    floor.pass_over(context.follow.jumps());
    let now = context.clock.now();
    let mut reopen = Vec::new();
    for partition in partitions {
        let partition_number = partition.lease.partition;
        floor.hold(partition.lease, partition.progress.taken_in);
        for record in partition.records {
            let progress = partition.progress.of(record.ordinal, record.starts_after);
            let place = floor.add(Arc::clone(&record), &progress);
            if let Some(since) = partition.progress.failing.get(&record.ordinal) {
                floor.change(record.ordinal, |desk| desk.resume_failing(*since, now));
            }
            if let Some(hold) = partition.progress.holds.get(&record.ordinal) {
                floor.change(record.ordinal, |desk| desk.resume_hold(*hold, now));
            }
            if !progress.holes.is_empty()
                && floor.change(record.ordinal, |desk| desk.reopen_aside(&progress.holes)) == Some(false)
            {
                reopen.push((place, record.ordinal, progress.holes));
            }
        }
        for exception in &partition.retries {
            if floor.change(exception.ordinal, |desk| desk.resume_stored(exception, now)).is_none() {
                tracing::info!(partition = partition_number, "forgetting retries of a deleted subscription");
                forget(&context, &name, exception.ordinal);
            }
        }
        for (ordinal, count) in partition.dead {
            let head = context.follow.head();
            let known = |desk: &mut Desk| {
                desk.totals.set_dead(count);
                (desk.dead_to, desk.again_to) = (head, head);
            };
            if floor.change(ordinal, known).is_none() {
                forget(&context, &name, ordinal);
            }
        }
        for job in partition.jobs {
            let ordinal = job.ordinal;
            if !resume_job(&mut floor, job) {
                forget(&context, &name, ordinal);
            }
        }
    }
    let lane = Lane::new(context, name, floor, WireClient::new(gate));
    for (place, ordinal, holes) in reopen {
        reopen_holes(&lane, place, ordinal, holes).await;
    }
    begin(&lane);
    let obeyed = {
        let obeying = pin!(obey(&lane, &mut inbox));
        caught(obeying).await
    };
    if let Err(panic) = obeyed {
        lane.context.supervisor.panicked(format!("{}/commands", lane.name), &panic);
        // Nobody is answered any more; but what can be saved is.
        while let Some(command) = inbox.recv().await {
            if let LaneCommand::Stop(grace, reply) = command {
                finish(&lane, grace).await;
                let _ = reply.send(());
            }
        }
    }
}

/// Goes on with a stored job; `false` when its subscription is no more.
fn resume_job(floor: &mut Floor, job: RecoveryJob) -> bool {
    let (ordinal, id) = (job.ordinal, job.id);
    if floor.desk(ordinal).is_none() {
        return false;
    }
    if !floor.recover(job) {
        tracing::error!(job = %id, "more recovery jobs of a subscription are stored than may run; this one waits for the next start");
    }
    true
}

/// Starts the tasks of a lane.
fn begin(lane: &Rc<Lane>) {
    lane.spawn("head_reader", reading::read_head(Rc::clone(lane)));
    lane.spawn("feeder", reading::feed_lagging(Rc::clone(lane)));
    lane.spawn("replays", replaying::feed_replays(Rc::clone(lane)));
    lane.spawn("saver", saving::save_dirty(Rc::clone(lane)));
    lane.spawn("timer", saving::keep_time(Rc::clone(lane)));
    lane.spawn("bell", hear(Rc::clone(lane)));
    lane.spawn("housekeeping", saving::keep_house(Rc::clone(lane)));
    lane.stir();
}

/// Where the lane's reader starts: at the oldest frontier that a subscription without an entry of its own relies on.
fn reader_start(partitions: &[PartitionStart], head: Seq) -> Seq {
    let relies = |start: &&PartitionStart| {
        let progress = &start.progress;
        start
            .records
            .iter()
            .any(|record| record.ordinal.0 <= progress.taken_in && !progress.entries.contains_key(&record.ordinal))
    };
    partitions.iter().filter(relies).map(|start| start.progress.frontier).min().map_or(head, |oldest| oldest.min(head))
}

/// Offers again what was in flight when the process ended.
async fn reopen_holes(lane: &Rc<Lane>, place: Place, ordinal: Ordinal, holes: Vec<Seq>) {
    let mut events = Vec::with_capacity(holes.len());
    for seq in holes {
        match lane.context.follow.get(seq).await {
            Ok(Some(event)) => events.push(event),
            Ok(None) => lane.floor.borrow_mut().expire(place, seq, seq),
            Err(error) => {
                tracing::error!(%error, event.seq = %seq, "an event that was in flight cannot be read now; it waits as a retry");
                let exception = unread(ordinal, seq, lane.now());
                lane.floor.borrow_mut().retry_unread(exception);
            }
        }
    }
    lane.floor.borrow_mut().reopen(place, events);
}

/// A delivery that was in flight and whose event cannot be read at the moment.
fn unread(ordinal: Ordinal, seq: Seq, now: Timestamp) -> Exception {
    let reason = "storage".to_owned();
    Exception {
        ordinal,
        seq,
        state: ExceptionState::Retry,
        attempts: 0,
        sent: 0,
        due_at: now,
        since: now,
        reason,
        has_old_batch_id: false,
    }
}

/// Tells desks that they were handed a place of a shared limit, until the lane is cancelled.
async fn hear(lane: Rc<Lane>) {
    let bell = lane.floor.borrow().bell();
    loop {
        let handed = tokio::select! {
            biased;
            handed = bell.heard() => handed,
            () = lane.context.cancel.cancelled() => return,
        };
        for (ordinal, limit) in handed {
            lane.floor.borrow_mut().hand_over(ordinal, &limit);
        }
        lane.stir();
    }
}

async fn obey(lane: &Rc<Lane>, inbox: &mut mpsc::Receiver<LaneCommand>) {
    while let Some(command) = inbox.recv().await {
        match command {
            LaneCommand::Change(change) => apply(lane, change),
            LaneCommand::Failing(ordinals, reply) => {
                let floor = lane.floor.borrow();
                let failing = ordinals.into_iter().filter(|ordinal| floor.desk(*ordinal).is_some_and(Desk::is_failing));
                let _ = reply.send(failing.collect());
            }
            LaneCommand::Ask(record, question) => question::answer(lane, &record, question),
            LaneCommand::Stop(grace, reply) => {
                finish(lane, grace).await;
                let _ = reply.send(());
                return;
            }
        }
    }
}

fn apply(lane: &Rc<Lane>, change: RegistryChange) {
    match change {
        RegistryChange::Put { record, .. } => {
            let mut floor = lane.floor.borrow_mut();
            if floor.desk(record.ordinal).is_some() {
                floor.redefine(&record);
            } else {
                let progress = Progress { base: record.starts_after, holes: Vec::new() };
                floor.add(record, &progress);
            }
        }
        RegistryChange::Removed { ordinal, .. } => {
            lane.floor.borrow_mut().remove(ordinal);
            lane.forget_address(ordinal);
            forget(&lane.context, &lane.name, ordinal);
        }
    }
    lane.stir();
    lane.hunger.notify_one();
}

fn forget(context: &LaneContext, name: &str, ordinal: Ordinal) {
    let ledger = Arc::clone(&context.ledger);
    let forgetting = context.supervisor.essential(format!("{name}/forgetting"), async move {
        if let Err(error) = ledger.forget(ordinal).await {
            tracing::error!(%error, "what is kept of a deleted subscription could not be removed; the next start will");
        }
    });
    forgetting.spawn_local();
}

/// Waits for what is in flight, then saves everything.
async fn finish(lane: &Rc<Lane>, grace: Duration) {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    const SAVE_AGAIN: Duration = Duration::from_millis(200);
    /// Tries of what is left when the progress is saved, to be looked up or stored by the registry: a stop does not wait for that
    /// for as long as for what is to be saved.
    const LOOKUPS_MAX: u32 = 10;
    if lane.floor.is_torn() {
        lane.endings.leave();
        tracing::warn!(lane = lane.name, "what happened since the last save is not saved: it may be half done; it is repeated");
        return;
    }
    let end = tokio::time::Instant::now() + grace;
    while lane.in_flight() > 0 && tokio::time::Instant::now() < end {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    lane.floor.borrow_mut().touch_all();
    let mut lookups = 0;
    loop {
        let is_fenced = matches!(saving::save(lane).await.stored(), Err(error) if error.kind == StorageErrorKind::Fenced);
        lookups += u32::from(!lane.floor.borrow().journal.is_dirty());
        let is_over = lookups >= LOOKUPS_MAX || tokio::time::Instant::now() >= end;
        if is_fenced || is_over || !(lane.floor.borrow().wants_save() || lane.endings.is_any_open()) {
            break;
        }
        tokio::time::sleep(SAVE_AGAIN).await;
    }
    lane.endings.leave();
    lane.floor.borrow_mut().leave_listed(None);
    saving::tell_left_out(lane);
    lane.counts.flush();
}
