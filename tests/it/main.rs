//! The integration tests: one binary, one module an area.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "a test may say what it measured")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::large_futures,
    clippy::type_complexity,
    reason = "speed and size of test code do not matter"
)]

mod answers;
mod api;
mod api_auth;
mod api_http;
mod api_operating;
mod api_publish;
mod audit;
mod backup;
mod bad_inputs;
mod batches;
mod bench;
mod bounds;
mod browsers;
mod changes;
mod cli;
mod codecs;
mod config;
mod consent;
mod crash;
mod credentials;
mod damaged;
mod databases;
mod deliveries;
mod demo;
mod docs;
mod edge;
mod endpoint_rows;
mod faults;
mod filters;
mod formats;
mod framings;
mod hang_up;
mod heads;
mod history;
mod lane_clock;
mod layers;
mod limits;
mod logs;
mod makers;
mod net_dns;
mod net_fault;
mod net_fetch;
mod net_pool;
mod net_tls;
mod net_wire;
mod notices;
mod open_files;
mod ordering;
mod pace;
mod panics;
mod pipelines;
mod polls;
mod promises;
mod proxies;
mod pull;
mod queue_rows;
mod recovery;
#[cfg(target_os = "linux")]
mod refusals;
mod relay;
mod retained;
mod retries;
mod reused_ids;
mod room;
mod schemes;
mod sealed;
mod secrets;
mod shutdown;
mod signatures;
mod silence;
mod sources;
mod standstill;
mod storage;
mod streams;
mod support;
mod tcp;
mod telling;
mod templates;
mod tokens;
mod transfer;
mod untaken;
mod upstreams;
mod wakeups;
mod webhook_source;
mod websockets;
mod websub;
