//! What a source definition may say.

use serde_json::json;

use super::*;
use crate::clock::Timestamp;
use crate::model::subscription::parse::NoJudge;

const PROTOCOLS: &[&str] = &["ndjson", "sse"];
const RULES: SourceRules<'_> = SourceRules { urls: &accept, protocols: PROTOCOLS, texts: &NoJudge };

fn accept(url: &str) -> Result<String, (&'static str, String)> {
    if url.starts_with("https://") { Ok(url.to_owned()) } else { Err(("https_required", "use https".to_owned())) }
}

fn parse(extra: Value) -> Result<SourceSpec, Vec<FieldError>> {
    let mut value = json!({"name": "wikipedia", "protocol": "sse", "url": "https://example.com/", "topic": "wikipedia.edits"});
    if let (Value::Object(members), Value::Object(extra)) = (&mut value, extra) {
        members.extend(extra);
    }
    parse_source(&value, None, &RULES, &mut |buffer| buffer.fill(3))
}

fn record(extra: Value) -> SourceRecord {
    SourceRecord { revision: 2, ..SourceRecord::new(parse(extra).unwrap(), Timestamp(0)) }
}

#[test]
fn each_bad_field_is_refused_with_its_slug() {
    for (extra, pointer, slug) in [
        (json!({"name": "a.b"}), "/name", "id"),
        (json!({"protocol": "see"}), "/protocol", "protocol"),
        (json!({"protocol": null}), "/protocol", "missing_field"),
        (json!({"url": "http://169.254.169.254/"}), "/url", "https_required"),
        (json!({"topic": "a.*"}), "/topic", "topic"),
        (json!({"topic": "hookcast.x"}), "/topic", "topic"),
        (json!({"headers": {"Host": "x"}}), "/headers/Host", "forbidden_header"),
        (json!({"settings": {"id": "id"}}), "/settings/id", "json_pointer"),
        (json!({"settings": {"type": "/a~2"}}), "/settings/type", "json_pointer"),
        (json!({"settings": {"content_type": "json"}}), "/settings/content_type", "content_type"),
        (json!({"settings": {"content_type": "a/b\r\n"}}), "/settings/content_type", "control_character"),
        (json!({"settings": {"method": "PUT"}}), "/settings/method", "method"),
        (json!({"settings": {"body": "x"}}), "/settings/body", "body"),
        (json!({"settings": {"idle_timeout": "0s"}}), "/settings/idle_timeout", "idle_timeout"),
        (json!({"settings": {"max_event_bytes": 0}}), "/settings/max_event_bytes", "range"),
        (json!({"settings": {"idle": "1s"}}), "/settings/idle", "unknown_field"),
        (json!({"settings": []}), "/settings", "wrong_type"),
        (json!({"resume_token": "x"}), "/resume_token", "read_only"),
        (json!({"urll": "x"}), "/urll", "unknown_field"),
        (json!({"query_names": []}), "/query_names", "read_only"),
        (json!({"query": {"": "x"}}), "/query/", "query"),
        (json!({"query": {"a": "b\r\nc"}}), "/query/a", "query"),
        (json!({"query": {"a": 1}}), "/query/a", "wrong_type"),
        (json!({"auth": {}}), "/auth", "auth"),
        (json!({"auth": {"bearer": "a b\n"}}), "/auth/bearer", "auth"),
        (json!({"auth": {"bearer": "a"}, "headers": {"authorization": "b"}}), "/auth", "auth"),
        (json!({"auth": {"basic": {"username": "a:b", "password": "c"}}}), "/auth/basic/username", "auth"),
    ] {
        let errors = parse(extra.clone()).unwrap_err();
        assert_eq!((errors.len(), errors[0].pointer.as_str(), errors[0].slug), (1, pointer, slug), "{extra}");
    }
    assert!(parse(json!({"protocol": "see"})).unwrap_err()[0].detail.contains("did you mean `sse`"));
}

#[test]
fn settings_are_read() {
    let settings = json!({"id": "/data/id", "type": "/a~1b", "content_type": "text/plain; charset=utf-8", "method": "POST",
        "body": "{}", "idle_timeout": "30s", "max_event_bytes": "2MiB"});
    let spec = parse(json!({"settings": settings, "name": null, "enabled": false})).unwrap();
    assert_eq!(spec.name, "d".repeat(20));
    assert!(!spec.enabled);
    assert_eq!(spec.settings.id.as_deref(), Some("/data/id"));
    assert_eq!(spec.settings.idle_timeout, Duration::from_secs(30));
    assert_eq!(spec.settings.max_event_bytes, 2 << 20);
    assert_eq!(spec.settings.body.as_deref(), Some("{}"));
    assert_eq!(parse(json!({})).unwrap().settings, SourceSettings::default());
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let record = record(json!({"headers": {"Authorization": "Bearer abc"}, "settings": {"id": "/id"}}));
    let rules = RULES;
    assert_eq!(merge_source(&record, &json!({}), &rules).unwrap(), record.spec);
    let spec = merge_source(&record, &json!({"headers": {"AUTHORIZATION": null}, "settings": {"type": "/t"}}), &rules).unwrap();
    assert!(spec.headers.is_empty());
    assert_eq!((spec.settings.id.as_deref(), spec.settings.kind.as_deref()), (Some("/id"), Some("/t")));
    assert_eq!(merge_source(&record, &json!({"name": "other"}), &rules).unwrap_err()[0].slug, "id");
}

#[test]
fn answers_hide_parameters_and_credentials_and_a_patch_keeps_them() {
    let record = record(json!({"query": {"key": "s3cret"}, "auth": {"bearer": "t0ken"}, "ca_pem": "pem"}));
    let shown = source_form(&record);
    assert!(!shown.to_string().contains("s3cret") && !shown.to_string().contains("t0ken"));
    assert_eq!(
        (&shown["query_names"], &shown["auth"], &shown["ca_pem"]),
        (&json!(["key"]), &json!({"bearer": {}}), &json!("pem"))
    );
    assert_eq!(merge_source(&record, &json!({"enabled": true}), &RULES).unwrap(), record.spec);
    let basic =
        json!({"auth": {"bearer": null, "basic": {"username": "a", "password": "b"}}, "query": {"key": null}, "ca_pem": null});
    let access = merge_source(&record, &basic, &RULES).unwrap().settings.access;
    assert!(matches!(access.auth.as_deref(), Some(crate::model::subscription::Auth::Basic { username, .. }) if username == "a"));
    assert!(access.query.is_empty() && access.ca_pem.is_none());
    assert!(!format!("{:?}", record.spec.settings.access.auth).contains("t0ken"));
}

#[test]
fn answers_hide_header_values() {
    let shown = source_form(&record(json!({"headers": {"Authorization": "Bearer abc"}})));
    assert!(!shown.to_string().contains("Bearer"));
    assert_eq!(shown["header_names"], json!(["authorization"]));
    assert_eq!(shown["settings"]["idle_timeout"], "90s");
}
