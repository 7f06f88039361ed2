//! How many dead letters hold lines up, and whether all of them are known. Pure; which lines they hold up is not known here.

use std::rc::Rc;

/// Dead letters that may hold lines up at once; then nothing new begins.
pub(crate) const BLOCKING_DEAD_MAX: usize = 4_096;

/// Since when dead letters have to be looked up; no other moment is the same, also of another order.
#[derive(Clone, Debug)]
pub struct Doubt(Rc<()>);

#[derive(Debug)]
enum Known {
    All,
    /// As many as may be held; there are more.
    InPart,
    /// They have to be looked up.
    Not(Doubt),
}

/// Dead letters that hold lines up.
#[derive(Debug)]
pub struct Letters {
    blocking: usize,
    known: Known,
}

impl Letters {
    /// None that is known; there are others when they are to be looked up.
    pub(super) fn new(is_in_doubt: bool) -> Self {
        let mut letters = Self { blocking: 0, known: Known::All };
        if is_in_doubt {
            letters.doubt();
        }
        letters
    }

    /// Whether so many hold lines up that nothing new begins.
    pub(super) fn are_too_many(&self) -> bool {
        self.blocking >= BLOCKING_DEAD_MAX || matches!(self.known, Known::InPart)
    }

    /// One more holds its line up.
    pub(super) fn add(&mut self) {
        self.blocking += 1;
    }

    /// One holds its line up no longer. Where there are more than are known, they are looked up once there is room for many.
    pub(super) fn remove(&mut self) {
        self.blocking -= 1;
        if matches!(self.known, Known::InPart) && self.blocking <= BLOCKING_DEAD_MAX / 2 {
            self.doubt();
        }
    }

    /// They have to be looked up; whoever does it now begins again.
    pub(super) fn doubt(&mut self) {
        self.known = Known::Not(Doubt(Rc::new(())));
    }

    /// Since when they have to be looked up, if they have to.
    pub(super) fn in_doubt(&self) -> Option<&Doubt> {
        match &self.known {
            Known::Not(doubt) => Some(doubt),
            Known::All | Known::InPart => None,
        }
    }

    /// Whether nothing came since that makes what is looked up untrue.
    #[must_use]
    pub fn still_doubts(&self, doubt: &Doubt) -> bool {
        self.in_doubt().is_some_and(|now| Rc::ptr_eq(&now.0, &doubt.0))
    }

    /// They were looked up since `doubt`, all or as many as may be held; without effect when something came since.
    pub fn looked_up(&mut self, doubt: &Doubt, are_all: bool) {
        if self.still_doubts(doubt) {
            self.known = if are_all { Known::All } else { Known::InPart };
        }
    }
}
