//! Reading upstreams over real sockets: every way a stream can be good, bad or gone.

mod ndjson;
mod sse;
mod supervision;
mod support;
