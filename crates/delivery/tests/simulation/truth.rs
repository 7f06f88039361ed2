//! What really happened, seen from outside: which events are stored, what endpoints received, what was saved; and what of it must
//! not have happened.
//!
//! Owns what holds for all of it; the rules for one endpoint are those of `lives`. What must hold at the end is told by `checks`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hookcast_core::model::Seq;
use hookcast_core::model::subscription::SubscriptionRecord;
use serde_json::Value;

use crate::lives::{Alone, Life, LifeState, Reach};
use crate::world::is_told;

/// An event as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: Seq,
    pub(crate) topic: String,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Stored {
    pub(crate) fn key(&self) -> Option<&str> {
        self.data["k"].as_str()
    }
}

/// One request that an endpoint received.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    life: Life,
    pub(crate) seqs: Vec<Seq>,
    pub(crate) keys: Vec<String>,
    /// The answer; nothing while it is open, 0 when the relay went away before.
    status: Option<u16>,
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
    /// All that was received, answered and saved, in its order.
    sum: u32,
}

impl State {
    fn note(&mut self, what: &str) {
        let before = self.sum.to_le_bytes();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&before);
        hasher.update(what.as_bytes());
        self.sum = hasher.finalize();
        tell(|| what.to_owned());
    }
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
        // What panicked beside it is told; requests that are open then still end here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to a life.
    pub(crate) fn with<T>(&self, life: Life, act: impl FnOnce(&mut LifeState) -> T) -> T {
        act(&mut self.state().lives[life.0])
    }

    /// A process begins: what ended in the one before and was not saved is forgotten, and happens again.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        let state = &mut *state;
        for life in &mut state.lives {
            let saved = state.saved.get(&life.partition).copied().unwrap_or_default();
            let alone = life.alone;
            life.restart(saved, |seq| LifeState::line_of(alone, &state.stored[&state.by_seq[&seq]]));
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

    /// A publisher was told that an event is stored there.
    pub(crate) fn acknowledge(&self, number: u64, seq: Seq) {
        let mut state = self.state();
        let stored = state.stored.get(&number).map(|event| event.seq);
        if stored != Some(seq) {
            state.violations.push(format!("event {number} was acknowledged at {seq}, and is stored at {stored:?}"));
        }
    }

    /// Where an event is stored, if it is.
    pub(crate) fn seq_of(&self, number: u64) -> Option<Seq> {
        self.state().stored.get(&number).map(|event| event.seq)
    }

    /// The events that are stored.
    pub(crate) fn events(&self) -> Vec<Stored> {
        let mut events: Vec<_> = self.state().stored.values().cloned().collect();
        events.sort_by_key(|event| event.seq);
        events
    }

    /// The next life of a subscription.
    pub(crate) fn next_life(&self) -> Life {
        Life(self.state().lives.len())
    }

    /// It begins with this definition.
    pub(crate) fn begin_life(&self, record: SubscriptionRecord, alone: Alone, bound: usize) {
        self.state().lives.push(LifeState::new(record, alone, bound));
    }

    /// Whether an event was ever taken.
    pub(crate) fn is_taken(&self, life: Life, seq: Seq) -> bool {
        self.with(life, |life| life.is_taken(seq))
    }

    /// All that was received, answered and saved, in its order, as one number.
    pub(crate) fn sum(&self) -> u32 {
        self.state().sum
    }

    /// A request arrives; gives its place.
    pub(crate) fn arrive(&self, life: Life, numbers: &[u64]) -> usize {
        let mut state = self.state();
        let state = &mut *state;
        let unknown = numbers.iter().filter(|number| !state.stored.contains_key(number));
        state.violations.extend(unknown.map(|number| format!("{life:?} received event {number}, which is not stored")));
        let events: Vec<&Stored> = numbers.iter().filter_map(|number| state.stored.get(number)).collect();
        let seqs: Vec<Seq> = events.iter().map(|event| event.seq).collect();
        let keys = events.iter().filter_map(|event| event.key().map(str::to_owned)).collect();
        let of = &state.lives[life.0];
        let others: Vec<&Receipt> = of.open.iter().map(|index| &state.receipts[*index]).collect();
        let wrong = of.objections(&events, &others);
        state.violations.extend(wrong.into_iter().map(|what| format!("{life:?} {what}")));
        let place = state.receipts.len();
        state.note(&format!("#{place} {life:?} receives {seqs:?}"));
        state.receipts.push(Receipt { life, seqs, keys, status: None });
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
        receipt.status = Some(status);
        let (of, seqs) = (receipt.life, receipt.seqs.clone());
        state.note(&format!("#{place} {of:?} answers {status}"));
        let life = &mut state.lives[of.0];
        life.open.remove(&place);
        if (200..300).contains(&status) {
            for seq in seqs {
                let wrong = life.take(place, &state.stored[&state.by_seq[&seq]], state.ends);
                state.violations.extend(wrong.map(|what| format!("{of:?} {what}")));
            }
        }
        state.ends += 1;
    }

    /// Somebody reaches into a life until what is given here is dropped.
    pub(crate) fn reach(self: &std::sync::Arc<Self>, life: Life, reach: Reach) -> Reaching {
        self.with(life, |state| state.reach(reach));
        Reaching { truth: std::sync::Arc::clone(self), life, moves: !matches!(reach, Reach::Job(..)) }
    }

    /// Something that may end a silence goes on until what is given here is dropped.
    pub(crate) fn stir(self: &std::sync::Arc<Self>, life: Life) -> Stirring {
        self.with(life, LifeState::stir);
        Stirring { truth: std::sync::Arc::clone(self), life }
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
        state.note(&format!("saved {partition}"));
    }
}

/// While this is kept, the cursor of a life may be anywhere.
pub(crate) struct Reaching {
    truth: std::sync::Arc<Truth>,
    life: Life,
    moves: bool,
}

impl Drop for Reaching {
    fn drop(&mut self) {
        if self.moves {
            self.truth.with(self.life, LifeState::moved);
        }
    }
}

/// While this is kept, a life that is paused may go on.
pub(crate) struct Stirring {
    truth: std::sync::Arc<Truth>,
    life: Life,
}

impl Drop for Stirring {
    fn drop(&mut self) {
        self.truth.with(self.life, LifeState::stirred);
    }
}

/// Tells one thing of a seed that is looked at by itself.
pub(crate) fn tell(what: impl FnOnce() -> String) {
    if is_told() {
        eprintln!("              {}", what());
    }
}
