//! What a definition is judged by that the grammar of its form cannot know.

/// Decides whether a URL may be dialled.
pub trait UrlJudge {
    /// The canonical form of an acceptable URL.
    ///
    /// # Errors
    /// Slug and detail of what is wrong with it, such as `blocked_address`.
    fn check_url(&self, url: &str) -> Result<String, (&'static str, String)>;
}

impl<F> UrlJudge for F
where
    F: Fn(&str) -> Result<String, (&'static str, String)>,
{
    fn check_url(&self, url: &str) -> Result<String, (&'static str, String)> {
        self(url)
    }
}

/// Decides whether texts in languages of their own can be used.
pub trait TextJudge {
    /// A CEL expression.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    fn filter(&self, expression: &str) -> Result<(), String>;

    /// A template.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    fn template(&self, body: &str) -> Result<(), String>;

    /// One or more certificates in PEM.
    ///
    /// # Errors
    /// What is wrong with them, for a person.
    fn certificates(&self, pem: &str) -> Result<(), String>;

    /// A chain of certificates and the key of its leaf, in PEM.
    ///
    /// # Errors
    /// What is wrong with them, for a person; never repeats the key.
    fn client_identity(&self, cert_pem: &str, key_pem: &str) -> Result<(), String>;

    /// Whether there is a group of limits of this name.
    fn has_limit_group(&self, name: &str) -> bool;
}

/// Takes every text for granted; for forms that were judged before.
#[derive(Clone, Copy, Debug)]
pub struct NoJudge;

impl TextJudge for NoJudge {
    fn filter(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn template(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn certificates(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn client_identity(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn has_limit_group(&self, _: &str) -> bool {
        true
    }
}
