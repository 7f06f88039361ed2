//! Mistakes in the configuration, as they are shown: one line each, with where it is and what is allowed.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A line of a file, 1-based.
    Line(String, usize),
    /// A file as a whole.
    File(String),
    /// An environment variable.
    Variable(String),
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) origin: Origin,
    /// Dotted key, such as `server.listen` or `sources[0].url`; empty when no single key is meant.
    pub key: String,
    /// Kind of mistake, stable.
    pub slug: &'static str,
    /// What is wrong, what is allowed, what may have been meant.
    pub detail: String,
}

/// `file:line: key: what is wrong; allowed: …; did you mean …? [slug]`
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Line(file, line) => write!(f, "{file}:{line}: ")?,
            Origin::File(file) => write!(f, "{file}: ")?,
            Origin::Variable(name) => write!(f, "{name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key.escape_debug())?;
        }
        write!(f, "{} [{}]", self.detail, self.slug)
    }
}

/// Every mistake, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
