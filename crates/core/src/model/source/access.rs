//! What a request to an upstream carries besides its URL and headers: query parameters, credentials, trust.
//!
//! Owns the grammar of templates with a resume token in them, and how these fields are read and shown. Pure. What credentials
//! do on the wire is the business of `source`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parse::SourceRules;
use crate::model::fields::{Fields, text};
use crate::model::headers::HEADER_VALUE_BYTES_MAX;
use crate::model::subscription::Auth;
use crate::model::subscription::parse::Rules;
use crate::model::subscription::parse::access::{SOURCE_KINDS, read_auth, read_ca};
use crate::model::subscription::parse::form::{auth_shown, auth_whole};

/// Most query parameters of one definition.
pub const QUERY_PARAMETERS_MAX: usize = 32;
/// Longest name of one, in bytes; a value is as long as that of a header.
pub const QUERY_NAME_BYTES_MAX: usize = 256;

/// Where the resume token stands in a template.
const PLACE: &str = "{resume}";
/// The same text without a meaning.
const ESCAPED: &str = "{{resume}}";

/// What a request to an upstream carries besides its URL and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Query parameters over those of the URL: name to template.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// How the relay shows who it is.
    #[serde(default)]
    pub auth: Option<Box<Auth>>,
    /// The only certificates that are trusted, in PEM; absent = those of the machine.
    #[serde(default)]
    pub ca_pem: Option<Box<str>>,
}

/// Fills a template with the resume token, which `encode` makes fit for its place; `None` when the template needs one and
/// there is none.
///
/// `{resume}` is the token, `{{resume}}` is the text `{resume}`; every other brace is itself, so that JSON needs no escapes.
#[must_use]
pub fn fill(template: &str, resume: Option<&str>, encode: impl Fn(&str) -> String) -> Option<String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(behind) = rest.strip_prefix(ESCAPED) {
            filled.push_str(PLACE);
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix(PLACE) {
            filled.push_str(&encode(resume?));
            rest = behind;
        } else {
            filled.push('{');
            rest = &rest[1..];
        }
    }
    filled.push_str(rest);
    Some(filled)
}

/// Reads `query`, `auth` and `ca_pem` of a definition.
pub(super) fn read(fields: &Fields<'_>, rules: &SourceRules<'_>) -> Access {
    let judges = Rules { texts: rules.texts, ..Rules::new(rules.urls) };
    Access { query: read_query(fields), auth: read_auth(fields, &judges, SOURCE_KINDS), ca_pem: read_ca(fields, &judges) }
}

fn read_query(fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut query = BTreeMap::new();
    let Some(members) = fields.map("query") else { return query };
    for (name, value) in members.members() {
        let is_name = !name.is_empty() && name.len() <= QUERY_NAME_BYTES_MAX && !name.chars().any(char::is_control);
        if !is_name {
            let detail = format!("allowed: names of 1 to {QUERY_NAME_BYTES_MAX} bytes without control characters");
            members.refuse(name, "query", detail);
        }
        let Some(value) = text(value, members.at(name), members.errors()) else { continue };
        if value.len() > HEADER_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            let detail = format!("allowed: at most {HEADER_VALUE_BYTES_MAX} bytes without control characters");
            members.refuse(name, "query", detail);
        }
        query.insert(name.to_owned(), value.to_owned());
    }
    if query.len() > QUERY_PARAMETERS_MAX {
        let detail = format!("has {} parameters; allowed: at most {QUERY_PARAMETERS_MAX}", query.len());
        fields.refuse("query", "too_many", detail);
    }
    query
}

impl Access {
    /// Adds what GET shows: no values of parameters, which may be keys, and no secrets.
    pub(super) fn show(&self, form: &mut Value) {
        form["query_names"] = json!(self.query.keys().collect::<Vec<_>>());
        form["auth"] = self.auth.as_deref().map_or(Value::Null, auth_shown);
    }

    /// Adds what a merge patch acts on.
    pub(super) fn write_whole(&self, document: &mut Value) {
        document["query"] = json!(self.query);
        document["auth"] = self.auth.as_deref().map_or(Value::Null, auth_whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(template: &str, resume: Option<&str>) -> Option<String> {
        fill(template, resume, |token| format!("<{token}>"))
    }

    #[test]
    fn only_the_place_of_the_token_means_anything() {
        assert_eq!(filled("a{resume}b{resume}", Some("7")).as_deref(), Some("a<7>b<7>"));
        assert_eq!(filled("{\"after\":{resume}}", Some("7")).as_deref(), Some("{\"after\":<7>}"));
        assert_eq!(filled("{{resume}}{resume", None).as_deref(), Some("{resume}{resume"));
        assert_eq!(filled("{{\"a\":{}}", None).as_deref(), Some("{{\"a\":{}}"));
        assert_eq!(filled("x{resume}", None), None);
        assert_eq!(filled("", None).as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn what_has_no_place_stays_as_it_is(text in "[a-z{}\"é]{0,40}") {
            prop_assume!(!text.contains(PLACE));
            prop_assert_eq!(filled(&text, Some("t")), Some(text));
        }

        #[test]
        fn a_token_is_put_in_once_for_each_place(parts in prop::collection::vec("[a-z}\"]{0,6}", 1..6)) {
            prop_assert_eq!(filled(&parts.join(PLACE), Some("{resume}")), Some(parts.join("<{resume}>")));
        }
    }
}
