//! How a lane saves: dirty partitions about every 50 ms, stretched so that saving stays a small part of the writer and a busy
//! lane writes no more bytes than a calm one; and the one timer task.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::Lane;
use hookcast_core::model::subscription::Ordinal;
use hookcast_log::storage::{LedgerChange, Result, StorageError, StorageErrorKind, Written};

/// Shortest distance of two saves.
const SAVE_EVERY: Duration = Duration::from_millis(50);
/// Longest distance of two saves, however slow they are: a crash repeats what was settled since the last.
const SAVE_EVERY_MAX: Duration = Duration::from_secs(2);
/// A save may take at most one part in this many of the time.
const SAVE_SHARE: u32 = 20;
/// Attempts between two saves that lengthen their distance by [`SAVE_EVERY`]: a busy lane writes no more than a calm one.
const SAVE_PER_ATTEMPTS: u64 = 500;
/// Longest distance of two saves because of how many attempts end.
const SAVE_EVERY_BUSY: Duration = Duration::from_millis(250);
/// Distance of saves while storage refuses them, or does not answer what is looked up for them.
const SAVE_AGAIN: Duration = Duration::from_secs(1);
/// How often idle connections are looked through and metrics handed on.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(2);

/// How often the frontiers of quiet partitions are saved: after a crash, what retention took behind a frontier counts as
/// expired, although nobody wanted it.
const FRONTIERS_EVERY: Duration = Duration::from_mins(1);

/// Saves whenever something is dirty, until the lane is cancelled.
pub(super) async fn save_dirty(lane: Rc<Lane>) {
    let (mut distance, mut settled, mut refused) = (SAVE_EVERY, 0, false);
    loop {
        tokio::select! {
            biased;
            () = lane.dirt.notified() => {}
            () = lane.context.cancel.cancelled() => return,
        }
        tokio::select! {
            biased;
            () = wait(&lane, distance, refused) => {}
            () = lane.context.cancel.cancelled() => return,
        }
        let began = Instant::now();
        let attempts = lane.floor.borrow().settled - std::mem::replace(&mut settled, lane.floor.borrow().settled);
        let (written, is_settled) = save_and_settle(&lane).await;
        refused = !(written.is_stored() && is_settled);
        distance = if refused { SAVE_AGAIN } else { distance_of(began.elapsed(), attempts) };
        lane.counts.flush();
        tell_left_out(&lane);
        lane.stir();
    }
}

/// Waits for `distance`, but not much longer than the lane works: what was stretched for a busy lane must not leave the end of its
/// work unsaved. A storage that refused is given the whole time.
async fn wait(lane: &Lane, distance: Duration, refused: bool) {
    let step_max = if refused { distance } else { SAVE_EVERY_BUSY };
    let mut left = distance;
    while !left.is_zero() {
        let (step, settled) = (left.min(step_max), lane.floor.borrow().settled);
        tokio::time::sleep(step).await;
        if lane.floor.borrow().settled == settled {
            return;
        }
        left -= step;
    }
}

/// How long after a change the next save comes, by how long this one took and how many attempts it was for.
fn distance_of(took: Duration, attempts: u64) -> Duration {
    let steps = u32::try_from(attempts / SAVE_PER_ATTEMPTS).unwrap_or(u32::MAX);
    let by_attempts = SAVE_EVERY.saturating_mul(steps.saturating_add(1)).min(SAVE_EVERY_BUSY);
    (took * SAVE_SHARE).clamp(by_attempts, SAVE_EVERY_MAX)
}

/// What there was no room for while storage took nothing, or did not answer.
pub(super) fn tell_left_out(lane: &Lane) {
    let (left_out, left_listed) = {
        let mut floor = lane.floor.borrow_mut();
        (floor.journal.take_left_out(), std::mem::take(&mut floor.left_listed))
    };
    if left_out > 0 {
        metrics::counter!("hookcast_attempts_left_out_total").increment(left_out);
        tracing::warn!(left_out, "attempts are not remembered: storage did not take them in time");
    }
    if left_listed > 0 {
        metrics::counter!("hookcast_dead_letters_left_listed_total").increment(left_listed);
        tracing::warn!(
            left_listed,
            "deliveries that may have been dead letters are not looked up; dead letters of theirs stay listed"
        );
    }
}

/// Saves once, after whatever is being saved. What was not stored is tried again by the next save.
pub(super) async fn save(lane: &Rc<Lane>) -> Written {
    save_and_settle(lane).await.0
}

/// As [`save`]; also says whether everything could be looked up that is to be before a save. What could not is by the next.
async fn save_and_settle(lane: &Rc<Lane>) -> (Written, bool) {
    let one_at_a_time = lane.saving.lock().await;
    let is_settled = lane.floor.is_torn() || super::replaying::settle(lane, &one_at_a_time).await;
    (write(lane).await, is_settled)
}

/// Writes what the journal has; whoever calls this lets nobody else save meanwhile.
async fn write(lane: &Rc<Lane>) -> Written {
    // Looked at here, for somebody may have panicked while things were looked up.
    if lane.floor.is_torn() {
        let error =
            StorageError::new(StorageErrorKind::Unavailable, "a panic left the shard half changed; nothing of it is saved");
        return Written::Refused(error);
    }
    let now = lane.now();
    let changes = {
        let mut floor = lane.floor.borrow_mut();
        if floor.note_jobs(now) {
            // One may have ended, and the next wants events.
            lane.replays.notify_one();
        }
        floor.take_unsaved()
    };
    if changes.is_empty() {
        return Written::Stored;
    }
    let mut taken = Taken::of(lane, changes);
    let committed = lane.context.ledger.commit(Vec::clone(&taken.changes)).await;
    let Err(error) = committed else {
        taken.is_saved = true;
        return Written::Stored;
    };
    if error.kind == StorageErrorKind::Fenced {
        tracing::error!(%error, "another process took this relay's subscriptions over; deliveries stop");
        lane.context.cancel.cancel();
    } else if error.is_refusal() {
        // Storage says once what is the matter.
        tracing::debug!(%error, "progress could not be saved; trying again");
    } else {
        tracing::error!(%error, "progress could not be saved; trying again");
    }
    Err(error).into()
}

/// Changes that were taken out of the journal to be saved. Those that were not come back, also when whoever saves panics: a later
/// save of the progress alone would lose them.
struct Taken<'a> {
    lane: &'a Lane,
    changes: Rc<Vec<LedgerChange>>,
    is_saved: bool,
}

impl<'a> Taken<'a> {
    fn of(lane: &'a Lane, changes: Vec<LedgerChange>) -> Self {
        let changes = Rc::new(changes);
        lane.floor.borrow_mut().journal.begin(&changes);
        Self { lane, changes, is_saved: false }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut floor = self.lane.floor.borrow_mut();
        floor.journal.end(&self.changes);
        if !self.is_saved {
            floor.give_back(Rc::unwrap_or_clone(std::mem::take(&mut self.changes)));
        }
    }
}

/// Makes a change of a subscription that is durable when it is answered. Storage must have taken something just before, so that
/// what is refused is not in force either. When it refuses all the same between the two, the change stands and is saved as soon
/// as that works. `None` when the subscription was removed meanwhile.
///
/// # Errors
/// What storage said; `Unknown` when the change is in force and not stored.
pub(super) async fn promise<T>(lane: &Rc<Lane>, ordinal: Ordinal, change: impl FnOnce() -> T) -> Result<Option<T>> {
    prove(lane, ordinal).await?;
    if lane.floor.borrow().desk(ordinal).is_none() {
        return Ok(None);
    }
    let answer = change();
    lane.floor.borrow_mut().journal.touch(ordinal);
    match save(lane).await {
        Written::Stored => Ok(Some(answer)),
        Written::Refused(error) | Written::Unknown(error) => {
            // What is in force is saved as soon as that works.
            lane.stir();
            Err(StorageError { kind: StorageErrorKind::Unknown, ..error })
        }
    }
}

/// Has storage write something under the lease of a subscription.
///
/// # Errors
/// What storage said, never `Unknown`: what was written has no meaning.
async fn prove(lane: &Rc<Lane>, ordinal: Ordinal) -> Result<()> {
    let Some(lease) = lane.floor.borrow().lease(ordinal.partition()) else { return Ok(()) };
    let proof = LedgerChange { is_proof: true, ..LedgerChange::new(lease) };
    lane.context.ledger.commit(vec![proof]).await.map_err(harmless)
}

/// A failure to store what may be stored or not: that is no more than a refusal of what was to follow.
pub(super) fn harmless(error: StorageError) -> StorageError {
    let is_unknown = error.kind == StorageErrorKind::Unknown;
    StorageError { kind: if is_unknown { StorageErrorKind::Unavailable } else { error.kind }, ..error }
}

/// Makes desks ready when their time has come, until the lane is cancelled. Whatever wakes it (a time that has come, an earlier
/// one that was set, a clock that was moved), it does the same: what is ready goes out, then it waits for what is next.
pub(super) async fn keep_time(lane: Rc<Lane>) {
    loop {
        let now = lane.now();
        lane.floor.borrow_mut().fire_timers(now);
        lane.stir();
        if lane.floor.borrow().has_hungry() {
            lane.hunger.notify_one();
        }
        // The floor is free again when the clock is looked at, which may move what is waited for.
        let due = lane.floor.borrow().next_timer();
        let wait = due.map(|at| at.since(lane.now()));
        tokio::select! {
            biased;
            () = sleep_for(wait) => {}
            () = lane.alarm.notified() => {}
            () = lane.context.cancel.cancelled() => return,
        }
    }
}

/// Wall-clock steps are noticed within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait.min(LOOK_AGAIN)).await,
        None => std::future::pending().await,
    }
}

/// Closes idle connections, hands metrics on and saves how far quiet partitions came, until the lane is cancelled.
pub(super) async fn keep_house(lane: Rc<Lane>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING_EVERY);
    let (mut saved, mut saved_at) = (lane.floor.borrow().scanned, Instant::now());
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                lane.sweep_connections();
                lane.counts.flush();
                // A clock that was moved is noticed although nothing is delivered.
                let _ = lane.now();
                let scanned = lane.floor.borrow().scanned;
                if scanned != saved && saved_at.elapsed() >= FRONTIERS_EVERY {
                    (saved, saved_at) = (scanned, Instant::now());
                    lane.floor.borrow_mut().touch_all();
                    lane.stir();
                }
            }
            () = lane.context.cancel.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saves_move_apart_under_load_and_on_slow_disks_up_to_a_limit() {
        let ms = Duration::from_millis;
        assert_eq!(distance_of(ms(1), 10), ms(50));
        assert_eq!(distance_of(ms(1), 1_000), ms(150));
        assert_eq!(distance_of(ms(1), 1_000_000), ms(250));
        assert_eq!(distance_of(ms(40), 10), ms(800));
        assert_eq!(distance_of(Duration::from_secs(9), u64::MAX), ms(2_000));
    }
}
