//! WebSocket streams over real sockets: read by clients that are not ours, and talked to in every wrong way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod clients;
mod closes;
mod crowd;
mod handshake;
mod resume;
mod rows;
mod wire;
