//! `hookcast health`: asks the relay on this machine whether it is well, so that a container needs no other program for it.
//!
//! One plain HTTP request to the configured address; must not open storage or anything else that a running relay holds.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Time for connecting, and again for each read and write.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of the answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Why the relay is not well.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthError {
    /// Which port it took cannot be known.
    #[error("server.listen has port 0: name the port that is to be asked")]
    AnyPort,
    /// It did not take the question or gave no whole answer in time.
    #[error("no answer from {address}: {source}")]
    Silent {
        /// Who was asked.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It answered something else than 200.
    #[error("{address} answers {answer:?}")]
    Unwell {
        /// Who was asked.
        address: SocketAddr,
        /// The first line of the answer.
        answer: String,
    },
}

/// Asks the relay that listens on `listen`, through loopback if that is every address: with `is_ready` whether it can take
/// events (`/readyz`), else whether it lives (`/healthz`).
///
/// # Errors
/// [`HealthError`] unless it answers 200, each step within `timeout`.
pub(super) fn ask(listen: SocketAddr, is_ready: bool, timeout: Duration) -> Result<(), HealthError> {
    if listen.port() == 0 {
        return Err(HealthError::AnyPort);
    }
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let path = if is_ready { "/readyz" } else { "/healthz" };
    let answer = first_line(address, path, timeout).map_err(|source| HealthError::Silent { address, source })?;
    if answer.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(HealthError::Unwell { address, answer }) }
}

fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn first_line(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let question = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: hookcast-health\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// Takes one question, gives `answer`, and returns the question.
    fn relay(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 1024];
            let length = stream.read(&mut question).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&question[..length]).into_owned()
        };
        (address, thread::spawn(serve))
    }

    #[test]
    fn a_200_is_well_and_the_path_says_what_was_asked() {
        for (ready, path) in [(false, "GET /healthz HTTP/1.1\r\n"), (true, "GET /readyz HTTP/1.1\r\n")] {
            let (address, question) = relay("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
            let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            ask(unspecified, ready, TIMEOUT).unwrap();
            let question = question.join().unwrap();
            assert!(question.starts_with(path), "{question}");
            assert!(question.contains(&format!("host: {address}\r\n")), "{question}");
        }
    }

    #[test]
    fn anything_else_is_not_well() {
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "SSH-2.0-x\r\n", ""] {
            let (address, question) = relay(answer);
            let error = ask(address, false, TIMEOUT).unwrap_err();
            assert!(matches!(error, HealthError::Unwell { .. }), "{answer:?}: {error}");
            question.join().unwrap();
        }
    }

    #[test]
    fn a_closed_or_unknown_port_is_told() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(ask(free, false, TIMEOUT), Err(HealthError::Silent { .. })));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        assert!(matches!(ask(any, false, TIMEOUT), Err(HealthError::AnyPort)));
    }

    #[test]
    fn a_relay_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = ask(listener.local_addr().unwrap(), false, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, HealthError::Silent { .. }), "{error}");
    }
}
