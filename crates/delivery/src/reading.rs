//! How a lane reads the log: the reader at the head, and the feeder for desks that lag.
//!
//! Both read whole pages through [`hookcast_log::follow::Follow`] and hand them to the floor between two awaits.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::Lane;
use super::matcher::Place;
use hookcast_core::model::Seq;
use hookcast_log::follow::Batch;

/// Read at once by the reader.
const HEAD_BYTES: usize = 512 * 1024;
/// Read at once by the feeder: a few desks' worth of events.
const FEED_BYTES: usize = 256 * 1024;
/// Reads of one pass; then the desks are looked at anew. What a pass reads fits into what [`hookcast_log::follow`] shares.
const SWEEP_READS_MAX: usize = 16;
/// How often desks set out on the way through the log that begin to lag far behind; the first of them at once.
const BOARD_EVERY: Duration = Duration::from_millis(500);
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
        let Some(batch) = read(&lane, scanned).await else {
            if lane.context.cancel.is_cancelled() {
                return;
            }
            continue;
        };
        if batch.end().is_none() {
            tokio::select! {
                biased;
                changed = head.changed() => if changed.is_err() { return },
                () = lane.context.cancel.cancelled() => return,
            }
            if lane.floor.borrow().is_empty() {
                // Nobody here waits for events: the lane keeps up with the head, but not commit by commit.
                tokio::time::sleep(NOBODY_PAUSE).await;
            }
            continue;
        }
        for page in batch.pages {
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
async fn read(lane: &Rc<Lane>, scanned: Seq) -> Option<Batch> {
    match lane.context.follow.read(scanned, HEAD_BYTES).await {
        Ok(batch) => {
            if let Some((_, to)) = batch.gap {
                lane.floor.borrow_mut().note_gap_at_head(to);
            }
            Some(batch)
        }
        Err(error) => {
            lane.tell_unread(&error, format_args!("the log behind position {scanned}"));
            pause(lane).await;
            None
        }
    }
}

async fn pause(lane: &Rc<Lane>) {
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
        () = lane.context.cancel.cancelled() => {}
    }
}

/// Feeds desks that lag, the furthest behind first; every page read serves all desks that have come that far.
pub(super) async fn feed_lagging(lane: Rc<Lane>) {
    let (mut near_head, mut boards_at) = (false, Instant::now());
    loop {
        let (now, remembered) = (Instant::now(), lane.context.follow.remembers_from());
        let (mut hungry, has_newcomers) = lane.floor.borrow_mut().hungry(remembered, now >= boards_at);
        if has_newcomers {
            boards_at = now + BOARD_EVERY;
        }
        if hungry.is_empty() {
            lane.stir();
            let somebody_waits = now < boards_at && lane.floor.borrow().has_hungry();
            tokio::select! {
                biased;
                () = lane.hunger.notified() => continue,
                () = tokio::time::sleep_until(boards_at), if somebody_waits => continue,
                () = lane.context.cancel.cancelled() => return,
            }
        }
        hungry.sort_unstable_by_key(|(_, at)| *at);
        // Every other pass leaves those alone that are behind the middle one: one desk on its way through the whole log must
        // not make those near the head wait for it. Desks that stand together stay together.
        let from = if near_head { hungry[hungry.len() / 2].1 } else { Seq::ZERO };
        near_head = !near_head;
        sweep(&lane, &hungry[hungry.partition_point(|(_, at)| *at < from)..]).await;
        if lane.context.cancel.is_cancelled() {
            return;
        }
        let mut floor = lane.floor.borrow_mut();
        for (place, _) in hungry {
            floor.note_hunger(place);
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
        let batch = match lane.context.follow.read_shared(at, FEED_BYTES).await {
            Ok(batch) => batch,
            Err(error) => {
                lane.tell_unread(&error, format_args!("the log behind position {at}"));
                pause(lane).await;
                return;
            }
        };
        let Some(last) = batch.end() else { return };
        while let Some((place, _)) = waiting.next_if(|(_, next)| *next < last) {
            riders.push(place);
        }
        if batch.pages.is_empty() {
            lane.floor.borrow_mut().leave_behind(&mut riders, at, last);
        } else {
            lane.floor.borrow_mut().feed(&mut riders, &batch.pages, at);
        }
        at = last;
        lane.stir();
        tokio::task::yield_now().await;
        if at >= lane.floor.borrow().scanned || lane.context.cancel.is_cancelled() {
            return;
        }
    }
}
