//! hookcast reads upstream event streams, keeps every event once in a durable log, and hands it on: as a signed `WebHook`
//! POST to every subscription that wants it, and as a stream to everyone who asks.
//!
//! This package is the program: it joins the crates below `crates/` and knows arguments and the configuration. In the order an
//! event meets them: `core` (events, definitions, formats, signatures: pure), `net` (the one way out), `supervise` (who
//! watches a task), `log` (storage, intake, readers), `registry` (the definitions as they are now), `source` (reads upstreams),
//! `delivery` (posts), `streams` (shows), `websub` (the hub), `http` (the edge). Each names only what its manifest lists, and
//! of `core` and `log` only the modules that `tests/it/layers/table.rs` gives it.

pub mod app;
pub mod cli;
pub mod config;
pub mod program;
pub mod telemetry;
