//! The one gate out: everything the relay dials goes through here.
