//! The tokens of `[auth]` and the one of the environment. Only digests are kept.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::{ADMIN_TOKEN_CHARS_MIN, ADMIN_TOKEN_VARIABLE, SCOPES, Token};
use hookcast_core::model::fields::{Fields, child, quoted, short_text, text};
use hookcast_core::model::subscription::is_id;
use hookcast_core::model::topic::{PATTERNS_MAX, TopicPattern};

/// Most tokens in the configuration.
const TOKENS_MAX: usize = 1000;
/// Keys of one token.
const NAMES: &[&str] = &["name", "sha256", "scopes", "topics"];
/// Tokens that everybody tries first; refused as digests too.
const WEAK: &[&str] = &[
    "",
    "default",
    "admin",
    "changeme",
    "change-me",
    "password",
    "secret",
    "token",
    "test",
    "hookcast",
    "root",
    "letmein",
    "123456",
    "example",
    "dev",
];

/// Reads `auth.tokens`, led by the token of the environment.
pub(super) fn read(auth: &Fields<'_>, env: &[(String, String)]) -> Vec<Token> {
    let mut tokens: Vec<Token> = admin_token(auth, env).into_iter().collect();
    let mut taken: BTreeSet<String> = tokens.iter().map(|token| token.name.clone()).collect();
    for (index, value) in auth.list("tokens", TOKENS_MAX).unwrap_or_default().iter().enumerate() {
        let at = child(&auth.at("tokens"), &index.to_string());
        let Some(fields) = Fields::open(value, at, NAMES, auth.errors()) else { continue };
        for name in ["name", "sha256", "scopes"] {
            fields.require(name);
        }
        let name = fields.text("name").unwrap_or_default();
        if fields.get("name").is_some() && !is_id(name) {
            fields.refuse("name", "id", format!("{} is not a name; allowed: 1 to 64 letters, digits, '_' and '-'", quoted(name)));
        } else if fields.get("name").is_some() && !taken.insert(name.to_owned()) {
            fields.refuse("name", "duplicate_token", format!("{} is there twice", quoted(name)));
        }
        let sha256 = digest(&fields).unwrap_or_default();
        tokens.push(Token { name: name.to_owned(), sha256, scopes: scopes(&fields), topics: topics(&fields) });
    }
    tokens
}

fn admin_token(auth: &Fields<'_>, env: &[(String, String)]) -> Option<Token> {
    let (_, token) = env.iter().find(|(name, token)| name == ADMIN_TOKEN_VARIABLE && !token.is_empty())?;
    let chars = token.chars().count();
    let is_varied = token.chars().collect::<BTreeSet<_>>().len() > 4;
    if chars < ADMIN_TOKEN_CHARS_MIN || !is_varied || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let detail = format!(
            "{ADMIN_TOKEN_VARIABLE} is too weak; allowed: at least {ADMIN_TOKEN_CHARS_MIN} random characters without spaces"
        );
        auth.errors().push("/auth", "weak_token", detail);
        return None;
    }
    Some(Token { name: "admin".to_owned(), sha256: Sha256::digest(token).into(), scopes: SCOPES.to_vec(), topics: Vec::new() })
}

fn digest(fields: &Fields<'_>) -> Option<[u8; 32]> {
    let given = fields.text("sha256")?;
    let Some(bytes) = hexadecimal(given) else {
        let (slug, problem) =
            if WEAK.contains(&given) { ("weak_token", "is a token everybody tries") } else { ("token_sha256", "is no digest") };
        // Not repeated: somebody may have put the token itself here.
        fields.refuse("sha256", slug, format!("{problem}; allowed: the SHA-256 of a random token, 64 hexadecimal digits"));
        return None;
    };
    if WEAK.iter().any(|weak| bytes[..] == Sha256::digest(weak)[..]) || bytes == [0; 32] {
        fields.refuse("sha256", "weak_token", "is the digest of a token everybody tries; allowed: that of a random token");
    }
    Some(bytes)
}

fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn scopes(fields: &Fields<'_>) -> Vec<&'static str> {
    let mut scopes = Vec::new();
    let Some(items) = fields.list("scopes", SCOPES.len()) else { return scopes };
    if items.is_empty() {
        fields.refuse("scopes", "scope", format!("is empty; allowed: {}", SCOPES.join(", ")));
    }
    for (index, item) in items.iter().enumerate() {
        let pointer = child(&fields.at("scopes"), &index.to_string());
        let Some(given) = text(item, pointer.clone(), fields.errors()) else { continue };
        match SCOPES.iter().find(|scope| **scope == given) {
            Some(scope) if scopes.contains(scope) => {}
            Some(scope) => scopes.push(*scope),
            None => {
                fields.errors().push(pointer, "scope", format!("{} is no scope; allowed: {}", quoted(given), SCOPES.join(", ")));
            }
        }
    }
    scopes
}

fn topics(fields: &Fields<'_>) -> Vec<TopicPattern> {
    let mut patterns = Vec::new();
    for (index, item) in fields.list("topics", PATTERNS_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&fields.at("topics"), &index.to_string());
        let Some(given) = short_text(item, pointer.clone(), fields.errors()) else { continue };
        match TopicPattern::parse(given) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => fields.errors().push(pointer, "topics", format!("{}: {error}", quoted(given))),
        }
    }
    patterns
}
