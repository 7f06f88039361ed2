//! The HTTP edge.

pub mod streams;
