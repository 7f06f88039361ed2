//! The program `hookcast-bench` as people start it: what it takes, what it prints, and that nothing of it stays behind.

mod arguments;
mod children;
mod rows;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program under test.
fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hookcast-bench"))
}

/// The relay that was built with it.
fn relay() -> PathBuf {
    let relay = Path::new(env!("CARGO_BIN_EXE_hookcast-bench")).with_file_name("hookcast");
    assert!(relay.is_file(), "build the relay for this test: cargo build -p hookcast, in the same profile");
    relay
}
