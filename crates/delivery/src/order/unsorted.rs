//! What an order does not know yet: events of which only the position is known, and whether dead letters have to be looked up.
//! Pure; lines and keys are not known here.

use std::collections::BTreeMap;
use std::rc::Rc;

use hookcast_core::model::Seq;

/// What is known of an event whose key is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It stands aside.
    Aside,
    /// A retry that waits.
    Retry,
}

/// All that is known of one event. Both facts may hold: a recovery job posts in vain what stands aside, and it is a retry, too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) stands_aside: bool,
    pub(super) is_retry: bool,
}

impl Facts {
    fn get_mut(&mut self, found: Found) -> &mut bool {
        match found {
            Found::Aside => &mut self.stands_aside,
            Found::Retry => &mut self.is_retry,
        }
    }
}

/// Since when dead letters have to be looked up; no other moment is the same, also of another order.
#[derive(Clone, Debug)]
pub struct Doubt(Rc<()>);

/// What is known of dead letters that hold lines up.
#[derive(Clone, Debug)]
enum Letters {
    /// All of them.
    Known,
    /// As many as may be held in memory; there are more.
    InPart,
    /// They have to be looked up.
    Unknown(Doubt),
}

/// What has to be read before anything of a subscription begins.
#[derive(Debug)]
pub(super) struct Unsorted {
    events: BTreeMap<Seq, Facts>,
    letters: Letters,
    /// Whether somebody is at it.
    is_attended: bool,
}

impl Unsorted {
    pub(super) fn new(dead_unknown: bool) -> Self {
        let letters = if dead_unknown { Letters::Unknown(Doubt(Rc::new(()))) } else { Letters::Known };
        Self { events: BTreeMap::new(), letters, is_attended: false }
    }

    pub(super) fn has_any(&self) -> bool {
        self.has_doubt() || !self.events.is_empty()
    }

    /// Whether more dead letters hold lines up than are known.
    pub(super) fn are_in_part(&self) -> bool {
        matches!(self.letters, Letters::InPart)
    }

    pub(super) fn has(&self, seq: Seq) -> bool {
        self.events.contains_key(&seq)
    }

    /// One more fact of an event.
    pub(super) fn note(&mut self, seq: Seq, found: Found) {
        *self.events.entry(seq).or_default().get_mut(found) = true;
    }

    /// A fact holds no longer; the other one stays.
    pub(super) fn lose(&mut self, seq: Seq, found: Found) {
        let Some(facts) = self.events.get_mut(&seq) else { return };
        *facts.get_mut(found) = false;
        if !facts.stands_aside && !facts.is_retry {
            self.events.remove(&seq);
        }
    }

    /// The event was read.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Facts> {
        self.events.remove(&seq)
    }

    /// Whether dead letters have to be looked up.
    pub(super) fn has_doubt(&self) -> bool {
        matches!(self.letters, Letters::Unknown(_))
    }

    /// Dead letters have to be looked up; whoever does it now begins again.
    pub(super) fn doubt_dead(&mut self) {
        self.letters = Letters::Unknown(Doubt(Rc::new(())));
    }

    /// Whether nothing came since that makes what is looked up untrue.
    pub(super) fn still_doubts(&self, doubt: &Doubt) -> bool {
        matches!(&self.letters, Letters::Unknown(now) if Rc::ptr_eq(&now.0, &doubt.0))
    }

    /// They were looked up, all or `in_part`.
    pub(super) fn dead_known(&mut self, doubt: &Doubt, in_part: bool) {
        if self.still_doubts(doubt) {
            self.letters = if in_part { Letters::InPart } else { Letters::Known };
        }
    }

    /// Whether there is something to read and nobody was at it.
    pub(super) fn attend(&mut self) -> bool {
        self.has_any() && !std::mem::replace(&mut self.is_attended, true)
    }

    pub(super) fn rest(&mut self) {
        self.is_attended = false;
    }

    /// The next positions, at most `count`, rising; and since when dead letters are to be listed, if they are.
    pub(super) fn unread(&self, count: usize) -> (Vec<Seq>, Option<Doubt>) {
        let doubt = match &self.letters {
            Letters::Unknown(doubt) => Some(doubt.clone()),
            Letters::Known | Letters::InPart => None,
        };
        (self.events.keys().copied().take(count).collect(), doubt)
    }
}
