//! Circles among the files of one crate, and the list of the arrows in them. A head counts like any other file: `a.rs` and
//! `a/b.rs` that name each other are a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::names::{Crate, Module};

/// Every arrow that lies in a circle, from the file that names to the one that is named, with the shortest circle that it closes:
/// the one that names first and last.
pub(super) fn circles(files: &Crate) -> BTreeMap<(&str, &str), Vec<&str>> {
    let named: BTreeMap<&Module, BTreeSet<Module>> = files.files().map(|(file, _)| (file, files.named_by(file))).collect();
    let mut found = BTreeMap::new();
    for (file, others) in &named {
        let ways = ways_to(file, &named);
        for other in others {
            let Some(mut next) = ways.get_key_value(other).map(|(other, _)| *other) else { continue };
            let mut circle = vec![files.path(file), files.path(other)];
            while next != *file {
                next = ways[next];
                circle.push(files.path(next));
            }
            found.insert((circle[0], circle[1]), circle);
        }
    }
    found
}

/// Every file from which arrows lead to `end`, with the next one on the shortest way there.
fn ways_to<'a>(end: &'a Module, named: &'a BTreeMap<&Module, BTreeSet<Module>>) -> BTreeMap<&'a Module, &'a Module> {
    let (mut ways, mut open) = (BTreeMap::new(), VecDeque::from([end]));
    while let Some(reached) = open.pop_front() {
        for (file, _) in named.iter().filter(|(_, others)| others.contains(reached)) {
            if *file != end && !ways.contains_key(file) {
                ways.insert(*file, reached);
                open.push_back(*file);
            }
        }
    }
    ways
}

/// The arrows that lie in circles of crates (each with the folder of its files) against the list of those that may.
pub(super) fn judge_circles(crates: &BTreeMap<String, &Crate>, listed: &[&str]) -> Vec<String> {
    let (mut broken, mut standing) = (Vec::new(), BTreeSet::new());
    for (folder, files) in crates {
        for ((from, to), circle) in circles(files) {
            let arrow = format!("{folder}/{from} -> {to}");
            if !listed.contains(&arrow.as_str()) {
                broken.push(format!("{arrow} closes a circle: {}", circle.join(" -> ")));
            }
            standing.insert(arrow);
        }
    }
    let gone = listed.iter().filter(|arrow| !standing.contains(**arrow));
    broken.extend(gone.map(|arrow| format!("{arrow} lies in no circle: take it out of the list")));
    if !listed.is_sorted_by(|a, b| a < b) {
        broken.push("the list is not sorted".to_owned());
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::code;
    use super::*;

    fn read(files: &[(&str, &str)]) -> Crate {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, code::without_tests(&code::clean(text)))).collect();
        Crate::new(files.iter().map(|(path, text)| (*path, text.as_str())))
    }

    /// The files that stand in circles.
    fn in_circles(files: &[(&str, &str)]) -> Vec<String> {
        let files = read(files);
        let from: BTreeSet<&str> = circles(&files).into_keys().map(|(from, _)| from).collect();
        from.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn every_way_to_close_a_circle_is_seen() {
        for (a, b) in [
            ("use crate::b::B; struct A;", "use crate::a::A; struct B;"),
            ("use super::b::B; struct A;", "use super::a::A; struct B;"),
            ("use crate::{b::B}; struct A;", "fn b() { crate::a::run() }"),
            ("mod inner { use super::super::b::B; } struct A;", "use crate::a::A; struct B;"),
            ("use crate as k; fn a() { k::b::g() }", "use crate::a::A; fn g() {}"),
            ("use crate::{self as k}; fn a() { k::b::g() }", "use crate::a::A; fn g() {}"),
            ("use super as k; use k::b as c; fn a() { c::g() }", "use crate::a::A; fn g() {}"),
            ("use crate::b::{self}; struct A;", "use std::fmt::{self}; use crate::a::A; struct B;"),
            ("use crate::b; fn a() { b::fmt::write() }", "pub use std::fmt::{self}; use crate::a::A; struct B;"),
            ("use crate::Bee; struct A;", "use crate::a::A; struct B;"),
            ("use crate::c::b::B; struct A;", "use crate::a::A; struct B;"),
            ("use crate::b::m; struct A;", "macro_rules! m { () => {} } pub(crate) use m; use crate::a::A;"),
            ("use crate::b::B::*; struct A;", "use crate::a::A; enum B { C }"),
        ] {
            let lib = ("lib.rs", "mod a; mod b; mod c; pub use b::B as Bee;");
            let files = [lib, ("a.rs", a), ("b.rs", b), ("c.rs", "pub use crate::b;")];
            assert_eq!(in_circles(&files)[..2], ["a.rs", "b.rs"], "{a}");
        }
    }

    #[test]
    fn a_head_and_its_files_stand_in_circles() {
        for (a, b) in [
            ("mod b; use b::B; struct A;", "use super::A; struct B;"),
            ("mod b; pub use b::B; struct A;", "use crate::a::A; struct B;"),
            ("mod b; fn a() { b::run() }", "fn run() { super::a() }"),
            ("mod b; fn a() { self::b::run() }", "mod inner { use super::super::A; }"),
        ] {
            assert_eq!(in_circles(&[("lib.rs", "mod a;"), ("a.rs", a), ("a/b.rs", b)]), ["a.rs", "a/b.rs"], "{a}");
        }
        let past_the_head = [
            ("a.rs", "mod b; use crate::c::C; struct A;"),
            ("a/b.rs", "use super::A; struct B;"),
            ("c.rs", "use crate::a::b::B; struct C;"),
        ];
        assert_eq!(circles(&read(&past_the_head))[&("a.rs", "c.rs")], ["a.rs", "c.rs", "a/b.rs", "a.rs"]);
        for root in ["lib.rs", "main.rs"] {
            let at_the_root = [(root, "mod a; use a::A; struct Root;"), ("a.rs", "use crate::Root; struct A;")];
            assert_eq!(in_circles(&at_the_root), ["a.rs", root], "a root that defines something");
        }
    }

    #[test]
    fn what_only_goes_down_is_no_circle() {
        for files in [
            [("a.rs", "use crate::b::B;"), ("b.rs", "struct B;")],
            [("a.rs", "mod b; use b::B;"), ("a/b.rs", "use super::super::c::C;")],
            [("a.rs", "mod b; struct A;"), ("a/b.rs", "use super::A; struct B;")],
            [("a.rs", "mod b; use b::B; struct A;"), ("a/b.rs", "struct B; #[cfg(test)] mod tests { use super::super::A; }")],
            [("a.rs", "use crate::b::B; struct A;"), ("b.rs", "// use crate::a::A;\nstruct B;")],
            [("a.rs", "use crate::b::b; fn a() { b::<A>() }"), ("b.rs", "use b::b; fn b() { b::c() }")],
        ] {
            assert!(in_circles(&files).is_empty(), "{files:?}");
        }
        let passed_on = [("lib.rs", "mod a; mod b; pub use b::B;"), ("a.rs", "use crate::B; struct A;"), ("b.rs", "struct B;")];
        assert!(in_circles(&passed_on).is_empty(), "a name counts for the file that defines it");
    }

    #[test]
    fn what_hides_a_name_is_refused() {
        let others =
            BTreeMap::from([("other".to_owned(), read(&[("lib.rs", "mod c; pub use c::D;"), ("c.rs", "enum D { E }")]))]);
        for (path, text) in [
            ("a/b.rs", "use super::*; struct B;"),
            ("lib.rs", "pub use a::*;"),
            ("c.rs", "use crate::a::{b::*};"),
            ("c.rs", "use crate as K; fn c() { use K::*; }"),
            ("c.rs", "use crate::P::*;"),
            ("c.rs", "mod inner { use super::super::*; }"),
            ("c.rs", "use other::*;"),
            ("c.rs", "use other::c::*;"),
            ("c.rs", "use other as o; use o::c::*;"),
            ("c.rs", "use other as o; use crate::c::o::c::*;"),
            ("c.rs", "pub use other;"),
            ("c.rs", "pub use other::c;"),
            ("c.rs", "use other as o; pub use o::c as d;"),
        ] {
            let mut files =
                BTreeMap::from([("lib.rs", "mod a; mod c; use a as P;"), ("a.rs", "mod b; struct A;"), ("a/b.rs", "")]);
            files.insert(path, text);
            let text = if path == "lib.rs" { "mod a; use a as P; pub use a::*;" } else { text };
            files.insert(path, text);
            let files: Vec<_> = files.into_iter().collect();
            assert_eq!(read(&files).hidden(&others).len(), 1, "{text}");
        }
        let open = "use std::fmt::*; use other::c; use other::D::*; pub use other::D; use E::*; enum E { F } mod inner { use super::*; }\n\
                    #[cfg(test)] mod tests { use crate::a::*; }";
        let files = read(&[("lib.rs", "mod a; mod c;"), ("a.rs", ""), ("c.rs", open)]);
        assert!(files.hidden(&others).is_empty(), "{:?}", files.hidden(&others));
    }

    fn judge(files: &[(&str, &str)], listed: &[&str]) -> Vec<String> {
        judge_circles(&BTreeMap::from([("x/src".to_owned(), &read(files))]), listed)
    }

    #[test]
    fn the_list_and_the_circles_must_agree() {
        let files =
            [("a.rs", "use crate::b::B; struct A;"), ("b.rs", "use crate::a::A; struct B;"), ("c.rs", "use crate::a::A;")];
        let (there, back) = ("x/src/a.rs -> b.rs", "x/src/b.rs -> a.rs");
        assert!(judge(&files, &[there, back]).is_empty());
        assert_eq!(judge(&files, &[back]), ["x/src/a.rs -> b.rs closes a circle: a.rs -> b.rs -> a.rs"]);
        let away = "x/src/c.rs -> a.rs";
        assert_eq!(judge(&files, &[there, back, away]), ["x/src/c.rs -> a.rs lies in no circle: take it out of the list"]);
        assert_eq!(judge(&files, &[there, back, "x/src/b.rs -> gone.rs"]).len(), 1, "a file that is gone");
        assert_eq!(judge(&files, &["a.rs -> b.rs", there, back]).len(), 1, "a folder that is none");
        assert_eq!(judge(&files, &[back, there]), ["the list is not sorted"]);
    }

    #[test]
    fn a_new_arrow_between_files_that_stand_in_circles_is_seen() {
        let (a, b) = (("a.rs", "use crate::b::B; struct A;"), ("b.rs", "use crate::a::A; struct B;"));
        let (c, d) = (("c.rs", "use crate::d::D; struct C;"), ("d.rs", "use crate::c::C; struct D;"));
        let two = ["x/src/a.rs -> b.rs", "x/src/b.rs -> a.rs", "x/src/c.rs -> d.rs", "x/src/d.rs -> c.rs"];
        assert!(judge(&[a, b, c, d], &two).is_empty());
        let down = ("b.rs", "use crate::a::A; use crate::c::C; struct B;");
        assert!(judge(&[a, down, c, d], &two).is_empty(), "one that only leads away closes nothing");
        let up = ("d.rs", "use crate::c::C; use crate::a::A; struct D;");
        let wanted = [
            "x/src/b.rs -> c.rs closes a circle: b.rs -> c.rs -> d.rs -> a.rs -> b.rs",
            "x/src/d.rs -> a.rs closes a circle: d.rs -> a.rs -> b.rs -> c.rs -> d.rs",
        ];
        assert_eq!(judge(&[a, down, c, up], &two), wanted, "two circles that join");
        let round = [("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::C;"), ("c.rs", "use crate::a::A;")];
        let one = ["x/src/a.rs -> b.rs", "x/src/b.rs -> c.rs", "x/src/c.rs -> a.rs"];
        assert!(judge(&round, &one).is_empty());
        let across = [round[0], ("b.rs", "use crate::c::C; use crate::a::A;"), round[2]];
        assert_eq!(judge(&across, &one), ["x/src/b.rs -> a.rs closes a circle: b.rs -> a.rs -> b.rs"]);
    }
}
