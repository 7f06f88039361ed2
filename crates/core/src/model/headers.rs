//! Custom request headers of subscriptions and sources: which names and values an operator may set.
//!
//! Pure. The lists keep a definition from breaking the framing of a request, from speaking in the relay's name, and from
//! opening a cloud metadata service. Spec: RFC 9110 §5.1 and §5.5.

use std::collections::BTreeMap;

use super::fields::{Errors, Fields, quoted, text};

/// Most custom headers of one definition.
pub const HEADERS_MAX: usize = 20;
/// Longest value, in bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 4096;
/// Longest name, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 256;

/// Names that belong to the connection or open a metadata service; nobody may set them.
const CONNECTION: &[&str] = &[
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "metadata",
];
/// Beginnings of such names.
const CONNECTION_PREFIXES: &[&str] =
    &["proxy-", "sec-websocket-", "metadata-", "x-aws-ec2-metadata-", "x-google-metadata-", "x-aliyun-ecs-metadata-"];
/// Further names that a delivery sets itself, or that claim another sender.
const DELIVERY: &[&str] = &["user-agent", "forwarded"];
/// Beginnings of such names.
const DELIVERY_PREFIXES: &[&str] = &["content-", "x-forwarded-", "webhook-", "ce-", "hookcast-"];
/// Further names that a source sets itself.
const SOURCE: &[&str] = &["last-event-id"];

/// On which requests the headers will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderUse {
    /// POSTs to a callback.
    Delivery,
    /// Requests to an upstream.
    Source,
}

/// Reads the member `headers`: lower-case name to value; absent = none.
pub fn read_headers(fields: &Fields<'_>, usage: HeaderUse) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let Some(members) = fields.map("headers") else { return headers };
    let errors = fields.errors();
    for (name, value) in members.members() {
        let lower = name.to_ascii_lowercase();
        check_name(&members, name, &lower, usage);
        if let Some(value) = text(value, members.at(name), errors) {
            check_value(&members, name, value);
            if headers.insert(lower, value.to_owned()).is_some() {
                members.refuse(name, "duplicate_header", "is there twice; names do not differ by case");
            }
        }
    }
    if headers.len() > HEADERS_MAX {
        fields.refuse("headers", "too_many_headers", format!("has {} headers; allowed: at most {HEADERS_MAX}", headers.len()));
    }
    headers
}

/// Lower-cases the names of a header patch, so that it meets the stored names; notes names that then meet each other.
pub(super) fn lower_names(
    members: &serde_json::Map<String, serde_json::Value>,
    pointer: &str,
    errors: &Errors,
) -> serde_json::Map<String, serde_json::Value> {
    let mut lowered = serde_json::Map::new();
    for (name, value) in members {
        if lowered.insert(name.to_ascii_lowercase(), value.clone()).is_some() {
            let detail = "is there twice; names do not differ by case";
            errors.push(super::fields::child(pointer, name), "duplicate_header", detail);
        }
    }
    lowered
}

fn check_name(members: &Fields<'_>, name: &str, lower: &str, usage: HeaderUse) {
    if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || !name.bytes().all(is_token_byte) {
        let detail = format!("{} is not a header name; allowed: letters, digits and !#$%&'*+-.^_`|~", quoted(name));
        members.refuse(name, "invalid_header_name", detail);
    } else if is_forbidden(lower, usage) {
        members.refuse(name, "forbidden_header", format!("{lower} is set by the relay or belongs to the connection"));
    }
}

fn check_value(members: &Fields<'_>, name: &str, value: &str) {
    if value.len() > HEADER_VALUE_BYTES_MAX {
        let detail = format!("has {} bytes; allowed: at most {HEADER_VALUE_BYTES_MAX}", value.len());
        members.refuse(name, "header_too_long", detail);
    } else if !is_header_value(value) {
        let detail = "holds line breaks, other control characters, characters beyond ASCII, or spaces at its ends";
        members.refuse(name, "invalid_header_value", detail);
    }
}

/// Whether a text can stand in a header as it is: visible ASCII, spaces and tabs inside.
#[must_use]
pub fn is_header_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) && value == value.trim_matches([' ', '\t'])
}

/// Whether a lower-case name may not be set by a definition.
#[must_use]
pub fn is_forbidden(lower: &str, usage: HeaderUse) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| lower.starts_with(prefix));
    let own = match usage {
        HeaderUse::Delivery => DELIVERY.contains(&lower) || starts(DELIVERY_PREFIXES),
        HeaderUse::Source => SOURCE.contains(&lower),
    };
    own || CONNECTION.contains(&lower) || starts(CONNECTION_PREFIXES)
}

/// RFC 9110 §5.6.2 `tchar`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slugs(headers: &Value, usage: HeaderUse) -> Vec<&'static str> {
        let value = json!({ "headers": headers });
        let errors = Errors::default();
        if let Some(fields) = Fields::open(&value, "", &["headers"], &errors) {
            read_headers(&fields, usage);
        }
        errors.finish(Some(())).err().unwrap_or_default().into_iter().map(|error| error.slug).collect()
    }

    #[test]
    fn names_that_are_not_the_operators_are_refused_in_any_case() {
        for name in [
            "Host",
            "Content-Length",
            "Content-Encoding",
            "Content-Type",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Proxy-Connection",
            "Proxy-Authorization",
            "webhook-id",
            "Webhook-Signature",
            "WEBHOOK-TIMESTAMP",
            "User-Agent",
            "X-aws-ec2-metadata-token",
            "Metadata-Flavor",
            "Metadata",
            "X-Forwarded-For",
            "Forwarded",
            "ce-id",
            "Hookcast-Hops",
            "X-Google-Metadata-Request",
        ] {
            assert_eq!(slugs(&json!({ name: "x" }), HeaderUse::Delivery), ["forbidden_header"], "{name}");
        }
        for name in ["Host", "Transfer-Encoding", "Metadata", "Last-Event-ID", "Sec-WebSocket-Key"] {
            assert_eq!(slugs(&json!({ name: "x" }), HeaderUse::Source), ["forbidden_header"], "{name}");
        }
        for name in ["Content-Type", "User-Agent", "Accept", "Authorization"] {
            assert!(slugs(&json!({ name: "x" }), HeaderUse::Source).is_empty(), "{name}");
        }
    }

    #[test]
    fn malformed_names_and_values_are_refused() {
        for name in ["X A", "", "X-é", ":path", "X:", "X\n", "X\0"] {
            assert_eq!(slugs(&json!({ name: "x" }), HeaderUse::Delivery), ["invalid_header_name"], "{name:?}");
        }
        for value in ["a\r\nX-Evil: 1", "a\nb", "a\0", "é", " a", "a\t", "\u{7f}"] {
            assert_eq!(slugs(&json!({ "x-a": value }), HeaderUse::Delivery), ["invalid_header_value"], "{value:?}");
        }
        assert_eq!(slugs(&json!({ "X-A": "a".repeat(4097) }), HeaderUse::Delivery), ["header_too_long"]);
        assert!(slugs(&json!({ "X-A": "a".repeat(4096), "x-b": "", "x-c": "a\tb" }), HeaderUse::Delivery).is_empty());
        assert_eq!(slugs(&json!({ "X-A": 1 }), HeaderUse::Delivery), ["wrong_type"]);
        assert_eq!(slugs(&json!({ "X-A": "1", "x-a": "2" }), HeaderUse::Delivery), ["duplicate_header"]);
        assert_eq!(slugs(&json!([]), HeaderUse::Delivery), ["wrong_type"]);
    }

    #[test]
    fn twenty_headers_are_enough() {
        let many = |n: usize| Value::Object((0..n).map(|i| (format!("x-{i}"), json!("v"))).collect());
        assert!(slugs(&many(20), HeaderUse::Delivery).is_empty());
        assert_eq!(slugs(&many(21), HeaderUse::Delivery), ["too_many_headers"]);
    }

    #[test]
    fn ordinary_names_pass() {
        let headers = json!({ "Authorization": "Bearer abc", "X-Team": "billing", "accept": "*/*", "x-null": null });
        assert!(slugs(&headers, HeaderUse::Delivery).is_empty());
    }
}
