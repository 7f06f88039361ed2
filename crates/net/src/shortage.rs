//! Shortages of the relay's own: no file descriptor, port or memory is left to open a socket with.
//!
//! Owns which errors of the system are such, how they are counted and told. Whoever is dialled has nothing to do with them: they
//! are neither an attempt nor a failure of an endpoint. Knows nobody who dials.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rustix::io::Errno;

/// How often it is told that something is short.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The process has as many descriptors as it may have.
    #[error("the relay has no file descriptor left (emfile)")]
    Emfile,
    /// The machine has as many as it may have.
    #[error("the machine has no file descriptor left (enfile)")]
    Enfile,
    /// The system has no buffer left.
    #[error("the system has no buffer left (enobufs)")]
    Enobufs,
    /// The system has no memory left.
    #[error("the system has no memory left (enomem)")]
    Enomem,
    /// No port is left for connections to this address.
    #[error("the machine has no port left for this address (eaddrnotavail)")]
    Eaddrnotavail,
}

impl Shortage {
    /// The shortage that an error of the system says, wherever it comes from.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE => Some(Self::Emfile),
            Errno::NFILE => Some(Self::Enfile),
            Errno::NOBUFS => Some(Self::Enobufs),
            Errno::NOMEM => Some(Self::Enomem),
            _ => None,
        }
    }

    /// The same for an attempt to connect to `address`. No address to call from is a shortage of ports, unless this machine has
    /// none at all of that family, which looks the same and never ends.
    #[must_use]
    pub fn of_connecting(error: &io::Error, address: SocketAddr) -> Option<Self> {
        if Errno::from_io_error(error) != Some(Errno::ADDRNOTAVAIL) {
            return Self::of(error);
        }
        // Chooses an address to call from as a connection would, and sends nothing.
        match unused_socket(address.ip()).and_then(|socket| socket.connect(address)) {
            Ok(()) => Some(Self::Eaddrnotavail),
            Err(error) => Self::of(&error),
        }
    }

    /// Whether something is short right now, for failures whose cause got lost on the way.
    #[must_use]
    pub fn now() -> Option<Self> {
        unused_socket(IpAddr::V4(Ipv4Addr::LOCALHOST)).err().and_then(|error| Self::of(&error))
    }

    /// Its word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Emfile => "emfile",
            Self::Enfile => "enfile",
            Self::Enobufs => "enobufs",
            Self::Enomem => "enomem",
            Self::Eaddrnotavail => "eaddrnotavail",
        }
    }

    /// Counts it, and says it in the log once a minute.
    pub fn tell(self) {
        static TOLD_AT: Mutex<Option<Instant>> = Mutex::new(None);
        counter!("hookcast_own_faults_total", "kind" => self.word()).increment(1);
        let mut told_at = TOLD_AT.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told_at = Some(Instant::now());
            drop(told_at);
            tracing::warn!("cannot dial: {self}; what waits is tried again until it can, without blame for whoever is dialled");
        }
    }
}

fn unused_socket(peer: IpAddr) -> io::Result<UdpSocket> {
    let any = if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    UdpSocket::bind(SocketAddr::new(any, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_short_here_is_a_shortage() {
        let of = |errno: Errno| {
            let address = "127.0.0.1:9".parse().unwrap();
            Shortage::of_connecting(&io::Error::from_raw_os_error(errno.raw_os_error()), address).map(Shortage::word)
        };
        let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL].map(of);
        assert_eq!(short, ["emfile", "enfile", "enobufs", "enomem", "eaddrnotavail"].map(Some));
        for errno in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::TIMEDOUT, Errno::ACCESS]
        {
            assert_eq!(of(errno), None, "{errno:?}");
        }
        assert_eq!(Shortage::of(&io::ErrorKind::ConnectionRefused.into()), None);
        assert_eq!(Shortage::now(), None);
    }
}
