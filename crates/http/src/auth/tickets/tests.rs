//! Behaviour of tickets.

use super::*;
use crate::auth::{AuthSettings, TokenEntry, held};
use hookcast_core::clock::ManualClock;
use hookcast_core::model::administration::TokenLimits;

const MADE: Timestamp = Timestamp(1_000_000);

fn entry(name: &str) -> TokenEntry {
    TokenEntry {
        id: None,
        name: name.to_owned(),
        sha256: TokenEntry::digest(name),
        scopes: vec![Scope::Stream],
        topics: Vec::new(),
        expires_at: None,
        limits: TokenLimits::default(),
    }
}

fn topics() -> PatternList {
    "a.*".parse().unwrap()
}

fn random(number: u32) -> [u8; RANDOM_BYTES] {
    let mut bytes = [0; RANDOM_BYTES];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn at(seconds: u64) -> Timestamp {
    MADE.plus(Duration::from_secs(seconds))
}

struct Bench {
    tickets: Tickets,
    held: Arc<Held>,
    clock: ManualClock,
}

impl Bench {
    fn new() -> Self {
        Self { tickets: Tickets::default(), held: held(entry("a"), &[]), clock: ManualClock::starting_at(MADE) }
    }

    fn go_to(&self, time: Timestamp) {
        self.clock.advance(time.since(self.clock.now()));
    }

    fn make(&self) -> String {
        self.tickets.make(&self.held, topics(), random(1), MADE).unwrap()
    }

    /// Opens a stream and gives its place.
    fn open(&self, text: &str, now: Timestamp) -> Option<Pass> {
        self.tickets.find(text, now).map(|ticket| ticket.enter(Arc::new(self.clock.clone())))
    }
}

#[test]
fn an_unused_ticket_lives_for_half_a_minute() {
    let bench = Bench::new();
    assert!(bench.open(&bench.make(), Timestamp(at(30).0 - 1)).is_some());
    let text = bench.make();
    assert!(bench.tickets.find(&text, at(30)).is_none());
    assert!(bench.tickets.find(&text, at(0)).is_none(), "it is forgotten, not asleep");
}

#[test]
fn a_used_ticket_lives_with_its_streams_and_a_minute_longer() {
    let bench = Bench::new();
    let text = bench.make();
    let (first, second) = (bench.open(&text, at(1)).unwrap(), bench.open(&text, at(2)).unwrap());
    bench.go_to(at(3));
    drop(first);
    assert!(bench.tickets.find(&text, at(3600)).is_some(), "one is still open");
    bench.go_to(at(4000));
    drop(second);
    assert!(bench.tickets.find(&text, Timestamp(at(4060).0 - 1)).is_some());
    let again = bench.open(&text, at(4059)).unwrap();
    assert!(bench.tickets.find(&text, at(9000)).is_some());
    bench.go_to(at(9000));
    drop(again);
    assert!(bench.tickets.find(&text, at(9060)).is_none());
}

#[test]
fn no_ticket_and_no_stream_under_it_outlives_half_a_day() {
    let bench = Bench::new();
    let text = bench.make();
    let pass = bench.open(&text, at(1)).unwrap();
    let end = MADE.plus(LIFETIME);
    assert!(!pass.is_over(Timestamp(end.0 - 1)) && pass.is_over(end));
    assert!(bench.tickets.find(&text, Timestamp(end.0 - 1)).is_some());
    assert!(bench.tickets.find(&text, end).is_none());
}

#[test]
fn a_ticket_ends_with_its_token() {
    let bench = Bench::new();
    let text = bench.make();
    let pass = bench.open(&text, at(1)).unwrap();
    assert!(!pass.is_over(at(1)));
    bench.held.usage.end();
    assert!(pass.is_over(at(1)));
    assert!(bench.tickets.find(&text, at(1)).is_none());
}

#[test]
fn another_text_opens_nothing() {
    let bench = Bench::new();
    let text = bench.make();
    for wrong in ["", "hct_", &text[..text.len() - 1], &format!("{text}x"), &text.to_uppercase(), &"a".repeat(10_240)] {
        assert!(bench.tickets.find(wrong, at(0)).is_none(), "{wrong}");
    }
    assert!(bench.tickets.find(&text, at(0)).is_some());
    let (key, _) = bench.tickets.0.lock().unwrap().iter().next().map(|(key, ticket)| (*key, Arc::clone(ticket))).unwrap();
    assert!(!text.as_bytes().windows(key.len()).any(|part| part == key), "what is kept is not what is shown");
}

#[test]
fn too_many_tickets_push_out_the_oldest_unused_of_whoever_makes_them() {
    let bench = Bench::new();
    let other = held(entry("b"), &[]);
    let make = |held: &Arc<Held>, number: u32, at: Timestamp| bench.tickets.make(held, topics(), random(number), at);
    let theirs = make(&other, 0, MADE).unwrap();
    let used = make(&bench.held, 1, MADE).unwrap();
    let pass = bench.open(&used, MADE).unwrap();
    let oldest = make(&bench.held, 2, at(1)).unwrap();
    let count = u32::try_from(TICKETS_MAX).unwrap();
    for number in 3..count {
        make(&bench.held, number, at(2)).unwrap();
    }
    make(&bench.held, count, at(3)).unwrap();
    assert_eq!(bench.tickets.0.lock().unwrap().len(), TICKETS_MAX);
    assert!(bench.tickets.find(&oldest, at(3)).is_none());
    for kept in [&theirs, &used] {
        assert!(bench.tickets.find(kept, at(3)).is_some());
    }
    drop(pass);
    make(&other, count + 1, at(40)).unwrap();
    assert!(bench.tickets.0.lock().unwrap().len() < 3, "what opens nothing any more makes room first");
}

#[test]
fn when_all_are_in_use_there_is_no_further_one() {
    let bench = Bench::new();
    let passes: Vec<_> = (0..u32::try_from(TICKETS_MAX).unwrap())
        .map(|number| bench.open(&bench.tickets.make(&bench.held, topics(), random(number), MADE).unwrap(), MADE).unwrap())
        .collect();
    let more = || bench.tickets.make(&bench.held, topics(), random(u32::MAX), at(1));
    assert_eq!(more().unwrap_err().slug(), "too_many_requests");
    bench.go_to(at(1));
    drop(passes);
    assert_eq!(bench.tickets.make(&bench.held, topics(), random(7), at(1)).unwrap_err().slug(), "too_many_requests");
    assert!(bench.tickets.make(&bench.held, topics(), random(7), at(61)).is_ok());
}

#[test]
fn a_ticket_reaches_its_own_topics_only_and_its_words_open_nothing_else() {
    let auth = Auth::new(AuthSettings { tokens: vec![entry("a")], hosts: Vec::new() }, Arc::new(ManualClock::starting_at(MADE)));
    let bearer = actix_web::test::TestRequest::get().insert_header(("authorization", "Bearer a")).to_http_request();
    let maker = auth.require(&bearer, Scope::Stream).unwrap();
    let (text, expires_at) = auth.make_ticket(&maker, topics(), random(1)).unwrap();
    assert_eq!(expires_at, at(30));
    let bare = actix_web::test::TestRequest::get().to_http_request();
    let reader = auth.require_stream(&bare, Some(&text)).unwrap();
    let covers = |patterns: &str| reader.follow(&patterns.parse().unwrap()).is_ok();
    assert!(covers("a.*") && covers("a.b") && covers("a.b,a.c"));
    assert!(!covers("a.**") && !covers("**") && !covers("b") && !covers("a.b,b"));
    assert!(reader.unlimited().is_err() && reader.must_have_ticket().is_ok() && maker.must_have_ticket().is_err());
    let shown = actix_web::test::TestRequest::get().insert_header(("authorization", format!("Bearer {text}"))).to_http_request();
    assert_eq!(auth.require(&shown, Scope::Stream).unwrap_err().slug(), "unauthorized", "a ticket is no token");
    assert_eq!(
        auth.require_stream(&bearer, Some("hct_wrong")).unwrap_err().slug(),
        "unauthorized",
        "a wrong ticket is not made good"
    );
}

#[test]
fn where_no_tokens_are_asked_for_every_ticket_does() {
    let auth = Auth::new(AuthSettings::default(), Arc::new(ManualClock::starting_at(MADE)));
    let request = actix_web::test::TestRequest::get().to_http_request();
    let maker = auth.require(&request, Scope::Stream).unwrap();
    let (text, _) = auth.make_ticket(&maker, topics(), random(1)).unwrap();
    let reader = auth.require_stream(&request, Some(&text)).unwrap();
    assert!(reader.must_have_ticket().is_ok() && reader.follow(&"**".parse().unwrap()).is_ok());
    auth.guard(vec![entry("a")]);
    assert!(auth.require_stream(&request, Some(&text)).is_err(), "made in nobody's name, it is worth nothing among tokens");
}
