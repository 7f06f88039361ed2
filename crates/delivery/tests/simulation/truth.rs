//! What really happened, seen from outside: which events are stored, what endpoints received, what was saved; and what of it must
//! not have happened.
//!
//! Owns the rules that hold at every moment. What must hold at the end is told by `checks`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use hookcast_core::model::Seq;
use serde_json::Value;

use crate::world::is_told;

/// In place of when something was taken: the process that knew of it died before it was saved.
const FORGOTTEN: u64 = u64::MAX;

/// One life of a subscription: an id that is removed and made again has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life(pub(crate) usize);

/// How many requests of a life may be open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alone {
    /// As many as its bound says.
    No,
    /// One.
    Always,
    /// One a key.
    ByKey,
}

/// An event as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: Seq,
    pub(crate) topic: String,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Stored {
    fn key(&self) -> Option<&str> {
        self.data["k"].as_str()
    }
}

/// One request that an endpoint received.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) life: Life,
    pub(crate) seqs: Vec<Seq>,
    /// The answer; nothing while it is open, 0 when the relay went away before.
    pub(crate) status: Option<u16>,
    /// Its place among the ends of requests.
    ended: Option<u64>,
}

/// What is known of one life.
#[derive(Debug)]
struct LifeState {
    partition: u16,
    alone: Alone,
    bound: usize,
    /// In order, as long as nobody interfered.
    last_taken: Option<Seq>,
    keeps_order: bool,
    /// Whether an event may be posted again although it was taken, or passed over.
    may_repeat: bool,
    open: BTreeSet<usize>,
    /// Answers that were good, by position: the place of the first end.
    taken: BTreeMap<Seq, u64>,
}

#[derive(Default)]
struct State {
    stored: BTreeMap<u64, Stored>,
    by_seq: BTreeMap<Seq, u64>,
    lives: Vec<LifeState>,
    receipts: Vec<Receipt>,
    ends: u64,
    /// What ended before this, in a partition, is saved.
    saved: BTreeMap<u16, u64>,
    violations: Vec<String>,
}

/// Everything that happened in one simulation.
#[derive(Default)]
pub(crate) struct Truth(Mutex<State>);

impl std::fmt::Debug for Truth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Truth")
    }
}

impl Truth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A process begins: what ended in the one before and was not saved is forgotten, and happens again.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        let state = &mut *state;
        for life in &mut state.lives {
            let saved = state.saved.get(&life.partition).copied().unwrap_or_default();
            life.taken.values_mut().filter(|end| **end >= saved).for_each(|end| *end = FORGOTTEN);
            life.last_taken = life.taken.iter().filter(|(_, end)| **end < saved).map(|(seq, _)| *seq).max();
        }
    }

    /// What must not have happened, since this was asked.
    pub(crate) fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    /// Something must not have happened.
    pub(crate) fn violated(&self, what: String) {
        self.state().violations.push(what);
    }

    /// Events are in the log.
    pub(crate) fn store(&self, events: impl IntoIterator<Item = Stored>) {
        let mut state = self.state();
        for event in events {
            let Some(number) = event.data["n"].as_u64() else { continue };
            if let Some(before) = state.stored.get(&number).filter(|before| before.seq != event.seq) {
                let what = format!("event {number} is stored twice: {} and {}", before.seq, event.seq);
                state.violations.push(what);
            }
            state.by_seq.insert(event.seq, number);
            state.stored.insert(number, event);
        }
    }

    /// The events that are stored.
    pub(crate) fn events(&self) -> Vec<Stored> {
        let mut events: Vec<_> = self.state().stored.values().cloned().collect();
        events.sort_by_key(|event| event.seq);
        events
    }

    /// A subscription is made.
    pub(crate) fn begin_life(&self, alone: Alone, bound: usize, keeps_order: bool) -> Life {
        let mut state = self.state();
        state.lives.push(LifeState {
            partition: u16::MAX,
            alone,
            bound,
            last_taken: None,
            keeps_order,
            may_repeat: false,
            open: BTreeSet::new(),
            taken: BTreeMap::new(),
        });
        Life(state.lives.len() - 1)
    }

    /// It is stored in this partition.
    pub(crate) fn place(&self, life: Life, partition: u16) {
        self.state().lives[life.0].partition = partition;
    }

    /// Its first definition promises this.
    pub(crate) fn begin(&self, life: Life, alone: Alone) {
        self.state().lives[life.0].alone = alone;
    }

    /// Its definition changes: what holds from now on is the weaker of both.
    pub(crate) fn redefine(&self, life: Life, alone: Alone, bound: usize, is_same_order: bool) {
        let life = &mut self.state().lives[life.0];
        if life.alone != alone {
            life.alone = Alone::No;
        }
        life.bound = life.bound.max(bound);
        life.keeps_order &= is_same_order;
    }

    /// Somebody wants events once more, or passes some over.
    pub(crate) fn interfere(&self, life: Life) {
        let life = &mut self.state().lives[life.0];
        (life.may_repeat, life.keeps_order) = (true, false);
    }

    /// Whether an event was ever taken.
    pub(crate) fn is_taken(&self, life: Life, seq: Seq) -> bool {
        self.state().lives[life.0].taken.contains_key(&seq)
    }

    /// Whether somebody ever wanted events of it once more, or passed some over.
    pub(crate) fn is_interfered(&self, life: Life) -> bool {
        self.state().lives[life.0].may_repeat
    }

    /// How many requests were received.
    pub(crate) fn received(&self) -> usize {
        self.state().receipts.len()
    }

    /// A request arrives; gives its place.
    pub(crate) fn arrive(&self, life: Life, numbers: &[u64]) -> usize {
        let mut state = self.state();
        let state = &mut *state;
        let mut seqs = Vec::new();
        let mut keys = BTreeSet::new();
        for number in numbers {
            match state.stored.get(number) {
                Some(event) => {
                    seqs.push(event.seq);
                    keys.extend(event.key().map(str::to_owned));
                }
                None => state.violations.push(format!("{life:?} received event {number}, which is not stored")),
            }
        }
        let of = &state.lives[life.0];
        let others: Vec<&Receipt> = of.open.iter().map(|index| &state.receipts[*index]).collect();
        let is_beside = match of.alone {
            Alone::No => false,
            Alone::Always => !others.is_empty(),
            Alone::ByKey => others.iter().flat_map(|other| &other.seqs).any(|seq| {
                let number = state.by_seq[seq];
                state.stored[&number].key().is_some_and(|key| keys.contains(key))
            }),
        };
        let place = state.receipts.len();
        tell(|| format!("#{place} {life:?} receives {seqs:?}"));
        let mut violations = Vec::new();
        if is_beside {
            violations.push(format!(
                "{life:?} received {seqs:?} while {:?} was open",
                others.iter().map(|o| &o.seqs).collect::<Vec<_>>()
            ));
        }
        if others.len() >= of.bound {
            violations.push(format!(
                "{life:?} received {seqs:?} beside {} others, at most {} may be open",
                others.len(),
                of.bound
            ));
        }
        for seq in seqs.iter().filter(|_| !of.may_repeat) {
            if of.taken.get(seq).is_some_and(|end| *end != FORGOTTEN) {
                violations.push(format!("{life:?} received {seq} again, although it was taken, and that is not forgotten"));
            }
            if others.iter().any(|other| other.seqs.contains(seq)) {
                violations.push(format!("{life:?} received {seq} while it was open"));
            }
        }
        state.violations.extend(violations);
        state.receipts.push(Receipt { life, seqs, status: None, ended: None });
        state.lives[life.0].open.insert(place);
        place
    }

    /// A request is answered, or given up by the relay (0).
    pub(crate) fn leave(&self, place: usize, status: u16) {
        let mut state = self.state();
        let state = &mut *state;
        let receipt = &mut state.receipts[place];
        if receipt.status.is_some() {
            return;
        }
        (receipt.status, receipt.ended) = (Some(status), Some(state.ends));
        tell(|| format!("#{place} {:?} answers {status}", receipt.life));
        let life = &mut state.lives[receipt.life.0];
        life.open.remove(&place);
        if (200..300).contains(&status) {
            for seq in &receipt.seqs {
                let is_new = life.taken.get(seq).is_none_or(|end| *end == FORGOTTEN);
                life.taken.insert(*seq, state.ends);
                if is_new && life.keeps_order && life.alone == Alone::Always {
                    if life.last_taken.is_some_and(|last| last > *seq) {
                        let what = format!("{:?} took {seq} behind {:?}", receipt.life, life.last_taken);
                        state.violations.push(what);
                    }
                    life.last_taken = Some(*seq);
                }
            }
        }
        state.ends += 1;
    }

    /// What ended so far.
    pub(crate) fn ends(&self) -> u64 {
        self.state().ends
    }

    /// The progress of a partition was saved when so much had ended.
    pub(crate) fn save(&self, partition: u16, ends: u64) {
        let mut state = self.state();
        let saved = state.saved.entry(partition).or_default();
        *saved = (*saved).max(ends);
        tell(|| format!("saved {partition}"));
    }
}

/// Tells one thing of a seed that is looked at by itself.
pub(crate) fn tell(what: impl FnOnce() -> String) {
    if is_told() {
        eprintln!("              {}", what());
    }
}
