//! Pages of successful attempts: some seven bytes an attempt instead of a row.
//!
//! Layout: version `1`, CRC-32 (little-endian) of the rest, then LEB128 numbers: the page's first time and first position,
//! and for each subscription, rising, the distance of its ordinal from the one before, the number of its attempts, and of each
//! attempt the zigzag distances of position and time from the attempt before, the latency, and twice the status above 200,
//! plus one when it was not the first attempt, whose number follows then.

use super::delivery::Attempt;
use super::event::Seq;
use super::subscription::{Ordinal, PARTITIONS};
use super::varint::{put, put_signed, take, take_signed};
use crate::clock::Timestamp;

/// Most attempts of one page.
pub const PAGE_ATTEMPTS_MAX: usize = 256;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;

/// One POST that succeeded. `Ord` is the order of a page: by subscription, then position, then time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Success {
    /// Whose.
    pub ordinal: Ordinal,
    /// The event.
    pub seq: Seq,
    /// When it began.
    pub at: Timestamp,
    /// 1 for the first.
    pub n: u32,
    /// How long it took.
    pub latency_ms: u32,
    /// The status, 200 to 299.
    pub status: u16,
}

impl Success {
    /// As attempts are shown.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt {
            seq: self.seq,
            n: self.n,
            at: self.at,
            outcome: "success".to_owned(),
            status: Some(self.status),
            error: None,
            latency_ms: self.latency_ms,
            response: None,
        }
    }
}

/// A page as storage keeps it: encoded attempts, and what a search can tell without decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Its key; a page of the same key replaces it.
    pub id: u64,
    /// Earliest beginning of an attempt.
    pub first_at: Timestamp,
    /// Latest beginning of an attempt.
    pub last_at: Timestamp,
    /// Lowest position.
    pub first_seq: Seq,
    /// Highest position.
    pub last_seq: Seq,
    /// The partitions of its subscriptions, a bit each.
    pub partitions: u64,
    /// The attempts.
    pub bytes: Vec<u8>,
}

/// The bit of a partition.
#[must_use]
pub fn partition_bit(partition: u16) -> u64 {
    const { assert!(PARTITIONS == 64) };
    1 << (partition % PARTITIONS)
}

impl HistoryPage {
    /// Encodes attempts in their order; `None` when there are none.
    #[must_use]
    pub fn encode(id: u64, attempts: &[Success]) -> Option<Self> {
        debug_assert!(attempts.is_sorted());
        let mut page = Self {
            id,
            first_at: attempts.iter().map(|success| success.at).min()?,
            last_at: attempts.iter().map(|success| success.at).max()?,
            first_seq: attempts.iter().map(|success| success.seq).min()?,
            last_seq: attempts.iter().map(|success| success.seq).max()?,
            partitions: 0,
            bytes: Vec::with_capacity(HEAD_BYTES + 16 + 8 * attempts.len()),
        };
        page.bytes.resize(HEAD_BYTES, VERSION);
        put_signed(&mut page.bytes, page.first_at.0);
        put(&mut page.bytes, page.first_seq.0);
        let (mut ordinal, mut seq, mut at) = (0, page.first_seq.0, page.first_at.0);
        for group in attempts.chunk_by(|a, b| a.ordinal == b.ordinal) {
            page.partitions |= partition_bit(group[0].ordinal.partition());
            put(&mut page.bytes, group[0].ordinal.0 - ordinal);
            put(&mut page.bytes, group.len() as u64);
            ordinal = group[0].ordinal.0;
            for success in group {
                put_signed(&mut page.bytes, success.seq.0.wrapping_sub(seq).cast_signed());
                put_signed(&mut page.bytes, success.at.0.wrapping_sub(at));
                put(&mut page.bytes, u64::from(success.latency_ms));
                put(&mut page.bytes, u64::from(success.status.saturating_sub(200)) << 1 | u64::from(success.n != 1));
                if success.n != 1 {
                    put(&mut page.bytes, u64::from(success.n));
                }
                (seq, at) = (success.seq.0, success.at.0);
            }
        }
        let checksum = crc32fast::hash(&page.bytes[HEAD_BYTES..]);
        page.bytes[1..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Some(page)
    }

    /// The attempts, in their order; `None` when the bytes are damaged or of a newer version.
    #[must_use]
    pub fn decode(&self) -> Option<Vec<Success>> {
        let (head, mut rest) = self.bytes.split_at_checked(HEAD_BYTES)?;
        if head[0] != VERSION || head[1..] != crc32fast::hash(rest).to_le_bytes() {
            return None;
        }
        let rest = &mut rest;
        let mut at = take_signed(rest)?;
        let (mut seq, mut ordinal) = (take(rest)?, 0u64);
        let mut attempts = Vec::new();
        while !rest.is_empty() {
            ordinal = ordinal.checked_add(take(rest)?)?;
            for _ in 0..take(rest)? {
                seq = seq.wrapping_add(take_signed(rest)?.cast_unsigned());
                at = at.wrapping_add(take_signed(rest)?);
                let latency_ms = u32::try_from(take(rest)?).ok()?;
                let code = take(rest)?;
                let n = if code & 1 == 0 { 1 } else { u32::try_from(take(rest)?).ok()? };
                let status = u16::try_from(code >> 1).ok()?.checked_add(200)?;
                attempts.push(Success { ordinal: Ordinal(ordinal), seq: Seq(seq), at: Timestamp(at), n, latency_ms, status });
            }
        }
        Some(attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn success() -> impl Strategy<Value = Success> {
        (0u64..200, any::<u32>(), any::<i32>(), 1u32..4, 0u32..20_000, 200u16..300).prop_map(
            |(ordinal, seq, at, n, latency_ms, status)| Success {
                ordinal: Ordinal(ordinal),
                seq: Seq(u64::from(seq)),
                at: Timestamp(1_700_000_000_000 + i64::from(at)),
                n,
                latency_ms,
                status,
            },
        )
    }

    proptest! {
        #[test]
        fn attempts_survive_their_page(mut attempts in prop::collection::vec(success(), 1..PAGE_ATTEMPTS_MAX)) {
            attempts.sort_unstable();
            let page = HistoryPage::encode(7, &attempts).unwrap();
            for success in &attempts {
                prop_assert!((page.first_at..=page.last_at).contains(&success.at));
                prop_assert!((page.first_seq..=page.last_seq).contains(&success.seq));
                prop_assert!(page.partitions & partition_bit(success.ordinal.partition()) != 0);
            }
            prop_assert_eq!(page.decode(), Some(attempts));
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut page = HistoryPage::encode(1, &[]).unwrap_or(HistoryPage {
                id: 1, first_at: Timestamp(0), last_at: Timestamp(0), first_seq: Seq(1), last_seq: Seq(1), partitions: 0, bytes,
            });
            let _ = page.decode();
            if page.bytes.len() > HEAD_BYTES {
                let checksum = crc32fast::hash(&page.bytes[HEAD_BYTES..]);
                page.bytes[0] = VERSION;
                page.bytes[1..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
                let _ = page.decode();
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let success = Success { ordinal: Ordinal(1), seq: Seq(9), at: Timestamp(5), n: 1, latency_ms: 3, status: 204 };
        let mut page = HistoryPage::encode(1, &[success]).unwrap();
        *page.bytes.last_mut().unwrap() ^= 4;
        assert_eq!(page.decode(), None);
    }

    #[test]
    fn a_full_page_of_ten_subscriptions_takes_few_bytes_an_attempt() {
        let success = |n: u64| Success {
            ordinal: Ordinal(1 + n / 26),
            seq: Seq(1_000_000 + n % 26),
            at: Timestamp(1_700_000_000_000 + i64::try_from(n % 26).unwrap()),
            n: 1,
            latency_ms: 150,
            status: 200,
        };
        let attempts: Vec<_> = (0..256).map(success).collect();
        let page = HistoryPage::encode(1, &attempts).unwrap();
        assert!(page.bytes.len() <= 8 * attempts.len(), "{}", page.bytes.len());
    }
}
