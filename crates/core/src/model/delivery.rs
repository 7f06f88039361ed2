//! Deliveries: how attempts fail, and what is remembered of those that did not succeed at once.

use serde::{Deserialize, Serialize};

use super::event::{Event, Seq};
use super::subscription::Ordinal;
use crate::clock::Timestamp;

/// How an attempt failed when no status line came, or a status that is a failure.
///
/// The word of each kind is what the API, logs and metrics show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A status other than 2xx, 3xx.
    Status,
    /// A 3xx, which is never followed.
    RedirectNotFollowed,
    /// The name does not exist.
    DnsNxdomain,
    /// The name server failed.
    DnsServfail,
    /// The name server did not answer.
    DnsTimeout,
    /// The name has no address.
    DnsEmpty,
    /// Any other failure to resolve.
    DnsError,
    /// The address may not be dialled.
    BlockedAddress,
    /// The connection was refused or unreachable.
    Connect,
    /// The connection took too long.
    ConnectTimeout,
    /// TLS failed.
    Tls,
    /// TLS took too long.
    TlsTimeout,
    /// The connection was reset.
    Reset,
    /// The connection ended before an answer.
    Eof,
    /// What came back is not HTTP, or not allowed in it.
    Protocol,
    /// The whole attempt took too long.
    Timeout,
    /// There was no token to show: its endpoint refused or failed. The delivery itself was not sent.
    Auth,
    /// The relay could not read the event.
    Storage,
    /// The relay had no file descriptor, port or memory left to open a connection with; nothing was sent.
    OwnFault,
    /// The event could not be filled into the subscription's template; nothing was sent.
    Template,
    /// The relay itself broke over it; whether something was sent is not known.
    Internal,
}

impl ErrorKind {
    /// The word of this kind.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::RedirectNotFollowed => "redirect_not_followed",
            Self::DnsNxdomain => "dns_nxdomain",
            Self::DnsServfail => "dns_servfail",
            Self::DnsTimeout => "dns_timeout",
            Self::DnsEmpty => "dns_empty",
            Self::DnsError => "dns_error",
            Self::BlockedAddress => "blocked_address",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::TlsTimeout => "tls_timeout",
            Self::Reset => "reset",
            Self::Eof => "eof",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Auth => "auth",
            Self::Storage => "storage",
            Self::OwnFault => "own_fault",
            Self::Template => "template",
            Self::Internal => "internal",
        }
    }
}

/// One POST as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The event.
    pub seq: Seq,
    /// 1 for the first.
    pub n: u32,
    /// When it began.
    pub at: Timestamp,
    /// `success` or `failure`.
    pub outcome: String,
    /// The status, when an answer came.
    pub status: Option<u16>,
    /// The word of the failure.
    pub error: Option<String>,
    /// How long it took.
    pub latency_ms: u32,
    /// First bytes of the answer's body, for failures.
    pub response: Option<String>,
}

/// Why a delivery is remembered on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExceptionState {
    /// Waits for its next attempt.
    Retry,
    /// Given up; can be redriven.
    Dead,
}

/// A delivery that did not succeed at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Whose.
    pub ordinal: Ordinal,
    /// Which event.
    pub seq: Seq,
    /// Waiting or given up.
    pub state: ExceptionState,
    /// Attempts that count against the schedule.
    pub attempts: u32,
    /// All attempts made, for `hookcast-attempt`.
    pub sent: u32,
    /// When the next attempt is due; for dead letters, when it was given up.
    pub due_at: Timestamp,
    /// When the first attempt failed.
    pub since: Timestamp,
    /// The last failure: `status_500`, `timeout`, …, or why it is dead.
    pub reason: String,
    /// Whether the batch that it is of was posted under an id of its first and last position alone, as builds before had it.
    #[serde(default)]
    pub has_old_batch_id: bool,
}

impl Exception {
    /// How the reason of a dead letter begins that was skipped past: where order is kept, it holds nothing up any more.
    pub const SKIPPED: &str = "skipped: ";

    /// Whether it was skipped past.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        self.reason.starts_with(Self::SKIPPED)
    }
}

/// An exception together with the event it is about, so that the event can outlive retention.
#[derive(Clone, Debug)]
pub struct KeptException {
    /// The exception.
    pub exception: Exception,
    /// Its event, when the writer has it in hand.
    pub event: Option<Event>,
}

/// A range that retention took before it was delivered; both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredRange {
    /// Whose.
    pub ordinal: Ordinal,
    /// First position.
    pub from: Seq,
    /// Last position.
    pub to: Seq,
}
