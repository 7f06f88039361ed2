//! A disk that takes longer to flush, made from outside: a small library before the system's own that lets `fsync` and
//! `fdatasync` take longer.
//!
//! It is compiled when it is needed, so that nothing of it is part of the relay.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;

use crate::held::{self, EndedBy};

/// What is compiled.
const SOURCE: &str = include_str!("slow_disk.c");
const LIBRARY: &str = "libslowdisk.so";

/// The library, or why there is none.
#[derive(Debug)]
pub(crate) enum SlowDisk {
    /// To be loaded before the others.
    Made(PathBuf),
    /// What would have to be installed.
    Missing(String),
}

/// Makes the library in `directory`.
///
/// # Errors
/// When there is a compiler that does not take it.
pub(crate) async fn make(directory: &Path, longer: Duration) -> anyhow::Result<SlowDisk> {
    let Some(compiler) = crate::programs::on_path("cc") else {
        return Ok(SlowDisk::Missing(String::from(
            "needs a C compiler, to make a slow disk of a fast one: apt-get install gcc libc6-dev",
        )));
    };
    std::fs::write(directory.join("slow_disk.c"), SOURCE)?;
    let define = format!("-DLONGER_NS={}L", longer.as_nanos());
    let output = held::command(&compiler, EndedBy::Kill)?
        .args(["-O2", "-shared", "-fPIC", &define, "-o", LIBRARY, "slow_disk.c", "-ldl"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .await
        .context("run the C compiler")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| line.contains("error")).unwrap_or_default().trim().to_owned();
        return Ok(SlowDisk::Missing(format!("the C compiler does not make a library (libc6-dev is missing?): {first}")));
    }
    Ok(SlowDisk::Made(directory.join(LIBRARY)))
}

/// Whether a process has loaded it: one that was linked without the system's library does not.
pub(crate) fn is_loaded(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(LIBRARY))
}
