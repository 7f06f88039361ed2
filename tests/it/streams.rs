//! Streams over real sockets: a relay in memory on one side, independent clients on the other.

#![allow(clippy::unwrap_used, reason = "these are tests, with helpers outside of test functions")]

mod bounds;
pub(crate) mod clients;
mod handover;
mod notices;
mod protocol;
pub(crate) mod relay;
mod seam;
