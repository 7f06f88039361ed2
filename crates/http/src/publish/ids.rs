//! Ids for events that come without one: UUIDs of version 7.
//!
//! They name events, they guard nothing; randomness is fetched for many at a time. Spec: RFC 9562 §5.7.

use std::cell::RefCell;

use uuid::Builder;

use hookcast_core::clock::Timestamp;

const RANDOM_BYTES_PER_ID: usize = 10;
const IDS_PER_FILL: usize = 64;

struct Pool {
    random: [u8; RANDOM_BYTES_PER_ID * IDS_PER_FILL],
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> =
        const { RefCell::new(Pool { random: [0; RANDOM_BYTES_PER_ID * IDS_PER_FILL], used: IDS_PER_FILL }) };
}

/// A new id.
pub(super) fn fresh(now: Timestamp) -> String {
    let mut id = String::with_capacity(uuid::fmt::Hyphenated::LENGTH);
    push_fresh(now, &mut id);
    id
}

/// Writes a new id behind `out`.
pub(super) fn push_fresh(now: Timestamp, out: &mut String) {
    let random = POOL.with_borrow_mut(|pool| {
        if pool.used == IDS_PER_FILL {
            getrandom::fill(&mut pool.random).expect("invariant: the system has random bytes");
            pool.used = 0;
        }
        let from = pool.used * RANDOM_BYTES_PER_ID;
        pool.used += 1;
        let mut bytes = [0; RANDOM_BYTES_PER_ID];
        bytes.copy_from_slice(&pool.random[from..from + RANDOM_BYTES_PER_ID]);
        bytes
    });
    let id = Builder::from_unix_timestamp_millis(u64::try_from(now.0).unwrap_or(0), &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    out.push_str(id.hyphenated().encode_lower(&mut text));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_uuids_that_sort_by_time() {
        let ids: HashSet<String> = (0..1000).map(|_| fresh(Timestamp(1_700_000_000_000))).collect();
        assert_eq!(ids.len(), 1000);
        let id = ids.iter().next().unwrap();
        assert_eq!(id.parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
        assert!(*id < fresh(Timestamp(1_700_000_000_001)));
    }
}
