//! The floor as the tasks of a lane share it: borrowed between awaits, and marked when a panic left it half changed.
//!
//! What was being changed when somebody panicked may be half done. Nothing of it is saved then: what was saved last is whole, and a
//! start from there repeats a little and loses nothing.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::ops::{Deref, DerefMut};

/// A value that several tasks of one thread change in turn.
#[derive(Debug)]
pub struct Shared<T> {
    value: RefCell<T>,
    is_torn: Cell<bool>,
}

impl<T> Shared<T> {
    /// One that is whole.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value: RefCell::new(value), is_torn: Cell::new(false) }
    }

    /// To look at.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }

    /// To change.
    pub fn borrow_mut(&self) -> Changing<'_, T> {
        self.changing(self.value.borrow_mut())
    }

    /// To change, unless somebody has it.
    pub fn try_borrow_mut(&self) -> Option<Changing<'_, T>> {
        self.value.try_borrow_mut().ok().map(|value| self.changing(value))
    }

    /// Whether somebody panicked while changing it.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.is_torn.get()
    }

    fn changing<'a>(&'a self, value: RefMut<'a, T>) -> Changing<'a, T> {
        Changing { value, is_torn: &self.is_torn, was_panicking: std::thread::panicking() }
    }
}

/// The value, while somebody changes it.
#[derive(Debug)]
pub struct Changing<'a, T> {
    value: RefMut<'a, T>,
    is_torn: &'a Cell<bool>,
    /// Whoever cleans up after a panic tears nothing.
    was_panicking: bool,
}

impl<T> Deref for Changing<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Changing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Changing<'_, T> {
    fn drop(&mut self) {
        if !self.was_panicking && std::thread::panicking() {
            self.is_torn.set(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_supervise::catch;

    struct CleansUp<'a>(&'a Shared<i32>);

    impl Drop for CleansUp<'_> {
        fn drop(&mut self) {
            *self.0.borrow_mut() += 1;
        }
    }

    #[test]
    fn only_a_panic_of_who_changes_it_tears_it() {
        let shared = Shared::new(1);
        *shared.borrow_mut() += 1;
        let _ = catch(|| {
            let _looking = shared.borrow();
            panic!("while looking");
        });
        let _ = catch(|| {
            let _cleans_up = CleansUp(&shared);
            panic!("before cleaning up");
        });
        assert_eq!((*shared.borrow(), shared.is_torn()), (3, false));
        let _ = catch(|| {
            *shared.borrow_mut() = if shared.borrow().eq(&3) { panic!("while changing") } else { 4 };
        });
        assert!(!shared.is_torn(), "it was not borrowed yet");
        let _ = catch(|| {
            let mut changing = shared.borrow_mut();
            *changing = 5;
            panic!("while changing");
        });
        assert!(shared.is_torn());
        assert!(shared.try_borrow_mut().is_some(), "and free all the same");
    }
}
