//! The durable log: where events are kept, how they get in, and how everyone reads them.
//!
//! Owns storage with its backends, the one intake, the tail in memory, followers and retention; must not know who
//! delivers, who streams or what HTTP is.

pub mod follow;
pub mod ingest;
pub mod retention;
pub mod seal;
pub mod storage;
pub mod tail;
