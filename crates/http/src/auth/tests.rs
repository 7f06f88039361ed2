//! Behaviour of tokens.

use actix_web::test::TestRequest;

use super::*;
use hookcast_core::clock::ManualClock;

const GOOD: &str = "hc_0123456789abcdef0123456789abcdef";

fn auth(scopes: &[Scope], topics: &[&str], expires_at: Option<Timestamp>) -> Auth {
    let entry = TokenEntry {
        id: None,
        limits: TokenLimits::default(),
        name: "t".to_owned(),
        sha256: TokenEntry::digest(GOOD),
        scopes: scopes.to_vec(),
        topics: topics.iter().map(|text| TopicPattern::parse(text).unwrap()).collect(),
        expires_at,
    };
    let clock = Arc::new(ManualClock::starting_at(Timestamp(1000)));
    Auth::new(AuthSettings { tokens: vec![entry], hosts: Vec::new() }, clock)
}

fn verdict(auth: &Auth, authorization: &str, scope: Scope) -> &'static str {
    let request = TestRequest::get().insert_header((header::AUTHORIZATION, authorization)).to_http_request();
    auth.require(&request, scope).map_or_else(|problem| problem.slug(), |_| "ok")
}

#[test]
fn only_the_token_itself_opens() {
    let auth = auth(&[Scope::Read], &[], None);
    assert_eq!(verdict(&auth, &format!("Bearer {GOOD}"), Scope::Read), "ok");
    assert_eq!(verdict(&auth, &format!("bEARER  {GOOD} "), Scope::Read), "ok");
    let stored = TokenEntry::digest(GOOD).map(|b| format!("{b:02x}")).concat();
    let flipped = GOOD.replace('f', "e");
    for wrong in [
        format!("Bearer {GOOD}x"),
        format!("Bearer {flipped}"),
        format!("Bearer {stored}"),
        format!("Basic {GOOD}"),
        GOOD.to_owned(),
        "Bearer".to_owned(),
        format!("Bearer {}", "a".repeat(10_240)),
    ] {
        assert_eq!(verdict(&auth, &wrong, Scope::Read), "unauthorized", "{wrong}");
    }
    let bare = TestRequest::get().uri(&format!("/?access_token={GOOD}")).insert_header((header::COOKIE, format!("token={GOOD}")));
    assert_eq!(auth.require(&bare.to_http_request(), Scope::Read).unwrap_err().slug(), "unauthorized");
}

#[test]
fn two_authorization_headers_are_none() {
    let auth = auth(&[Scope::Read], &[], None);
    let value = format!("Bearer {GOOD}");
    let request = TestRequest::get()
        .append_header((header::AUTHORIZATION, value.as_str()))
        .append_header((header::AUTHORIZATION, value.as_str()));
    assert!(auth.require(&request.to_http_request(), Scope::Read).is_err());
}

#[test]
fn a_scope_does_not_bring_another() {
    let auth = auth(&[Scope::Publish], &[], None);
    let good = format!("Bearer {GOOD}");
    assert_eq!(verdict(&auth, &good, Scope::Publish), "ok");
    for scope in [Scope::Read, Scope::Stream, Scope::Manage] {
        assert_eq!(verdict(&auth, &good, scope), "scope");
    }
}

#[test]
fn an_expired_or_revoked_token_is_unknown() {
    let good = format!("Bearer {GOOD}");
    assert_eq!(verdict(&auth(&[Scope::Read], &[], Some(Timestamp(1000))), &good, Scope::Read), "unauthorized");
    let auth = auth(&[Scope::Read], &[], Some(Timestamp(1001)));
    assert_eq!(verdict(&auth, &good, Scope::Read), "ok");
    auth.replace_tokens(Vec::new());
    assert_eq!(verdict(&auth, &good, Scope::Read), "unauthorized");
}

#[test]
fn a_limited_token_reaches_only_its_topics() {
    let auth = auth(&[Scope::Read], &["acme.**"], None);
    let request = TestRequest::get().insert_header((header::AUTHORIZATION, format!("Bearer {GOOD}")));
    let caller = auth.require(&request.to_http_request(), Scope::Read).unwrap();
    let patterns = |text: &str| text.parse::<PatternList>().unwrap();
    assert!(caller.reaches("acme.orders") && !caller.reaches("acme") && !caller.reaches("other.orders"));
    assert!(caller.covers(&patterns("acme.*,acme.a.**")) && !caller.covers(&patterns("acme.*,**")));
    assert_eq!(caller.unlimited().unwrap_err().slug(), "topic_not_allowed");
}

#[test]
fn guessing_is_slowed_down_but_a_good_token_still_works() {
    let auth = auth(&[Scope::Read], &[], None);
    let slug = |token: &str| {
        let request = TestRequest::get()
            .peer_addr("192.0.2.1:5".parse().unwrap())
            .insert_header((header::AUTHORIZATION, format!("Bearer {token}")));
        auth.require(&request.to_http_request(), Scope::Read).map_or_else(|problem| problem.slug(), |_| "ok")
    };
    for _ in 0..guesses::GUESSES_MAX {
        assert_eq!(slug("wrong"), "unauthorized");
    }
    assert_eq!(slug("wrong"), "too_many_requests");
    assert_eq!(slug(GOOD), "ok");
}
