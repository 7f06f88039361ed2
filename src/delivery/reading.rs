//! How a lane reads the log: the reader at the head, and the feeder for desks that lag.
//!
//! Both read whole pages through [`crate::follow::Follow`] and hand them to the floor between two awaits.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::lane::Lane;
use super::matcher::Place;
use crate::model::{Page, Seq};

/// Read at once by the reader.
const HEAD_BYTES: usize = 512 * 1024;
/// Read at once by the feeder: a few desks' worth of events.
const FEED_BYTES: usize = 256 * 1024;
/// Reads of one pass; then the desks are looked at anew.
const SWEEP_READS_MAX: usize = 64;
/// Pause of a lane without subscriptions between looks at a log that grows.
const NOBODY_PAUSE: Duration = Duration::from_millis(5);
/// Events after which the frontier of quiet partitions is saved too.
const FRONTIER_EVERY: u64 = 10_000;

/// Follows the head and offers every page to the desks that ride with it, until the lane is cancelled.
pub(super) async fn read_head(lane: Rc<Lane>) {
    let mut head = lane.context.follow.watch();
    let mut touched_at = lane.floor.borrow().scanned;
    loop {
        head.mark_unchanged();
        let scanned = lane.floor.borrow().scanned;
        let Some(pages) = read(&lane, scanned).await else {
            if lane.context.cancel.is_cancelled() {
                return;
            }
            continue;
        };
        if pages.is_empty() {
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return },
                () = lane.context.cancel.cancelled() => return,
            }
            if lane.floor.borrow().is_empty() {
                // Nobody here waits for events: the lane keeps up with the head, but not commit by commit.
                tokio::time::sleep(NOBODY_PAUSE).await;
            }
            continue;
        }
        for page in pages {
            {
                let mut floor = lane.floor.borrow_mut();
                floor.scan(&page);
                if floor.scanned.0 - touched_at.0 >= FRONTIER_EVERY {
                    touched_at = floor.scanned;
                    floor.touch_all();
                }
            }
            lane.stir();
            lane.hunger.notify_one();
            tokio::task::yield_now().await;
        }
    }
}

/// Pages behind the reader, none at the head; `None` after a pause when they could not be read.
async fn read(lane: &Rc<Lane>, scanned: Seq) -> Option<Vec<Arc<Page>>> {
    match lane.context.follow.read(scanned, HEAD_BYTES).await {
        Ok(batch) => {
            if let Some((_, to)) = batch.gap {
                lane.floor.borrow_mut().note_gap_at_head(to);
            }
            Some(batch.pages)
        }
        Err(error) => {
            tracing::error!(%error, from = %scanned, "the log could not be read; trying again");
            pause(lane).await;
            None
        }
    }
}

async fn pause(lane: &Rc<Lane>) {
    tokio::select! {
        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
        () = lane.context.cancel.cancelled() => {}
    }
}

/// Feeds desks that lag, the furthest behind first; every page read serves all desks that have come that far.
pub(super) async fn feed_lagging(lane: Rc<Lane>) {
    let mut near_head = false;
    loop {
        let mut hungry = lane.floor.borrow_mut().hungry();
        if hungry.is_empty() {
            lane.stir();
            tokio::select! {
                () = lane.hunger.notified() => continue,
                () = lane.context.cancel.cancelled() => return,
            }
        }
        hungry.sort_unstable_by_key(|(_, at)| *at);
        // Every other pass leaves the furthest half alone: one desk on its way through the whole log must not make those
        // near the head wait for it.
        let skipped = if near_head { hungry.len() / 2 } else { 0 };
        near_head = !near_head;
        sweep(&lane, &hungry[skipped..]).await;
        if lane.context.cancel.is_cancelled() {
            return;
        }
    }
}

/// One pass over the log from the furthest desk on, until every desk that came along is full or at the reader.
async fn sweep(lane: &Rc<Lane>, hungry: &[(Place, Seq)]) {
    let Some(mut at) = hungry.first().map(|(_, at)| *at) else { return };
    let mut waiting = hungry.iter().copied().peekable();
    let mut riders: Vec<Place> = Vec::new();
    for _ in 0..SWEEP_READS_MAX {
        if riders.is_empty() {
            // Nobody rides: jump to the next desk instead of reading what nobody wants.
            match waiting.peek() {
                Some((_, next)) => at = at.max(*next),
                None => return,
            }
        }
        let batch = match lane.context.follow.read(at, FEED_BYTES).await {
            Ok(batch) if batch.pages.is_empty() => return,
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, from = %at, "the log could not be read; trying again");
                pause(lane).await;
                return;
            }
        };
        for page in &batch.pages {
            while let Some((place, _)) = waiting.next_if(|(_, next)| *next < page.last()) {
                riders.push(place);
            }
            lane.floor.borrow_mut().feed(&mut riders, page, at);
            at = page.last();
            if riders.is_empty() {
                break;
            }
        }
        lane.stir();
        tokio::task::yield_now().await;
        if at >= lane.floor.borrow().scanned || lane.context.cancel.is_cancelled() {
            return;
        }
    }
}
