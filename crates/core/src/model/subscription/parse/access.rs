//! The fields that say how relay and endpoint know each other: verification, credentials, trust.

use super::Rules;
use crate::model::fields::{Fields, child, quoted, text};
use crate::model::headers::is_header_value;
use crate::model::subscription::{Auth, Secret, Verify};

/// Longest text of a credential, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 1024;
/// Longest PEM text, in bytes.
const PEM_BYTES_MAX: usize = 64 * 1024;
/// Kinds of credentials towards an endpoint.
pub(in crate::model) const KINDS: &[&str] = &["basic", "oauth2", "mtls"];
/// Kinds of credentials towards an upstream.
pub(in crate::model) const SOURCE_KINDS: &[&str] = &["basic", "oauth2", "mtls", "bearer"];
/// Most scopes of one token.
const SCOPES_MAX: usize = 32;

/// Reads `verify`; `none` when it is absent or wrong.
pub(super) fn read_verify(fields: &Fields<'_>) -> Verify {
    match fields.choice("verify", &["none", "challenge", "cloudevents"], "verify") {
        Some("challenge") => Verify::Challenge,
        Some("cloudevents") => Verify::Cloudevents,
        _ => Verify::None,
    }
}

/// Reads `ca_pem`: one or more certificates.
pub(in crate::model) fn read_ca(fields: &Fields<'_>, rules: &Rules<'_>) -> Option<Box<str>> {
    let given = pem(fields, "ca_pem")?;
    rules.texts.certificates(given).map_err(|problem| fields.refuse("ca_pem", "certificate", problem)).ok()?;
    Some(given.into())
}

/// Reads `auth`: exactly one of `kinds`.
pub(in crate::model) fn read_auth(fields: &Fields<'_>, rules: &Rules<'_>, kinds: &[&str]) -> Option<Box<Auth>> {
    let auth = fields.object("auth", kinds)?;
    let named = kinds.iter().filter(|kind| auth.get(kind).is_some()).count();
    if named != 1 {
        fields.refuse("auth", "auth", format!("names {named} kinds; allowed: one of {}", kinds.join(", ")));
        return None;
    }
    if fields.get("headers").and_then(|headers| headers.as_object()).is_some_and(has_authorization) && auth.get("mtls").is_none()
    {
        fields.refuse("auth", "auth", "stands beside a header `authorization`; leave one of them out");
    }
    let read = read_basic(&auth).or_else(|| read_oauth2(&auth, rules)).or_else(|| read_mtls(&auth, rules));
    read.or_else(|| read_bearer(&auth)).map(Box::new)
}

fn read_bearer(auth: &Fields<'_>) -> Option<Auth> {
    auth.get("bearer")?;
    Some(Auth::Bearer { token: Secret::trusted(credential(auth, "bearer")?.to_owned()) })
}

fn has_authorization(headers: &serde_json::Map<String, serde_json::Value>) -> bool {
    headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("authorization") && !value.is_null())
}

fn read_basic(auth: &Fields<'_>) -> Option<Auth> {
    let basic = auth.object("basic", &["username", "password"])?;
    let username = credential(&basic, "username");
    let password = credential(&basic, "password");
    let username = username?;
    if username.contains(':') {
        basic.refuse("username", "auth", "holds a colon, which ends a user name (RFC 7617)");
    }
    Some(Auth::Basic { username: username.to_owned(), password: Secret::trusted(password?.to_owned()) })
}

fn read_oauth2(auth: &Fields<'_>, rules: &Rules<'_>) -> Option<Auth> {
    let oauth2 = auth.object("oauth2", &["token_url", "client_id", "client_secret", "scopes"])?;
    oauth2.require("token_url");
    let token_url = oauth2
        .text("token_url")
        .and_then(|url| rules.urls.check_url(url).map_err(|(slug, detail)| oauth2.refuse("token_url", slug, detail)).ok());
    let (client_id, client_secret) = (credential(&oauth2, "client_id"), credential(&oauth2, "client_secret"));
    let mut scopes = Vec::new();
    for (index, item) in oauth2.list("scopes", SCOPES_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&oauth2.at("scopes"), &index.to_string());
        let Some(scope) = text(item, pointer.clone(), oauth2.errors()) else { continue };
        // RFC 6749 §3.3.
        if scope.is_empty() || scope.len() > 256 || !scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            oauth2.errors().push(pointer, "auth", format!("{} is not a scope", quoted(scope)));
        }
        scopes.push(scope.to_owned());
    }
    Some(Auth::Oauth2 {
        token_url: token_url?,
        client_id: client_id?.to_owned(),
        client_secret: Secret::trusted(client_secret?.to_owned()),
        scopes,
    })
}

fn read_mtls(auth: &Fields<'_>, rules: &Rules<'_>) -> Option<Auth> {
    let mtls = auth.object("mtls", &["cert_pem", "key_pem"])?;
    mtls.require("cert_pem");
    mtls.require("key_pem");
    let (cert, key) = (pem(&mtls, "cert_pem"), pem(&mtls, "key_pem"));
    let (cert, key) = (cert?, key?);
    if let Err(problem) = rules.texts.client_identity(cert, key) {
        mtls.refuse("key_pem", "certificate", problem);
    }
    Some(Auth::Mtls { cert_pem: cert.to_owned(), key_pem: Secret::trusted(key.to_owned()) })
}

/// A text that can stand in a header.
fn credential<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a str> {
    fields.require(name);
    let given = fields.text(name)?;
    if given.is_empty() || given.len() > CREDENTIAL_BYTES_MAX || !is_header_value(given) {
        let detail = format!("allowed: 1 to {CREDENTIAL_BYTES_MAX} bytes without control characters");
        fields.refuse(name, "auth", detail);
        return None;
    }
    Some(given)
}

fn pem<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a str> {
    let given = fields.text(name)?;
    if given.len() > PEM_BYTES_MAX {
        fields.refuse(name, "too_long", format!("has {} bytes; allowed: at most {PEM_BYTES_MAX}", given.len()));
        return None;
    }
    Some(given)
}
