//! Black-box tests, one module an area.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod storage;
