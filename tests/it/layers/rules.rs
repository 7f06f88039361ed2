//! The judges: each takes files and a table and returns one line for every rule broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

use super::code::{self, Path};
use super::{Layer, Reserved};

/// One source file: its path below the folder that was read, and what it says.
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

    /// `delivery/lane.rs` is `["delivery", "lane"]`.
    fn module(&self) -> Vec<&str> {
        self.path.trim_end_matches(".rs").split('/').collect()
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
    found.into_iter().map(|(path, text)| File::new(path, text)).collect()
}

/// The table itself: every module once, every name a module, no arrow up, no circle.
pub(super) fn judge_table(layers: &[Layer]) -> Vec<String> {
    let mut broken = Vec::new();
    let levels: BTreeMap<&str, u8> = layers.iter().map(|layer| (layer.name, layer.level)).collect();
    if levels.len() < layers.len() {
        broken.push("a module stands in the table twice".to_owned());
    }
    for layer in layers {
        for name in layer.may_use.iter().filter(|name| **name != "*") {
            match levels.get(name) {
                None => broken.push(format!("{}: `{name}` is no module", layer.name)),
                Some(level) if *level > layer.level => {
                    broken.push(format!("{} (level {}) -> {name} (level {level}) goes up", layer.name, layer.level));
                }
                Some(_) => {}
            }
        }
    }
    let mut left: BTreeMap<&str, BTreeSet<&str>> = layers
        .iter()
        .map(|layer| (layer.name, layer.may_use.iter().copied().filter(|name| levels.contains_key(name)).collect()))
        .collect();
    while let Some(free) = left.iter().find(|(_, uses)| uses.iter().all(|name| !left.contains_key(name))).map(|(name, _)| *name) {
        left.remove(free);
    }
    if !left.is_empty() && broken.is_empty() {
        broken.push(format!("a circle among {:?}", left.keys()));
    }
    broken
}

/// The module of the crate root that a path names, if it names one.
fn root_module<'a>(path: &'a Path, file: &File) -> Option<&'a str> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match segments[0] {
        "crate" | "hookcast" => Some(segments[1]),
        "super" | "self" => {
            let supers =
                segments.iter().skip_while(|segment| **segment == "self").take_while(|segment| **segment == "super").count();
            let selfs = segments.iter().take_while(|segment| **segment == "self").count();
            (supers >= file.module().len() + path.depth).then(|| segments.get(selfs + supers).copied()).flatten()
        }
        _ => None,
    }
}

/// Every name of another module, held against the table; and the table against the modules there are.
pub(super) fn judge_edges(files: &[File], layers: &[Layer]) -> Vec<String> {
    let table: BTreeMap<&str, &Layer> = layers.iter().map(|layer| (layer.name, layer)).collect();
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files.iter().filter(|file| file.path != "lib.rs") {
        let own = file.module()[0];
        seen.insert(own);
        let Some(layer) = table.get(own) else {
            broken.push(format!("src/{}: module `{own}` has no row in the table", file.path));
            continue;
        };
        for path in code::paths(&file.code) {
            let Some(other) = root_module(&path, file) else { continue };
            let is_allowed = other == own || layer.may_use.contains(&other) || layer.may_use.contains(&"*");
            if !is_allowed {
                broken.push(format!("src/{}:{}: {own} -> {other} ({})", file.path, path.line, path.segments.join("::")));
            }
        }
    }
    broken.extend(layers.iter().filter(|layer| !seen.contains(layer.name)).map(|layer| format!("`{}` is no module", layer.name)));
    broken
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
        for path in code::paths(&file.code) {
            let at = format!("src/{}:{}: {}", file.path, path.line, path.segments.join("::"));
            for rule in reserved.iter().filter(|rule| names(&path, rule.segments) && !file.lies_in(rule.only_in)) {
                broken.push(format!("{at} ({})", rule.why));
            }
            if is_pure && impure.iter().any(|name| names(&path, name)) {
                broken.push(format!("{at} (does I/O or reads a clock)"));
            }
        }
        if is_pure {
            let reads = lines_with(&file.code, ".now()");
            broken.extend(reads.map(|line| format!("src/{}:{line}: `.now()` (reads a clock)", file.path)));
        }
    }
    broken
}

/// The lines of `code` with `call` in them.
fn lines_with<'a>(code: &'a str, call: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter(move |(_, line)| line.contains(call)).map(|(index, _)| index + 1)
}

/// Headers, old-style modules, unwraps, unfinished work and length.
pub(super) fn judge_files(files: &[File], unfinished: &[&str], lines_max: usize, longer: &[(&str, usize)]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut say = |file: &File, what: String| broken.push(format!("src/{}: {what}", file.path));
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
        let most = longer.iter().find(|(path, _)| *path == file.path).map_or(lines_max, |(_, most)| *most);
        if file.lines() > most {
            say(file, format!("{} lines outside tests, at most {most}", file.lines()));
        }
    }
    for (path, _) in longer {
        if !files.iter().any(|file| file.path == *path && file.lines() > lines_max) {
            broken.push(format!("src/{path} is no longer too long: take it off the list"));
        }
    }
    broken
}
