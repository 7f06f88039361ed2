//! hookcast: one durable log, many cursors.

pub mod net;
