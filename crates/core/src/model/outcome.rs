//! What one attempt came to, as data: what the endpoint answered, or why there is no answer. Nothing that a foreign server
//! writes can be taken for a word of the relay's own.

use super::delivery::ErrorKind;

/// What a receiver asks for with the header `webhook-delivery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Never post this event again.
    Abort,
    /// Never post anything again; it counts whatever the status.
    Disable,
}

impl Directive {
    /// Reads the header's value; any other word asks for nothing. `abort-message` is what Svix has receivers say.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is = |word: &str| text.trim().eq_ignore_ascii_case(word);
        if is("abort") || is("abort-message") { Some(Self::Abort) } else { is("disable").then_some(Self::Disable) }
    }
}

/// What the endpoint answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What the receiver asks for besides.
    pub directive: Option<Directive>,
    /// `Retry-After` as sent.
    pub retry_after: Option<String>,
    /// First bytes of the body, kept for failures.
    pub body_head: Vec<u8>,
}

impl Answer {
    /// An answer of this status that says nothing else.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self { status, directive: None, retry_after: None, body_head: Vec::new() }
    }

    /// Why it is a failure; `None` = 2xx.
    #[inline]
    #[must_use]
    pub fn error(&self) -> Option<ErrorKind> {
        match self.status {
            200..300 => None,
            300..400 if self.status != 304 => Some(ErrorKind::RedirectNotFollowed),
            _ => Some(ErrorKind::Status),
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an answer.
    Answered(Answer),
    /// Without one.
    Failed {
        /// Why.
        kind: ErrorKind,
        /// A sentence for a person; empty when the kind says it all.
        detail: String,
    },
    /// The body could not be made, nor will it ever; says why.
    Unmade(String),
    /// The event is no longer kept; nothing could be sent.
    EventGone,
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// From the start of the attempt to its end.
    pub latency_ms: u32,
    /// How it ended.
    pub ending: Ending,
}

impl Outcome {
    /// The endpoint answered.
    #[must_use]
    pub fn answered(answer: Answer, latency_ms: u32) -> Self {
        Self { latency_ms, ending: Ending::Answered(answer) }
    }

    /// There is no answer.
    #[must_use]
    pub fn failed(kind: ErrorKind, latency_ms: u32) -> Self {
        Self { latency_ms, ending: Ending::Failed { kind, detail: String::new() } }
    }

    /// The body cannot be made.
    #[must_use]
    pub fn unmade(why: String) -> Self {
        Self { latency_ms: 0, ending: Ending::Unmade(why) }
    }

    /// The event is no longer kept.
    #[must_use]
    pub fn event_gone() -> Self {
        Self { latency_ms: 0, ending: Ending::EventGone }
    }

    /// The answer, when one came.
    #[inline]
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.ending {
            Ending::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// The status, when an answer came.
    #[inline]
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.answer().map(|answer| answer.status)
    }

    /// What the receiver asks for besides.
    #[inline]
    #[must_use]
    pub fn directive(&self) -> Option<Directive> {
        self.answer().and_then(|answer| answer.directive)
    }

    /// Why it is a failure; `None` = 2xx.
    #[inline]
    #[must_use]
    pub fn error(&self) -> Option<ErrorKind> {
        match &self.ending {
            Ending::Answered(answer) => answer.error(),
            Ending::Failed { kind, .. } => Some(*kind),
            Ending::Unmade(_) => Some(ErrorKind::Template),
            Ending::EventGone => Some(ErrorKind::Storage),
        }
    }

    /// Whether the event counts as delivered.
    #[inline]
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.error().is_none()
    }

    /// Whether the relay itself lacked what it takes: no attempt was made, and the endpoint has nothing to do with it.
    #[inline]
    #[must_use]
    pub fn is_own_fault(&self) -> bool {
        matches!(self.ending, Ending::Failed { kind: ErrorKind::OwnFault, .. })
    }

    /// The word for lists and logs: `success`, `status_500`, `timeout`, …; for a body that cannot be made, why.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.ending {
            Ending::Unmade(why) => why.clone(),
            Ending::Answered(Answer { status, .. }) if self.error() == Some(ErrorKind::Status) => format!("status_{status}"),
            _ => self.error().map_or("success", ErrorKind::word).to_owned(),
        }
    }

    /// What a person may want to read of a failure: the first bytes of the answer, or what went wrong before there was one.
    #[must_use]
    pub fn said(&self) -> Option<String> {
        let said = match &self.ending {
            Ending::Answered(answer) if !self.is_success() => String::from_utf8_lossy(&answer.body_head).into_owned(),
            Ending::Failed { detail, .. } => detail.clone(),
            _ => String::new(),
        };
        (!said.is_empty()).then_some(said)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_directive_is_one_of_two_and_any_other_word_is_none() {
        for (text, wanted) in [
            ("abort", Some(Directive::Abort)),
            (" ABORT\t", Some(Directive::Abort)),
            ("abort-message", Some(Directive::Abort)),
            ("Disable", Some(Directive::Disable)),
            ("", None),
            ("abort, disable", None),
            ("aborted", None),
            ("no_longer_kept", None),
            ("template: x", None),
        ] {
            assert_eq!(Directive::parse(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn each_status_is_a_success_a_redirect_or_a_failure() {
        let says = |status| Outcome::answered(Answer::of(status), 1).describe();
        assert_eq!([says(200), says(204), says(299)], ["success", "success", "success"]);
        assert_eq!([says(300), says(308), says(399)], ["redirect_not_followed"; 3]);
        assert_eq!([says(304), says(404), says(500), says(999)], ["status_304", "status_404", "status_500", "status_999"]);
        assert_eq!(Outcome::failed(ErrorKind::Timeout, 5).describe(), "timeout");
        assert_eq!(Outcome::unmade("template: x".to_owned()).describe(), "template: x");
        assert_eq!(Outcome::event_gone().describe(), "storage");
    }

    proptest! {
        #[test]
        fn nothing_that_an_answer_says_is_taken_for_anything_else(status in 200u16..1000, word in ".*", body in ".*") {
            let answer = Answer { directive: Directive::parse(&word), body_head: body.clone().into_bytes(), ..Answer::of(status) };
            let outcome = Outcome::answered(answer, 1);
            prop_assert_eq!(outcome.status(), Some(status));
            prop_assert_eq!(outcome.is_success(), status < 300);
            let described = outcome.describe();
            let of_status = format!("status_{status}");
            prop_assert!(["success", "redirect_not_followed", of_status.as_str()].contains(&described.as_str()));
            prop_assert_eq!(outcome.said(), (status >= 300 && !body.is_empty()).then_some(body));
        }
    }
}
