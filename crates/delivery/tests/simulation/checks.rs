//! What a relay says, held against what really happened: while it runs, and once everything has come to an end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hookcast_core::model::subscription::{Activity, OnDead, Ordering, SubscriptionRecord};
use hookcast_core::model::{ExceptionState, Seq};
use hookcast_delivery::telling::{DeliveryState, DeliveryView};
use hookcast_log::storage::PageRequest;
use serde_json::json;

use crate::lives::{Life, is_chosen};
use crate::steps::Hand;
use crate::truth::Stored;
use crate::world::life_of;

/// Looks at some deliveries of a subscription while everything goes on.
pub(crate) async fn look(hand: &Hand, record: &Arc<SubscriptionRecord>) {
    let (world, relay) = (&hand.world, &hand.relay);
    let _ = relay.lanes.status(record).await;
    let after = Seq(world.random.borrow_mut().u64(..=relay.follow.head().0));
    let _ = relay.lanes.undelivered(record, PageRequest { after, limit: 5 }).await;
    let _ = relay.lanes.jobs(record).await;
    for _ in 0..6 {
        let seq = Seq(world.random.borrow_mut().u64(..=relay.follow.head().0));
        let Ok(Some(view)) = relay.lanes.delivery(record, seq).await else { continue };
        world.coverage.note(format!("seen/{}", view.state.word()));
        let life = life_of(record);
        if let Some(what) = contradiction(life, seq, &view, hand) {
            world.truth.violated(format!("{} {life:?} {seq}: {what}", record.spec.id));
        }
    }
}

/// Tells what is stored of all deliveries of a subscription, in a seed that is looked at by itself; nothing goes on by that.
pub(crate) async fn tell_all(hand: &Hand, record: &Arc<SubscriptionRecord>) {
    if !hand.world.is_told {
        return;
    }
    let mut words = String::new();
    for seq in 1..=hand.relay.follow.head().0 {
        let (ledger, seq) = (&hand.world.store.ledger, Seq(seq));
        let marks = ledger.marks(record.ordinal, seq).await.unwrap();
        let exception = ledger.exception(record.ordinal, seq).await.unwrap().map(|exception| exception.state);
        let (skipped, expired) = (if marks.is_skipped { "s" } else { "" }, if marks.is_expired { "e" } else { "" });
        let _ = write!(words, " {seq}:{skipped}{expired}{exception:?}");
    }
    hand.world.tell(format!("{}:{words}", record.spec.id));
}

/// What cannot be as it is said.
fn contradiction(life: Life, seq: Seq, view: &DeliveryView, hand: &Hand) -> Option<String> {
    let is_taken = hand.world.truth.is_taken(life, seq);
    match (view.state, view.reason.as_deref()) {
        (DeliveryState::Delivered, _) if !is_taken => Some("`delivered`, and nobody took it".to_owned()),
        // Every success is remembered here, and nothing of what is remembered is taken by age.
        (DeliveryState::Unknown, Some("no_success_on_record")) => Some("its success is not on record".to_owned()),
        _ => None,
    }
}

/// Whether somebody has to free it before it goes on.
async fn is_held(hand: &Hand, record: &Arc<SubscriptionRecord>) -> bool {
    record.activity != Activity::Active || (holds_up(record) && dead(hand, record).await > 0)
}

fn holds_up(record: &SubscriptionRecord) -> bool {
    record.spec.on_dead == OnDead::Block && record.spec.ordering != Ordering::None
}

async fn dead(hand: &Hand, record: &Arc<SubscriptionRecord>) -> u64 {
    hand.relay.lanes.status(record).await.map_or(0, |status| status.dead)
}

/// What has not come to an end; only what is to do so by itself, if that is asked.
pub(crate) async fn unfinished(hand: &Hand, by_itself: bool) -> Vec<String> {
    let mut left = Vec::new();
    for record in hand.relay.records() {
        if by_itself && is_held(hand, &record).await {
            continue;
        }
        let Some(status) = hand.relay.lanes.status(&record).await else {
            left.push(format!("{}: no status", record.spec.id));
            continue;
        };
        let jobs = hand.relay.lanes.jobs(&record).await;
        let running = jobs
            .ok()
            .flatten()
            .into_iter()
            .flatten()
            .filter(|job| job.state == hookcast_core::model::job::JobState::Running)
            .count();
        if (status.lag, status.retrying, status.in_flight, running) != (0, 0, 0, 0) || !record.may_deliver() {
            left.push(format!(
                "{} {:?} {:?}: lag {}, retrying {}, in flight {}, jobs {running}, dead {}, circuit {}, cursor {} of {}, {:?} {:?}",
                record.spec.id,
                life_of(&record),
                record.activity,
                status.lag,
                status.retrying,
                status.in_flight,
                status.dead,
                status.circuit,
                status.cursor,
                status.head,
                record.spec.ordering,
                record.spec.on_dead,
            ));
        }
    }
    left
}

/// Lets everything run that may not, and frees what dead letters hold up.
pub(crate) async fn free(hand: &Hand) {
    let now = hookcast_core::clock::Clock::now(&*hand.world.clock);
    for record in hand.relay.records() {
        match record.activity {
            Activity::Paused => {
                let _stirs = hand.world.truth.stir(life_of(&record));
                let _ = hand.relay.registry.set_paused(&record, false, now).await;
            }
            Activity::Disabled(_) => hand.change(&record, &json!({"enabled": true})).await,
            Activity::Active => {}
        }
        if holds_up(&record) && dead(hand, &record).await > 0 {
            hand.recover(&record, true).await;
        }
    }
}

/// What is said of each delivery, and why.
type States = BTreeMap<Seq, (DeliveryState, Option<String>)>;

/// What is wrong at the end, when nothing is left to do.
pub(crate) async fn wrong_at_the_end(hand: &Hand) -> Vec<String> {
    let (world, relay) = (&hand.world, &hand.relay);
    let (events, first_kept) = (world.truth.events(), relay.follow.first_kept());
    let mut wrong = Vec::new();
    for record in relay.records() {
        let life = life_of(&record);
        let mut states = States::new();
        for event in &events {
            let view = match relay.lanes.delivery(&record, event.seq).await {
                Ok(Some(view)) => view,
                other => {
                    wrong.push(format!("{} {}: {other:?}", record.spec.id, event.seq));
                    continue;
                }
            };
            world.coverage.note(format!("end/{}", view.state.word()));
            states.insert(event.seq, (view.state, view.reason.clone()));
            if let Some(what) = wrong_state(hand, &record, event, &view, first_kept) {
                wrong.push(format!("{} {life:?} {}: {what}", record.spec.id, event.seq));
            }
        }
        wrong.extend(wrong_lists(hand, &record, &states).await);
    }
    wrong
}

fn wrong_state(hand: &Hand, record: &SubscriptionRecord, event: &Stored, view: &DeliveryView, first_kept: Seq) -> Option<String> {
    let (world, life) = (&hand.world, life_of(record));
    let (is_kept, is_taken) = (event.seq >= first_kept, world.truth.is_taken(life, event.seq));
    match view.state {
        DeliveryState::Pending | DeliveryState::Retrying => Some(format!("still {}", view.state.word())),
        DeliveryState::Delivered if !is_taken => Some("`delivered`, and nobody took it".to_owned()),
        DeliveryState::Expired if is_kept => Some("`expired`, and it is kept".to_owned()),
        DeliveryState::Skipped if !world.truth.with(life, |life| life.was_moved) => Some("`skipped`, and nobody did".to_owned()),
        DeliveryState::Unknown if !is_taken && is_kept && wants(record, event) => Some(format!("unknown: {:?}", view.reason)),
        DeliveryState::Filtered if wants(record, event) => Some(format!("`filtered`, {:?}", view.reason)),
        DeliveryState::BeforeStart if event.seq > record.starts_after => Some("`before_start` behind its start".to_owned()),
        _ => None,
    }
}

/// Whether the definition that judges an event wants it, by the simulation's own reading of it.
fn wants(record: &SubscriptionRecord, event: &Stored) -> bool {
    let Some(revision) = record.revision_at(event.seq) else { return false };
    is_chosen(event, &revision.topics, &revision.types, revision.filter.is_some())
}

/// Who does not receive at once what is published, when nothing else is left to do and nobody asks for anything.
pub(crate) async fn asleep(hand: &Hand) -> Vec<String> {
    const SOON: Duration = Duration::from_secs(5);
    let before = hand.relay.follow.head();
    hand.publish_of_each().await;
    tokio::time::sleep(SOON).await;
    let events: Vec<Stored> = hand.world.truth.events().into_iter().filter(|event| event.seq > before).collect();
    let mut asleep = Vec::new();
    for record in hand.relay.records() {
        let life = life_of(&record);
        let left: Vec<Seq> = events.iter().filter(|event| wants(&record, event)).map(|event| event.seq).collect();
        let left: Vec<Seq> = left.into_iter().filter(|seq| !hand.world.truth.is_taken(life, *seq)).collect();
        // Whoever failed for long and was asked for nothing since waits for its probe.
        let is_open = hand.relay.lanes.status(&record).await.is_some_and(|status| status.circuit != "closed");
        if !left.is_empty() && !is_open {
            asleep.push(format!("{} {life:?} did not receive {left:?} within {SOON:?}", record.spec.id));
        }
        hand.world.coverage.note(if is_open { "asleep/open" } else { "asleep/awake" });
    }
    asleep
}

/// Lists and counts that say other things than the deliveries one by one.
async fn wrong_lists(hand: &Hand, record: &Arc<SubscriptionRecord>, states: &States) -> Vec<String> {
    let (lanes, id) = (&hand.relay.lanes, &record.spec.id);
    let mut wrong = Vec::new();
    let (mut listed, mut after) = (Vec::new(), Seq::ZERO);
    loop {
        match lanes.undelivered(record, PageRequest { after, limit: 50 }).await {
            Ok(Some(page)) => {
                listed.extend(page.items);
                match page.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            other => return vec![format!("{id}: undelivered {other:?}")],
        }
    }
    let dead: Vec<Seq> = match lanes.dead_letters(record, PageRequest { after: Seq::ZERO, limit: 1000 }).await {
        Ok(Some(dead)) => dead.into_iter().map(|dead| dead.seq).collect(),
        other => return vec![format!("{id}: dead letters {other:?}")],
    };
    for (seq, exception) in &listed {
        if exception.as_ref().is_none_or(|exception| exception.state != ExceptionState::Dead) {
            wrong.push(format!("{id}: {seq} is listed as undelivered, and is {:?}", states.get(seq)));
        }
    }
    let of_list: Vec<Seq> = listed.iter().map(|(seq, _)| *seq).collect();
    if of_list != dead {
        wrong.push(format!("{id}: undelivered {of_list:?}, dead letters {dead:?}"));
    }
    for (seq, (state, reason)) in states {
        let is_kept = *state == DeliveryState::Dead && reason.as_deref() != Some("no_longer_kept");
        if is_kept != dead.contains(seq) {
            wrong.push(format!("{id}: {seq} is {state:?} {reason:?}, of the dead letters {dead:?}"));
        }
    }
    if let Some(status) = lanes.status(record).await
        && status.dead != dead.len() as u64
    {
        wrong.push(format!("{id}: `dead` is {}, {} are listed", status.dead, dead.len()));
    }
    wrong
}

/// How long everything has to come to its end.
pub(crate) const END_MAX: Duration = Duration::from_mins(15);
