//! However the benchmark ends, the processes that it started end, too.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::{bench, relay};

const PATIENCE: Duration = Duration::from_secs(30);
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

fn program(pid: u32) -> String {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn watch(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()
}

/// Waits for the end of a process; whether it came.
fn ends(watched: &OwnedFd) -> bool {
    let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut [PollFd::new(watched, PollFlags::IN)], Some(&timeout)).expect("a process can be waited for") > 0
}

/// Starts it with these arguments, ends it with `signal` once each of `programs` runs so many times, and waits for the end of
/// everything that it had started.
fn nothing_stays_behind(arguments: &[&str], programs: &[(&str, usize)], signal: Signal) {
    let mut benchmark = bench();
    benchmark.args(arguments).arg("--relay").arg(relay()).stdout(Stdio::null());
    let mut benchmark = benchmark.spawn().expect("it starts");
    let began = Instant::now();
    let started = loop {
        let family = family(benchmark.id());
        let runs = |(wanted, times): &(&str, usize)| family.iter().filter(|pid| program(**pid) == *wanted).count() >= *times;
        if programs.iter().all(runs) {
            break family;
        }
        assert!(began.elapsed() < PATIENCE, "of {programs:?} not all run within {PATIENCE:?}");
        assert!(benchmark.try_wait().expect("it can be looked at").is_none(), "it ended before {programs:?} ran");
        std::thread::sleep(LOOK_EVERY);
    };
    let watched: Vec<_> = started.iter().filter_map(|pid| Some((*pid, program(*pid), watch(*pid)?))).collect();
    kill_process(Pid::from_child(&benchmark), signal).expect("it can be ended");
    benchmark.wait().expect("it ends");
    for (pid, program, watched) in watched {
        assert!(ends(&watched), "{program} ({pid}) stayed behind after {signal:?}");
    }
}

#[test]
fn no_child_stays_behind_whatever_ends_the_benchmark() {
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let arguments = ["deliver", "--only", "deliver-1", "--seconds", "60", "--pairs", "1"];
        nothing_stays_behind(&arguments, &[("hookcast", 1), ("hookcast-bench", 1)], signal);
    }
}

#[test]
#[ignore = "needs nginx, nchan"]
fn nginx_and_its_workers_do_not_stay_behind() {
    for signal in [Signal::KILL, Signal::TERM] {
        let arguments = ["stream", "--only", "stream-single", "--seconds", "60", "--pairs", "1"];
        nothing_stays_behind(&arguments, &[("nginx", 2)], signal);
    }
}
