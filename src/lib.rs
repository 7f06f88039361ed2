//! hookcast reads upstream event streams, keeps every event once in a durable log, and hands it on: as a signed `WebHook`
//! POST to every subscription that wants it, and as a stream to everyone who asks.
//!
//! The modules in the order an event meets them; each may use only those of a lower level (`tests/it/layers.rs`).

// Level 0: data
// Level 1: mechanisms
pub mod readiness;
pub mod seal;
pub mod supervise;
// Level 2: storage
pub mod storage;
pub mod tail;
// Level 3: the flow
pub mod delivery;
pub mod egress;
pub mod follow;
pub mod ingest;
pub mod registry;
pub mod retention;
pub mod source;
pub mod websub;
// Level 4: the edge
pub mod http;
// Level 5: the program
pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;
