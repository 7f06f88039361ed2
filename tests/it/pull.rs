//! Everything out that answers and ends: pulls, long polls, JSONP and conduits, and the tickets that open them.

#![allow(clippy::unwrap_used, reason = "these are tests, with helpers outside of test functions")]

mod answers;
mod clients;
mod cuts;
mod tickets;
mod waiting;
