//! Counts dead letters that died after they may have been dead letters before: storage is asked before it is saved, or all of a
//! subscription are counted anew once storage answers again.

use std::collections::BTreeMap;

use super::{DEAD_READ, Lane, Unsaved, by_subscription, tell_damaged, tell_unreadable};
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::Ordinal;
use hookcast_log::storage::{StorageError, StorageErrorKind};

/// Rounds of looking up dead letters before one save; more come only while they die faster than they are looked up.
const ROUNDS_MAX: usize = 16;
/// Subscriptions whose letters cannot be counted before the others wait for the next save.
const FAILED_MAX: usize = 8;

/// Counts the dead letters of subscriptions that are to be counted anew; `false` when storage does not say what that takes: those
/// that are left wait for the next save, as do those that are asked for meanwhile.
pub(super) async fn count_anew(lane: &Lane, unsaved: &Unsaved<'_>) -> bool {
    let mut due = lane.floor.borrow_mut().take_miscounted().into_iter();
    let mut failed = Vec::new();
    for ordinal in due.by_ref() {
        let Err(error) = recount(lane, unsaved, ordinal).await else { continue };
        // What is damaged stays so: the count stays as it is until the next start.
        if error.kind == StorageErrorKind::Corrupt {
            tell_damaged(lane, &error);
            continue;
        }
        tell_unreadable(lane, &error);
        failed.push(ordinal);
        // One whose letters alone cannot be read does not keep others from being counted; a storage that does not answer is not
        // asked for all.
        if failed.len() >= FAILED_MAX {
            break;
        }
    }
    let is_readable = failed.is_empty();
    let mut floor = lane.floor.borrow_mut();
    if let Some(last) = failed.last() {
        floor.count_behind(*last);
    }
    for left in due.chain(failed) {
        floor.miscount(left);
    }
    is_readable
}

/// Looks up which deliveries that are about to be saved as dead letters or retries were dead letters before, and counts: what is
/// saved cannot be told apart any more. Where that cannot be looked up, all of the subscription are counted anew when it can.
/// They are read as they stand side by side, for a save waits for it.
pub(super) async fn settle(lane: &Lane) {
    for _ in 0..ROUNDS_MAX {
        let doubtful = lane.floor.borrow_mut().take_doubtful();
        if doubtful.is_empty() {
            return;
        }
        for (ordinal, seqs) in by_subscription(doubtful.keys().copied()) {
            let asked = ask(lane, ordinal, &seqs).await;
            let mut floor = lane.floor.borrow_mut();
            let Ok(says) = asked else {
                // Counting anew meets the same failure, and says so.
                floor.miscount(ordinal);
                continue;
            };
            for (seq, was_dead) in says {
                if let Some(state) = doubtful.get(&(ordinal, seq)) {
                    floor.settle_doubt(ordinal, seq, was_dead, *state);
                }
            }
        }
    }
}

/// Whether storage has these deliveries, which rise, as dead letters.
async fn ask(lane: &Lane, ordinal: Ordinal, seqs: &[Seq]) -> Result<BTreeMap<Seq, bool>, StorageError> {
    let mut says = BTreeMap::new();
    for some in seqs.chunks(DEAD_READ as usize) {
        let dead = lane.context.ledger.dead_among(ordinal, some).await?;
        says.extend(some.iter().map(|seq| (*seq, dead.binary_search(seq).is_ok())));
    }
    Ok(says)
}

/// Counts the dead letters of a subscription anew, unless more become of them than can be looked up; the next save does then.
async fn recount(lane: &Lane, _nothing_is_saved: &Unsaved<'_>, ordinal: Ordinal) -> Result<(), StorageError> {
    let stored = lane.context.ledger.count_dead(ordinal, Seq(1), lane.context.follow.head()).await?;
    let mut says = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let unknown = lane.floor.borrow_mut().recount(ordinal, stored, &says);
        if unknown.is_empty() {
            return Ok(());
        }
        says.extend(ask(lane, ordinal, &unknown).await?);
    }
    lane.floor.borrow_mut().miscount(ordinal);
    Ok(())
}
