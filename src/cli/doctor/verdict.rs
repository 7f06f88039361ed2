//! Judges what was seen on the way to a relay. Pure.

use std::time::{Duration, UNIX_EPOCH};

use super::probe::{BEATS_WATCHED, Beats, Delay, Head, Idle, POLL_SECONDS, Poll, Seen, Upgrade};
use hookcast_core::units::format_duration;
use hookcast_net::fetch::HeaderMap;

/// Beats that must have come one by one: half of those that were sent, for machines that do other things too.
const BEATS_MIN: usize = 2;
/// What lies closer together came in one go.
const APART: Duration = Duration::from_millis(400);
/// The head of a stream comes at once; whoever holds it back waits for the first bytes of the body, a second later at least.
const HEAD_LATE: Duration = Duration::from_millis(900);
/// Streams may begin this much later than short answers come.
const DELAY_MAX: Duration = Duration::from_millis(120);
/// A clock this far off makes times in `since` and signatures wrong.
const CLOCK_OFF: Duration = Duration::from_secs(30);
/// Heartbeats are this far apart unless a client asks for others.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Reach,
    Clock,
    Delay,
    Buffering,
    Compression,
    Caching,
    Idle,
    Resume,
    LongPoll,
    WebSocket,
}

/// What became of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) is_fine: bool,
    /// What was seen.
    pub(super) seen: String,
}

impl Check {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Clock => "clock",
            Self::Delay => "delay",
            Self::Buffering => "buffering",
            Self::Compression => "compression",
            Self::Caching => "caching",
            Self::Idle => "idle",
            Self::Resume => "resume",
            Self::LongPoll => "long-poll",
            Self::WebSocket => "websocket",
        }
    }

    fn fine(self, seen: impl Into<String>) -> Finding {
        Finding { check: self, is_fine: true, seen: seen.into() }
    }

    fn wrong(self, seen: impl Into<String>) -> Finding {
        Finding { check: self, is_fine: false, seen: seen.into() }
    }

    fn judge(self, is_fine: bool, seen: impl Into<String>) -> Finding {
        Finding { check: self, is_fine, seen: seen.into() }
    }
}

/// One finding a check, in the order in which things are to be put right; without a relay only that.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let head = match &seen.health {
        Err(error) => return vec![Check::Reach.wrong(format!("no relay there: {error}"))],
        Ok(head) => head,
    };
    let mut findings = vec![reach(head), clock(head)];
    findings.extend(seen.delay.map(delay));
    for (format, beats) in &seen.streams {
        match beats {
            Err(error) => findings.push(Check::Buffering.wrong(format!("no {format} stream: {error}"))),
            Ok(beats) => findings.extend([buffering(format, beats), compression(format, &beats.headers)]),
        }
    }
    findings.push(caching(seen));
    // Without a stream there is nothing to learn about silence; why there is none was said above.
    findings.extend(seen.idle.as_ref().ok().map(|idle| silence(*idle)));
    findings.push(resume(&seen.resume));
    findings.push(long_poll(&seen.poll));
    findings.push(websocket(&seen.socket));
    findings
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn reach(head: &Head) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let version = text(&head.headers, "hookcast-version");
    match version {
        Some(version) if version == own => Check::Reach.fine(format!("hookcast {version} answers")),
        Some(version) => Check::Reach.fine(format!("hookcast {version} answers; this is {own}")),
        None => Check::Reach.fine(format!("answered {} without a version", head.status)),
    }
}

fn clock(head: &Head) -> Finding {
    let date = text(&head.headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(theirs) = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) else {
        return Check::Clock.fine("no date in the answer: not compared");
    };
    let ours = Duration::from_secs(u64::try_from(head.at.as_secs()).unwrap_or_default());
    let off = ours.abs_diff(theirs);
    Check::Clock.judge(off <= CLOCK_OFF, format!("{} s between its clock and the one here", off.as_secs()))
}

fn delay(seen: Delay) -> Finding {
    let late = seen.stream.saturating_sub(seen.answer);
    let text = format!("what goes on comes {} ms later than what ends", late.as_millis());
    if late <= DELAY_MAX {
        Check::Delay.fine(text)
    } else {
        Check::Delay.wrong(format!("{text}: somebody waits for more to send"))
    }
}

fn buffering(format: &str, beats: &Beats) -> Finding {
    let watched = BEATS_WATCHED.as_secs();
    let mut one_by_one = 0;
    let mut last = None;
    for at in &beats.arrivals {
        if last.is_none_or(|last| *at >= last + APART) {
            one_by_one += 1;
            last = Some(*at);
        }
    }
    if beats.ended {
        return Check::Buffering.wrong(format!("{format}: the stream ended by itself within {watched} s"));
    }
    if one_by_one < BEATS_MIN {
        return Check::Buffering
            .wrong(format!("{format}: of the heartbeats of {watched} s {one_by_one} came one by one: somebody gathers them"));
    }
    if beats.head_after >= HEAD_LATE {
        let late = format_duration(beats.head_after);
        return Check::Buffering.wrong(format!("{format}: the head of the answer came after {late}: it waits for the body"));
    }
    Check::Buffering.fine(format!("{format}: {one_by_one} heartbeats in {watched} s, one by one"))
}

fn compression(format: &str, headers: &HeaderMap) -> Finding {
    match text(headers, "content-encoding").filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        None => Check::Compression.fine(format!("{format}: none")),
        Some(encoding) => {
            Check::Compression.wrong(format!("{format}: somebody compresses ({encoding}), which holds small events back"))
        }
    }
}

fn caching(seen: &Seen) -> Finding {
    let headers = seen.headers();
    let streams = seen.streams.iter().filter_map(|(_, beats)| beats.as_ref().ok());
    let is_kept = |headers: &&HeaderMap| {
        text(headers, "age").is_some_and(|age| age != "0")
            || text(headers, "x-cache").is_some_and(|said| said.to_ascii_uppercase().contains("HIT"))
    };
    if headers.iter().any(is_kept) {
        return Check::Caching.wrong("an answer came out of a cache");
    }
    let is_allowed =
        |beats: &Beats| !text(&beats.headers, "cache-control").is_some_and(|said| said.to_ascii_lowercase().contains("no-store"));
    if streams.into_iter().any(is_allowed) {
        return Check::Caching.wrong("the relay's `Cache-Control: no-store` does not arrive");
    }
    Check::Caching.fine("none")
}

fn silence(idle: Idle) -> Finding {
    match idle.ended_after {
        None => Check::Idle.fine(format!("a silent stream lives for {} and more", format_duration(idle.watched))),
        Some(after) => Check::Idle.wrong(format!(
            "a silent stream was cut after {:.1} s; there is a heartbeat every {} s",
            after.as_secs_f64(),
            HEARTBEAT.as_secs()
        )),
    }
}

fn resume(answered: &Result<u16, String>) -> Finding {
    match answered {
        Ok(400) => Check::Resume.fine("`Last-Event-ID` reaches the relay"),
        Ok(200) => Check::Resume.wrong("`Last-Event-ID` does not reach the relay: reconnecting clients would miss events"),
        Ok(status) => Check::Resume.wrong(format!("a position that is none was answered {status}, not 400")),
        Err(error) => Check::Resume.wrong(format!("not answered: {error}")),
    }
}

fn long_poll(answered: &Result<Poll, String>) -> Finding {
    match answered {
        Ok(Poll { status: 200, after }) if *after + APART >= Duration::from_secs(POLL_SECONDS) => {
            Check::LongPoll.fine(format!("one of {POLL_SECONDS} s was answered in its time"))
        }
        Ok(Poll { status: 200, after }) => {
            Check::LongPoll.wrong(format!("one of {POLL_SECONDS} s was answered after {:.1} s", after.as_secs_f64()))
        }
        Ok(Poll { status, .. }) => Check::LongPoll.wrong(format!("answered {status}")),
        Err(error) => Check::LongPoll.wrong(format!("not answered: {error}")),
    }
}

fn websocket(upgrade: &Upgrade) -> Finding {
    match upgrade {
        Upgrade::Alive => Check::WebSocket.fine("goes through, and its pings come"),
        Upgrade::Silent => Check::WebSocket.wrong("goes through, but its pings do not come"),
        Upgrade::Ignored(status) => {
            Check::WebSocket.wrong(format!("answered {status}: the request to upgrade does not reach the relay"))
        }
        Upgrade::Failed(error) => Check::WebSocket.wrong(error.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(arrivals_ms: &[u64], headers: &[(&'static str, &'static str)]) -> Beats {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let arrivals = arrivals_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Beats { headers, head_after: Duration::from_millis(3), arrivals, ended: false }
    }

    #[test]
    fn heartbeats_that_come_together_were_gathered() {
        assert!(buffering("sse", &beats(&[5, 1000, 2010, 3000], &[])).is_fine);
        assert!(!buffering("sse", &beats(&[], &[])).is_fine);
        assert!(!buffering("sse", &beats(&[4800, 4800, 4810, 4820], &[])).is_fine);
        let late = Beats { head_after: Duration::from_secs(1), ..beats(&[1000, 2000, 3000], &[]) };
        assert!(!buffering("sse", &late).is_fine);
        let ended = Beats { ended: true, ..beats(&[1000, 2000, 3000], &[]) };
        assert!(!buffering("sse", &ended).is_fine);
    }

    #[test]
    fn a_stream_may_begin_a_little_later_than_an_answer_comes() {
        let ms = Duration::from_millis;
        assert!(delay(Delay { answer: ms(40), stream: ms(60) }).is_fine);
        assert!(delay(Delay { answer: ms(400), stream: ms(40) }).is_fine);
        assert!(!delay(Delay { answer: ms(2), stream: ms(204) }).is_fine);
    }

    #[test]
    fn what_somebody_added_or_took_is_seen() {
        let compressed = beats(&[], &[("content-encoding", "gzip")]);
        assert!(!compression("sse", &compressed.headers).is_fine);
        assert!(compression("sse", &beats(&[], &[]).headers).is_fine);
        let seen = |headers: &[(&'static str, &'static str)]| Seen {
            health: Err(String::new()),
            delay: None,
            streams: vec![("sse", Ok(beats(&[], headers)))],
            idle: Err(String::new()),
            resume: Ok(400),
            poll: Ok(Poll { status: 200, after: Duration::from_secs(2) }),
            socket: Upgrade::Alive,
        };
        assert!(caching(&seen(&[("cache-control", "no-store, no-transform"), ("age", "0")])).is_fine);
        assert!(!caching(&seen(&[("cache-control", "no-store"), ("age", "7")])).is_fine);
        assert!(!caching(&seen(&[("cache-control", "no-store"), ("x-cache", "Hit from edge")])).is_fine);
        assert!(!caching(&seen(&[("cache-control", "max-age=60")])).is_fine);
        assert_eq!(findings(&seen(&[])).len(), 1, "without a relay nothing else is judged");
    }

    #[test]
    fn silence_resuming_polling_and_upgrading_have_one_good_end_each() {
        let watched = Duration::from_secs(20);
        assert!(silence(Idle { watched, ended_after: None }).is_fine);
        assert!(!silence(Idle { watched, ended_after: Some(Duration::from_secs(2)) }).is_fine);
        for (status, is_fine) in [(400, true), (200, false), (502, false)] {
            assert_eq!(resume(&Ok(status)).is_fine, is_fine);
        }
        for (status, after, is_fine) in [(200, 2, true), (200, 0, false), (504, 2, false)] {
            assert_eq!(long_poll(&Ok(Poll { status, after: Duration::from_secs(after) })).is_fine, is_fine);
        }
        for (upgrade, is_fine) in [(Upgrade::Alive, true), (Upgrade::Silent, false), (Upgrade::Ignored(200), false)] {
            assert_eq!(websocket(&upgrade).is_fine, is_fine);
        }
    }

    #[test]
    fn clocks_may_differ_by_a_little() {
        let head = |date: &'static str| Head {
            status: 200,
            headers: [("date".parse().unwrap(), date.parse().unwrap())].into_iter().collect(),
            at: hookcast_core::clock::Timestamp(784_111_777_000),
        };
        assert!(clock(&head("Sun, 06 Nov 1994 08:49:37 GMT")).is_fine);
        assert!(clock(&head("Sun, 06 Nov 1994 08:49:10 GMT")).is_fine);
        assert!(!clock(&head("Sun, 06 Nov 1994 08:59:37 GMT")).is_fine);
        assert!(clock(&head("yesterday")).is_fine, "nothing to compare");
    }
}
