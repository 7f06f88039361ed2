//! The renderings that are under way, in a small file: what stands there at a start was under way when the process died.
//!
//! The file is never flushed: it has to outlive the process, not the machine. It has a fixed number of slots of a fixed
//! length, each with a checksum; a torn, foreign or empty slot is no mark. A mark names the log and the event by what they
//! are, so a file that lies beside another database, or beside one that was restored, means nothing there.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use hookcast_core::model::Event;
use hookcast_core::model::subscription::Ordinal;

/// Slots of the file.
const SLOTS: usize = 64;
/// Length of a slot: a mark and its checksum.
const SLOT_BYTES: usize = MARK_BYTES + 4;
/// Length of a mark.
const MARK_BYTES: usize = 24;
/// Slots that marks of earlier processes may hold; the others are for renderings.
const KEPT_MAX: usize = SLOTS / 2;

/// What a rendering is known by: a digest of its subscription, its log and its event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark([u8; MARK_BYTES]);

impl Mark {
    /// The mark of one subscription's rendering of an event.
    pub(super) fn of(ordinal: Ordinal, event: &Event, log_id: &str) -> Self {
        let fields = event.fields();
        let mut digest = Sha256::new();
        digest.update(log_id.as_bytes());
        for number in [ordinal.0, event.seq().0, event.arrived_at().0.cast_unsigned(), fields.data.len() as u64] {
            digest.update(number.to_be_bytes());
        }
        digest.update(fields.id.as_bytes());
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&digest.finalize()[..MARK_BYTES]);
        Self(mark)
    }

    fn to_slot(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..MARK_BYTES].copy_from_slice(&self.0);
        slot[MARK_BYTES..].copy_from_slice(&crc32fast::hash(&self.0).to_be_bytes());
        slot
    }

    /// The mark that stands in a slot, if a whole one does.
    fn read(slot: &[u8]) -> Option<Self> {
        let (mark, sum) = slot.split_at_checked(MARK_BYTES)?;
        let mark = Self(mark.try_into().ok()?);
        (sum == crc32fast::hash(&mark.0).to_be_bytes() && mark.0 != [0; MARK_BYTES]).then_some(mark)
    }
}

/// The marks of one process, and those that an earlier one left.
#[derive(Debug)]
pub(super) struct Marks {
    inner: Option<Mutex<Inner>>,
    /// How many an earlier process left; most often none.
    left: AtomicUsize,
}

#[derive(Debug)]
struct Inner {
    file: File,
    free: Vec<usize>,
    /// What an earlier process left, and where it stands.
    left: HashMap<Mark, usize>,
}

impl Marks {
    /// Marks that stand nowhere.
    pub(super) fn none() -> Self {
        Self { inner: None, left: AtomicUsize::new(0) }
    }

    /// Opens the file and reads what an earlier process left.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let mut bytes = Vec::with_capacity(SLOTS * SLOT_BYTES);
        (&mut file).take((SLOTS * SLOT_BYTES) as u64).read_to_end(&mut bytes)?;
        let mut left = HashMap::new();
        let mut slots = vec![0; SLOTS * SLOT_BYTES];
        for (number, slot) in bytes.chunks_exact(SLOT_BYTES).enumerate() {
            if let Some(mark) = Mark::read(slot)
                && left.len() < KEPT_MAX
                && !left.contains_key(&mark)
            {
                slots[number * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(slot);
                left.insert(mark, number);
            }
        }
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&slots)?;
        file.set_len(slots.len() as u64)?;
        let free = (0..SLOTS).rev().filter(|number| !left.values().any(|taken| taken == number)).collect();
        let count = left.len();
        if count > 0 {
            tracing::error!(
                renderings = count,
                "the relay ended while it filled events into templates; these become dead letters"
            );
        }
        Ok(Self { inner: Some(Mutex::new(Inner { file, free, left })), left: AtomicUsize::new(count) })
    }

    /// Whether an earlier process left any.
    pub(super) fn has_any(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Takes one that an earlier process left away.
    pub(super) fn take(&self, mark: &Mark) -> bool {
        let taken = self.with(|inner| {
            let number = inner.left.remove(mark)?;
            inner.clear(number);
            Some(())
        });
        let is_taken = taken.flatten().is_some();
        if is_taken {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// Marks a rendering until the result is dropped.
    pub(super) fn set(&self, mark: &Mark) -> Marked<'_> {
        let number = self.with(|inner| {
            let number = inner.free.pop()?;
            inner.write(number, &mark.to_slot());
            Some(number)
        });
        Marked { marks: self, number: number.flatten() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        let mut inner = self.inner.as_ref()?.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(change(&mut inner))
    }
}

impl Inner {
    fn clear(&mut self, number: usize) {
        self.write(number, &[0; SLOT_BYTES]);
        self.free.push(number);
    }

    fn write(&mut self, number: usize, slot: &[u8; SLOT_BYTES]) {
        let place = SeekFrom::Start((number * SLOT_BYTES) as u64);
        if let Err(error) = self.file.seek(place).and_then(|_| self.file.write_all(slot)) {
            metrics::counter!("hookcast_rendering_marks_failed_total").increment(1);
            tracing::debug!(%error, "a rendering could not be marked");
        }
    }
}

/// A rendering that is marked.
#[derive(Debug)]
pub(super) struct Marked<'a> {
    marks: &'a Marks,
    number: Option<usize>,
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.marks.with(|inner| inner.clear(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::model::fixture::order;

    fn mark(ordinal: u64) -> Mark {
        Mark::of(Ordinal(ordinal), &order(7, "text/plain", b"x"), "abcdefgh")
    }

    #[test]
    fn what_was_under_way_is_found_once_and_what_ended_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.renderings");
        let marks = Marks::open(&path).unwrap();
        drop(marks.set(&mark(1)));
        std::mem::forget(marks.set(&mark(2)));
        for _ in 0..2 {
            // It stays until somebody takes it.
            let marks = Marks::open(&path).unwrap();
            assert!(marks.has_any() && !marks.take(&mark(1)));
        }
        let marks = Marks::open(&path).unwrap();
        assert!(marks.take(&mark(2)) && !marks.take(&mark(2)) && !marks.has_any());
        assert!(!Marks::open(&path).unwrap().has_any());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (SLOTS * SLOT_BYTES) as u64);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.renderings");
        Marks::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn torn_and_foreign_content_is_no_mark_and_more_than_there_is_room_for_is_no_harm() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.renderings");
        for content in [vec![0xff; 10_000], mark(1).to_slot()[..SLOT_BYTES - 1].to_vec(), vec![0; 5], Vec::new()] {
            std::fs::write(&path, content).unwrap();
            assert!(!Marks::open(&path).unwrap().has_any());
        }
        let marks = Marks::open(&path).unwrap();
        let all: Vec<_> = (0..SLOTS as u64 + 5).map(|ordinal| marks.set(&mark(ordinal))).collect();
        assert_eq!(all.iter().filter(|marked| marked.number.is_some()).count(), SLOTS);
        std::mem::forget(all);
        let marks = Marks::open(&path).unwrap();
        assert_eq!(marks.left.load(Ordering::Relaxed), KEPT_MAX);
        assert!(marks.set(&mark(1000)).number.is_some());
    }

    #[test]
    fn another_log_subscription_or_event_has_another_mark() {
        let (event, other) = (order(7, "text/plain", b"x"), order(8, "text/plain", b"x"));
        let marks = [
            Mark::of(Ordinal(1), &event, "abcdefgh"),
            Mark::of(Ordinal(2), &event, "abcdefgh"),
            Mark::of(Ordinal(1), &other, "abcdefgh"),
            Mark::of(Ordinal(1), &event, "abcdefgi"),
        ];
        for (index, one) in marks.iter().enumerate() {
            assert!(marks[..index].iter().all(|before| before != one));
        }
    }
}
