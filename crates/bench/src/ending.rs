//! How a benchmark ends: what its last line says, and its exit code.

use std::process::ExitCode;

/// What came of a benchmark that measured what it was to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// No row speaks against the build.
    Well,
    /// A row misses its target, or is dearer.
    Worse,
    /// No row does, but some could not be decided, and that was to count.
    Open,
}

impl Ending {
    /// The code of one that could not measure; that of arguments which are not understood, too.
    pub(crate) const BROKEN: u8 = 2;

    /// By what some rows are: worse, or undecided, which counts only if that is `strict`.
    pub(crate) fn of(is_worse: bool, is_open: bool, strict: bool) -> Self {
        match (is_worse, is_open && strict) {
            (true, _) => Self::Worse,
            (false, true) => Self::Open,
            (false, false) => Self::Well,
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Well => Self::SUCCESS,
            Ending::Worse => Self::from(1),
            Ending::Open => Self::from(3),
        }
    }
}

/// The last line: how many rows there are, and of each kind; those of all kinds but the last, which is the usual one, by name.
pub(crate) fn last_line(kinds: &[(&str, Vec<&str>)]) -> String {
    let rows: usize = kinds.iter().map(|(_, names)| names.len()).sum();
    let mut parts = Vec::new();
    for (place, (kind, names)) in kinds.iter().enumerate() {
        let mut named = names.clone();
        named.dedup();
        let is_named = !named.is_empty() && place + 1 < kinds.len();
        let named = if is_named { format!(" ({})", named.join(", ")) } else { String::new() };
        parts.push(format!("{} {kind}{named}", names.len()));
    }
    format!("{rows} {}: {}", if rows == 1 { "row" } else { "rows" }, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worse_counts_more_than_what_is_open_and_that_only_when_strict() {
        let endings = [(true, true, true), (true, true, false), (false, true, true), (false, true, false), (false, false, true)];
        let endings = endings.map(|(is_worse, is_open, strict)| Ending::of(is_worse, is_open, strict));
        assert_eq!(endings, [Ending::Worse, Ending::Worse, Ending::Open, Ending::Well, Ending::Well]);
    }

    #[test]
    fn the_last_line_names_what_is_not_usual() {
        let kinds =
            [("missed", vec![]), ("undecided", vec!["publish-ndjson", "publish-ndjson", "batch"]), ("held", vec!["deliver-1"])];
        assert_eq!(last_line(&kinds), "4 rows: 0 missed, 3 undecided (publish-ndjson, batch), 1 held");
    }
}
