//! What a path means: the file of its crate that it names, or the name outside. Knows no table.
//!
//! A name that a file only passes on (`use`) counts for the file that defines it; one that comes from outside the crate, for
//! the file that passes it on. What has no name is not seen: methods, and what a macro of another file writes.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::{self, Path};

/// How often a name may be passed on before it is given up.
const PASSED_ON_MAX: usize = 8;

/// A file of a crate as a module: `delivery/lane.rs` is `["delivery", "lane"]`; the root of a crate is nothing.
pub(super) type Module = Vec<String>;

/// The files of one crate.
pub(super) struct Crate {
    files: BTreeMap<Module, Source>,
}

/// One file: its path, and the paths that it names outside tests.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) names: Vec<Path>,
}

/// Where a name leads: to files of the crate, or to names of others.
#[derive(Default)]
struct Reach {
    places: BTreeSet<Place>,
    outside: BTreeSet<Vec<String>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: Module,
    /// The module itself is named, nothing in it.
    is_module: bool,
}

impl Crate {
    /// Of the path of each file below its `src`, and its code without comments and tests.
    pub(super) fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let source = |(path, code): (&str, &str)| (module(path), Source { path: path.to_owned(), names: paths::paths(code) });
        Self { files: files.into_iter().map(source).collect() }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&Module, &Source)> {
        self.files.iter()
    }

    pub(super) fn path(&self, file: &Module) -> &str {
        &self.files[file].path
    }

    /// The files that `file` names, besides itself.
    pub(super) fn named_by(&self, file: &Module) -> BTreeSet<Module> {
        let names = self.files[file].names.iter().flat_map(|path| self.spell(file, path));
        let places = names.flat_map(|name| self.reach(&name, PASSED_ON_MAX).places).map(|place| place.file);
        places.filter(|other| other != file).collect()
    }

    /// `path` from `crate` on, or from the name of another crate on, with `self`, `super`, the files below and what `use` lines
    /// say put in; more than one where a name is given twice.
    pub(super) fn spell(&self, file: &Module, path: &Path) -> BTreeSet<Vec<String>> {
        self.spell_out(file, path.depth, path.segments.clone(), PASSED_ON_MAX)
    }

    fn spell_out(&self, file: &Module, depth: usize, segments: Vec<String>, hops: usize) -> BTreeSet<Vec<String>> {
        let (first, rest) = (segments[0].as_str(), &segments[1..]);
        if first == "crate" {
            return BTreeSet::from([segments]);
        }
        if first == "self" || first == "super" {
            let (mut module, mut inline) = (file.clone(), depth);
            let climbing = segments.iter().take_while(|segment| *segment == "self" || *segment == "super").count();
            for _ in segments[..climbing].iter().filter(|segment| *segment == "super") {
                if inline > 0 {
                    inline -= 1;
                } else {
                    module.pop();
                }
            }
            return BTreeSet::from([from_root(&module, &segments[climbing..])]);
        }
        if self.files.contains_key(&[file.as_slice(), &segments[..1]].concat()) {
            return BTreeSet::from([from_root(file, &segments)]);
        }
        let given = self.files[file].names.iter().filter(|path| gives(path, first) && path.segments[0] != first);
        let spelt: BTreeSet<_> = given
            .filter(|_| hops > 0)
            .flat_map(|path| self.spell_out(file, path.depth, [&path.segments, rest].concat(), hops - 1))
            .collect();
        if spelt.is_empty() { BTreeSet::from([segments]) } else { spelt }
    }

    /// Every spelling of `path`, and what it stands for outside the crate when a file passes that on.
    pub(super) fn meanings(&self, file: &Module, path: &Path) -> BTreeSet<Vec<String>> {
        let spelt = self.spell(file, path);
        let outside: Vec<_> = spelt.iter().flat_map(|name| self.reach(name, PASSED_ON_MAX).outside).collect();
        spelt.into_iter().chain(outside).collect()
    }

    /// Where a spelt name leads.
    fn reach(&self, name: &[String], hops: usize) -> Reach {
        let Some(mut rest) = name.strip_prefix(&["crate".to_owned()]) else {
            return Reach { places: BTreeSet::new(), outside: BTreeSet::from([name.to_vec()]) };
        };
        let mut file = Module::new();
        while let Some(child) = rest.first() {
            file.push(child.clone());
            if !self.files.contains_key(&file) {
                file.pop();
                break;
            }
            rest = &rest[1..];
        }
        let mut reach = Reach::default();
        let Some(source) = self.files.get(&file) else { return reach };
        if let Some(first) = rest.first().filter(|_| hops > 0) {
            for path in source.names.iter().filter(|path| gives(path, first) && is_outermost(path)) {
                for name in self.spell_out(&file, path.depth, [&path.segments, &rest[1..]].concat(), PASSED_ON_MAX) {
                    let further = self.reach(&name, hops - 1);
                    reach.places.extend(further.places);
                    reach.outside.extend(further.outside);
                }
            }
        }
        if reach.places.is_empty() {
            let is_module = rest.first().is_none_or(|first| first == "*");
            reach.places.insert(Place { file, is_module });
        }
        reach
    }

    /// What hides who names whom: globs of modules, and whole modules of `others` passed on.
    pub(super) fn hidden(&self, others: &BTreeMap<String, Self>) -> Vec<String> {
        let is_module = |name: &[String]| match others.get(&name[0]) {
            Some(other) => other.leads_to_module(&[&["crate".to_owned()], &name[1..]].concat()),
            None => self.leads_to_module(name),
        };
        let mut hidden = Vec::new();
        for (file, source) in self.files() {
            for path in &source.names {
                let mut say = |what| hidden.push(format!("{}:{}: {} ({what})", source.path, path.line, path.segments.join("::")));
                for name in self.meanings(file, path) {
                    let is_own = name == from_root(file, &["*".to_owned()]);
                    if path.is_glob() && !is_own && is_module(&name) {
                        say("a glob of a module: name what is used");
                    }
                    let is_public = path.import.as_ref().is_some_and(|import| import.is_public);
                    if is_public && others.contains_key(&name[0]) && is_module(&name) {
                        say("a module of another crate passed on: it is named where it lies");
                    }
                }
            }
        }
        hidden
    }

    fn leads_to_module(&self, name: &[String]) -> bool {
        self.reach(name, PASSED_ON_MAX).places.iter().any(|place| place.is_module)
    }
}

fn from_root(module: &[String], rest: &[String]) -> Vec<String> {
    [&["crate".to_owned()], module, rest].concat()
}

fn gives(path: &Path, name: &str) -> bool {
    path.import.as_ref().is_some_and(|import| import.name == name)
}

fn is_outermost(path: &Path) -> bool {
    path.import.as_ref().is_some_and(|import| import.is_outermost)
}

fn module(path: &str) -> Module {
    match path.trim_end_matches(".rs") {
        "lib" | "main" => Module::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    }
}
