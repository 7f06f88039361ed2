//! Reading upstreams over real sockets: every way a stream can be good, bad or gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod framings;
mod ndjson;
mod rows;
mod sse;
mod supervision;
mod support;
mod websocket;
