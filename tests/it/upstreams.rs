//! Upstream servers that are not ours: whole relays read them, are cut off in the middle, come back, and miss nothing that can
//! be had again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod nchan;
mod others;
mod pushpin;
mod recordings;
mod support;
mod websocket;
