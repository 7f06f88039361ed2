//! A vetted connection, plain or TLS, as one type.
//!
//! Owns the step from target to usable byte stream: gate, then TLS where the scheme asks for it. Must not know HTTP.

use super::dial::{DialError, Gate};
use super::target::{Scheme, Target};
use super::tls::Tls;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to a vetted address.
#[derive(Debug)]
pub enum Socket {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS with ALPN `http/1.1`.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Connects to `target` through `gate`, with a TLS handshake if it is https.
    ///
    /// # Errors
    /// See [`DialError`].
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub async fn open(gate: &Gate, tls: &Tls, target: &Target) -> Result<Self, DialError> {
        let stream = gate.connect(target).await?;
        Ok(match target.scheme() {
            Scheme::Http => Self::Plain(stream),
            Scheme::Https => Self::Tls(Box::new(tls.handshake(target, stream).await?)),
        })
    }

    /// The TCP connection underneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
