//! Black-box tests, one module an area.

mod storage;
mod streams;
