//! What people, publishers and time do to a relay, one step after the other or several at a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookcast_core::clock::Clock as _;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::subscription::change;
use hookcast_core::model::subscription::parse::parse_definition;
use hookcast_core::model::{NewEvent, Seq, Topic};
use serde_json::json;

use crate::changes::{bound, read, sevens};
use crate::checks;
use crate::definitions::{alone, definition};
use crate::lives::Reach;
use crate::peers::Mood;
use crate::relay::Relay;
use crate::world::{World, life_of};

/// Ids that subscriptions have.
const IDS: usize = 60;
/// Topics that events have.
const TOPICS: [&str; 3] = ["t.a", "t.b", "t.c"];
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_mins(1);
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
    ("skip", 4),
    ("replay", 3),
    ("redrive", 4),
    ("cancel", 4),
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
        let acting = async move {
            if tokio::time::timeout(ANSWER_MAX, hand.act(name)).await.is_err() {
                hand.world.truth.violated(format!("{name} was not answered"));
            }
        };
        if self.world.one_in(3) {
            // Others go on meanwhile.
            self.world.coverage.note("step/beside_others");
            tokio::task::spawn_local(acting);
        } else {
            acting.await;
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
        let (world, now, life) = (&self.world, self.world.clock.now(), life_of(record));
        let said = |outcome: String| world.tell(format!("{name} {} {outcome}", record.spec.id));
        match name {
            "delete" => {
                let begun = world.truth.with(life, |life| life.stirs());
                let done = self.relay.registry.delete(record).await;
                if done.is_ok() {
                    world.truth.with(life, |life| life.silence(begun));
                }
                said(format!("{:?}", done.map(|removed| removed.is_some())));
            }
            "patch" => self.patch(record).await,
            "pause" => {
                let begun = world.truth.with(life, |life| life.stirs());
                let done = self.relay.registry.set_paused(record, true, now).await;
                if done.is_ok() {
                    world.truth.with(life, |life| life.silence(begun));
                }
                said(format!("{:?}", done.is_ok()));
            }
            "resume" => {
                let _stirs = world.truth.stir(life);
                let done = self.relay.registry.set_paused(record, false, now).await;
                said(format!("{:?}", done.is_ok()));
            }
            "enable" => self.change(record, &json!({"enabled": true})).await,
            "seek_back" | "seek_forward" => self.seek(record, name == "seek_back").await,
            "skip" => {
                let _moves = world.truth.reach(life, Reach::Cursor);
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
    pub(crate) fn position(&self) -> Seq {
        let head = self.relay.follow.head().0;
        Seq(self.world.random.borrow_mut().u64(..=head))
    }

    async fn publish(&self) {
        let world = &self.world;
        let count = 1 + world.below(8);
        let mut events: Vec<NewEvent> = (0..count).map(|_| self.event(world.below(TOPICS.len()))).collect();
        if world.one_in(3)
            && let Some(again) = self.unanswered()
        {
            world.coverage.note("publish/again");
            events.insert(world.below(events.len()), again);
        }
        world.unanswered.borrow_mut().extend(events.iter().cloned());
        let placed = self.relay.ingest.publish(events.clone()).await;
        if let Ok(placed) = &placed {
            for (event, placed) in events.iter().zip(placed) {
                if placed.duplicate {
                    world.coverage.note("publish/known");
                }
                world.truth.acknowledge(number_of(event), placed.seq);
            }
            world.unanswered.borrow_mut().retain(|event| events.iter().all(|answered| answered.id != event.id));
        }
        world.tell(format!("publish {count}: {:?}", placed.map(|placed| placed.first().map(|first| first.seq))));
    }

    /// An event whose publisher was told nothing, and who publishes it again. What retention took may be stored once more: its id is known
    /// after a start only if it stands in the log, or was one of thousands.
    fn unanswered(&self) -> Option<NewEvent> {
        let (world, first) = (&self.world, self.relay.follow.first_kept());
        let all = world.unanswered.borrow();
        let is_kept = |event: &&NewEvent| world.truth.seq_of(number_of(event)).is_none_or(|seq| seq >= first);
        let known: Vec<&NewEvent> = all.iter().filter(is_kept).collect();
        (!known.is_empty()).then(|| known[world.below(known.len())].clone())
    }

    /// Publishes an event of each topic.
    pub(crate) async fn publish_of_each(&self) {
        let placed = self.relay.ingest.publish((0..TOPICS.len()).map(|topic| self.event(topic)).collect()).await;
        self.world.tell(format!("publish one of each: {:?}", placed.map(|placed| placed.first().map(|first| first.seq))));
    }

    fn event(&self, topic: usize) -> NewEvent {
        let world = &self.world;
        let number = world.next_event.replace(world.next_event.get() + 1);
        let mut data = json!({"n": number, "p": world.one_in(2)});
        if !world.one_in(5) {
            data["k"] = json!(["u", "v", "w"][world.below(3)]);
        }
        NewEvent {
            topic: Topic::parse(TOPICS[topic]).unwrap(),
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
        let life = world.truth.next_life();
        let value = definition(&mut world.random.borrow_mut(), &id, life);
        let definition = read(|rules| parse_definition(&value, None, rules)).expect("a definition");
        let starts_after = match world.below(3) {
            0 => self.relay.follow.first_kept().prev(),
            1 => self.position().max(self.relay.follow.first_kept().prev()),
            _ => self.relay.follow.head(),
        };
        let id_read = definition.id.clone().expect("an id");
        let record = change::new_record(definition, id_read, starts_after, world.clock.now(), &mut sevens);
        world.truth.begin_life(record.clone(), alone(&record.spec), bound(&record));
        world.ends.set(life, Mood::ALL[world.below(Mood::ALL.len())]);
        let stored = self.relay.registry.put(record, 0).await;
        if let Ok(stored) = &stored {
            world.truth.with(life, |life| life.partition = stored.ordinal.partition());
        }
        world.tell(format!("create {id} {life:?} behind {starts_after}: {:?} {value}", stored.map(|stored| stored.ordinal)));
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

/// The number of an event, as its data says.
fn number_of(event: &NewEvent) -> u64 {
    serde_json::from_slice::<serde_json::Value>(&event.data).ok().and_then(|data| data["n"].as_u64()).expect("a number")
}
