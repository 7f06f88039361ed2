//! Definitions that change and cursors that are moved while events come, are fed and taken, and while the process dies: each event
//! goes out exactly when the definition in force at its position wants it, and what was passed over by hand stays passed over.

use proptest::prelude::*;

use super::*;
use crate::job::Errand;

const TOPICS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(u8),
    Feed,
    Take(usize),
    Settle(usize, bool),
    Pause,
    Freeze,
    Store(usize),
    GiveUp,
    Seek(u8),
    Skip(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any::<u8>().prop_map(Step::Publish),
        3 => Just(Step::Feed),
        5 => (1usize..30).prop_map(Step::Take),
        4 => (0usize..20, prop::bool::weighted(0.9)).prop_map(|(index, is_well)| Step::Settle(index, is_well)),
        1 => Just(Step::Pause),
        3 => Just(Step::Freeze),
        3 => (0usize..3).prop_map(Step::Store),
        1 => Just(Step::GiveUp),
        1 => any::<u8>().prop_map(Step::Seek),
        1 => any::<u8>().prop_map(Step::Skip),
        1 => Just(Step::Restart),
    ]
}

struct World {
    floor: Floor,
    record: Arc<SubscriptionRecord>,
    pages: Vec<Arc<Page>>,
    scanned: usize,
    flying: Vec<Flying>,
    frozen: Option<Seq>,
    taken: BTreeSet<u64>,
    /// Up to here a seek or skip went: what was not taken there by then may have been left out.
    left_out_to: Seq,
    /// Nothing up to here goes out for the first time.
    moved_to: Seq,
    /// Nothing up to here goes out again.
    skipped_to: Seq,
}

struct Flying {
    assignment: Assignment,
    /// A seek goes back before it: whatever comes of it, it is to come again.
    is_called_off: bool,
}

impl World {
    fn new(ordering: Ordering) -> Self {
        let mut first = SubscriptionRecord::clone(&record(1));
        first.spec.topics = "a".parse().unwrap();
        first.spec.ordering = ordering;
        first.revisions[0].topics = first.spec.topics.clone();
        let (mut floor, first) = (Floor::new(Seq::ZERO, 64), Arc::new(first));
        floor.add(Arc::clone(&first), &Progress { base: Seq::ZERO, holes: Vec::new() });
        let (pages, flying, taken) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (left_out_to, moved_to, skipped_to) = (Seq::ZERO, Seq::ZERO, Seq::ZERO);
        Self { floor, record: first, pages, scanned: 0, flying, frozen: None, taken, left_out_to, moved_to, skipped_to }
    }

    fn head(&self) -> Seq {
        self.pages.last().map_or(Seq::ZERO, |page| page.last())
    }

    fn topic_of(seq: u64) -> &'static str {
        // Runs and single events of each topic.
        TOPICS[(seq * seq / 7 % 3) as usize]
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(count) => {
                let first = self.head().next().0;
                self.pages.push(page_of(first, (first..=first + u64::from(count) % 64).map(Self::topic_of)));
                self.scan();
            }
            Step::Feed => {
                for (place, at) in hungry(&mut self.floor) {
                    let next = self.pages.iter().position(|page| page.last() > at).unwrap();
                    self.floor.feed(&mut vec![place], &self.pages[next..self.pages.len().min(next + 2)], at);
                    self.floor.note_hunger(place);
                }
            }
            Step::Take(count) => {
                for _ in 0..count {
                    if !self.take(NOW) {
                        break;
                    }
                }
            }
            Step::Settle(index, is_well) if index < self.flying.len() => {
                let flying = self.flying.swap_remove(index);
                self.settle(&flying, is_well);
            }
            Step::Seek(place) => self.seek(self.somewhere(place)),
            Step::Skip(place) => self.skip(self.somewhere(place)),
            Step::Pause => {
                let is_active = self.record.activity == Activity::Active;
                let activity = if is_active { Activity::Paused } else { Activity::Active };
                self.change(|record| record.activity = activity);
            }
            Step::Freeze if self.frozen.is_none() => self.frozen = self.floor.freeze(Ordinal(1)),
            Step::Store(topic) => {
                if let Some(from_seq) = self.frozen.take() {
                    self.change(|record| {
                        record.spec.topics = TOPICS[topic].parse().unwrap();
                        let (topics, types) = (record.spec.topics.clone(), Vec::new());
                        record.revisions.retain(|revision| revision.from_seq < from_seq);
                        record.revisions.push(Revision { from_seq, topics, types, filter: None, is_change: true });
                    });
                    self.floor.thaw(Ordinal(1));
                }
            }
            Step::GiveUp if self.frozen.take().is_some() => self.floor.thaw(Ordinal(1)),
            Step::Restart => self.restart(),
            _ => {}
        }
    }

    fn scan(&mut self) {
        while let Some(page) = self.pages.get(self.scanned) {
            self.floor.scan(page);
            self.scanned += 1;
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut SubscriptionRecord)) {
        let mut record = SubscriptionRecord::clone(&self.record);
        change(&mut record);
        self.record = Arc::new(record);
        self.floor.redefine(&self.record);
    }

    fn somewhere(&self, place: u8) -> Seq {
        Seq(u64::from(place) * self.head().0 / u64::from(u8::MAX))
    }

    /// Takes what may go out; `false` when there is nothing.
    fn take(&mut self, now: Timestamp) -> bool {
        let Some(assignment) = self.floor.next(now) else { return false };
        let seq = assignment.job.seq;
        let passed_to = if assignment.job.errand == Errand::First { self.moved_to } else { self.skipped_to };
        assert!(seq > passed_to, "{seq} goes out ({:?}) although all up to {passed_to} was passed over", assignment.job.errand);
        self.flying.push(Flying { assignment, is_called_off: false });
        true
    }

    /// Moves the cursor: behind it the present definition judges, and whoever stores a change meanwhile begins anew.
    fn seek(&mut self, to: Seq) {
        let moved = self.record.moved_back_to(to);
        if moved.is_some() {
            self.floor.freeze(Ordinal(1));
        }
        self.floor.seek(Ordinal(1), to);
        if let Some(moved) = moved {
            self.change(|record| *record = moved);
            self.floor.thaw(Ordinal(1));
            if self.frozen.is_some() {
                self.step(Step::GiveUp);
                self.step(Step::Freeze);
            }
        }
        self.taken.retain(|seq| *seq <= to.0);
        for flying in self.flying.iter_mut().filter(|flying| flying.assignment.job.seq > to) {
            flying.is_called_off = true;
        }
        (self.left_out_to, self.moved_to, self.skipped_to) = (to, to, self.skipped_to.min(to));
    }

    fn skip(&mut self, to: Seq) {
        self.floor.skip(Ordinal(1), to);
        self.left_out_to = self.left_out_to.max(to);
        self.moved_to = self.moved_to.max(to);
        self.skipped_to = self.skipped_to.max(to);
    }

    fn settle(&mut self, flying: &Flying, is_well: bool) {
        if is_well && !flying.is_called_off {
            self.taken.insert(flying.assignment.job.seq.0);
        }
        let error = (!is_well).then_some(ErrorKind::Connect);
        self.floor.settle(&flying.assignment, None, &outcome(error), (NOW, NOW), 0.5);
    }

    /// The process dies after a save and starts again; a change that was not stored is lost, one that was is known.
    fn restart(&mut self) {
        let lane = self.floor.scanned;
        let window = &self.floor.desk(Ordinal(1)).unwrap().window;
        let progress = window.progress(lane).unwrap_or(Progress { base: lane, holes: Vec::new() });
        let retries = self.floor.desk(Ordinal(1)).unwrap().retries_after(Seq::ZERO, usize::MAX);
        self.flying.clear();
        self.frozen = None;
        self.floor = Floor::new(progress.base, 64);
        self.scanned = self.pages.partition_point(|page| page.last() <= progress.base);
        let place = self.floor.add(Arc::clone(&self.record), &progress);
        for retry in &retries {
            self.floor.change(Ordinal(1), |desk| desk.resume_retry(retry));
        }
        if !self.floor.change(Ordinal(1), |desk| desk.reopen_aside(&progress.holes)).unwrap() {
            let events = progress.holes.iter().map(|seq| self.pages.iter().find_map(|page| page.get(*seq)).unwrap()).collect();
            self.floor.reopen(place, events);
        }
        self.scan();
    }

    /// Everything that is due goes out and succeeds.
    fn run_down(&mut self) {
        self.step(Step::GiveUp);
        // The past of the endpoint is forgotten with the pause.
        self.change(|record| record.activity = Activity::Paused);
        self.change(|record| record.activity = Activity::Active);
        let later = NOW.plus(Duration::from_hours(1));
        for _ in 0..40 * (self.pages.len() + 2) {
            self.step(Step::Feed);
            for flying in std::mem::take(&mut self.flying) {
                self.settle(&flying, true);
            }
            self.floor.fire_timers(later);
            while self.take(later) {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2_000)))]

    #[test]
    fn each_event_is_judged_by_the_definition_in_force_at_its_position(
        is_strict in prop::bool::weighted(0.3),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(if is_strict { Ordering::Strict } else { Ordering::None });
        for step in steps {
            world.step(step);
        }
        world.run_down();
        let judge = |seq: u64| world.record.revision_at(Seq(seq)).unwrap().topics.to_string();
        let behind = world.left_out_to.next().0;
        let wanted: BTreeSet<u64> = (behind..=world.head().0).filter(|seq| judge(*seq) == World::topic_of(*seq)).collect();
        let taken: BTreeSet<u64> = world.taken.range(behind..).copied().collect();
        prop_assert_eq!(&taken, &wanted, "{:?}", world.record.revisions);
        let (head, lane) = (world.head(), world.floor.scanned);
        prop_assert_eq!(world.floor.desk(Ordinal(1)).unwrap().window.cursor(lane), head);
        world.floor.hold(Lease { partition: 1, epoch: 1 }, 1);
        world.floor.progress(1);
        prop_assert!(!world.floor.desk(Ordinal(1)).unwrap().looks_back(), "definitions of before are forgotten");
    }
}
