//! What answers instead of the wire, when there is none: the other ends of a simulation.
//!
//! Owns the form of what is asked and answered there. Must not know who asks, nor what a simulation is about.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use hyper::http::{HeaderMap, Method};

use crate::target::Target;

/// What an exchange comes to.
pub type Exchange<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One POST of a delivery, as it would stand on the wire.
#[derive(Debug)]
pub struct Posted {
    /// Where to.
    pub url: String,
    /// Header lines, each with its end.
    pub lines: Vec<u8>,
    /// The body.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug, Default)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answered {
    /// The value of a header, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }
}

/// How an exchange ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection is reset.
    Reset,
    /// The connection is closed; what was sent may have been handled.
    Eof,
}

/// The other ends. Who asks keeps to its own time limits.
pub trait Peers: Debug + Send + Sync {
    /// Takes a delivery.
    fn post(&self, posted: Posted) -> Exchange<Result<Answered, Broken>>;

    /// Answers a question.
    fn ask(&self, method: &Method, target: &Target) -> Exchange<Answered>;
}
