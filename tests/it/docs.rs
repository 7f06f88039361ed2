//! What README and ARCHITECTURE say of names in the source must be true.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hookcast_http::problem::KINDS;

const README: &str = include_str!("../../README.md");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The texts that stand between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn the_readme_has_an_anchor_for_every_kind_of_problem_and_no_other() {
    let mut missing = String::new();
    for kind in KINDS {
        let entry = format!("<a id=\"{0}\"></a>`{0}`", kind.slug);
        let row = README.lines().find(|line| line.contains(&entry));
        if !row.is_some_and(|row| row.starts_with(&format!("| {} |", kind.status))) {
            writeln!(missing, "| {} | {entry} |", kind.status).unwrap();
        }
    }
    assert!(missing.is_empty(), "not in README.md, or beside another status:\n{missing}");
    assert_eq!(README.matches("<a id=\"").count(), KINDS.len(), "README.md tells of a kind that there is not");
}

#[test]
fn files_and_maxima_in_the_architecture_exist() {
    let mut paths = Vec::new();
    for folder in ["crates", "src", "tests"] {
        files(&project().join(folder), &mut paths);
    }
    let source: String = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let is_maximum = |word: &&str| word.contains('_') && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    for word in quoted(ARCHITECTURE) {
        if Path::new(word).extension().is_some_and(|extension| extension == "rs") {
            // `log/tail.rs` is `crates/log/src/tail.rs`.
            let is_there = |path: &PathBuf| {
                path.ends_with(word) || path.to_string_lossy().replace("/src/", "/").ends_with(&format!("/{word}"))
            };
            assert!(paths.iter().any(is_there), "ARCHITECTURE.md: there is no {word}");
        } else if is_maximum(&word) {
            assert!(source.contains(&format!("const {word}:")), "ARCHITECTURE.md: there is no {word}");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (name, text) in [("README.md", README), ("ARCHITECTURE.md", ARCHITECTURE)] {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let is_there = target.starts_with("https://") || project().join(target).exists();
            assert!(is_there, "{name}: {target}");
        }
    }
}
