//! Which events of an ordered subscription may go out: one line a key, one event of a line at a time. Pure.
//!
//! A line is held up by what is in flight of it, by a retry that waits and, with `on_dead: block`, by a dead letter. Events
//! behind it stand aside as open positions ([`super::window`] keeps them), so that other keys pass. What is known by its
//! position only (after a restart, say) is *unsorted* until somebody has read its key; nothing begins until then.

use std::collections::BTreeMap;

use foldhash::{HashMap, fast::RandomState};

use hookcast_core::model::subscription::{OnDead, SubscriptionSpec};
use hookcast_core::model::{Event, Seq};

pub(crate) mod letters;
mod line;
mod rule;
mod unsorted;

pub use letters::{Doubt, Letters};
use line::State;
use rule::{Rule, THE_LINE};
pub use unsorted::Found;
use unsorted::Unsorted;

/// A line's name: the hash of its key, by a seed of this order. Keys that collide are ordered together.
pub type Line = u64;

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The event is done with.
    Done,
    /// It waits for another attempt.
    Waits,
    /// It is a dead letter.
    Dead,
    /// It was not sent after all, and stands aside again, first of its line.
    Back,
}

/// The line of an event, and whether an attempt of it is under way: that outlives whatever else it is known for.
#[derive(Clone, Copy, Debug)]
struct Known {
    line: Line,
    is_flying: bool,
}

/// The order of one subscription.
#[derive(Debug)]
pub struct Order {
    rule: Rule,
    on_dead: OnDead,
    lines: HashMap<Line, State>,
    /// The lines of what is in flight, waits as a retry or holds its line up as a dead letter.
    known: HashMap<Seq, Known>,
    /// Firsts of their lines that stand aside and may go; without a line, what has no key.
    ready: BTreeMap<Seq, Option<Line>>,
    unsorted: Unsorted,
    /// Dead letters that hold lines up.
    pub letters: Letters,
    hasher: RandomState,
}

impl Order {
    /// The order that a definition asks for; `None` when it asks for none.
    #[must_use]
    pub fn of(spec: &SubscriptionSpec) -> Option<Box<Self>> {
        Some(Self::by(Rule::of(&spec.ordering)?, spec.on_dead))
    }

    /// No order, for what an earlier one left standing aside.
    #[must_use]
    pub fn free() -> Box<Self> {
        Self::by(Rule::Free, OnDead::Skip)
    }

    fn by(rule: Rule, on_dead: OnDead) -> Box<Self> {
        Box::new(Self {
            rule,
            on_dead,
            lines: HashMap::default(),
            known: HashMap::default(),
            ready: BTreeMap::new(),
            unsorted: Unsorted::default(),
            letters: Letters::new(on_dead == OnDead::Block),
            hasher: RandomState::default(),
        })
    }

    /// Whether it keeps no order, and is here only for what stands aside.
    #[must_use]
    pub fn is_free(&self) -> bool {
        matches!(self.rule, Rule::Free)
    }

    /// The line of an event; `None` when it has no key.
    #[must_use]
    pub fn line_of(&self, event: &Event) -> Option<Line> {
        self.rule.line_of(event, &self.hasher)
    }

    /// Whether keys have to be read before anything begins.
    #[must_use]
    pub fn is_unsorted(&self) -> bool {
        self.letters.in_doubt().is_some() || !self.unsorted.is_empty()
    }

    /// Whether so many dead letters hold lines up that nothing new begins.
    #[must_use]
    pub fn is_choked(&self) -> bool {
        self.letters.are_too_many()
    }

    /// Whether the first attempt of `seq` may begin.
    #[must_use]
    pub fn lets_pass(&self, seq: Seq, line: Option<Line>) -> bool {
        let state = line.and_then(|line| self.lines.get(&line));
        state.is_none_or(|state| state.behind.is_empty() && state.lets_pass(seq))
    }

    /// Whether a retry that waits may go: it is the first of those in its line, and none is in flight.
    #[must_use]
    pub fn lets_retry(&self, seq: Seq) -> bool {
        let state = self.known.get(&seq).and_then(|known| self.lines.get(&known.line));
        state.is_none_or(|state| !state.has_runner() && state.retries.first().is_none_or(|first| *first >= seq))
    }

    /// The first attempt of `seq` begins; `gathers` when it is part of a batch, which takes more of the same line.
    pub fn start(&mut self, seq: Seq, line: Option<Line>, gathers: bool) {
        if let Some(line) = line {
            self.known.insert(seq, Known { line, is_flying: true });
            let state = self.lines.entry(line).or_default();
            state.flying += 1;
            state.gathers = gathers;
        }
    }

    /// A retry begins.
    pub fn start_retry(&mut self, seq: Seq, gathers: bool) {
        let Some(known) = self.known.get_mut(&seq) else { return };
        let Some(state) = self.lines.get_mut(&known.line) else { return };
        known.is_flying = true;
        state.retries.remove(&seq);
        state.flying += 1;
        state.gathers = gathers;
    }

    /// Whether something of this line is in flight.
    #[must_use]
    pub fn is_taken(&self, line: Line) -> bool {
        self.lines.get(&line).is_some_and(State::has_runner)
    }

    /// Something of this line is in flight that is not known here by its position: an event that a recovery job posts.
    pub fn hold(&mut self, line: Line) {
        self.lines.entry(line).or_default().flying += 1;
        self.refresh(line);
    }

    /// It is not any more; gives the retry that may go now, if one waits in the line.
    pub fn let_go(&mut self, line: Line) -> Option<Seq> {
        let state = self.lines.get_mut(&line)?;
        state.flying = state.flying.saturating_sub(1);
        self.refresh(line)
    }

    /// The batch is whole: what is behind its events waits for it.
    pub fn close_batch(&mut self, members: impl Iterator<Item = Seq>) {
        for seq in members {
            let Some(line) = self.known.get(&seq).map(|known| known.line) else { continue };
            if let Some(state) = self.lines.get_mut(&line) {
                state.gathers = false;
            }
            self.refresh(line);
        }
    }

    /// `seq` stands aside behind the others of its line; positions must rise.
    pub fn stand_aside(&mut self, seq: Seq, line: Option<Line>) {
        let Some(line) = line else {
            self.ready.insert(seq, None);
            return;
        };
        self.lines.entry(line).or_default().behind.push_back(seq);
        self.refresh(line);
    }

    /// The oldest event that stands aside and may go.
    #[must_use]
    pub fn ready(&self) -> Option<Seq> {
        if self.is_choked() { None } else { self.ready.keys().next().copied() }
    }

    /// Takes the oldest event that stands aside and may go, now in flight.
    pub fn take_ready(&mut self, gathers: bool) -> Option<Seq> {
        self.ready()?;
        let (seq, line) = self.ready.pop_first()?;
        if let Some(line) = line {
            if let Some(state) = self.lines.get_mut(&line) {
                state.behind.pop_front();
            }
            self.start(seq, Some(line), gathers);
            self.refresh(line);
        }
        Some(seq)
    }

    /// An attempt ended; gives the retry that may go now, if one waits in its line.
    pub fn settle(&mut self, seq: Seq, fate: Fate) -> Option<Seq> {
        if self.unsorted.has(seq) {
            if fate == Fate::Dead && self.on_dead == OnDead::Block {
                self.letters.doubt();
            }
            match fate {
                Fate::Done | Fate::Dead => self.unsorted.lose(seq, Found::Retry),
                Fate::Waits => self.unsorted.note(seq, Found::Retry),
                Fate::Back => self.unsorted.note(seq, Found::Aside),
            }
            return None;
        }
        let Some(Known { line, .. }) = self.known.remove(&seq) else {
            if fate == Fate::Back {
                self.ready.insert(seq, None);
            }
            return None;
        };
        let state = self.lines.entry(line).or_default();
        state.flying = state.flying.saturating_sub(1);
        match fate {
            Fate::Done => self.unblock(seq, line),
            Fate::Waits => {
                state.retries.insert(seq);
                self.unblock(seq, line);
                self.keep(seq, line);
            }
            Fate::Dead if self.on_dead == OnDead::Block => {
                self.block(seq, line);
            }
            Fate::Dead => {}
            // A letter that is posted again may hold its line up.
            Fate::Back if state.dead.contains(&seq) => {
                self.keep(seq, line);
                self.join(seq, line);
            }
            Fate::Back => self.join(seq, line),
        }
        self.refresh(line)
    }

    /// Its line is known, besides whether it is in flight.
    fn keep(&mut self, seq: Seq, line: Line) {
        self.known.entry(seq).or_insert(Known { line, is_flying: false });
    }

    /// A dead letter holds its line up.
    fn block(&mut self, seq: Seq, line: Line) {
        if self.lines.entry(line).or_default().dead.insert(seq) {
            self.letters.add();
        }
        self.keep(seq, line);
    }

    /// A dead letter holds its line up no longer.
    fn unblock(&mut self, seq: Seq, line: Line) {
        if self.lines.get_mut(&line).is_some_and(|state| state.dead.remove(&seq)) {
            self.letters.remove();
        }
    }

    /// `seq` stands in its line among those that stand aside; whoever stood first may do so no longer.
    fn join(&mut self, seq: Seq, line: Line) {
        let state = self.lines.entry(line).or_default();
        if let Some(first) = state.behind.front().filter(|first| **first > seq) {
            self.ready.remove(first);
        }
        let at = state.behind.partition_point(|other| *other < seq);
        state.behind.insert(at, seq);
    }

    /// Keeps `ready` right for a line; gives its first retry if that may go.
    fn refresh(&mut self, line: Line) -> Option<Seq> {
        let state = self.lines.get(&line)?;
        if state.is_over() {
            self.lines.remove(&line);
            return None;
        }
        if let Some(first) = state.behind.front() {
            if state.lets_pass(*first) {
                self.ready.insert(*first, Some(line));
            } else {
                self.ready.remove(first);
            }
        }
        if state.has_runner() { None } else { state.retries.first().copied() }
    }

    /// An event of which only the position is known, and what it does.
    pub fn find(&mut self, seq: Seq, found: Found) {
        self.unsorted.note(seq, found);
        if let Some(line) = self.known.get(&seq).map(|known| known.line) {
            self.sort(seq, Some(line));
        } else if matches!(self.rule, Rule::Strict) {
            self.sort(seq, Some(THE_LINE));
        } else if matches!(self.rule, Rule::Free) {
            self.sort(seq, None);
        }
    }

    /// The line of an event that was unsorted. Gives the retry that may go now.
    pub fn sort(&mut self, seq: Seq, line: Option<Line>) -> Option<Seq> {
        let found = self.unsorted.take(seq)?;
        let Some(line) = line else {
            if found.stands_aside {
                self.ready.insert(seq, None);
            }
            return None;
        };
        if found.stands_aside {
            self.join(seq, line);
        }
        if found.is_retry {
            self.unblock(seq, line);
            self.lines.entry(line).or_default().retries.insert(seq);
            self.keep(seq, line);
        }
        self.refresh(line)
    }

    /// An unsorted event that stood aside does so no longer.
    pub fn leave(&mut self, seq: Seq) {
        self.unsorted.lose(seq, Found::Aside);
    }

    /// A retry, or a dead letter, is none any more: nothing waits for it. Gives the retry that may go now.
    pub fn forget(&mut self, seq: Seq) -> Option<Seq> {
        self.unsorted.lose(seq, Found::Retry);
        let Known { line, is_flying } = *self.known.get(&seq)?;
        if !is_flying {
            self.known.remove(&seq);
        }
        if let Some(state) = self.lines.get_mut(&line) {
            state.retries.remove(&seq);
        }
        self.unblock(seq, line);
        self.refresh(line)
    }

    /// An event that is in flight no longer is a dead letter, which may hold its line up.
    pub fn died(&mut self, seq: Seq, line: Option<Line>) {
        if self.on_dead == OnDead::Block {
            self.blocks(seq, line);
        }
    }

    /// A dead letter that holds its line up.
    pub fn blocks(&mut self, seq: Seq, line: Option<Line>) {
        let Some(line) = line else { return };
        let state = self.lines.entry(line).or_default();
        if state.retries.contains(&seq) {
            return;
        }
        self.block(seq, line);
        self.refresh(line);
    }

    /// Whether `seq` is a dead letter that holds its line up.
    #[must_use]
    pub fn is_blocking(&self, seq: Seq) -> bool {
        let state = self.known.get(&seq).and_then(|known| self.lines.get(&known.line));
        state.is_some_and(|state| state.dead.contains(&seq))
    }

    /// The dead letters that hold lines up, in no order.
    pub fn blocking(&self) -> impl Iterator<Item = Seq> + '_ {
        self.known.keys().copied().filter(|seq| self.is_blocking(*seq))
    }

    /// What has to be read, when nobody is at it: whoever takes this sees it through to [`Order::rest`].
    pub fn attend(&mut self) -> bool {
        self.is_unsorted() && self.unsorted.attend()
    }

    /// The next positions to be read, at most `count`, rising; then since when dead letters are to be listed, if they are.
    #[must_use]
    pub fn unread(&self, count: usize) -> (Vec<Seq>, Option<Doubt>) {
        (self.unsorted.next(count), self.letters.in_doubt().cloned())
    }

    /// Whoever attended is done.
    pub fn rest(&mut self) {
        self.unsorted.rest();
    }

    /// Lines that something is in flight of, waits in or holds up.
    #[cfg(test)]
    pub fn lines(&self) -> usize {
        self.lines.len()
    }
}
