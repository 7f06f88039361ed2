//! Counts bad tokens by address, so that guessing is slowed down; and what else an address may send only so often.
//!
//! A good token is never refused for the guesses of others behind the same address: 256 random bits are not guessed, and
//! everybody behind one proxy would be locked out together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use hookcast_core::clock::Timestamp;

/// Bad tokens a minute that an address may send.
pub(super) const GUESSES_MAX: u32 = 20;
/// Most addresses that are counted; IPv6 addresses count by their /64.
pub(super) const ADDRESSES_MAX: usize = 8192;
const WINDOW_MS: i64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<HashMap<IpAddr, (Timestamp, u32)>>);

impl Guesses {
    /// Counts a bad token; gives the seconds to wait when there were too many.
    pub(super) fn note(&self, peer: Option<IpAddr>, now: Timestamp) -> Option<u32> {
        self.count(peer, now, GUESSES_MAX)
    }

    /// Counts one thing that an address may send `most` times a minute; gives the seconds to wait when there were too many.
    pub(crate) fn count(&self, peer: Option<IpAddr>, now: Timestamp, most: u32) -> Option<u32> {
        let address = network(peer?);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= ADDRESSES_MAX && !counts.contains_key(&address) {
            counts.retain(|_, (since, _)| is_open(*since, now));
            if counts.len() >= ADDRESSES_MAX {
                // Forgetting everybody costs attackers nothing and us a minute of counting; growing would cost memory.
                counts.clear();
            }
        }
        let (since, count) = counts.entry(address).or_insert((now, 0));
        if !is_open(*since, now) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        let left_ms = (WINDOW_MS - (now.0 - since.0)).max(1);
        (*count > most).then(|| u32::try_from(left_ms / 1000 + 1).unwrap_or(60))
    }
}

/// Whether the minute that began then is not over; a clock that was set back begins another one.
fn is_open(since: Timestamp, now: Timestamp) -> bool {
    (0..WINDOW_MS).contains(&(now.0 - since.0))
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twenty_first_bad_token_of_a_minute_is_one_too_many() {
        let guesses = Guesses::default();
        let one = Some(IpAddr::from([192, 0, 2, 1]));
        for _ in 0..GUESSES_MAX {
            assert_eq!(guesses.note(one, Timestamp(5)), None);
        }
        assert_eq!(guesses.note(one, Timestamp(5)), Some(61));
        assert_eq!(guesses.note(Some(IpAddr::from([192, 0, 2, 2])), Timestamp(5)), None);
        assert_eq!(guesses.note(one, Timestamp(5 + WINDOW_MS)), None);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_minute() {
        let guesses = Guesses::default();
        let one = Some(IpAddr::from([192, 0, 2, 1]));
        for _ in 0..=GUESSES_MAX {
            guesses.note(one, Timestamp(90 * WINDOW_MS));
        }
        assert_eq!(guesses.note(one, Timestamp(30 * WINDOW_MS)), None, "counted anew from the time that is now");
        for _ in 0..GUESSES_MAX {
            guesses.note(one, Timestamp(30 * WINDOW_MS));
        }
        assert_eq!(guesses.note(one, Timestamp(30 * WINDOW_MS)), Some(61));
    }

    #[test]
    fn neighbours_in_one_ipv6_network_count_together() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff:1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn the_table_does_not_grow_beyond_its_limit() {
        let guesses = Guesses::default();
        for n in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            guesses.note(Some(IpAddr::from(n.to_be_bytes())), Timestamp(0));
        }
        assert!(guesses.0.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
