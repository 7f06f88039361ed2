//! How a lane learns the keys of events that a desk knows by their position only: after a restart, a redrive, or a change of
//! the order. Nothing of the desk goes out until it is done.

use std::rc::Rc;
use std::time::Duration;

use super::desk::Desk;
use super::lane::Lane;
use super::order::Order;
use super::saving;
use crate::model::subscription::Ordinal;
use crate::model::{Event, ExceptionState, Seq};
use crate::storage::{PageRequest, StorageError};

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
    loop {
        let unread = lane.floor.borrow().desk(ordinal).and_then(Desk::order_in_force).map(|order| order.unread(READ_MAX));
        let done = match unread {
            Some((seqs, _)) if !seqs.is_empty() => read(lane, ordinal, seqs).await,
            Some((_, true)) => list_dead(lane, ordinal).await,
            Some((_, false)) | None => return,
        };
        if let Err(error) = done {
            tracing::error!(%error, "the order of a subscription could not be read; trying again");
            tokio::select! {
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

/// Finds the dead letters that hold their keys up.
async fn list_dead(lane: &Rc<Lane>, ordinal: Ordinal) -> Result<(), StorageError> {
    // Letters that are not stored yet would not be found.
    saving::save(lane).await.stored()?;
    let mut after = Seq::ZERO;
    loop {
        let page = lane.context.ledger.list(ordinal, ExceptionState::Dead, PageRequest { after, limit: PAGE_ROWS }).await?;
        let Some(last) = page.last().map(|dead| dead.seq) else { break };
        after = last;
        for dead in page.into_iter().filter(|dead| !dead.is_skipped()) {
            let event = lane.context.follow.get(dead.seq).await?;
            let goes_on = lane.floor.borrow_mut().change(ordinal, |desk| {
                let Some(order) = desk.order() else { return false };
                if order.is_choked() {
                    order.dead_known();
                    return false;
                }
                let key = event.and_then(|event| order.line_of(&event));
                order.blocks(dead.seq, key);
                true
            });
            if goes_on != Some(true) {
                return Ok(());
            }
        }
    }
    lane.floor.borrow_mut().change(ordinal, |desk| desk.order().map(Order::dead_known));
    Ok(())
}
