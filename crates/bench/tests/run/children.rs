//! However the benchmark ends, the processes that it started end, too.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::{bench, relay};

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a benchmark may take until it plays a part: short enough that a test of three tells what it waits for before it is
/// ended itself (see `.config/nextest.toml`).
const PATIENCE_TO_START: Duration = Duration::from_secs(35);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The children of a process and theirs.
fn family(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            found.push(child);
            found.extend(family(child));
        }
    }
    found
}

/// The name of a program; of the benchmark itself, the part that it plays.
fn part(pid: u32) -> String {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let program = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    match words.split(|byte| *byte == 0).nth(1) {
        Some(part) if program == "hookcast-bench" => String::from_utf8_lossy(part).into_owned(),
        _ => program,
    }
}

/// A process to wait for; nothing when it has ended.
fn watch(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process has a number");
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(watched) => Some(watched),
        Err(Errno::SRCH) => None,
        Err(error) => panic!("{pid:?} cannot be watched: {error}"),
    }
}

/// Waits for the end of a process; whether it came in time.
fn ends(watched: &OwnedFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: within.subsec_nanos().into() };
    poll(&mut [PollFd::new(watched, PollFlags::IN)], Some(&timeout)).expect("a process can be waited for") > 0
}

/// Starts it with these arguments, ends it with `signal` once each of `parts` is played so many times, and waits for the end of
/// everything that it had started.
fn nothing_stays_behind(arguments: &[&str], parts: &[(&str, usize)], signal: Signal) {
    let folders = tempfile::tempdir().expect("a directory");
    let mut benchmark = bench();
    benchmark.args(arguments).arg("--relay").arg(relay()).env("TMPDIR", folders.path()).stdout(Stdio::null());
    let mut benchmark = benchmark.spawn().expect("it starts");
    let itself = watch(benchmark.id()).expect("it runs");
    let began = Instant::now();
    let watched = loop {
        let family = family(benchmark.id()).into_iter();
        let watched: Vec<_> = family.filter_map(|pid| watch(pid).map(|watched| (pid, part(pid), watched))).collect();
        if parts.iter().all(|(wanted, times)| watched.iter().filter(|(_, part, _)| part == wanted).count() >= *times) {
            break watched;
        }
        assert!(began.elapsed() < PATIENCE_TO_START, "of {parts:?} not all are played within {PATIENCE_TO_START:?}");
        assert!(!ends(&itself, LOOK_EVERY), "it ended before {parts:?} were played");
    };
    kill_process(Pid::from_child(&benchmark), signal).expect("it can be ended");
    benchmark.wait().expect("it ends");
    for (pid, part, watched) in watched {
        assert!(ends(&watched, PATIENCE), "{part} ({pid}) stayed behind after {signal:?}");
    }
}

#[test]
fn no_child_stays_behind_whatever_ends_the_benchmark() {
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let arguments = ["deliver", "--only", "deliver-1", "--seconds", "60", "--pairs", "1"];
        nothing_stays_behind(&arguments, &[("hookcast", 1), ("receiver", 1)], signal);
    }
}

#[test]
fn neither_of_two_relays_stays_behind() {
    let old = relay();
    let old = old.to_str().expect("a path that is text");
    for signal in [Signal::KILL, Signal::TERM] {
        let arguments = ["compare", old, "--rows", "deliver-1", "--seconds", "1", "--pairs", "50"];
        nothing_stays_behind(&arguments, &[("hookcast", 2), ("receiver", 2)], signal);
    }
}

#[test]
fn no_upstream_and_no_bare_database_stay_behind() {
    let arguments = ["publish", "--only", "source-ndjson", "--seconds", "3", "--pairs", "20"];
    nothing_stays_behind(&arguments, &[("hookcast", 1), ("upstream", 1)], Signal::KILL);
    nothing_stays_behind(&arguments, &[("bare-storage", 1)], Signal::KILL);
}

#[test]
fn no_bare_log_stays_behind() {
    let arguments = ["stream", "--only", "catch-up", "--pairs", "1", "--work", "50000"];
    nothing_stays_behind(&arguments, &[("bare-log", 1)], Signal::KILL);
}

#[test]
#[ignore = "needs nginx, nchan"]
fn nginx_and_its_workers_do_not_stay_behind() {
    for signal in [Signal::KILL, Signal::TERM] {
        let arguments = ["stream", "--only", "stream-single", "--seconds", "60", "--pairs", "1"];
        nothing_stays_behind(&arguments, &[("nginx", 2), ("readers", 1)], signal);
    }
}

/// Every process is started by the one function that has it end with the benchmark.
#[test]
fn nothing_is_started_but_held() {
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("there are sources");
    for source in sources {
        let path = source.expect("it can be listed").path();
        let text = std::fs::read_to_string(&path).expect("it is text");
        let is_held = path.file_name().is_some_and(|name| name == "held.rs");
        assert!(is_held || !text.contains("Command::new"), "{} starts a process by itself", path.display());
    }
}
