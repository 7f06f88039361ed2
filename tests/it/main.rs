//! Black-box tests, one binary; each module is one area.

mod signatures;
