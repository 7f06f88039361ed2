//! Brings events to the recovery jobs of a lane, a bounded number at a time; and ends dead letters that were delivered all
//! the same, after a seek back, say.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::lane::Lane;
use super::parcel::Parcel;
use super::replays::{REPLAY_BYTES_MAX, ReplayItem, Want};
use super::saving;
use super::sieve::Choice;
use hookcast_core::model::job::Selection;
use hookcast_core::model::subscription::{OnDead, Ordering, Ordinal, SubscriptionRecord};
use hookcast_core::model::{Exception, ExceptionState, Seq};
use hookcast_log::storage::{PageRequest, StorageError, StorageErrorKind};

mod doubts;

/// Bytes of the log read at once.
const READ_BYTES: usize = 256 * 1024;
/// Dead letters read at once.
const DEAD_READ: u32 = 1000;
/// Rounds of looking up what was delivered before one save.
const ROUNDS_MAX: usize = 4;
/// Distance of tries when what is needed cannot be read.
const AGAIN: Duration = Duration::from_secs(1);

/// What was found for a job: events, how far was looked, whether that was all.
type Found = (Vec<ReplayItem>, Seq, bool);

/// Brings events to jobs that have room, until the lane is cancelled.
pub(super) async fn feed_replays(lane: Rc<Lane>) {
    loop {
        let wants = lane.floor.borrow_mut().replay_wants();
        if wants.is_empty() {
            tokio::select! {
                biased;
                () = lane.replays.notified() => continue,
                () = lane.context.cancel.cancelled() => return,
            }
        }
        for (ordinal, want) in wants {
            match find(&lane, ordinal, &want).await {
                Ok((items, scanned, is_exhausted)) => {
                    lane.floor.borrow_mut().fill_replay(ordinal, &want, items, scanned, is_exhausted);
                    lane.stir();
                }
                Err(error) => {
                    lane.tell_unread(&error, format_args!("what job {} posts", want.id));
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(AGAIN) => {}
                        () = lane.context.cancel.cancelled() => {}
                    }
                }
            }
            if lane.context.cancel.is_cancelled() {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn find(lane: &Lane, ordinal: Ordinal, want: &Want) -> Result<Found, StorageError> {
    match &want.selection {
        Selection::All => find_events(lane, ordinal, want).await,
        Selection::Failed => find_dead(lane, ordinal, want).await,
        Selection::Seqs(seqs) => find_named(lane, ordinal, want, seqs).await,
    }
}

/// Events of the log that match the definition.
async fn find_events(lane: &Lane, ordinal: Ordinal, want: &Want) -> Result<Found, StorageError> {
    if want.after >= want.to {
        return Ok((Vec::new(), want.after, true));
    }
    let batch = lane.context.follow.read_shared(want.after, READ_BYTES).await?;
    let Some(last) = batch.end() else { return Ok((Vec::new(), want.to, true)) };
    let (record, may_have_dead) = {
        let floor = lane.floor.borrow();
        let Some(desk) = floor.desk(ordinal) else { return Ok((Vec::new(), want.to, true)) };
        (std::sync::Arc::clone(&desk.record), want.after < desk.dead_to)
    };
    let choice = Choice::of(&record.spec);
    let (mut items, mut bytes, mut scanned): (Vec<ReplayItem>, _, _) = (Vec::new(), 0, last.min(want.to));
    'pages: for page in &batch.pages {
        for event in page.events_after(want.after) {
            if event.seq() > want.to {
                break 'pages;
            }
            if items.len() >= want.room || bytes >= REPLAY_BYTES_MAX {
                scanned = event.seq().prev();
                break 'pages;
            }
            if choice.takes(&event) {
                let (seq, parcel) = (event.seq(), Rc::new(Parcel::new(event)));
                bytes += parcel.weight();
                items.push(ReplayItem { seq, parcel: Some(parcel), dead_after: None, line: None });
            }
        }
    }
    if may_have_dead && !items.is_empty() {
        for dead in dead_letters(lane, &lane.saving.lock().await, ordinal, want.after, DEAD_READ).await?.0 {
            if let Ok(index) = items.binary_search_by_key(&dead.seq, |item| item.seq) {
                items[index].dead_after = Some(dead.sent);
            }
        }
    }
    Ok((items, scanned, scanned >= want.to))
}

async fn find_dead(lane: &Lane, ordinal: Ordinal, want: &Want) -> Result<Found, StorageError> {
    let room = u32::try_from(want.room).unwrap_or(u32::MAX);
    let (dead, read_to) = dead_letters(lane, &lane.saving.lock().await, ordinal, want.after, room).await?;
    let inside = dead.into_iter().filter(|dead| dead.seq <= want.to);
    let scanned = read_to.map_or(want.to, |read_to| read_to.min(want.to));
    let (items, read_to) = with_events(lane, inside).await?;
    let scanned = read_to.unwrap_or(scanned);
    Ok((items, scanned, scanned >= want.to))
}

/// Dead letters with their events, which tell what they are ordered with; those that fit, and the last of them when more are left.
async fn with_events(lane: &Lane, dead: impl Iterator<Item = Exception>) -> Result<(Vec<ReplayItem>, Option<Seq>), StorageError> {
    let (mut items, mut bytes): (Vec<ReplayItem>, usize) = (Vec::new(), 0);
    for dead in dead {
        if bytes >= REPLAY_BYTES_MAX {
            return Ok((items, Some(dead.seq.prev())));
        }
        let parcel = lane.context.follow.get(dead.seq).await?.map(|event| Rc::new(Parcel::new(event)));
        bytes += parcel.as_ref().map_or(0, |parcel| parcel.weight());
        items.push(ReplayItem { seq: dead.seq, parcel, dead_after: Some(dead.sent), line: None });
    }
    Ok((items, None))
}

async fn find_named(lane: &Lane, ordinal: Ordinal, want: &Want, seqs: &[Seq]) -> Result<Found, StorageError> {
    let rest = &seqs[seqs.partition_point(|seq| *seq <= want.after)..];
    let some = &rest[..want.room.min(rest.len())];
    let mut found = Vec::new();
    for seq in some {
        let _nothing_is_saved = lane.saving.lock().await;
        let stored = lane.context.ledger.exception(ordinal, *seq).await?;
        let floor = lane.floor.borrow();
        let is_gone = stored.is_none() && floor.journal.is_mark(ordinal, *seq);
        let word = floor.journal.last_word(ordinal, *seq).filter(|_| !is_gone);
        let dead = word.unwrap_or(stored).filter(|exception| exception.state == ExceptionState::Dead);
        found.extend(dead);
    }
    let (items, read_to) = with_events(lane, found.into_iter()).await?;
    let is_exhausted = some.len() == rest.len() && read_to.is_none();
    let scanned = read_to.or(some.last().copied()).filter(|_| !is_exhausted).unwrap_or(want.to);
    Ok((items, scanned, is_exhausted))
}

/// Whoever holds this knows that nothing is saved meanwhile: what storage says stays true, but for the words of the journal.
pub(super) type Unsaved<'a> = tokio::sync::MutexGuard<'a, ()>;

/// Dead letters behind `after`, also those that are not saved yet, and the last one looked at unless those were all.
pub(super) async fn dead_letters(
    lane: &Lane,
    _nothing_is_saved: &Unsaved<'_>,
    ordinal: Ordinal,
    after: Seq,
    limit: u32,
) -> Result<(Vec<Exception>, Option<Seq>), StorageError> {
    let stored = lane.context.ledger.list(ordinal, ExceptionState::Dead, PageRequest { after, limit }).await?;
    let read_to = stored.last().filter(|_| stored.len() >= limit as usize).map(|last| last.seq);
    let mut dead: BTreeMap<Seq, Exception> = stored.into_iter().map(|dead| (dead.seq, dead)).collect();
    take_words(lane, ordinal, after, read_to.unwrap_or(Seq(u64::MAX)), &mut dead);
    let left = dead.len() > limit as usize;
    let dead: Vec<Exception> = dead.into_values().take(limit as usize).collect();
    let read_to = if left { dead.last().map(|last| last.seq) } else { read_to };
    Ok((dead, read_to))
}

/// Makes what storage said of dead letters behind `after` what is true now.
fn take_words(lane: &Lane, ordinal: Ordinal, after: Seq, to: Seq, dead: &mut BTreeMap<Seq, Exception>) {
    for (seq, word) in lane.floor.borrow().journal.words(ordinal, after).into_iter().take_while(|(seq, _)| *seq <= to) {
        // What is only marked is one as long as storage has it.
        let is_gone = !dead.contains_key(&seq) && lane.floor.borrow().journal.is_mark(ordinal, seq);
        match word.filter(|word| word.state == ExceptionState::Dead && !is_gone) {
            Some(word) => dead.insert(seq, word),
            None => dead.remove(&seq),
        };
    }
}

/// Settles everything up to `to`, saved when this returns. Where dead letters hold others up, those up to `to` are marked: they
/// stay listed and do so no longer. `None` when the subscription was removed meanwhile.
///
/// # Errors
/// As storage fails; nothing is settled then, unless it is `Unknown`.
pub(super) async fn skip(lane: &Rc<Lane>, record: &SubscriptionRecord, to: Seq) -> Result<Option<()>, StorageError> {
    let ordinal = record.ordinal;
    // Until they are marked, so that what becomes of one meanwhile is a word in the journal.
    let unsaved = lane.saving.lock().await;
    let mut letters = BTreeMap::new();
    let marks = record.spec.ordering != Ordering::None && record.spec.on_dead == OnDead::Block;
    let mut after = Seq::ZERO;
    while marks && after < to {
        let (dead, read_to) = dead_letters(lane, &unsaved, ordinal, after, DEAD_READ).await?;
        letters.extend(dead.into_iter().map(|dead| (dead.seq, dead)).filter(|(seq, _)| *seq <= to));
        after = read_to.unwrap_or(to);
    }
    let change = || {
        if marks {
            take_words(lane, ordinal, Seq::ZERO, to, &mut letters);
        }
        let mut floor = lane.floor.borrow_mut();
        for mut dead in letters.into_values().filter(|dead| !dead.is_skipped()) {
            dead.reason.insert_str(0, Exception::SKIPPED);
            floor.journal.mark(dead);
        }
        floor.skip(ordinal, to);
        drop(floor);
        drop(unsaved);
        lane.stir();
        lane.hunger.notify_one();
    };
    saving::promise(lane, ordinal, change).await
}

/// Counts what is about to be saved, and ends dead letters that were delivered. What comes while that is looked up is looked up, too,
/// so that progress is not saved without it. Where deliveries end faster than that for many rounds, the last are left to the next
/// save: a crash before it leaves those letters listed, as if they had not been delivered. So is what could not be looked up;
/// `false` then.
pub(super) async fn settle(lane: &Lane, unsaved: &Unsaved<'_>) -> bool {
    let is_counted = doubts::count_anew(lane, unsaved).await;
    let mut is_readable = true;
    for _ in 0..ROUNDS_MAX {
        // What is counted by now can be counted down.
        doubts::settle(lane).await;
        is_readable = settle_recovered(lane, unsaved).await;
        if !is_readable || !lane.floor.borrow().has_doubts() {
            break;
        }
    }
    // What died meanwhile is counted before it is saved, or anew by the next save.
    doubts::settle(lane).await;
    is_readable &= is_counted;
    let mut floor = lane.floor.borrow_mut();
    floor.miscount_doubtful();
    floor.is_unreadable &= !is_readable;
    is_readable
}

/// Says that something could not be looked up, once until everything could be again.
fn tell_unreadable(lane: &Lane, error: &StorageError) {
    if std::mem::replace(&mut lane.floor.borrow_mut().is_unreadable, true) {
        tracing::debug!(%error, "dead letters still cannot be looked up; trying again");
    } else {
        tracing::error!(%error, "dead letters cannot be looked up; trying again");
    }
}

/// Says that what storage has of dead letters is damaged, once.
fn tell_damaged(lane: &Lane, error: &StorageError) {
    if !std::mem::replace(&mut lane.floor.borrow_mut().is_damaged, true) {
        tracing::error!(%error, "dead letters cannot be looked up; those that are delivered stay listed, others may be miscounted");
    }
}

/// Deliveries, which rise, by whose they are.
fn by_subscription(deliveries: impl IntoIterator<Item = (Ordinal, Seq)>) -> BTreeMap<Ordinal, Vec<Seq>> {
    let mut by_ordinal: BTreeMap<Ordinal, Vec<Seq>> = BTreeMap::new();
    for (ordinal, seq) in deliveries {
        by_ordinal.entry(ordinal).or_default().push(seq);
    }
    by_ordinal
}

/// Looks up which deliveries that succeeded are dead letters, and ends those, so that the same save says both. Those that could not
/// be looked up wait for another time, `false` then, unless they never can be.
async fn settle_recovered(lane: &Lane, unsaved: &Unsaved<'_>) -> bool {
    let recovered = by_subscription(lane.floor.borrow().recovered());
    let mut is_readable = true;
    for (ordinal, seqs) in recovered {
        let Err(error) = settle_recovered_of(lane, unsaved, ordinal, &seqs).await else { continue };
        if error.kind == StorageErrorKind::Corrupt {
            // What is damaged stays so, and others have to be looked up.
            lane.floor.borrow_mut().leave_listed(Some(ordinal));
            tell_damaged(lane, &error);
        } else {
            tell_unreadable(lane, &error);
            is_readable = false;
        }
    }
    is_readable
}

async fn settle_recovered_of(lane: &Lane, unsaved: &Unsaved<'_>, ordinal: Ordinal, mut rest: &[Seq]) -> Result<(), StorageError> {
    while let Some(first) = rest.first() {
        let after = first.prev();
        let (dead, read_to) = dead_letters(lane, unsaved, ordinal, after, DEAD_READ).await?;
        if dead.is_empty() && read_to.is_none() {
            forget_dead_behind(lane, ordinal, after);
        }
        let (read, behind) = rest.split_at(rest.partition_point(|seq| read_to.is_none_or(|read_to| *seq <= read_to)));
        let is_dead = |seq: &Seq| dead.binary_search_by_key(seq, |dead| dead.seq).is_ok();
        lane.floor.borrow_mut().revive(ordinal, read, is_dead);
        rest = behind;
    }
    Ok(())
}

/// Nothing behind `after` is dead, unless it died just now and is not saved.
fn forget_dead_behind(lane: &Lane, ordinal: Ordinal, after: Seq) {
    let mut floor = lane.floor.borrow_mut();
    if floor.journal.words(ordinal, after).is_empty() {
        floor.change(ordinal, |desk| desk.dead_to = desk.dead_to.min(after));
    }
}
