//! What a subscription definition may say.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::clock::Timestamp;
use crate::model::event::Seq;
use crate::model::subscription::{Activity, Ordinal, SignatureScheme, SubscriptionSpec};

fn accept(url: &str) -> Result<String, (&'static str, String)> {
    if url.starts_with("https://") { Ok(url.to_owned()) } else { Err(("https_required", "use https".to_owned())) }
}

fn parse(value: &Value) -> Result<Definition, Vec<FieldError>> {
    parse_definition(value, None, &Rules::new(&accept))
}

/// A definition with the required fields and `extra` on top.
fn with(extra: Value) -> Value {
    let mut value = json!({ "url": "https://example.com/hook", "topics": ["orders.*"] });
    if let (Value::Object(members), Value::Object(extra)) = (&mut value, extra) {
        members.extend(extra);
    }
    value
}

fn found(result: Result<Definition, Vec<FieldError>>) -> Vec<(String, &'static str, u16)> {
    result.err().unwrap_or_default().into_iter().map(|error| (error.pointer, error.slug, error.status)).collect()
}

fn random(seed: u8) -> impl FnMut(&mut [u8]) {
    move |buffer| buffer.fill(seed)
}

fn record(extra: Value) -> SubscriptionRecord {
    let definition = parse_definition(&with(extra), Some("billing"), &Rules::new(&accept)).unwrap();
    let (spec, _) = definition.into_spec(SubscriptionId::parse("billing").unwrap(), None, &mut random(1));
    SubscriptionRecord {
        spec,
        ordinal: Ordinal(1),
        revision: 3,
        activity: Activity::Active,
        starts_after: Seq(0),
        consent: None,
        websub: None,
        revisions: Vec::new(),
        declared: false,
        made_by: None,
        created_at: Timestamp(0),
        updated_at: Timestamp(1_000),
    }
}

#[test]
fn each_bad_field_is_refused_with_its_slug() {
    let long = "a".repeat(257);
    for (extra, pointer, slug, status) in [
        (json!({"rate_limit": {"per_second": -1}}), "/rate_limit/per_second", "rate_limit", 422),
        (json!({"rate_limit": {"per_second": 0}}), "/rate_limit/per_second", "rate_limit", 422),
        (json!({"rate_limit": {"per_second": 1, "burst": 0}}), "/rate_limit/burst", "rate_limit", 422),
        (json!({"rate_limit": {"burst": 1}}), "/rate_limit/per_second", "missing_field", 422),
        (json!({"rate_limit": 1.5}), "/rate_limit", "wrong_type", 400),
        (json!({"rate_limit": "10"}), "/rate_limit", "wrong_type", 400),
        (json!({"rate_limit": {"per_second": 18_446_744_073_709_551_616.0}}), "/rate_limit/per_second", "out_of_range", 400),
        (json!({"timeout": "1h"}), "/timeout", "timeout", 422),
        (json!({"timeout": "0s"}), "/timeout", "timeout", 422),
        (json!({"timeout": 10}), "/timeout", "duration_needs_unit", 400),
        (json!({"types": [""]}), "/types/0", "event_type", 422),
        (json!({"types": ["ok", "a b"]}), "/types/1", "event_type", 422),
        (json!({"types": ["a..b"]}), "/types/0", "event_type", 422),
        (json!({"types": [long.clone()]}), "/types/0", "event_type", 422),
        (json!({"types": ["a\nb"]}), "/types/0", "event_type", 422),
        (json!({"types": "a"}), "/types", "wrong_type", 400),
        (json!({"description": long}), "/description", "too_long", 422),
        (json!({"description": "\0"}), "/description", "control_character", 422),
        (json!({"retry": {"schedule": []}}), "/retry/schedule", "retry_schedule", 422),
        (json!({"retry": {"schedule": ["5s", "-5s"]}}), "/retry/schedule/1", "retry_schedule", 422),
        (json!({"retry": {"schedule": ["0s"]}}), "/retry/schedule/0", "retry_schedule", 422),
        (json!({"retry": {"max_attempts": 0}}), "/retry/max_attempts", "range", 422),
        (json!({"retry": {"jitter": 1.1}}), "/retry/jitter", "range", 422),
        (json!({"id": "a.b"}), "/id", "id", 422),
        (json!({"id": "evt\n1"}), "/id", "id", 422),
        (json!({"id": ""}), "/id", "id", 422),
        (json!({"id": 7}), "/id", "wrong_type", 400),
        (json!({"nmae": "typo"}), "/nmae", "unknown_field", 422),
        (json!({"url": ["https://example.com/"]}), "/url", "wrong_type", 400),
        (json!({"url": "http://example.com/"}), "/url", "https_required", 422),
        (json!({"url": null}), "/url", "missing_field", 422),
        (json!({"topics": []}), "/topics", "topics", 422),
        (json!({"topics": ["a", "**.a"]}), "/topics/1", "topics", 422),
        (json!({"topics": "a"}), "/topics", "wrong_type", 400),
        (json!({"headers": {"Host": "x"}}), "/headers/Host", "forbidden_header", 422),
        (json!({"max_in_flight": 0}), "/max_in_flight", "range", 422),
        (json!({"max_retrying": 0}), "/max_retrying", "range", 422),
        (json!({"on_full": "drop"}), "/on_full", "on_full", 422),
        (json!({"payload": "xml"}), "/payload", "payload", 422),
        (json!({"from": "now"}), "/from", "from", 422),
        (json!({"from": {}}), "/from", "from", 422),
        (json!({"from": {"seq": 1, "time": "2026-01-01T00:00:00Z"}}), "/from", "from", 422),
        (json!({"from": {"seq": 0}}), "/from/seq", "range", 422),
        (json!({"from": {"time": "yesterday"}}), "/from/time", "from", 422),
        (json!({"metadata": {"": "x"}}), "/metadata/", "metadata", 422),
        (json!({"metadata": {"team": 1}}), "/metadata/team", "wrong_type", 400),
        (json!({"enabled": "yes"}), "/enabled", "wrong_type", 400),
        (json!({"header_names": ["a"]}), "/header_names", "read_only", 422),
    ] {
        assert_eq!(found(parse(&with(extra.clone()))), [(pointer.to_owned(), slug, status)], "{extra}");
    }
    assert_eq!(found(parse(&json!([]))), [(String::new(), "wrong_type", 400)]);
}

#[test]
fn each_bad_choice_of_how_to_deliver_is_refused() {
    for (extra, pointer, slug) in [
        (json!({"ordering": "fifo"}), "/ordering", "ordering"),
        (json!({"ordering": {"key": "id"}}), "/ordering/key", "ordering"),
        (json!({"ordering": {"key": "/a~2"}}), "/ordering/key", "ordering"),
        (json!({"ordering": {"key": "ce-"}}), "/ordering/key", "ordering"),
        (json!({"ordering": {"key": "/".repeat(257)}}), "/ordering/key", "ordering"),
        (json!({"ordering": {}}), "/ordering/key", "missing_field"),
        (json!({"on_dead": "block"}), "/on_dead", "on_dead"),
        (json!({"batch": {"max_events": 0}}), "/batch/max_events", "range"),
        (json!({"batch": {"max_events": 1001}}), "/batch/max_events", "range"),
        (json!({"batch": {"max_wait": "2m"}}), "/batch/max_wait", "batch_wait"),
        (json!({"batch": {"format": "xml"}}), "/batch/format", "batch_format"),
        (json!({"batch": {}, "payload": "template", "template": {"body": "x"}}), "/batch", "batch"),
        (json!({"payload": "template"}), "/template", "missing_field"),
        (json!({"payload": "template", "template": {}}), "/template/body", "missing_field"),
        (json!({"template": {"body": "x"}}), "/template", "template"),
        (json!({"payload": "template", "template": {"body": "x".repeat(65_537)}}), "/template/body", "too_long"),
        (
            json!({"payload": "template", "template": {"body": "x", "content_type": "a\nb"}}),
            "/template/content_type",
            "content_type",
        ),
        (json!({"verify": "maybe"}), "/verify", "verify"),
        (json!({"auth": {}}), "/auth", "auth"),
        (json!({"auth": {"basic": {"username": "a", "password": "b"}, "mtls": {}}}), "/auth", "auth"),
        (json!({"auth": {"basic": {"username": "a"}}}), "/auth/basic/password", "missing_field"),
        (json!({"auth": {"basic": {"username": "a:b", "password": "c"}}}), "/auth/basic/username", "auth"),
        (json!({"auth": {"basic": {"username": "a", "password": "b\n"}}}), "/auth/basic/password", "auth"),
        (json!({"auth": {"basic": {"username": "a", "password": "b"}}, "headers": {"Authorization": "x"}}), "/auth", "auth"),
        (
            json!({"auth": {"oauth2": {"token_url": "http://a/", "client_id": "a", "client_secret": "b"}}}),
            "/auth/oauth2/token_url",
            "https_required",
        ),
        (json!({"disable_after": "0s"}), "/disable_after", "disable_after"),
        (json!({"signature": []}), "/signature", "signature"),
        (json!({"signature": {"scheme": "md5"}}), "/signature/scheme", "signature"),
        (json!({"signature": [{"scheme": "hub"}, {"scheme": "hub"}]}), "/signature/1/scheme", "signature"),
        (json!({"signature": [{"scheme": "hub"}, {"scheme": "none"}]}), "/signature/1/scheme", "signature"),
        (json!({"signature": {"scheme": "hub", "secret": "short"}}), "/signature/secret", "secret"),
        (json!({"signature": {"scheme": "standard-ed25519", "secret": "whsk_AAAA"}}), "/signature/secret", "secret"),
    ] {
        assert_eq!(found(parse(&with(extra.clone()))), [(pointer.to_owned(), slug, 422)], "{extra}");
    }
}

#[test]
fn each_way_to_deliver_is_read_and_written_back() {
    let definition = json!({
        "filter": "data.amount > 100",
        "signature": [{"scheme": "standard"}, {"scheme": "standard-ed25519"}, {"scheme": "stripe"}],
        "ordering": {"key": "ce-subject"},
        "on_dead": "block",
        "batch": {"max_events": 7, "max_wait": "50ms", "format": "cloudevents"},
        "verify": "challenge",
        "auth": {"oauth2": {"token_url": "https://a/", "client_id": "a", "client_secret": "b", "scopes": ["x"]}},
        "limit_group": "crm",
        "disable_after": "2d",
    });
    let record = record(definition.clone());
    let mut shown = rest_form(&record, Keys::Hidden);
    let public = shown["signature"][1].as_object_mut().unwrap().remove("public_key").unwrap();
    assert!(public.as_str().unwrap().starts_with("whpk_"), "{public}");
    for name in ["filter", "signature", "ordering", "on_dead", "verify", "limit_group", "disable_after"] {
        assert_eq!(shown[name], definition[name], "{name}");
    }
    assert_eq!(shown["batch"], json!({"max_events": 7, "max_bytes": 262_144, "max_wait": "50ms", "format": "cloudevents"}));
    assert_eq!(shown["auth"], json!({"oauth2": {"token_url": "https://a/", "client_id": "a", "scopes": ["x"]}}));
    let secrets: Vec<_> = record.spec.signatures.iter().map(|signature| signature.keys[0].secret.expose()).collect();
    assert!(secrets[1].starts_with("whsk_") && decode_private_key(secrets[1]).is_ok(), "an Ed25519 key is made");
    let kept = merge_patch(&record, &json!({}), &Rules::new(&accept)).unwrap();
    assert_eq!(
        kept.into_spec(record.spec.id.clone(), Some(&record.spec.signatures), &mut random(9)),
        (record.spec.clone(), false)
    );
    let stored: SubscriptionSpec = serde_json::from_value(serde_json::to_value(&record.spec).unwrap()).unwrap();
    assert_eq!(stored, record.spec);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let value = json!({"topics": ["a..b"], "timeout": "1h", "nmae": 1, "headers": {"Host": "x", "X A": "y"}});
    let mut slugs: Vec<_> = parse(&value).unwrap_err().into_iter().map(|error| error.slug).collect();
    slugs.sort_unstable();
    assert_eq!(slugs, ["forbidden_header", "invalid_header_name", "missing_field", "timeout", "topics", "unknown_field"]);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let definition = parse(&with(json!({}))).unwrap();
    assert_eq!(definition.from, StartFrom::Latest);
    assert_eq!((definition.max_in_flight, definition.max_retrying, definition.on_full), (16, 1000, OnFull::Wait));
    assert_eq!(definition.timeout, Duration::from_secs(15));
    assert_eq!((definition.retry.max_attempts, definition.retry.schedule.len()), (10, 9));
    assert_eq!(definition.payload, PayloadForm::Binary);
    assert_eq!((definition.id, definition.signature, definition.rate_limit, definition.enabled), (None, None, None, None));
}

#[test]
fn start_positions_are_read() {
    for (from, wanted) in [
        (json!("latest"), StartFrom::Latest),
        (json!("earliest"), StartFrom::Earliest),
        (json!({"seq": 7}), StartFrom::Seq(Seq(7))),
        (json!({"time": "1970-01-01T00:00:01Z"}), StartFrom::Time(Timestamp(1_000))),
    ] {
        assert_eq!(parse(&with(json!({ "from": from }))).unwrap().from, wanted);
    }
}

#[test]
fn the_path_names_the_subscription() {
    let rules = Rules::new(&accept);
    let id = |body: Value, path| parse_definition(&with(body), Some(path), &rules);
    assert_eq!(id(json!({}), "billing").unwrap().id.unwrap().as_str(), "billing");
    assert_eq!(id(json!({"id": "billing"}), "billing").unwrap().id.unwrap().as_str(), "billing");
    assert_eq!(found(id(json!({"id": "other"}), "billing")), [("/id".to_owned(), "id", 422)]);
    assert_eq!(found(id(json!({}), "a.b")), [("/id".to_owned(), "id", 422)]);
}

#[test]
fn secrets_hold_24_to_64_bytes() {
    let encoded = |n: usize| format!("whsec_{}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vec![7; n]));
    let mut refused: Vec<String> = ["", "whsec_", "whsec_%%%", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"].map(str::to_owned).into();
    refused.extend([encoded(23), encoded(65)]);
    for secret in refused {
        let errors = parse(&with(json!({"signature": {"scheme": "standard", "secret": secret}}))).unwrap_err();
        assert_eq!((errors.len(), errors[0].slug, errors[0].pointer.as_str()), (1, "secret", "/signature/secret"), "{secret}");
        assert!(secret.len() < 10 || !errors[0].detail.contains(&secret), "a message repeats a secret");
    }
    for secret in [encoded(24), encoded(32), encoded(32).trim_end_matches('=').to_owned(), encoded(64)] {
        assert!(parse(&with(json!({"signature": {"secret": secret}}))).is_ok(), "{secret}");
    }
    let none = json!({"signature": {"scheme": "none", "secret": encoded(32)}});
    assert_eq!(found(parse(&with(none))), [("/signature/secret".to_owned(), "secret", 422)]);
}

#[test]
fn keys_are_made_kept_and_replaced() {
    let id = || SubscriptionId::parse("billing").unwrap();
    let settle = |signature: Value, current| {
        parse(&with(json!({ "signature": signature }))).unwrap().into_spec(id(), current, &mut random(9))
    };
    let current = record(json!({})).spec.signatures;
    let given = generate_secret(&mut random(5));
    let (spec, is_new) = settle(json!(null), None);
    assert!(is_new && spec.signatures[0].keys.len() == 1);
    assert_eq!(settle(json!(null), Some(&current)), (record(json!({})).spec, false));
    let (spec, is_new) = settle(json!({"scheme": "standard"}), Some(&current));
    assert!(!is_new && spec.signatures == current);
    let (spec, is_new) = settle(json!({"secret": given.expose()}), Some(&current));
    assert!(is_new && spec.signatures[0].keys[0].secret == given && spec.signatures[0].keys.len() == 1);
    let (spec, is_new) = settle(json!({"secret": given.expose()}), Some(&spec.signatures));
    assert!(!is_new && spec.signatures[0].keys[0].secret == given);
    let (unsigned, is_new) = settle(json!({"scheme": "none"}), Some(&current));
    assert!(!is_new && unsigned.signatures[0].keys.is_empty());
    assert_eq!(settle(json!(null), Some(&unsigned.signatures)).0.signatures[0].scheme, SignatureScheme::None);
    assert!(settle(json!({"scheme": "standard"}), Some(&unsigned.signatures)).1);
}

#[test]
fn generated_ids_are_ids() {
    assert_eq!(generate_id(&mut random(31)).as_str(), "7".repeat(20));
}

#[test]
fn answers_hide_keys_and_header_values() {
    let record =
        record(json!({"headers": {"Authorization": "Bearer abc"}, "rate_limit": {"per_second": 50}, "timeout": "250ms"}));
    let shown = rest_form(&record, Keys::Hidden);
    let text = shown.to_string();
    assert!(!text.contains("Bearer") && !text.contains("whsec_"), "{text}");
    assert_eq!(shown["header_names"], json!(["authorization"]));
    assert_eq!(shown["signature"], json!({"scheme": "standard"}));
    assert_eq!(shown["rate_limit"], json!({"per_second": 50, "burst": 50}));
    assert_eq!(shown["timeout"], "250ms");
    assert_eq!(shown["retry"]["schedule"][8], "1d");
    assert_eq!((&shown["created_at"], &shown["revision"]), (&json!("1970-01-01T00:00:00.000Z"), &json!(3)));
    let created = rest_form(&record, Keys::Shown);
    assert!(created["signature"]["secret"].as_str().unwrap().starts_with("whsec_"));
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let record =
        record(json!({"headers": {"authorization": "Bearer abc", "x-team": "a"}, "description": "old", "timeout": "5s"}));
    let refuse = |_: &str| Err(("blocked_address", "closed since".to_owned()));
    let rules = Rules::new(&refuse);
    let patched = |patch: Value| merge_patch(&record, &patch, &rules).unwrap();
    let settle =
        |definition: Definition| definition.into_spec(record.spec.id.clone(), Some(&record.spec.signatures), &mut random(9)).0;
    assert_eq!(settle(patched(json!({}))), record.spec);
    let spec = settle(patched(json!({"headers": {"X-Team": null, "X-New": "1"}, "description": null, "enabled": true})));
    assert_eq!(
        spec.headers.into_iter().collect::<Vec<_>>(),
        [("authorization".into(), "Bearer abc".into()), ("x-new".into(), "1".into())]
    );
    assert_eq!((spec.description.as_str(), spec.timeout), ("", Duration::from_secs(5)));
    assert_eq!(spec.signatures, record.spec.signatures);
    assert_eq!(patched(json!({"enabled": false})).enabled, Some(false));
    assert_eq!(patched(json!({})).enabled, None);
    assert!(settle(patched(json!({"headers": null}))).headers.is_empty());
    assert_eq!(settle(patched(json!({"retry": {"max_attempts": 3}}))).retry.schedule, record.spec.retry.schedule);
}

#[test]
fn a_bad_patch_is_refused() {
    let record = record(json!({}));
    let refused = |patch: Value| found(merge_patch(&record, &patch, &Rules::new(&accept)));
    assert_eq!(refused(json!({"from": "earliest"})), [("/from".to_owned(), "from", 422)]);
    assert_eq!(refused(json!({"url": null})), [("/url".to_owned(), "missing_field", 422)]);
    assert_eq!(refused(json!({"url": "ftp://x"})), [("/url".to_owned(), "https_required", 422)]);
    assert_eq!(refused(json!({"id": "other"})), [("/id".to_owned(), "id", 422)]);
    assert_eq!(refused(json!({"headers": {"X-A": "1", "x-a": null}})).len(), 1);
    assert_eq!(refused(json!({"nope": 1})), [("/nope".to_owned(), "unknown_field", 422)]);
    assert_eq!(refused(json!([])), [(String::new(), "wrong_type", 400)]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z.*5s]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof![prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned), "[a-z_]{0,8}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_accepted_or_refused_with_reasons(value in any_json()) {
        if let Err(errors) = parse(&value) {
            prop_assert!(!errors.is_empty());
        }
        let _ = merge_patch(&record(json!({})), &value, &Rules::new(&accept));
    }
}
