//! How a lane learns the keys of events that a desk knows by their position only: after a restart, a redrive, or a change of
//! the order. Nothing of the desk goes out until it is done.

use std::rc::Rc;
use std::time::Duration;

use super::desk::Desk;
use super::lane::Lane;
use super::order::{Doubt, Order};
use super::replaying::dead_letters;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Event, ExceptionState, Seq};
use hookcast_log::storage::StorageError;

/// Positions read before the desk is told.
const READ_MAX: usize = 64;
/// Dead letters listed at a time.
const PAGE_ROWS: u32 = 256;
/// Pause while storage does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Begins for every desk that asked for it.
pub(super) fn begin(lane: &Rc<Lane>) {
    let unsorted = std::mem::take(&mut lane.floor.borrow_mut().unsorted);
    for ordinal in unsorted {
        let sorting = Rc::clone(lane);
        lane.spawn("order", async move {
            let lane = sorting;
            sort(&lane, ordinal).await;
            let mut floor = lane.floor.borrow_mut();
            floor.change(ordinal, |desk| desk.order().map(Order::rest));
            drop(floor);
            lane.stir();
            lane.hunger.notify_one();
        });
    }
}

async fn sort(lane: &Rc<Lane>, ordinal: Ordinal) {
    while !lane.context.cancel.is_cancelled() {
        let unread = lane.floor.borrow().desk(ordinal).and_then(Desk::order_in_force).map(|order| order.unread(READ_MAX));
        let done = match unread {
            Some((seqs, _)) if !seqs.is_empty() => read(lane, ordinal, seqs).await,
            Some((_, Some(doubt))) => list_dead(lane, ordinal, &doubt).await,
            Some((_, None)) | None => return,
        };
        if let Err(error) = done {
            let id = lane.floor.borrow().desk(ordinal).map(|desk| desk.record.spec.id.to_string()).unwrap_or_default();
            lane.tell_unread(&error, format_args!("the order of subscription {id}"));
            tokio::select! {
                biased;
                () = tokio::time::sleep(AGAIN) => {}
                () = lane.context.cancel.cancelled() => return,
            }
        }
    }
}

async fn read(lane: &Rc<Lane>, ordinal: Ordinal, seqs: Vec<Seq>) -> Result<(), StorageError> {
    for seq in seqs {
        let event: Option<Event> = lane.context.follow.get(seq).await?;
        let mut floor = lane.floor.borrow_mut();
        let Some(is_over) = floor.change(ordinal, |desk| desk.sort(seq, event.as_ref())) else { return Ok(()) };
        if is_over {
            floor.expire_of(ordinal, seq);
        }
    }
    Ok(())
}

/// Finds the dead letters that hold their keys up; ends early when what was found is not true any more.
async fn list_dead(lane: &Rc<Lane>, ordinal: Ordinal, doubt: &Doubt) -> Result<(), StorageError> {
    let mut after = Seq::ZERO;
    loop {
        let unsaved = lane.saving.lock().await;
        let (page, read_to) = dead_letters(lane, &unsaved, ordinal, after, PAGE_ROWS).await?;
        for dead in page.into_iter().filter(|dead| !dead.is_skipped()) {
            let event = lane.context.follow.get(dead.seq).await?;
            let mut floor = lane.floor.borrow_mut();
            // One that was posted once more, or skipped, while its event was read.
            let word = floor.journal.last_word(ordinal, dead.seq);
            if word.is_some_and(|word| word.is_none_or(|word| word.state != ExceptionState::Dead || word.is_skipped())) {
                continue;
            }
            let goes_on = floor.change(ordinal, |desk| {
                let Some(order) = desk.order().filter(|order| order.letters.still_doubts(doubt)) else { return false };
                let key = event.and_then(|event| order.line_of(&event));
                if order.is_choked() && key.is_some() && !order.is_blocking(dead.seq) {
                    order.letters.looked_up(doubt, false);
                    return false;
                }
                order.blocks(dead.seq, key);
                true
            });
            if goes_on != Some(true) {
                return Ok(());
            }
        }
        let Some(read_to) = read_to else { break };
        after = read_to;
    }
    lane.floor.borrow_mut().change(ordinal, |desk| desk.order().map(|order| order.letters.looked_up(doubt, true)));
    Ok(())
}
