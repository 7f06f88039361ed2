//! A stream on a plain TCP connection, with nothing of HTTP around it: the same rings, the same writer, bare bytes.
//!
//! Whoever accepted the connection has read what its client wants and says what it will be sent; this goes on from there. Knows
//! neither tokens nor lines.

use std::future::Future;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::chunk::Wrapping;
use super::client::Client;
use super::counts::Hold;
use super::writer::Writer;
use super::{Allowance, Ask, StreamError, Worker};
use hookcast_core::model::Seq;

/// A stream that has its place and waits for its connection; given up when dropped.
pub struct Plain(Client);

/// Opens a stream for a connection without HTTP. `allowance` is kept as long as the stream lives; once it is over, the stream ends
/// within a tick.
///
/// # Errors
/// [`StreamError`] when no stream can begin now.
pub async fn open(worker: &Worker, ask: Ask, allowance: Option<Rc<dyn Allowance>>) -> Result<Plain, StreamError> {
    let mut permit = worker.0.egress.admit()?;
    permit.keep(allowance.map(Hold));
    // Formats of connections without HTTP say everything themselves.
    let (client, _) = super::open(worker, ask, permit).await?;
    Ok(Plain(client))
}

impl Plain {
    /// The position behind which it begins.
    #[must_use]
    pub fn position(&self) -> Seq {
        self.0.position()
    }

    /// Writes the stream until it ends or the peer is gone.
    pub fn write_to(self, socket: TcpStream) -> impl Future<Output = ()> + use<> {
        Writer::new(self.0, socket, Wrapping::Bare, None)
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Plain").field(&self.position()).finish()
    }
}
