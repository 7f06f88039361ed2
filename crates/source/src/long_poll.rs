//! The protocol `long-poll`: asks again and again, and the upstream answers when it has something.
//!
//! The position is a cursor in the body, the next page's URL, or `ETag` and `Last-Modified`. See `poll.rs` for the work.

use super::Protocol;
use super::poll::{Poller, check};

pub(super) const PROTOCOL: Protocol = Protocol { name: "long-poll", check, open: |spec| Box::new(Poller::new(spec, true)) };
