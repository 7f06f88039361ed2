//! Whether the texts of a definition can be used: filters and templates compile, certificates and keys read, groups of limits
//! exist. The same for REST and `config.toml`.

use std::collections::BTreeSet;

use hookcast_core::filter::Filter;
use hookcast_core::model::subscription::parse::TextJudge;
use hookcast_core::template::Template;
use hookcast_net::tls;

/// Judges texts by what will use them.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    limit_groups: BTreeSet<String>,
}

impl Texts {
    /// A judge that knows these groups of limits.
    #[must_use]
    pub fn new(limit_groups: BTreeSet<String>) -> Self {
        Self { limit_groups }
    }
}

impl TextJudge for Texts {
    fn filter(&self, expression: &str) -> Result<(), String> {
        Filter::compile(expression).map(|_| ()).map_err(|error| error.to_string())
    }

    fn template(&self, body: &str) -> Result<(), String> {
        Template::compile(body).map(|_| ()).map_err(|error| error.to_string())
    }

    fn certificates(&self, pem: &str) -> Result<(), String> {
        tls::check_certificates(pem).map_err(|error| error.to_string())
    }

    fn client_identity(&self, cert_pem: &str, key_pem: &str) -> Result<(), String> {
        tls::check_client_identity(cert_pem, key_pem).map_err(|error| error.to_string())
    }

    fn has_limit_group(&self, name: &str) -> bool {
        self.limit_groups.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_judged_by_what_uses_them() {
        let texts = Texts::new(BTreeSet::from(["crm".to_owned()]));
        assert_eq!(texts.filter("data.amount > 100"), Ok(()));
        assert!(texts.filter("amount > 100").unwrap_err().contains("\"amount\""));
        assert_eq!(texts.template("{{ data.amount }}"), Ok(()));
        assert!(texts.template("{{ amount }}").unwrap_err().contains("\"amount\""));
        assert!(texts.has_limit_group("crm") && !texts.has_limit_group("erp"));
    }

    #[test]
    fn keys_are_never_repeated() {
        let certified = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
        let (cert, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        let texts = Texts::default();
        assert_eq!(texts.certificates(&cert), Ok(()));
        assert!(texts.certificates("no certificate").is_err() && texts.certificates(&key).is_err());
        assert_eq!(texts.client_identity(&cert, &key), Ok(()));
        let problem = texts.client_identity(&cert, "secret-key").unwrap_err();
        assert!(!problem.contains("secret-key"), "{problem}");
        assert!(texts.client_identity("x", &key).is_err());
    }
}
