//! Circles among the files of one crate: who names whom, and which files reach each other. Knows no table.
//!
//! A name that a file only passes on (`pub use`) counts for the file that defines it. What the head of a folder defines, the
//! files of the folder may use: `desk.rs` joins `desk/…`, so that arrow is not counted.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{self, Path};

/// How often a name may be passed on before it is given up.
const PASSED_ON_MAX: usize = 8;

/// The files of one crate: the path of each below its `src`, and its code without comments and tests.
pub(super) struct Crate {
    files: BTreeMap<Vec<String>, Source>,
}

struct Source {
    path: String,
    code: String,
    names: Vec<Path>,
}

impl Crate {
    pub(super) fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let source = |(path, code): (String, String)| {
            let names = code::paths(&code);
            (module(&path), Source { path, code, names })
        };
        Self { files: files.into_iter().map(source).collect() }
    }

    /// Every set of files that all reach each other, each in the order of their paths.
    pub(super) fn circles(&self) -> Vec<Vec<&str>> {
        let named: BTreeMap<&[String], BTreeSet<Vec<String>>> =
            self.files.keys().map(|file| (file.as_slice(), self.named_by(file))).collect();
        let reached: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> =
            self.files.keys().map(|file| (file, reached_from(file, &named))).collect();
        let mut circles: BTreeSet<Vec<&str>> = BTreeSet::new();
        for (file, others) in reached.iter().filter(|(file, others)| others.contains(**file)) {
            let both = others.iter().filter(|other| reached[*other].contains(*file));
            circles.insert(both.map(|other| self.files[other].path.as_str()).collect());
        }
        circles.into_iter().collect()
    }

    fn named_by(&self, file: &[String]) -> BTreeSet<Vec<String>> {
        let source = &self.files[file];
        let named = source.names.iter().filter_map(|path| self.resolve(file, path.depth, &path.segments, 0));
        named.filter(|other| !file.starts_with(other)).collect()
    }

    /// The file that defines what `segments` name in `file`, if it lies in this crate.
    fn resolve(&self, file: &[String], depth: usize, segments: &[String], passed_on: usize) -> Option<Vec<String>> {
        let (mut module, mut rest) = (file.to_vec(), segments);
        let mut inline = depth;
        match rest.first()?.as_str() {
            "crate" => (module, rest) = (Vec::new(), &rest[1..]),
            "self" | "super" => {
                while let Some(first @ ("self" | "super")) = rest.first().map(String::as_str) {
                    if first == "super" && inline > 0 {
                        inline -= 1;
                    } else if first == "super" {
                        module.pop()?;
                    }
                    rest = &rest[1..];
                }
            }
            child if self.files.contains_key(&[file, &[child.to_owned()]].concat()) => {}
            _ => return None,
        }
        while let Some(child) = rest.first() {
            let below = [module.as_slice(), std::slice::from_ref(child)].concat();
            if !self.files.contains_key(&below) {
                break;
            }
            (module, rest) = (below, &rest[1..]);
        }
        let source = self.files.get(&module)?;
        match rest.first() {
            Some(name) if passed_on < PASSED_ON_MAX && !defines(&source.code, name) => {
                let import = source.names.iter().find(|path| path.segments.last() == Some(name));
                match import {
                    Some(path) => self.resolve(&module, path.depth, &path.segments, passed_on + 1),
                    None => Some(module),
                }
            }
            _ => Some(module),
        }
    }
}

fn reached_from(file: &[String], named: &BTreeMap<&[String], BTreeSet<Vec<String>>>) -> BTreeSet<Vec<String>> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        for other in &named[file] {
            if reached.insert(other.clone()) {
                next.push(other);
            }
        }
    }
    reached
}

/// `delivery/lane.rs` is `["delivery", "lane"]`; the root of a crate is nothing.
fn module(path: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs");
    if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() }
}

fn defines(code: &str, name: &str) -> bool {
    const ITEMS: [&str; 9] = ["struct ", "enum ", "trait ", "type ", "fn ", "const ", "static ", "mod ", "macro_rules! "];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    ITEMS.iter().any(|item| {
        code.match_indices(item).any(|(at, _)| {
            let rest = &code[at + item.len()..];
            rest.strip_prefix(name).is_some_and(|rest| !rest.starts_with(is_word))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), code::clean(text)));
        let found = Crate::new(files);
        found.circles().into_iter().map(|circle| circle.into_iter().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn every_way_to_close_a_circle_is_seen() {
        for (a, b) in [
            ("use crate::b::B; struct A;", "use crate::a::A; struct B;"),
            ("use super::b::B; struct A;", "use super::a::A; struct B;"),
            ("use crate::{b::B}; struct A;", "fn b() { crate::a::run() }"),
            ("mod inner { use super::super::b::B; } struct A;", "use crate::a::A; struct B;"),
        ] {
            assert_eq!(circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]), [["a.rs", "b.rs"]], "{a}");
        }
        let past_the_head = [
            ("a.rs", "mod b; use crate::c::C; struct A;"),
            ("a/b.rs", "struct B;"),
            ("c.rs", "use crate::a::b::B; use crate::a::A;"),
        ];
        assert_eq!(circles(&past_the_head), [["a.rs", "c.rs"]]);
    }

    #[test]
    fn what_only_goes_down_is_no_circle() {
        for files in [
            [("a.rs", "use crate::b::B;"), ("b.rs", "struct B;")],
            [("a.rs", "mod b; use b::B;"), ("a/b.rs", "use super::super::c::C;")],
            [("a.rs", "mod b; use b::B; struct A;"), ("a/b.rs", "use super::A; struct B;")],
            [("a.rs", "use crate::b::B; struct A;"), ("b.rs", "// use crate::a::A;\nstruct B;")],
        ] {
            assert!(circles(&files).is_empty(), "{files:?}");
        }
        let passed_on = [("lib.rs", "mod a; mod b; pub use b::B;"), ("a.rs", "use crate::B; struct A;"), ("b.rs", "struct B;")];
        assert!(circles(&passed_on).is_empty(), "a name counts for the file that defines it");
    }
}
