//! sqlite
use super::{Backend, StorageSettings};
/// x
pub const BACKEND: Backend = Backend { scheme: "sqlite", open: |_s: StorageSettings| unimplemented!() };
