//! Whatever happens to a desk: what could go out has a wake-up armed, no more is on the wire than may be, and in the end
//! everything was delivered.

use proptest::prelude::*;

use super::*;
use crate::batch::Sent;
use hookcast_core::model::subscription::{Batch, BatchFormat, OrderKey};

const IN_FLIGHT_MAX: u32 = 4;
const ME: Ordinal = Ordinal(1);

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(u8),
    Feed,
    Take,
    Settle(usize, bool),
    Seek(u8),
    Skip(u8),
    Replay(u8),
    Order(u8),
    Batch(Option<u32>),
    Pause,
    Later(i64),
    Move(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1u8..12).prop_map(Step::Publish),
        4 => Just(Step::Feed),
        6 => Just(Step::Take),
        8 => (0usize..8, prop::bool::weighted(0.7)).prop_map(|(index, is_well)| Step::Settle(index, is_well)),
        2 => any::<u8>().prop_map(Step::Seek),
        2 => any::<u8>().prop_map(Step::Skip),
        2 => any::<u8>().prop_map(Step::Replay),
        2 => (0u8..3).prop_map(Step::Order),
        2 => prop::option::of(1u32..5).prop_map(Step::Batch),
        2 => Just(Step::Pause),
        3 => (0i64..40_000).prop_map(Step::Later),
        2 => prop_oneof![Just(-86_400_000i64), Just(3_600_000), Just(-2_000)].prop_map(Step::Move),
        1 => Just(Step::Restart),
    ]
}

/// Events with one of three keys, the id.
fn keyed_page(first: u64, count: u64) -> Arc<Page> {
    let mut builder = PageBuilder::starting_at(Seq(first));
    for seq in first..first + count {
        builder.push(&new_event("t", key_of(seq)));
    }
    builder.finish()
}

fn key_of(seq: u64) -> u64 {
    seq % 3
}

fn ordering(kind: u8) -> Ordering {
    match kind {
        0 => Ordering::None,
        1 => Ordering::Strict,
        _ => Ordering::Key(OrderKey::Attribute("id".to_owned())),
    }
}

fn seqs(assignment: &Assignment) -> Vec<u64> {
    let job = &assignment.job;
    job.batch.as_ref().map_or_else(|| vec![job.seq.0], |batch| batch.with(Sent::Posted).map(|member| member.seq.0).collect())
}

struct World {
    floor: Floor,
    record: Arc<SubscriptionRecord>,
    pages: Vec<Arc<Page>>,
    flying: Vec<Assignment>,
    delivered: BTreeSet<u64>,
    jobs: u64,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let mut first = SubscriptionRecord::clone(&record(1));
        first.spec.max_in_flight = IN_FLIGHT_MAX;
        let (mut floor, first) = (Floor::new(Seq::ZERO, 64), Arc::new(first));
        floor.add(Arc::clone(&first), &Progress { base: Seq::ZERO, holes: Vec::new() });
        let (pages, flying, delivered) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { floor, record: first, pages, flying, delivered, jobs: 0, now: NOW }
    }

    fn head(&self) -> Seq {
        self.pages.last().map_or(Seq::ZERO, |page| page.last())
    }

    fn somewhere(&self, place: u8) -> Seq {
        Seq(u64::from(place) % (self.head().0 + 1))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(count) => {
                let page = keyed_page(self.head().next().0, u64::from(count));
                self.floor.scan(&page);
                self.pages.push(page);
            }
            Step::Feed => self.feed(),
            Step::Take => self.take(),
            Step::Settle(index, is_well) if index < self.flying.len() => self.settle(index, is_well),
            Step::Settle(..) => {}
            Step::Seek(place) => self.floor.seek(ME, self.somewhere(place)),
            Step::Skip(place) => self.floor.skip(ME, self.somewhere(place)),
            Step::Replay(place) => self.replay(self.somewhere(place)),
            Step::Order(kind) => self.change(|record| record.spec.ordering = ordering(kind)),
            Step::Batch(most) => self.change(|record| {
                let terms = |max_events| Batch {
                    max_events,
                    max_bytes: 4096,
                    max_wait: Duration::from_millis(200),
                    format: BatchFormat::JsonArray,
                };
                record.spec.batch = most.map(terms);
            }),
            Step::Pause => {
                let is_active = self.record.activity == Activity::Active;
                let activity = if is_active { Activity::Paused } else { Activity::Active };
                self.change(|record| record.activity = activity);
            }
            Step::Later(by_ms) => self.later(by_ms),
            Step::Move(by_ms) => {
                self.now = Timestamp(self.now.0 + by_ms);
                self.floor.shift(by_ms);
            }
            Step::Restart => self.restart(),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut SubscriptionRecord)) {
        let mut record = SubscriptionRecord::clone(&self.record);
        change(&mut record);
        self.record = Arc::new(record);
        self.floor.redefine(&self.record);
    }

    fn later(&mut self, by_ms: i64) {
        self.now = Timestamp(self.now.0 + by_ms);
        self.floor.fire_timers(self.now);
    }

    fn events_after(&self, after: Seq) -> impl Iterator<Item = Event> + '_ {
        self.pages.iter().flat_map(move |page| page.events_after(after))
    }

    fn feed(&mut self) {
        for (place, at) in hungry(&mut self.floor) {
            let next = self.pages.iter().position(|page| page.last() > at).unwrap();
            self.floor.feed(&mut vec![place], &self.pages[next..self.pages.len().min(next + 2)], at);
            self.floor.note_hunger(place);
        }
        for (ordinal, want) in self.floor.replay_wants() {
            let inside = self.events_after(want.after).take_while(|event| event.seq() <= want.to).take(want.room);
            let item = |event: Event| {
                let (seq, parcel) = (event.seq(), Some(Rc::new(Parcel::new(event))));
                ReplayItem { seq, parcel, dead_after: None, line: None }
            };
            let items: Vec<ReplayItem> = inside.map(item).collect();
            self.floor.fill_replay(ordinal, &want, items, want.to, true);
        }
        self.floor.note_jobs(self.now);
    }

    fn replay(&mut self, to: Seq) {
        self.jobs += 1;
        self.floor.recover(RecoveryJob {
            ordinal: ME,
            id: JobId(self.jobs),
            kind: JobKind::Replay,
            selection: Selection::All,
            from: Seq(1),
            to,
            state: JobState::Running,
            position: Seq::ZERO,
            events: to.0,
            done: 0,
            failed: 0,
            created_at: self.now,
            ended_at: None,
        });
    }

    /// What a lane does for a desk that has to know keys.
    fn sort(&mut self) {
        self.floor.has_moved = false;
        for ordinal in std::mem::take(&mut self.floor.unsorted) {
            let order = self.floor.desk(ordinal).unwrap().order_in_force();
            let (unread, doubt) = order.map(|order| order.unread(usize::MAX)).unwrap_or_default();
            for seq in unread {
                let event = self.events_after(seq.prev()).next();
                self.floor.change(ordinal, |desk| desk.sort(seq, event.as_ref()));
            }
            self.floor.change(ordinal, |desk| {
                if let Some(order) = desk.order() {
                    if let Some(doubt) = &doubt {
                        order.letters.looked_up(doubt, true);
                    }
                    order.rest();
                }
            });
        }
    }

    /// Takes whatever may go out.
    fn take(&mut self) {
        loop {
            while let Some(assignment) = self.floor.next(self.now) {
                self.check_order(&assignment);
                self.flying.push(assignment);
                assert!(self.flying.len() <= IN_FLIGHT_MAX as usize, "{} on the wire", self.flying.len());
            }
            if self.floor.unsorted.is_empty() {
                return;
            }
            self.sort();
        }
    }

    fn check_order(&self, next: &Assignment) {
        let others = || self.flying.iter().flat_map(seqs);
        match &self.record.spec.ordering {
            Ordering::None => {}
            Ordering::Strict => assert_eq!(others().collect::<Vec<u64>>(), Vec::<u64>::new(), "beside {:?}", seqs(next)),
            Ordering::Key(_) => {
                let keys: BTreeSet<u64> = seqs(next).into_iter().map(key_of).collect();
                let twice: Vec<u64> = others().filter(|seq| keys.contains(&key_of(*seq))).collect();
                assert_eq!(twice, Vec::<u64>::new(), "of the same keys as {:?}", seqs(next));
            }
        }
    }

    fn settle(&mut self, index: usize, is_well: bool) {
        let assignment = self.flying.swap_remove(index);
        if is_well {
            self.delivered.extend(seqs(&assignment));
        }
        let error = (!is_well).then_some(ErrorKind::Connect);
        self.floor.settle(&assignment, None, &outcome(error), (self.now, self.now), 0.5);
    }

    /// The process dies after a save and starts again.
    fn restart(&mut self) {
        let lane = self.floor.scanned;
        let desk = self.floor.desk(ME).unwrap();
        let progress = desk.window.progress(lane).unwrap_or(Progress { base: lane, holes: Vec::new() });
        let retries = desk.retries_after(Seq::ZERO, usize::MAX);
        self.flying.clear();
        self.floor = Floor::new(progress.base, 64);
        let place = self.floor.add(Arc::clone(&self.record), &progress);
        for retry in &retries {
            self.floor.change(ME, |desk| desk.resume_stored(retry, self.now));
        }
        if !progress.holes.is_empty() && !self.floor.change(ME, |desk| desk.reopen_aside(&progress.holes)).unwrap() {
            let events = progress.holes.iter().map(|seq| self.events_after(seq.prev()).next().unwrap()).collect();
            self.floor.reopen(place, events);
        }
        for page in self.pages.iter().filter(|page| page.last() > progress.base) {
            self.floor.scan(page);
        }
    }

    /// Nobody sleeps who could send, or who waits for a time or for the log.
    fn check_awake(&mut self) {
        self.take();
        let desk = self.floor.desk_mut(ME).unwrap();
        match desk.next(self.now) {
            Next::Job(job) => panic!("{:?} could go out and nobody looks: {:?}", job.seq, desk.window),
            Next::WaitUntil(at) => assert!(desk.wakes_at.is_some_and(|wakes_at| wakes_at <= at), "nobody looks at {at}"),
            Next::Nothing => {}
        }
        assert!(!desk.is_hungry() || desk.feeding.is_listed, "nobody feeds it");
    }

    /// Everything that is due goes out and succeeds.
    fn run_down(&mut self) {
        if self.record.activity != Activity::Active {
            self.step(Step::Pause);
        }
        for _ in 0..2_000 {
            self.feed();
            self.take();
            while !self.flying.is_empty() {
                self.settle(0, true);
            }
            let lane = self.floor.scanned;
            let desk = self.floor.desk(ME).unwrap();
            if desk.window.cursor(lane) == self.head() && desk.retrying() == 0 && desk.in_flight() == 0 {
                return;
            }
            self.later(60_000);
        }
        let desk = self.floor.desk(ME).unwrap();
        panic!("it never ends: {:?} {:?}", desk.window, desk.order_in_force());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4_000)))]

    #[test]
    fn whoever_could_go_out_is_woken_and_no_more_are_open_than_may_be(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check_awake();
        }
        world.run_down();
        world.delivered.clear();
        world.floor.seek(ME, Seq::ZERO);
        world.run_down();
        prop_assert_eq!(world.delivered.len() as u64, world.head().0, "everything once more");
    }
}
