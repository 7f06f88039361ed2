//! The processes of a benchmark: the relay, and this program in other roles; and what they cost by the system's own accounting.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::held::{self, EndedBy};
use crate::usage::Usage;

/// A process that is ended with the benchmark.
#[derive(Debug)]
pub(crate) struct Role {
    child: Child,
    /// Where it listens.
    pub(crate) address: std::net::SocketAddr,
}

impl Role {
    /// Starts this program in another role and waits until it says where it listens.
    pub(crate) async fn own(arguments: &[&str], directory: &Path) -> anyhow::Result<Self> {
        Self::start(&held::own_program()?, arguments, directory, &[]).await
    }

    /// Starts `program` and waits until it says where it listens. It ends with this process, however that ends.
    pub(crate) async fn start(
        program: &Path,
        arguments: &[&str],
        directory: &Path,
        environment: &[(&str, &Path)],
    ) -> anyhow::Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let mut child = held::command(program, EndedBy::Kill)?
            .args(arguments)
            .current_dir(directory)
            .env("HOOKCAST_LOG", "error")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("start a process of the benchmark")?;
        let output = child.stdout.take().context("read what the process says")?;
        let mut lines = BufReader::new(output).lines();
        let address = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, address)) = line.split_once("http://") {
                    return Ok(address.trim().trim_end_matches('/').parse()?);
                }
            }
            bail!("the process ended before it listened")
        })
        .await
        .context("the process did not listen in time")??;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, address })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Processor time that it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.child.id().as_slice())
    }

    /// Resident memory in bytes, now and at its highest.
    pub(crate) fn resident_bytes(&self) -> (u64, u64) {
        let status = self.child.id().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let status = status.unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        (field("VmRSS:").unwrap_or(0) * 1024, field("VmHWM:").unwrap_or(0) * 1024)
    }

    /// Bytes that it has given to the disk so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        let io = self.child.id().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/io")).ok()).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

/// Runs this program with `arguments` to its end and gives what it printed.
pub(crate) async fn report(arguments: &[&str], directory: &Path) -> anyhow::Result<String> {
    let mut command = held::command(&held::own_program()?, EndedBy::Kill)?;
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.context("run a process of the benchmark")?;
    anyhow::ensure!(output.status.success(), "{arguments:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Resident memory of a process in bytes, what it shares with others counted by its part.
pub(crate) fn proportional_bytes(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
