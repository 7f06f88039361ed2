//! Settings of `webhook`: how a sender proves itself, and where the id and the type of what it sends are.
//!
//! Secrets are write-only, as those of subscriptions are. What the schemes mean is `signature::receive`'s business.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{OwnSettings, Row};
use crate::model::fields::Fields;
use crate::model::subscription::Secret;
use crate::model::subscription::parse::{is_public_key, parse_secret};
use crate::units::format_duration;

/// The word in `protocol`.
pub const PROTOCOL: &str = "webhook";
/// Most secrets that are good at the same time, so that a sender can move from one to the next.
pub const SECRETS_MAX: usize = 3;
/// How far the clock of a sender may be set to differ.
pub const TOLERANCE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
/// What it may differ when nothing is said.
pub const TOLERANCE_DEFAULT: Duration = Duration::from_mins(5);

/// Length of a secret whose whole text is the key, in characters.
const TEXT_SECRET_CHARS: std::ops::RangeInclusive<usize> = 16..=256;
/// Longest name of a header.
const HEADER_NAME_BYTES_MAX: usize = 128;
/// Names inside `verify`.
const VERIFY: &[&str] = &["scheme", "secret", "tolerance", "header"];

/// How a sender proves that a webhook is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SenderScheme {
    /// Standard Webhooks 1.0, `v1,` HMAC-SHA256.
    Standard,
    /// Standard Webhooks 1.0, `v1a,` Ed25519.
    StandardEd25519,
    /// HMAC-SHA256 over the body in digits, with or without `sha256=`: WebSub, Meta, Gitea, Bitbucket.
    Hub,
    /// As `hub`, by the word that its best known sender has.
    Github,
    /// HMAC-SHA256 over the body in base64.
    Shopify,
    /// As Stripe has it.
    Stripe,
    /// As Slack has it.
    Slack,
    /// The secret itself in `X-Gitlab-Token`.
    Gitlab,
    /// The secret itself in a header.
    Token,
    /// A bearer token of this relay that may publish, if it asks for tokens.
    None,
}

impl SenderScheme {
    /// Every scheme, in the order in which mistakes list what is allowed.
    pub const ALL: [Self; 10] = [
        Self::Standard,
        Self::StandardEd25519,
        Self::Hub,
        Self::Github,
        Self::Shopify,
        Self::Stripe,
        Self::Slack,
        Self::Gitlab,
        Self::Token,
        Self::None,
    ];

    /// The word of definitions.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::StandardEd25519 => "standard-ed25519",
            Self::Hub => "hub",
            Self::Github => "github",
            Self::Shopify => "shopify",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
            Self::Gitlab => "gitlab",
            Self::Token => "token",
            Self::None => "none",
        }
    }

    /// Whether the header that holds the proof may have another name than usual.
    const fn takes_header(self) -> bool {
        matches!(self, Self::Hub | Self::Shopify | Self::Token)
    }
}

/// What a sender must show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderProof {
    /// How.
    pub scheme: SenderScheme,
    /// Any of these is good; at most [`SECRETS_MAX`], none for [`SenderScheme::None`].
    pub secrets: Vec<Secret>,
    /// How far the clocks may differ, for schemes that sign a time.
    pub tolerance: Duration,
    /// The header with the proof, in lower case, when it is not the usual one.
    pub header: Option<String>,
}

/// Settings of `webhook`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSettings {
    /// What a sender must show.
    pub verify: SenderProof,
    /// The header with the id of an event, in lower case.
    pub id_header: Option<String>,
    /// The header with its type, in lower case.
    pub type_header: Option<String>,
    /// What a hub must know when it asks whether we meant to subscribe: `hub.verify_token`.
    pub verify_token: Option<Secret>,
}

pub(super) const ROW: Row = Row {
    protocol: PROTOCOL,
    names: &["verify", "id_header", "type_header", "verify_token"],
    read: |settings, _| read(settings).map_or(OwnSettings::None, |own| OwnSettings::Webhook(Box::new(own))),
};

/// Where senders post to a source of this name.
#[must_use]
pub fn path(name: &str) -> String {
    format!("/v1/sources/{name}/webhook")
}

/// Nothing only after a noted mistake.
fn read(settings: &Fields<'_>) -> Option<WebhookSettings> {
    settings.require("verify");
    let id_header = read_header(settings, "id_header");
    let type_header = read_header(settings, "type_header");
    let verify_token = settings.text("verify_token").and_then(|text| {
        let problem = text_secret(text).err();
        if let Some(problem) = &problem {
            settings.refuse("verify_token", "verify_token", problem.clone());
        }
        problem.is_none().then(|| Secret::trusted(text.to_owned()))
    });
    let verify = read_proof(&settings.object("verify", VERIFY)?)?;
    Some(WebhookSettings { verify, id_header, type_header, verify_token })
}

fn read_proof(verify: &Fields<'_>) -> Option<SenderProof> {
    verify.require("scheme");
    let given = verify.text("scheme")?;
    let Some(scheme) = SenderScheme::ALL.into_iter().find(|scheme| scheme.word() == given) else {
        // A wrong word is not repeated: it may be a secret that slipped into the wrong member.
        let words = SenderScheme::ALL.map(SenderScheme::word).join(", ");
        verify.refuse("scheme", "signature", format!("is not known; allowed: {words}"));
        return None;
    };
    let header = read_header(verify, "header");
    if header.is_some() && !scheme.takes_header() {
        verify.refuse("header", "header", format!("the scheme `{}` has a header of its own", scheme.word()));
    } else if header.is_none() && scheme == SenderScheme::Token {
        verify.refuse("header", "missing_field", "is required: the header that holds the token, such as \"authorization\"");
    }
    let tolerance = verify.duration("tolerance", TOLERANCE, "tolerance").unwrap_or(TOLERANCE_DEFAULT);
    let secrets = read_secrets(verify, scheme)?;
    Some(SenderProof { scheme, secrets, tolerance, header })
}

/// One text or a list of them.
fn read_secrets(verify: &Fields<'_>, scheme: SenderScheme) -> Option<Vec<Secret>> {
    let given = verify.get("secret");
    if scheme == SenderScheme::None {
        if given.is_some() {
            verify.refuse("secret", "secret", "is given, but the scheme `none` takes no secret");
        }
        return Some(Vec::new());
    }
    let texts = match given {
        None => {
            verify.refuse("secret", "missing_field", "is required: what the sender signs with");
            return None;
        }
        Some(Value::Array(items)) if (1..=SECRETS_MAX).contains(&items.len()) => items.iter().collect(),
        Some(Value::Array(items)) => {
            verify.refuse("secret", "secret", format!("lists {} secrets; allowed: 1 to {SECRETS_MAX}", items.len()));
            return None;
        }
        Some(one) => vec![one],
    };
    let mut secrets = Vec::with_capacity(texts.len());
    for text in texts {
        let Some(text) = text.as_str() else {
            verify.errors().wrong_type(verify.at("secret"), text, "a text, or a list of texts");
            return None;
        };
        match check_secret(scheme, text) {
            Ok(()) => secrets.push(Secret::trusted(text.to_owned())),
            Err(problem) => {
                verify.refuse("secret", "secret", problem);
                return None;
            }
        }
    }
    Some(secrets)
}

/// What is wrong with a secret, without repeating it.
fn check_secret(scheme: SenderScheme, text: &str) -> Result<(), String> {
    match scheme {
        SenderScheme::Standard => {
            parse_secret(text).map(drop).map_err(|problem| format!("{problem}; allowed: `whsec_` and base64 of 24 to 64 bytes"))
        }
        SenderScheme::StandardEd25519 if is_public_key(text) => Ok(()),
        SenderScheme::StandardEd25519 => Err("is no public key; allowed: `whpk_` and base64 of 32 bytes".to_owned()),
        _ => text_secret(text),
    }
}

fn text_secret(text: &str) -> Result<(), String> {
    let (shortest, longest) = (TEXT_SECRET_CHARS.start(), TEXT_SECRET_CHARS.end());
    // Spaces inside are common in secrets that people make up; at the ends a header would lose them.
    let sound = TEXT_SECRET_CHARS.contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && text.trim() == text;
    sound.then_some(()).ok_or_else(|| format!("is no secret; allowed: {shortest} to {longest} printable ASCII characters"))
}

/// The name of a header, in lower case.
fn read_header(fields: &Fields<'_>, name: &str) -> Option<String> {
    let given = fields.short_text(name)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=HEADER_NAME_BYTES_MAX).contains(&given.len()) && given.bytes().all(is_token) {
        return Some(given.to_ascii_lowercase());
    }
    fields.refuse(
        name,
        "header",
        format!("is no name of a header, such as \"x-event-id\" (at most {HEADER_NAME_BYTES_MAX} bytes)"),
    );
    None
}

impl WebhookSettings {
    pub(super) fn show(&self, settings: &mut Map<String, Value>) {
        let SenderProof { scheme, tolerance, header, .. } = &self.verify;
        let mut verify = json!({ "scheme": scheme.word(), "tolerance": format_duration(*tolerance) });
        if let Some(header) = header {
            verify["header"] = header.as_str().into();
        }
        settings.insert("verify".to_owned(), verify);
        settings.insert("id_header".to_owned(), json!(self.id_header));
        settings.insert("type_header".to_owned(), json!(self.type_header));
    }

    /// Adds what [`WebhookSettings::show`] leaves out, for a patch that does not name it.
    pub(super) fn add_secrets(&self, settings: &mut Map<String, Value>) {
        let texts: Vec<&str> = self.verify.secrets.iter().map(Secret::expose).collect();
        if let Some(verify) = settings.get_mut("verify").and_then(Value::as_object_mut)
            && !texts.is_empty()
        {
            verify.insert("secret".to_owned(), json!(texts));
        }
        if let Some(token) = &self.verify_token {
            settings.insert("verify_token".to_owned(), token.expose().into());
        }
    }
}
