//! What a close code, or a breach of the protocol, means for a source. Pure.
//!
//! An upstream that goes away or restarts is asked again with jitter, never at once: all its other clients come back too. One
//! that refuses this client waits for a person; one that breaks the protocol, or says that we do, is a failure.
//! Spec: RFC 6455 §7.4 and the IANA registry of close codes.

use std::time::Duration;

use crate::reconnect::{Ending, EndingClass};
use hookcast_core::codec::websocket::messages::WsFault;

/// The purpose is fulfilled.
pub(super) const NORMAL: u16 = 1000;
/// A side goes down.
pub(super) const GOING_AWAY: u16 = 1001;

/// Codes with the word for them, and what follows; codes that are not here are `closed`.
const CODES: &[(u16, &str, EndingClass, &str)] = &[
    (1000, "1000", EndingClass::Lost, "the upstream ended the stream"),
    (1001, "1001", EndingClass::Lost, "the upstream goes away"),
    (1002, "1002", EndingClass::Failed, "the upstream says that the protocol was broken"),
    (1003, "1003", EndingClass::Failed, "the upstream does not take what was sent"),
    (1007, "1007", EndingClass::Failed, "the upstream says that a message is malformed"),
    (1008, "auth", EndingClass::Denied, "the upstream refuses this client"),
    (1009, "1009", EndingClass::Failed, "the upstream says that a message is too large"),
    (1010, "1010", EndingClass::Failed, "the upstream wants an extension"),
    (1011, "1011", EndingClass::Failed, "the upstream failed"),
    (1012, "1012", EndingClass::Lost, "the upstream restarts"),
    (1013, "1013", EndingClass::Lost, "the upstream is overloaded"),
    (1014, "1014", EndingClass::Failed, "a gateway has no answer from the upstream"),
    (3000, "auth", EndingClass::Denied, "the upstream wants credentials"),
    (3003, "auth", EndingClass::Denied, "the upstream refuses the credentials"),
    (4401, "auth", EndingClass::Denied, "the upstream wants credentials"),
    (4403, "auth", EndingClass::Denied, "the upstream refuses the credentials"),
];

/// The other side said goodbye; no code counts as [`NORMAL`].
pub(super) fn closed(code: Option<u16>, reason: &str) -> Ending {
    let code = code.unwrap_or(NORMAL);
    let unknown = (code, "closed", EndingClass::Failed, "the upstream closed the connection");
    let (_, slug, class, detail) = CODES.iter().find(|row| row.0 == code).copied().unwrap_or(unknown);
    let said = if reason.is_empty() { String::new() } else { format!(": {}", reason.escape_debug()) };
    let ending = Ending::new(class, slug, format!("{detail} (close code {code}{said})"));
    if class == EndingClass::Lost { ending.with_retry_after(Some(Duration::ZERO)) } else { ending }
}

/// The other side broke the protocol.
pub(super) fn broken(fault: WsFault) -> Ending {
    let slug = match fault {
        WsFault::Protocol(_) => "1002",
        WsFault::Utf8 => "1007",
        WsFault::Fragments => "1009",
    };
    Ending::new(EndingClass::Failed, slug, fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconnect::{Next, Reconnect, ReconnectSettings};
    use hookcast_core::clock::Timestamp;

    #[test]
    fn codes_fall_into_classes() {
        let class = |code: u16| (closed(Some(code), "").class, closed(Some(code), "").slug);
        assert_eq!(class(1000), (EndingClass::Lost, "1000"));
        assert_eq!(class(1012), (EndingClass::Lost, "1012"));
        assert_eq!(class(1011), (EndingClass::Failed, "1011"));
        assert_eq!(class(1008), (EndingClass::Denied, "auth"));
        assert_eq!(class(4401), (EndingClass::Denied, "auth"));
        assert_eq!(class(4000), (EndingClass::Failed, "closed"));
        assert_eq!(closed(None, "").slug, "1000");
        assert_eq!(closed(Some(1001), "bye\n").detail, "the upstream goes away (close code 1001: bye\\n)");
    }

    #[test]
    fn an_upstream_that_says_goodbye_is_asked_again_with_jitter() {
        let now = Timestamp(1_000_000);
        let delay = |random: u64| {
            let mut policy = Reconnect::new(ReconnectSettings::default());
            policy.connected(now);
            match policy.ended(&closed(Some(1012), ""), true, now.plus(Duration::from_mins(5)), random) {
                Next::After(delay) => delay,
                Next::Stop => panic!("stopped"),
            }
        };
        assert_eq!(delay(0), Duration::from_secs(1));
        assert!(delay(700_000) > Duration::from_millis(1500));
    }
}
