//! hookcast reads upstream event streams, keeps every event once in a durable log, and hands it on: as a signed `WebHook`
//! POST to every subscription that wants it, and as a stream to everyone who asks.
//!
//! The modules in the order an event meets them; each may use only those of a lower level (`tests/it/layers.rs`).

// Level 0: data
// Level 1: mechanisms
// Level 2: storage
// Level 3: the flow
// Level 4: the edge
// Level 5: the program
pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;
