//! What people, publishers and time do to a relay, one step after the other or several at a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookcast_core::clock::Clock as _;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::subscription::change::{self, Effect};
use hookcast_core::model::subscription::parse::{Definition, Rules, merge_patch, parse_definition};
use hookcast_core::model::subscription::{Ordering, SubscriptionRecord};
use hookcast_core::model::{NewEvent, Seq, Topic};
use hookcast_delivery::recovery::Recovery;
use hookcast_registry::Texts;
use serde_json::json;

use crate::checks;
use crate::definitions::{GROUPS, alone, definition, patch};
use crate::peers::Mood;
use crate::relay::Relay;
use crate::truth::Alone;
use crate::world::{World, life_of};

/// Ids that subscriptions have.
const IDS: usize = 60;
/// Subscriptions that there are from the beginning, at least.
pub(crate) const SUBSCRIPTIONS_MIN: usize = 20;

/// Who acts on a running relay. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) world: Rc<World>,
    pub(crate) relay: Rc<Relay>,
}

/// How likely each step is.
const STEPS: [(&str, usize); 18] = [
    ("publish", 24),
    ("create", 11),
    ("delete", 8),
    ("patch", 12),
    ("pause", 4),
    ("resume", 6),
    ("enable", 6),
    ("seek_back", 4),
    ("seek_forward", 3),
    ("skip", 3),
    ("replay", 3),
    ("redrive", 4),
    ("cancel", 3),
    ("mood", 14),
    ("clock", 2),
    ("consent", 2),
    ("storage", 4),
    ("look", 10),
];

/// Everything that has to come up: steps, changes, crashes, answers of storage, ends.
pub(crate) fn expected() -> Vec<String> {
    let of = |kind: &str, names: &[&str]| names.iter().map(|name| format!("{kind}/{name}")).collect::<Vec<_>>();
    let steps: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    let writes = ["append", "save", "proof", "forget", "trim_log", "trim_ledger", "put_subscription", "delete_subscription"];
    let fates = ["Refused", "Full", "Lost", "StoredUnsaid"];
    [
        of("step", &steps),
        of("crash", &["after_the_steps", "behind_a_write", "while_it_runs", "while_it_starts", "while_it_stops"]),
        of("mood", &["well", "slow", "fails", "moody", "hangs", "breaks", "busy", "aborts", "leaves"]),
        of("clock", &["back", "forth", "at_the_end"]),
        of("end", &["delivered", "dead", "expired", "skipped", "filtered", "before_start"]),
        of("seen", &["delivered", "dead", "expired", "skipped", "filtered", "before_start", "pending", "retrying"]),
        of(
            "notice",
            &["delivery.dead", "delivery.expired", "delivery.skipped", "delivery.no_longer_kept", "subscription.disabled"],
        ),
        writes.iter().flat_map(|write| of(&format!("storage/{write}"), &fates)).collect(),
        vec!["stop".to_owned(), "step/cancel_of_a_running_job".to_owned(), "storage/start/Refused".to_owned()],
    ]
    .concat()
}

impl Hand {
    /// One step of any kind.
    pub(crate) async fn step(&self) {
        let sum: usize = STEPS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.world.below(sum);
        let mut name = "look";
        for (step, weight) in STEPS {
            if at < weight {
                name = step;
                break;
            }
            at -= weight;
        }
        self.world.coverage.note(format!("step/{name}"));
        let hand = self.clone();
        let acting = async move { hand.act(name).await };
        if self.world.one_in(3) {
            // Others go on meanwhile.
            self.world.coverage.note("step/beside_others");
            tokio::task::spawn_local(acting);
        } else {
            // A storage that answers nothing for long must not end the script.
            let _ = tokio::time::timeout(Duration::from_secs(20), acting).await;
        }
        let pause = [0, 0, 3, 40, 700, 4_000][self.world.below(6)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn act(&self, name: &str) {
        match name {
            "publish" => self.publish().await,
            "create" => self.create().await,
            "mood" => self.mood(),
            "clock" => self.step_clock(),
            "consent" => self.world.ends.agree(!self.world.one_in(3)),
            "storage" => self.storage(),
            _ => {
                let records = self.relay.records();
                if records.is_empty() {
                    return;
                }
                let record = Arc::clone(&records[self.world.below(records.len())]);
                self.act_on(name, &record).await;
            }
        }
    }

    async fn act_on(&self, name: &str, record: &Arc<SubscriptionRecord>) {
        let (world, now) = (&self.world, self.world.clock.now());
        let said = |outcome: String| world.tell(format!("{name} {} {outcome}", record.spec.id));
        match name {
            "delete" => {
                let done = self.relay.registry.delete(record).await;
                said(format!("{:?}", done.map(|removed| removed.is_some())));
            }
            "patch" => self.patch(record).await,
            "pause" | "resume" => {
                let done = self.relay.registry.set_paused(record, name == "pause", now).await;
                said(format!("{:?}", done.is_ok()));
            }
            "enable" => self.change(record, &json!({"enabled": true})).await,
            "seek_back" | "seek_forward" => self.seek(record, name == "seek_back").await,
            "skip" => {
                world.truth.interfere(life_of(record));
                let to = self.position();
                let done = self.relay.lanes.skip(record, to).await;
                said(format!("to {to}: {done:?}"));
                checks::tell_all(self, record).await;
            }
            "replay" | "redrive" => self.recover(record, name == "redrive").await,
            "cancel" => self.cancel().await,
            _ => checks::look(self, record).await,
        }
    }

    /// A position up to the head.
    fn position(&self) -> Seq {
        let head = self.relay.follow.head().0;
        Seq(self.world.random.borrow_mut().u64(..=head))
    }

    async fn publish(&self) {
        let world = &self.world;
        let count = 1 + world.below(8);
        let events: Vec<NewEvent> = (0..count).map(|_| self.event()).collect();
        let placed = self.relay.ingest.publish(events).await;
        world.tell(format!("publish {count}: {:?}", placed.map(|placed| placed.first().map(|first| first.seq))));
    }

    fn event(&self) -> NewEvent {
        let world = &self.world;
        let number = world.next_event.replace(world.next_event.get() + 1);
        let mut data = json!({"n": number, "p": world.one_in(2)});
        if !world.one_in(5) {
            data["k"] = json!(["u", "v", "w"][world.below(3)]);
        }
        NewEvent {
            topic: Topic::parse(["t.a", "t.b", "t.c"][world.below(3)]).unwrap(),
            id: format!("e{number}"),
            own_id: true,
            source: "/publish".into(),
            kind: ["x", "y"][world.below(2)].into(),
            subject: None,
            time: None,
            arrived_at: world.clock.now(),
            content_type: "application/json".into(),
            data_schema: None,
            extensions: Vec::new(),
            hops: 0,
            form: DataForm::Json,
            data: Bytes::from(data.to_string()),
        }
    }

    /// A new subscription, under an id that may have been there before.
    pub(crate) async fn create(&self) {
        let world = &self.world;
        let id = format!("s{}", world.below(IDS));
        if self.relay.registry.get(&id).is_some() {
            return;
        }
        // Its life is known before it is made: its endpoint has it in its URL.
        let life = world.truth.begin_life(Alone::No, 0, true);
        let value = definition(&mut world.random.borrow_mut(), &id, life);
        let definition = read(|rules| parse_definition(&value, None, rules)).expect("a definition");
        let starts_after = match world.below(3) {
            0 => self.relay.follow.first_kept().prev(),
            1 => self.position().max(self.relay.follow.first_kept().prev()),
            _ => self.relay.follow.head(),
        };
        let id_read = definition.id.clone().expect("an id");
        let record = change::new_record(definition, id_read, starts_after, world.clock.now(), &mut zeros);
        world.truth.redefine(life, Alone::No, bound(&record), true);
        world.truth.begin(life, alone(&record.spec));
        world.ends.set(life, Mood::ALL[world.below(Mood::ALL.len())]);
        let stored = self.relay.registry.put(record, 0).await;
        if let Ok(stored) = &stored {
            world.truth.place(life, stored.ordinal.partition());
        }
        world.tell(format!("create {id} {life:?} behind {starts_after}: {:?} {value}", stored.map(|stored| stored.ordinal)));
    }

    async fn patch(&self, record: &Arc<SubscriptionRecord>) {
        let patch = patch(&mut self.world.random.borrow_mut(), life_of(record));
        for name in patch.as_object().into_iter().flat_map(|members| members.keys()) {
            self.world.coverage.note(format!("patch/{name}"));
        }
        self.change(record, &patch).await;
    }

    /// As `PATCH` does it.
    pub(crate) async fn change(&self, record: &Arc<SubscriptionRecord>, patch: &serde_json::Value) {
        let (world, relay) = (&self.world, &self.relay);
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
        let (changed, _) = change::changed_record(record, definition, effect, world.clock.now(), &mut zeros);
        let is_same_order = changed.spec.ordering == record.spec.ordering
            && changed.spec.on_dead == record.spec.on_dead
            && changed.spec.batch == record.spec.batch
            && changed.spec.url == record.spec.url;
        world.truth.redefine(life_of(record), alone(&changed.spec), bound(&changed), is_same_order);
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
    async fn seek(&self, record: &Arc<SubscriptionRecord>, is_back: bool) {
        let (world, relay) = (&self.world, &self.relay);
        world.truth.interfere(life_of(record));
        let Some(status) = relay.lanes.status(record).await else { return };
        let (first, cursor, head) = (relay.follow.first_kept().prev(), status.cursor.0, status.head.0);
        let (from, to) = if is_back { (first.0.min(cursor), cursor) } else { (cursor, head.max(cursor)) };
        let after = Seq(world.random.borrow_mut().u64(from..=to)).max(first);
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
        world.truth.interfere(life_of(record));
        let (one, other) = (self.position(), self.position());
        let recovery = if is_redrive {
            Recovery { kind: JobKind::Redrive, selection: Selection::Failed, from: Seq(1), to: relay.follow.head() }
        } else {
            let selection = if world.one_in(2) { Selection::All } else { Selection::Failed };
            let from = one.min(other).max(relay.follow.first_kept());
            Recovery { kind: JobKind::Replay, selection, from, to: one.max(other).max(from) }
        };
        let done = relay.lanes.recover(record, recovery.clone()).await;
        world.tell(format!("{:?} {} {}–{}: {}", recovery.kind, record.spec.id, recovery.from, recovery.to, done.is_ok()));
    }

    /// Ends the first job that runs.
    async fn cancel(&self) {
        for record in self.relay.records() {
            let Ok(Some(jobs)) = self.relay.lanes.jobs(&record).await else { continue };
            let Some(job) = jobs.iter().find(|job| job.state == JobState::Running) else { continue };
            let done = self.relay.lanes.cancel(&record, job.id).await;
            self.world.coverage.note("step/cancel_of_a_running_job");
            return self.world.tell(format!("cancel {}: {:?}", record.spec.id, done.map(|job| job.is_some())));
        }
    }

    fn mood(&self) {
        let records = self.relay.records();
        if records.is_empty() {
            return;
        }
        let record = &records[self.world.below(records.len())];
        let mood = Mood::ALL[self.world.below(Mood::ALL.len())];
        self.world.coverage.note(format!("mood/{}", mood.word()));
        self.world.ends.set(life_of(record), mood);
        self.world.tell(format!("{} {mood:?}", record.spec.id));
    }

    fn step_clock(&self) {
        let by_ms = [-60_000, -2_000, 2_000, 60_000][self.world.below(4)];
        self.world.coverage.note(if by_ms < 0 { "clock/back" } else { "clock/forth" });
        self.world.clock.step(by_ms);
        self.world.tell(format!("the clock steps by {by_ms} ms"));
    }

    fn storage(&self) {
        let rate = [0, 0, 40, 10, 3][self.world.below(5)];
        self.world.faults.set_rate(rate);
        self.world.tell(format!("one call of {rate} fails"));
    }
}

/// Most requests that may be open.
fn bound(record: &SubscriptionRecord) -> usize {
    if record.spec.ordering == Ordering::Strict {
        1.max(record.spec.max_in_flight as usize)
    } else {
        record.spec.max_in_flight as usize
    }
}

fn zeros(bytes: &mut [u8]) {
    bytes.fill(7);
}

fn read<E>(reading: impl FnOnce(&Rules<'_>) -> Result<Definition, E>) -> Result<Definition, E> {
    let any = |url: &str| Ok(url.to_owned());
    let texts = Texts::new(GROUPS.iter().map(|name| (*name).to_owned()).collect());
    reading(&Rules { texts: &texts, ..Rules::new(&any) })
}
