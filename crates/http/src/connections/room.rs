//! How many connections are open, all in all and from one address: what is beyond is refused, counted and told.
//!
//! Every connection takes a file descriptor, and so do deliveries, sources and the database: whoever comes from outside must not
//! be able to take them all. One address cannot fill the room alone, so that a way in is left for others; the last eighth is
//! theirs, which a proxy that all come through seldom misses. Knows no protocol.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How often it is told that connections are refused.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// Time for a client to take the answer that there is no room; closing over unread bytes would take it away.
const PARTING_TIMEOUT: Duration = Duration::from_secs(1);
/// Clients that have it at the same time; others are cut at once.
pub(crate) const PARTING_MAX: usize = 64;
/// The part of the room that no single address can take.
const SHARE_OF_OTHERS: usize = 8;

/// The room for connections of a server; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
    parting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<IpAddr, usize>,
    /// Refused since it was told.
    refused: u64,
    told_at: Option<Instant>,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Room,
    address: IpAddr,
}

impl Room {
    /// Room for `most` connections.
    pub(crate) fn new(most: usize) -> Self {
        let most_of_one = (most - most / SHARE_OF_OTHERS).max(1);
        Self(Arc::new(Shared { most, most_of_one, taken: Mutex::default(), parting: AtomicUsize::new(0) }))
    }

    /// A place, if there is one.
    pub(crate) fn enter(&self, peer: Option<IpAddr>, now: Instant) -> Option<Seat> {
        let address = address_of(peer);
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = taken.of.get(&address).copied().unwrap_or_default();
        let reason = match () {
            () if taken.all >= self.0.most => "all",
            () if of_one >= self.0.most_of_one => "address",
            () => {
                taken.all += 1;
                taken.of.insert(address, of_one + 1);
                gauge!("hookcast_connections_open").increment(1.0);
                return Some(Seat { room: self.clone(), address });
            }
        };
        counter!("hookcast_connections_refused_total", "reason" => reason).increment(1);
        taken.refused += 1;
        if taken.told_at.is_none_or(|told_at| now.duration_since(told_at) >= TELL_EVERY) {
            taken.told_at = Some(now);
            let refused = std::mem::take(&mut taken.refused);
            tracing::warn!(
                refused,
                open = taken.all,
                most = self.0.most,
                %address,
                of_address = of_one,
                most_of_address = self.0.most_of_one,
                "connections are refused: as many as allowed are open (limits.connections, and the limit of open files)"
            );
        }
        None
    }

    /// Says to a client that there is no room, as far as it takes it.
    pub(crate) async fn part(self, mut client: TcpStream, word: String) {
        // Asked of the system, because the runtime does not know yet that there is room in the buffer of a new socket.
        let _ = SockRef::from(&client).send(word.as_bytes());
        let parting = &self.0.parting;
        let next = |parting: usize| (parting < PARTING_MAX).then_some(parting + 1);
        if parting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err() {
            return;
        }
        let farewell = async {
            client.shutdown().await?;
            let mut ignored = [0; 512];
            while client.read(&mut ignored).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(PARTING_TIMEOUT, farewell).await;
        parting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.room.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Entry::Occupied(mut of_one) = taken.of.entry(self.address) {
            *of_one.get_mut() -= 1;
            if *of_one.get() == 0 {
                of_one.remove();
            }
        }
        drop(taken);
        gauge!("hookcast_connections_open").decrement(1.0);
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, which one household has to itself.
fn address_of(peer: Option<IpAddr>) -> IpAddr {
    match peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        Some(address) => address,
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(room: &Room, address: &str) -> Option<Seat> {
        room.enter(Some(address.parse().unwrap()), Instant::now())
    }

    #[test]
    fn one_address_cannot_fill_the_room_and_all_together_can() {
        let room = Room::new(16);
        let mut of_one: Vec<Seat> = std::iter::from_fn(|| enter(&room, "192.0.2.1")).take(100).collect();
        assert_eq!(of_one.len(), 14);
        // The same address in another dress.
        assert!(enter(&room, "::ffff:192.0.2.1").is_none());
        let of_other: Vec<Seat> = std::iter::from_fn(|| enter(&room, "2001:db8::1")).take(100).collect();
        assert_eq!(of_other.len(), 2);
        assert!(enter(&room, "192.0.2.9").is_none());
        of_one.pop();
        assert!(enter(&room, "192.0.2.9").is_some());
        drop((of_one, of_other));
        let taken = room.0.taken.lock().unwrap();
        assert_eq!((taken.all, taken.of.len()), (0, 0), "nothing is remembered of who is gone");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let room = Room::new(8);
        let held: Vec<_> = (0..20).filter_map(|n| enter(&room, &format!("2001:db8::{n}:1"))).collect();
        assert_eq!(held.len(), 7);
        assert!(enter(&room, "2001:db8:0:1::1").is_some());
        assert!(enter(&Room::new(1), "192.0.2.1").is_some(), "a room is never empty for everybody");
    }

    #[test]
    fn it_is_told_once_a_minute() {
        let room = Room::new(1);
        let start = Instant::now();
        let _held = room.enter(None, start).unwrap();
        let waiting = |after: u64| {
            assert!(room.enter(None, start + Duration::from_secs(after)).is_none());
            room.0.taken.lock().unwrap().refused
        };
        assert_eq!([waiting(0), waiting(1), waiting(59), waiting(60), waiting(61)], [0, 1, 2, 0, 1]);
    }
}
