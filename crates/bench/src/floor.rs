//! The floor under a delay: what the same machine needs at the same time to have so many bytes on the disk and a POST answered.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::load;
use crate::process::Role;
use crate::receiver::now_us;
use crate::wire::Connection;

/// Size of the file that is written over and over, as a write-ahead log is.
const FILE_BYTES: usize = 4 << 20;
/// A block of the file system.
const BLOCK_BYTES: usize = 4096;
/// Steps a second.
const RATE: f64 = 200.0;

/// One step after the other: write, flush, POST, answer.
#[derive(Debug)]
pub(crate) struct Floor {
    file: std::fs::File,
    bytes: Vec<u8>,
    receiver: Role,
    connection: Connection,
    took: Vec<Duration>,
}

impl Floor {
    /// A file in `directory` that takes so many bytes a step, and a receiver.
    ///
    /// # Errors
    /// When the file cannot be made or the receiver does not start.
    pub(crate) async fn lay(directory: &Path, bytes: u64) -> anyhow::Result<Self> {
        let mut file = std::fs::File::create(directory.join("floor"))?;
        file.write_all(&vec![0; FILE_BYTES])?;
        file.sync_all()?;
        let blocks = usize::try_from(bytes)?.div_ceil(BLOCK_BYTES).clamp(1, FILE_BYTES / BLOCK_BYTES);
        let receiver = Role::own(&["receiver"], directory).await?;
        let connection = Connection::open(receiver.address).await?;
        Ok(Self { file, bytes: vec![1; blocks * BLOCK_BYTES], receiver, connection, took: Vec::new() })
    }

    /// Takes steps at a steady rate for so long.
    ///
    /// # Errors
    /// When the disk or the receiver fails.
    pub(crate) async fn walk(&mut self, duration: Duration) -> anyhow::Result<()> {
        let (began, mut steps) = (Instant::now(), 0u32);
        while began.elapsed() < duration {
            if let Some(wait) = Duration::from_secs_f64(f64::from(steps) / RATE).checked_sub(began.elapsed()) {
                tokio::time::sleep(wait).await;
            }
            steps += 1;
            let at = Instant::now();
            if usize::try_from(self.file.stream_position()?)? + self.bytes.len() > FILE_BYTES {
                self.file.seek(SeekFrom::Start(0))?;
            }
            self.file.write_all(&self.bytes)?;
            self.file.sync_data()?;
            self.connection.call("POST", "/hook", "application/json", load::event(0, now_us()).as_bytes()).await?;
            self.took.push(at.elapsed());
        }
        Ok(())
    }

    /// Median and 99th percentile of the steps in milliseconds.
    pub(crate) async fn leave(mut self) -> (f64, f64) {
        self.receiver.stop().await;
        self.took.sort_unstable();
        let quantile = |part: usize| self.took.get(self.took.len() * part / 100).map_or(0.0, |took| took.as_secs_f64() * 1000.0);
        (quantile(50), quantile(99))
    }
}
