//! Lines on their way to standard error: a bounded queue, emptied by a thread of its own.
//!
//! Whoever logs never waits and never fails: a disk that is full, a reader that is gone and one that does not read cost lines,
//! which are counted, and told of in one line once lines can be written again. It knows nothing of what the lines say.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of lines that may wait; a line that finds more waiting is left out.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Lines that may wait.
const WAITING_LINES_MAX: usize = 16 * 1024;
/// Bytes that are written in one go.
const WRITTEN_BYTES: usize = 32 * 1024;
/// How long a stream that is set not to block is given before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The one way to standard error.
static STANDARD_ERROR: OnceLock<&'static Lines> = OnceLock::new();

/// A queue of lines and what became of them.
#[derive(Default)]
pub(super) struct Lines {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
    left_out: AtomicU64,
    /// Those left out that no line has told of yet.
    untold: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<[u8]>>,
    bytes: usize,
    is_writing: bool,
}

/// The queue of standard error; its thread runs from the first call on.
pub(super) fn standard_error() -> &'static Lines {
    STANDARD_ERROR.get_or_init(|| {
        let lines: &'static Lines = Box::leak(Box::default());
        let thread = std::thread::Builder::new().name("hookcast-log".to_owned());
        // Without a thread the queue fills, and what is left out is counted.
        let _ = thread.spawn(move || lines.write_to(&mut io::stderr(), tell));
        lines
    })
}

fn tell(left_out: u64) {
    tracing::warn!(left_out, "the log could not be written for a while; so many lines are missing here");
}

impl Lines {
    /// Lets a line wait, with its line end; one that finds no room is left out.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        let is_full = queue.bytes.saturating_add(line.len()) > WAITING_BYTES_MAX || queue.waiting.len() >= WAITING_LINES_MAX;
        if is_full && !queue.waiting.is_empty() {
            drop(queue);
            self.leave_out(1);
            return;
        }
        queue.bytes += line.len();
        queue.waiting.push_back(line.into());
        drop(queue);
        self.filled.notify_one();
    }

    /// Waits until all is written, at most so long.
    pub(super) fn flush(&self, bound: Duration) {
        let end = Instant::now() + bound;
        let mut queue = self.lock();
        while !queue.waiting.is_empty() || queue.is_writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.emptied.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines that were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Writes lines for ever; `tell` is called with the number of lines left out once lines can be written again.
    fn write_to(&self, out: &mut impl Write, tell: impl Fn(u64)) {
        let mut is_torn = false;
        loop {
            let (bytes, lines) = self.take(is_torn);
            let done = write_whole(out, &bytes);
            match done {
                Ok(()) => is_torn = false,
                Err((written, _)) => {
                    is_torn = (is_torn && written == 0) || (written > 0 && bytes[written - 1] != b'\n');
                    self.leave_out(lines);
                }
            }
            let mut queue = self.lock();
            queue.is_writing = false;
            let has_room = queue.bytes < WAITING_BYTES_MAX / 2;
            drop(queue);
            self.emptied.notify_all();
            if done.is_ok() && has_room {
                match self.untold.swap(0, Ordering::Relaxed) {
                    0 => {}
                    left_out => tell(left_out),
                }
            }
        }
    }

    /// The next lines in one piece, and how many they are; behind half a line they begin on a line of their own.
    fn take(&self, is_torn: bool) -> (Vec<u8>, u64) {
        let mut queue = self.lock();
        while queue.waiting.is_empty() {
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut bytes, mut lines) = (Vec::new(), 0);
        if is_torn {
            bytes.push(b'\n');
        }
        while let Some(line) = queue.waiting.pop_front() {
            queue.bytes -= line.len();
            bytes.extend_from_slice(&line);
            lines += 1;
            if bytes.len() >= WRITTEN_BYTES {
                break;
            }
        }
        queue.is_writing = true;
        (bytes, lines)
    }

    fn leave_out(&self, lines: u64) {
        self.left_out.fetch_add(lines, Ordering::Relaxed);
        self.untold.fetch_add(lines, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of it, or says how much was written and what stopped it.
fn write_whole(out: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut at = 0;
    while at < bytes.len() {
        match out.write(&bytes[at..]) {
            Ok(0) => return Err((at, ErrorKind::WriteZero.into())),
            Ok(n) => at += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(ASK_AGAIN),
            Err(error) => return Err((at, error)),
        }
    }
    Ok(())
}

/// What the log is written through; each write is one line.
#[derive(Clone, Copy)]
pub(super) struct Pen;

impl Write for Pen {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        standard_error().push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes what the test lets it take, and says what that was.
    struct Gate {
        allowed: Receiver<Result<usize, ErrorKind>>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The end of the test: nothing is taken any more.
            let n = self.allowed.recv().unwrap_or(Err(ErrorKind::BrokenPipe))?.min(bytes.len());
            self.taken.send(bytes[..n].to_vec()).ok();
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        lines: Arc<Lines>,
        allow: Sender<Result<usize, ErrorKind>>,
        taken: Receiver<Vec<u8>>,
        told: Receiver<u64>,
    }

    fn bench() -> Bench {
        let lines = Arc::new(Lines::default());
        let ((allow, allowed), (taken_in, taken), (tell, told)) = (channel(), channel(), channel());
        let writing = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut gate = Gate { allowed, taken: taken_in };
            writing.write_to(&mut gate, |left_out| {
                tell.send(left_out).ok();
            });
        });
        Bench { lines, allow, taken, told }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_what_is_missing_is_told() {
        let bench = bench();
        let line = [b'x'; 1000];
        for _ in 0..5_000 {
            bench.lines.push(&line);
        }
        let left_out = bench.lines.left_out();
        assert!((5_000_000 - WAITING_BYTES_MAX as u64 - 100_000..).contains(&(left_out * 1000)), "{left_out} left out");
        bench.lines.flush(Duration::from_millis(10));
        let mut got = 0;
        while got < (5_000 - left_out) * 1000 {
            bench.allow.send(Ok(usize::MAX)).unwrap();
            got += bench.taken.recv().unwrap().len() as u64;
        }
        assert_eq!(bench.told.recv().unwrap(), left_out);
        bench.lines.flush(Duration::from_secs(30));
        assert_eq!(bench.lines.lock().bytes, 0);
    }

    #[test]
    fn a_line_that_was_cut_short_does_not_run_into_the_next() {
        let bench = bench();
        bench.allow.send(Ok(3)).unwrap();
        bench.allow.send(Err(ErrorKind::StorageFull)).unwrap();
        bench.lines.push(b"first\n");
        assert_eq!(bench.taken.recv().unwrap(), b"fir");
        bench.lines.flush(Duration::from_secs(30));
        bench.allow.send(Err(ErrorKind::StorageFull)).unwrap();
        bench.lines.push(b"second\n");
        bench.lines.flush(Duration::from_secs(30));
        bench.allow.send(Err(ErrorKind::Interrupted)).unwrap();
        bench.allow.send(Ok(usize::MAX)).unwrap();
        bench.lines.push(b"third\n");
        assert_eq!(bench.taken.recv().unwrap(), b"\nthird\n");
        assert_eq!(bench.told.recv().unwrap(), 2);
    }

    #[test]
    fn a_line_that_is_larger_than_the_queue_goes_when_nothing_waits() {
        let bench = bench();
        bench.allow.send(Ok(usize::MAX)).unwrap();
        bench.lines.push(&vec![b'x'; WAITING_BYTES_MAX + 1]);
        assert_eq!(bench.taken.recv().unwrap().len(), WAITING_BYTES_MAX + 1);
        assert_eq!(bench.lines.left_out(), 0);
    }
}
