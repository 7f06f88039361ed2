//! The integration tests: one binary, one module an area.

mod codecs;
mod layers;
mod net_dns;
mod net_fault;
mod net_fetch;
mod net_pool;
mod net_tls;
mod net_wire;
mod signatures;
mod sources;
mod storage;
