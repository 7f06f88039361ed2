//! What people do to one subscription, as the API does it: changes of its definition, moves of its cursor, jobs.

use std::sync::Arc;

use hookcast_core::clock::Clock as _;
use hookcast_core::model::Seq;
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::subscription::change::{self, Effect};
use hookcast_core::model::subscription::parse::{Definition, Rules, merge_patch};
use hookcast_core::model::subscription::{Ordering, SubscriptionRecord};
use hookcast_delivery::recovery::Recovery;
use hookcast_registry::Texts;

use crate::checks;
use crate::definitions::{GROUPS, alone, patch};
use crate::lives::Reach;
use crate::steps::Hand;
use crate::world::life_of;

impl Hand {
    pub(crate) async fn patch(&self, record: &Arc<SubscriptionRecord>) {
        let patch = patch(&mut self.world.random.borrow_mut(), life_of(record));
        for name in patch.as_object().into_iter().flat_map(|members| members.keys()) {
            self.world.coverage.note(format!("patch/{name}"));
        }
        self.change(record, &patch).await;
    }

    /// As `PATCH` does it.
    pub(crate) async fn change(&self, record: &Arc<SubscriptionRecord>, patch: &serde_json::Value) {
        let (world, relay, life) = (&self.world, &self.relay, life_of(record));
        let Ok(definition) = read(|rules| merge_patch(record, patch, rules)) else {
            world.coverage.note("patch/refused");
            return;
        };
        let (mut effect, mut still) = (Effect::default(), None);
        if change::chooses_anew(record, &definition) {
            let Some((from_seq, stillness)) = relay.lanes.freeze(record).await else { return };
            effect = Effect { from_seq, first_kept: relay.follow.first_kept() };
            still = Some(stillness);
        }
        let (changed, _) = change::changed_record(record, definition, effect, world.clock.now(), &mut sevens);
        let is_same_order = changed.spec.ordering == record.spec.ordering
            && changed.spec.on_dead == record.spec.on_dead
            && changed.spec.batch == record.spec.batch
            && changed.spec.url == record.spec.url;
        let _stirs = world.truth.stir(life);
        let (alone, bound) = (alone(&changed.spec), bound(&changed));
        world.truth.with(life, |life| life.redefine(changed.clone(), alone, bound, is_same_order));
        let stored = relay.registry.put(changed, record.revision).await;
        if let Ok(stored) = &stored {
            relay.lanes.caught_up(stored).await;
        }
        drop(still);
        world.tell(format!(
            "patch {} {:?} from {}: {patch}",
            record.spec.id,
            stored.map(|stored| stored.revision),
            effect.from_seq
        ));
    }

    /// As `POST …/seek` does it.
    pub(crate) async fn seek(&self, record: &Arc<SubscriptionRecord>, is_back: bool) {
        let (world, relay) = (&self.world, &self.relay);
        let Some(status) = relay.lanes.status(record).await else { return };
        let (first, cursor, head) = (relay.follow.first_kept().prev(), status.cursor.0, status.head.0);
        let (from, to) = if is_back { (first.0.min(cursor), cursor) } else { (cursor, head.max(cursor)) };
        let after = Seq(world.random.borrow_mut().u64(from..=to)).max(first);
        let _moves = world.truth.reach(life_of(record), Reach::Again(after));
        let moved = record.moved_back_to(after).is_some();
        let still = if moved { relay.lanes.freeze(record).await } else { None };
        let done = relay.lanes.seek(record, after).await;
        if moved && done.as_ref().is_ok_and(|is_there| *is_there) {
            let changed = relay.registry.change(record, move |record: &SubscriptionRecord| record.moved_back_to(after)).await;
            if let Ok(Some(changed)) = changed {
                relay.lanes.caught_up(&changed).await;
            }
        }
        drop(still);
        world.tell(format!("seek {} from {cursor} behind {after}: {done:?}", record.spec.id));
        checks::tell_all(self, record).await;
    }

    /// A replay, or a redrive of everything.
    pub(crate) async fn recover(&self, record: &Arc<SubscriptionRecord>, is_redrive: bool) {
        let (world, relay) = (&self.world, &self.relay);
        let (one, other) = (self.position(), self.position());
        let recovery = if is_redrive {
            Recovery { kind: JobKind::Redrive, selection: Selection::Failed, from: Seq(1), to: relay.follow.head() }
        } else {
            let selection = if world.one_in(2) { Selection::All } else { Selection::Failed };
            let from = one.min(other).max(relay.follow.first_kept());
            Recovery { kind: JobKind::Replay, selection, from, to: one.max(other).max(from) }
        };
        world.truth.with(life_of(record), |life| life.reach(Reach::Job(recovery.from, recovery.to)));
        let done = relay.lanes.recover(record, recovery.clone()).await;
        world.tell(format!("{:?} {} {}–{}: {}", recovery.kind, record.spec.id, recovery.from, recovery.to, done.is_ok()));
    }

    /// Ends the first job that runs.
    pub(crate) async fn cancel(&self) {
        for record in self.relay.records() {
            let Ok(Some(jobs)) = self.relay.lanes.jobs(&record).await else { continue };
            let Some(job) = jobs.iter().find(|job| job.state == JobState::Running) else { continue };
            let done = self.relay.lanes.cancel(&record, job.id).await;
            self.world.coverage.note("step/cancel_of_a_running_job");
            return self.world.tell(format!("cancel {}: {:?}", record.spec.id, done.map(|job| job.is_some())));
        }
    }
}

/// Most requests that may be open.
pub(crate) fn bound(record: &SubscriptionRecord) -> usize {
    if record.spec.ordering == Ordering::Strict {
        1.max(record.spec.max_in_flight as usize)
    } else {
        record.spec.max_in_flight as usize
    }
}

pub(crate) fn sevens(bytes: &mut [u8]) {
    bytes.fill(7);
}

pub(crate) fn read<E>(reading: impl FnOnce(&Rules<'_>) -> Result<Definition, E>) -> Result<Definition, E> {
    let any = |url: &str| Ok(url.to_owned());
    let texts = Texts::new(GROUPS.iter().map(|name| (*name).to_owned()).collect());
    reading(&Rules { texts: &texts, ..Rules::new(&any) })
}
