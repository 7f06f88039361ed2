//! The judges: each takes files and a table and returns one line for every rule broken.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use super::Reserved;
use super::code;
use super::paths::{self, Path};

/// One source file: its path below the folder that was read, and what it says.
#[derive(Clone)]
pub(super) struct File {
    pub(super) path: String,
    text: String,
    code: String,
}

impl File {
    pub(super) fn new(path: String, text: String) -> Self {
        let cleaned = code::clean(&text);
        let code = if is_test_file(&path) { String::new() } else { code::without_tests(&cleaned) };
        Self { path, text, code }
    }

    /// Lines outside tests.
    pub(super) fn lines(&self) -> usize {
        if is_test_file(&self.path) { 0 } else { code::lines_outside_tests(&self.text) }
    }

    pub(super) fn has_header(&self) -> bool {
        self.text.starts_with("//! ")
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The crate's folder and the path below its `src`: `crates/log` and `tail.rs`, or `src` and `app.rs`.
    pub(super) fn place(&self) -> Option<(&str, &str)> {
        self.path.split_once("/src/").or_else(|| self.path.strip_prefix("src/").map(|path| ("src", path)))
    }

    fn lies_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            let rest = self.path.strip_prefix(place);
            rest.is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
        })
    }
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Every Rust file of the product.
pub(super) fn product() -> Vec<File> {
    [files("src"), files("crates")].concat()
}

/// Every Rust file below `folder` of the project, in the order of their paths.
pub(super) fn files(folder: &str) -> Vec<File> {
    fn walk(root: &FilePath, folder: &FilePath, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the project can be read") {
            let path = entry.expect("a folder of the project can be read").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("what is found lies below").to_string_lossy().replace('\\', "/");
                found.insert(name, std::fs::read_to_string(&path).expect("a source file is UTF-8"));
            }
        }
    }
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    assert!(!found.is_empty(), "no Rust file below {folder}");
    found.into_iter().map(|(path, text)| File::new(format!("{folder}/{path}"), text)).collect()
}

fn names(path: &Path, run: &str) -> bool {
    let run: Vec<&str> = run.split("::").collect();
    path.segments.windows(run.len()).any(|window| window.iter().zip(&run).all(|(segment, name)| segment == name))
}

/// Reserved names out of their place, and impure names in pure files.
pub(super) fn judge_names(files: &[File], reserved: &[Reserved], pure: &[&str], impure: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        let is_pure = file.lies_in(pure);
        for path in paths::paths(&file.code) {
            let at = format!("{}:{}: {}", file.path, path.line, path.segments.join("::"));
            for rule in reserved.iter().filter(|rule| names(&path, rule.segments) && !file.lies_in(rule.only_in)) {
                broken.push(format!("{at} ({})", rule.why));
            }
            if is_pure && impure.iter().any(|name| names(&path, name)) {
                broken.push(format!("{at} (does I/O or reads a clock)"));
            }
        }
        if is_pure {
            let reads = lines_with(&file.code, ".now()");
            broken.extend(reads.map(|line| format!("{}:{line}: `.now()` (reads a clock)", file.path)));
        }
    }
    broken
}

/// The lines of `code` with `call` in them.
fn lines_with<'a>(code: &'a str, call: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter(move |(_, line)| line.contains(call)).map(|(index, _)| index + 1)
}

/// Headers, old-style modules, unwraps, unfinished work, what hides names, and length.
pub(super) fn judge_files(
    files: &[File],
    unfinished: &[&str],
    hiding: &[&str],
    lines_max: usize,
    longer: &[(&str, usize)],
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut say = |file: &File, what: String| broken.push(format!("{}: {what}", file.path));
    for file in files {
        if !file.has_header() {
            say(file, "does not begin with `//!`".to_owned());
        }
        if file.path.ends_with("mod.rs") {
            say(file, "`foo/mod.rs` is `foo.rs` here".to_owned());
        }
        for line in lines_with(&file.code, ".unwrap()").chain(lines_with(&file.code, "::unwrap(")) {
            say(file, format!("line {line} unwraps"));
        }
        for word in unfinished.iter().filter(|word| file.text.contains(**word)) {
            say(file, format!("`{word}`"));
        }
        for word in hiding.iter().filter(|word| file.code.contains(**word)) {
            say(file, format!("`{word}` hides who names whom"));
        }
        let most = longer.iter().find(|(path, _)| *path == file.path).map_or(lines_max, |(_, most)| *most);
        if file.lines() > most {
            say(file, format!("{} lines outside tests, at most {most}", file.lines()));
        }
    }
    for (path, _) in longer {
        if !files.iter().any(|file| file.path == *path && file.lines() > lines_max) {
            broken.push(format!("{path} is no longer too long: take it off the list"));
        }
    }
    broken
}
