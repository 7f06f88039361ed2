//! Settings of `raw`: what ends a record.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{OwnSettings, Row};
use crate::model::fields::Fields;

/// What ends a record of a `raw` upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delimiter {
    /// LF or CR LF.
    #[default]
    Lf,
    /// A zero byte.
    Nul,
}

impl Delimiter {
    /// The word of definitions.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lf => "lf",
            Self::Nul => "nul",
        }
    }
}

/// Settings of `raw`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawSettings {
    /// What ends a record.
    pub delimiter: Delimiter,
}

pub(super) const ROW: Row = Row { protocol: "raw", names: &["delimiter"], read: |settings, _| OwnSettings::Raw(read(settings)) };

fn read(settings: &Fields<'_>) -> RawSettings {
    let delimiter = match settings.choice("delimiter", &["lf", "nul"], "delimiter") {
        Some("nul") => Delimiter::Nul,
        _ => Delimiter::Lf,
    };
    RawSettings { delimiter }
}

impl RawSettings {
    pub(super) fn show(&self, settings: &mut Map<String, Value>) {
        settings.insert("delimiter".to_owned(), self.delimiter.word().into());
    }
}
