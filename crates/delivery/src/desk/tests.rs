//! Order and batches under random keys, failures, retries and restarts: nothing is lost, nothing overtakes its key.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::batch::Sent;
use crate::window::Progress;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::outcome::Answer;
use hookcast_core::model::subscription::{
    Activity, Batch, BatchFormat, OnDead, OrderKey, Ordering, PayloadForm, RetryPolicy, Revision, Signature, SubscriptionSpec,
    Verify,
};
use hookcast_core::model::{Event, NewEvent, PageBuilder, SubscriptionId, Topic};

mod examples;

const NOW: Timestamp = Timestamp(1_750_000_000_000);

fn record(ordering: Ordering, on_dead: OnDead, batch: Option<Batch>, max_attempts: u32) -> Arc<SubscriptionRecord> {
    let topics: hookcast_core::model::PatternList = "t".parse().unwrap();
    let spec = SubscriptionSpec {
        id: SubscriptionId::parse("s").unwrap(),
        url: "https://example.com/".to_owned(),
        topics: topics.clone(),
        types: Vec::new(),
        filter: None,
        signatures: vec![Signature::none()],
        template: None,
        batch,
        ordering,
        on_dead,
        verify: Verify::None,
        auth: None,
        ca_pem: None,
        limit_group: None,
        disable_after: Duration::from_hours(120),
        headers: BTreeMap::new(),
        payload: PayloadForm::Binary,
        rate_limit: None,
        max_in_flight: 4,
        max_retrying: 1000,
        on_full: OnFull::Wait,
        retry: RetryPolicy { max_attempts, schedule: vec![Duration::from_secs(5)], jitter: 0.0 },
        timeout: Duration::from_secs(15),
        description: String::new(),
        metadata: BTreeMap::new(),
    };
    Arc::new(SubscriptionRecord {
        spec,
        ordinal: Ordinal(1),
        revision: 1,
        activity: Activity::Active,
        starts_after: Seq::ZERO,
        consent: None,
        websub: None,
        revisions: vec![Revision { from_seq: Seq(1), topics, types: Vec::new(), filter: None, is_change: false }],
        declared: false,
        made_by: None,
        created_at: NOW,
        updated_at: NOW,
    })
}

/// An event whose data is `{"k":key}`; without a member, if there is none.
fn event(seq: u64, key: Option<u8>) -> Event {
    let mut builder = PageBuilder::starting_at(Seq(seq));
    builder.push(&NewEvent {
        topic: Topic::parse("t").unwrap(),
        id: seq.to_string(),
        own_id: false,
        source: "/publish".into(),
        kind: "message".into(),
        subject: None,
        time: None,
        arrived_at: NOW,
        content_type: "application/json".into(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Json,
        data: key.map_or_else(|| "{}".to_owned(), |key| format!("{{\"k\":{key}}}")).into(),
    });
    builder.finish().events_after(Seq::ZERO).next().unwrap()
}

fn outcome(status: u16) -> Outcome {
    Outcome::answered(Answer::of(status), 1)
}

fn by_key() -> Ordering {
    Ordering::Key(OrderKey::Pointer("/k".to_owned()))
}

fn batch(max_events: u32) -> Batch {
    Batch { max_events, max_bytes: 4096, max_wait: Duration::from_millis(200), format: BatchFormat::JsonArray }
}

/// A desk beside a log, a ledger and an endpoint.
struct World {
    desk: Desk,
    record: Arc<SubscriptionRecord>,
    keys: Vec<Option<u8>>,
    offered: u64,
    rows: BTreeMap<Seq, Exception>,
    flying: Vec<Job>,
    delivered: BTreeSet<u64>,
    /// First successes in their order, by key.
    order: BTreeMap<Option<u8>, Vec<u64>>,
    now: Timestamp,
}

impl World {
    fn new(record: Arc<SubscriptionRecord>, keys: Vec<Option<u8>>) -> Self {
        let desk = Desk::new(Arc::clone(&record), Position::Riding { not_before: Seq(0) });
        let (rows, order) = (BTreeMap::new(), BTreeMap::new());
        Self { desk, record, keys, offered: 0, rows, flying: Vec::new(), delivered: BTreeSet::new(), order, now: NOW }
    }

    fn event(&self, seq: u64) -> Event {
        event(seq, self.keys[seq as usize - 1])
    }

    fn offer(&mut self) {
        if self.offered < self.keys.len() as u64 {
            self.offered += 1;
            let parcel = Rc::new(Parcel::new(self.event(self.offered)));
            self.desk.window.offer(Seq(self.offered), parcel, 600);
        }
    }

    /// What a lane does for a desk that has to know keys.
    fn sort(&mut self) {
        let Some(order) = self.desk.order() else { return };
        if !order.attend() {
            return;
        }
        let (seqs, dead) = order.unread(usize::MAX);
        for seq in seqs {
            let event = event(seq.0, self.keys[seq.0 as usize - 1]);
            self.desk.sort(seq, Some(&event));
        }
        let rows: Vec<Seq> = self.rows.iter().filter(|(_, row)| row.state == ExceptionState::Dead).map(|(seq, _)| *seq).collect();
        let order = self.desk.order().unwrap();
        if let Some(doubt) = dead {
            for seq in rows {
                let line = order.line_of(&event(seq.0, self.keys[seq.0 as usize - 1]));
                order.blocks(seq, line);
            }
            order.letters.looked_up(&doubt, true);
        }
        order.rest();
    }

    fn take(&mut self) -> Option<&Job> {
        self.sort();
        match self.desk.next(self.now) {
            Next::Job(job) => {
                self.flying.push(job);
                self.flying.last()
            }
            _ => None,
        }
    }

    fn seqs(job: &Job) -> Vec<u64> {
        job.batch.as_ref().map_or_else(|| vec![job.seq.0], |batch| batch.members.iter().map(|member| member.seq.0).collect())
    }

    /// Ends an attempt; a batch loses its last `left` events first, which did not fit.
    fn settle(&mut self, index: usize, status: u16, left: usize) {
        let job = self.flying.swap_remove(index);
        if let Some(batch) = &job.batch {
            let sendable = batch.members.len() - left.min(batch.members.len() - 1);
            let is_known = batch.members.iter().all(|member| member.parcel().is_some());
            for member in batch.members.iter().skip(if is_known { usize::MAX } else { sendable }) {
                member.mark(Sent::Left);
            }
        }
        if status < 300 {
            let posted = job
                .batch
                .as_ref()
                .map_or_else(|| vec![job.seq.0], |batch| batch.with(Sent::Posted).map(|member| member.seq.0).collect::<Vec<_>>());
            for seq in posted {
                if self.delivered.insert(seq) {
                    self.order.entry(self.key_of(seq)).or_default().push(seq);
                }
            }
        }
        let effect = self.desk.settle(&job, &outcome(status), self.now, self.now, 0.5);
        let all = std::iter::once(&effect).chain(effect.rest.iter().map(|(effect, _)| effect));
        for one in all {
            if let Some(row) = &one.put {
                self.rows.insert(row.seq, row.clone());
            }
            if let Some(seq) = one.clear {
                self.rows.remove(&seq);
            }
        }
    }

    /// The process dies and starts from what was saved last, which is now.
    fn restart(&mut self) {
        let head = Seq(self.offered);
        let Progress { base, holes } = self.desk.window.progress(head).unwrap_or(Progress { base: head, holes: Vec::new() });
        self.flying.clear();
        self.desk = Desk::new(Arc::clone(&self.record), Position::Riding { not_before: base });
        self.offered = base.0;
        for row in self.rows.values().filter(|row| row.state == ExceptionState::Retry) {
            self.desk.resume_retry(row);
        }
        if !self.desk.reopen_aside(&holes) {
            for seq in holes {
                let parcel = Rc::new(Parcel::new(self.event(seq.0)));
                self.desk.window.offer_again(seq, parcel);
            }
        }
    }

    fn later(&mut self) {
        self.now = self.now.plus(Duration::from_secs(40));
    }

    /// Lets an endpoint that is well again take everything.
    fn run_down(&mut self) {
        for _ in 0..20 * self.keys.len() + 100 {
            self.offer();
            while self.take().is_some() {}
            while !self.flying.is_empty() {
                self.settle(0, 200, 0);
            }
            self.later();
        }
    }

    /// No key has two attempts in flight, but in one batch.
    fn check_flights(&self) {
        let mut seen = BTreeSet::new();
        for job in &self.flying {
            let keys: BTreeSet<u8> = Self::seqs(job).iter().filter_map(|seq| self.key_of(*seq)).collect();
            for key in keys {
                assert!(seen.insert(key), "two in flight of {key}: {:?}", self.flying.iter().map(Self::seqs).collect::<Vec<_>>());
            }
        }
    }

    fn key_of(&self, seq: u64) -> Option<u8> {
        match self.record.spec.ordering {
            Ordering::None => None,
            Ordering::Strict => Some(0),
            Ordering::Key(_) => self.keys[seq as usize - 1],
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer,
    Take,
    Succeed(usize),
    Fail(usize),
    Leave(usize),
    Later,
    Restart,
    Rewind,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Offer),
        6 => Just(Step::Take),
        4 => (0usize..4).prop_map(Step::Succeed),
        3 => (0usize..4).prop_map(Step::Fail),
        1 => (0usize..4).prop_map(Step::Leave),
        2 => Just(Step::Later),
        1 => Just(Step::Restart),
        1 => Just(Step::Rewind),
    ]
}

fn ordering() -> impl Strategy<Value = Ordering> {
    prop_oneof![1 => Just(Ordering::Strict), 3 => Just(by_key()), 1 => Just(Ordering::None)]
}

fn gathers() -> impl Strategy<Value = Option<Batch>> {
    prop_oneof![2 => Just(None), 1 => (1u32..6).prop_map(|most| Some(batch(most)))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2_000)))]

    /// Whatever fails and whenever the process dies: every event is delivered, and those of a key in the order of the log.
    #[test]
    fn nothing_is_lost_and_nothing_overtakes_its_key(
        ordering in ordering(), batch in gathers(),
        keys in prop::collection::vec(prop::option::weighted(0.9, 0u8..4), 1..40),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(record(ordering, OnDead::Skip, batch, 1_000), keys);
        for step in steps {
            match step {
                Step::Offer => world.offer(),
                Step::Take => { world.take(); }
                Step::Succeed(index) if index < world.flying.len() => world.settle(index, 200, 0),
                Step::Fail(index) if index < world.flying.len() => world.settle(index, 500, 0),
                Step::Leave(index) if index < world.flying.len() => world.settle(index, 200, 1),
                Step::Later => world.later(),
                Step::Restart => world.restart(),
                Step::Rewind => {
                    world.desk.rewind(Seq(world.offered));
                    let Position::Lagging(at) = world.desk.window.position() else { unreachable!() };
                    world.offered = at.0;
                    world.desk.window.set_position(Position::Riding { not_before: at });
                }
                _ => {}
            }
            world.check_flights();
        }
        world.run_down();
        prop_assert_eq!(world.delivered.len(), world.keys.len(), "all are delivered");
        prop_assert!(world.rows.is_empty(), "nothing waits");
        prop_assert_eq!(world.desk.window.cursor(Seq(world.offered)), Seq(world.keys.len() as u64));
        let in_order = world.order.iter().all(|(key, seqs)| key.is_none() || seqs.is_sorted());
        prop_assert!(in_order, "{:?}", world.order);
        prop_assert_eq!(world.desk.order().map_or(0, |order| order.lines()), 0, "no line is left behind");
    }
}
