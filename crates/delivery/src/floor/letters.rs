//! Dead letters on a lane's floor: which are counted, and which end because they were delivered, before storage was asked.

use std::collections::{BTreeMap, BTreeSet};

use super::Floor;
use crate::desk::Desk;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Exception, ExceptionState, Seq};

impl Floor {
    /// Counts what memory knows of dead letters that are new and of those that wait as retries now; what it does not know is
    /// looked up before it is saved.
    pub(super) fn doubt(&mut self, ordinal: Ordinal, seqs: Vec<(Seq, ExceptionState)>) {
        for (seq, state) in seqs {
            match self.journal.last_word(ordinal, seq) {
                None => {
                    self.doubtful.insert((ordinal, seq), state);
                }
                Some(before) => {
                    let was_dead = before.is_some_and(|before| before.state == ExceptionState::Dead);
                    self.count_dead(ordinal, seq, was_dead, state);
                }
            }
        }
    }

    /// Lets a delivery that was in flight and cannot be read wait as this retry, unless a stored one of it waits already. It may be
    /// a dead letter until then.
    pub fn retry_unread(&mut self, exception: Exception) {
        let (ordinal, seq) = (exception.ordinal, exception.seq);
        if self.desk(ordinal).is_none_or(|desk| desk.retry(seq).is_some()) {
            return;
        }
        self.doubt(ordinal, vec![(seq, ExceptionState::Retry)]);
        self.change(ordinal, |desk| desk.resume_retry(&exception));
        self.journal.put(exception, None);
    }

    /// Counts a dead letter that was none before, or one that became a retry.
    fn count_dead(&mut self, ordinal: Ordinal, seq: Seq, was_dead: bool, state: ExceptionState) {
        let Some(desk) = self.desk_mut(ordinal) else { return };
        match state {
            ExceptionState::Dead if !was_dead => desk.totals.bury(),
            ExceptionState::Retry if was_dead => desk.uncount_dead(seq),
            _ => {}
        }
    }

    /// As [`Floor::count_dead`], some time after it became that. A retry that died meanwhile was counted when it did, and jobs
    /// still want it.
    pub fn settle_doubt(&mut self, ordinal: Ordinal, seq: Seq, was_dead: bool, state: ExceptionState) {
        let dead = self.journal.last_word(ordinal, seq).flatten().filter(|word| word.state == ExceptionState::Dead);
        match dead {
            Some(dead) if state == ExceptionState::Retry && was_dead => {
                if let Some(desk) = self.desk_mut(ordinal) {
                    desk.totals.exhume(1);
                    desk.die_again(seq, dead.sent);
                }
            }
            _ => self.count_dead(ordinal, seq, was_dead, state),
        }
    }

    /// The dead letters of this subscription are to be counted anew: retention took some, or what became of some could not be
    /// looked up before it was saved.
    pub fn miscount(&mut self, ordinal: Ordinal) {
        if self.by_ordinal.contains_key(&ordinal) {
            self.miscounted.insert(ordinal);
        }
    }

    /// What is still doubtful will be saved before it is looked up: the letters of those subscriptions are counted anew behind that.
    pub fn miscount_doubtful(&mut self) {
        let doubtful = std::mem::take(&mut self.doubtful);
        self.miscounted.extend(doubtful.into_keys().map(|(ordinal, _)| ordinal));
    }

    /// Retention took dead letters of this subscription, or may have: they are counted anew, unless it knows of none.
    pub fn letters_went(&mut self, ordinal: Ordinal) {
        if self.desk(ordinal).is_some_and(Desk::may_have_letters) {
            self.miscount(ordinal);
        }
    }

    /// Takes the subscriptions whose dead letters are to be counted anew, in the order in which they are; whoever cannot says
    /// [`Floor::miscount`] again.
    pub fn take_miscounted(&mut self) -> Vec<Ordinal> {
        let mut last = std::mem::take(&mut self.miscounted);
        let first = self.count_from.take().map(|from| last.split_off(&from)).unwrap_or_default();
        first.into_iter().chain(last).collect()
    }

    /// Next time those behind this one, which could not be counted, are counted first: some that never can be must not keep the
    /// others from it.
    pub fn count_behind(&mut self, ordinal: Ordinal) {
        self.count_from = Some(Ordinal(ordinal.0.saturating_add(1)));
    }

    /// Counts the dead letters of a subscription anew: storage has so many, and says of each delivery whether that is one of them
    /// that it may not have the last word of, that a job posts as a letter, or that holds others up. Gives those of which it was not
    /// asked; nothing is counted then. What is no letter any more holds nothing up.
    pub fn recount(&mut self, ordinal: Ordinal, stored: u64, says: &BTreeMap<Seq, bool>) -> Vec<Seq> {
        let words = self.journal.words(ordinal, Seq::ZERO);
        let used = self.desk(ordinal).map(Desk::letters_in_use).unwrap_or_default();
        let unknown: BTreeSet<Seq> = words.keys().chain(&used).copied().filter(|seq| !says.contains_key(seq)).collect();
        if !unknown.is_empty() {
            return unknown.into_iter().collect();
        }
        let was_dead = |seq: &Seq| says.get(seq).copied().unwrap_or_default();
        // What is only marked is one as long as storage has it.
        let is_new = |seq: &Seq| was_dead(seq) || !self.journal.is_mark(ordinal, *seq);
        let is_dead = |seq: &Seq, word: &Option<Exception>| {
            word.as_ref().is_some_and(|word| word.state == ExceptionState::Dead) && is_new(seq)
        };
        let before = words.keys().filter(|seq| was_dead(seq)).count() as u64;
        let now = words.iter().filter(|(seq, word)| is_dead(seq, word)).count() as u64;
        let is_letter = |seq: &Seq| words.get(seq).map_or_else(|| was_dead(seq), |word| is_dead(seq, word));
        let ended: Vec<Seq> = used.iter().copied().filter(|seq| !is_letter(seq)).collect();
        self.doubtful.retain(|(other, _), _| *other != ordinal);
        self.change(ordinal, |desk| desk.recount_dead((stored + now).saturating_sub(before), &ended));
        Vec::new()
    }

    /// Takes what became of deliveries of which it has to be looked up whether they were dead letters before.
    pub fn take_doubtful(&mut self) -> BTreeMap<(Ordinal, Seq), ExceptionState> {
        std::mem::take(&mut self.doubtful)
    }

    /// Whether a save is due: something is not saved, or is to be looked up, which a save does.
    #[must_use]
    pub fn wants_save(&self) -> bool {
        self.journal.is_dirty() || self.is_unsettled()
    }

    /// The last word on a delivery that storage may not have yet; the inner `None` means that it has no exception: what storage says
    /// of one that was delivered since is out of date, although that is looked up only before the next save.
    #[must_use]
    pub fn last_word(&self, ordinal: Ordinal, seq: Seq) -> Option<Option<Exception>> {
        if self.recovered.contains(&(ordinal, seq)) {
            return Some(None);
        }
        self.journal.last_word(ordinal, seq)
    }

    /// The same of all deliveries behind `after`.
    #[must_use]
    pub fn words(&self, ordinal: Ordinal, after: Seq) -> BTreeMap<Seq, Option<Exception>> {
        let mut words = self.journal.words(ordinal, after);
        let delivered = self.recovered.range((ordinal, after.next())..=(ordinal, Seq(u64::MAX)));
        words.extend(delivered.map(|(_, seq)| (*seq, None)));
        words
    }

    /// Whether something is to be looked up before a save.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.has_doubts() || !self.miscounted.is_empty()
    }

    /// Whether single deliveries are to be looked up before a save.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        !self.doubtful.is_empty() || !self.recovered.is_empty()
    }

    /// Deliveries that may be dead letters, rising.
    #[must_use]
    pub fn recovered(&self) -> Vec<(Ordinal, Seq)> {
        self.recovered.iter().copied().collect()
    }

    /// Nobody looks up any more which deliveries of a subscription, or of all, were dead letters: those of theirs stay listed, which
    /// is counted.
    pub fn leave_listed(&mut self, of: Option<Ordinal>) {
        let before = self.recovered.len();
        self.recovered.retain(|(ordinal, _)| of.is_some_and(|of| *ordinal != of));
        self.left_listed += (before - self.recovered.len()) as u64;
    }

    /// Ends those of these deliveries that are dead letters and were delivered all the same. One that died once more since it was
    /// listed is left alone; so is, until it is counted, one that did that and was delivered again.
    pub fn revive(&mut self, ordinal: Ordinal, listed: &[Seq], is_dead: impl Fn(&Seq) -> bool) {
        let doubtful = &self.doubtful;
        let is_counted = |seq: &Seq| !doubtful.contains_key(&(ordinal, *seq));
        let recovered = &mut self.recovered;
        let settled = listed.iter().copied().filter(|seq| is_counted(seq) && recovered.remove(&(ordinal, *seq)));
        let revived: Vec<Seq> = settled.filter(is_dead).collect();
        if revived.is_empty() {
            return;
        }
        self.change(ordinal, |desk| desk.exhume(&revived));
        for seq in revived {
            self.journal.clear(ordinal, seq);
        }
    }
}
