//! The rules of tidiness, as tables, held against every file of the product.
//!
//! Which crate may name which, the manifests say and the compiler holds; which module of a crate may name which, `table` says.
//! `ARCHITECTURE.md` tells the reasons. Tests inside a crate may use anything; everything else keeps to the tables.

mod circles;
mod code;
mod names;
mod paths;
mod rules;
mod table;

use std::collections::BTreeMap;

use circles::judge_circles;
use names::Crate;
use rules::{File, judge_files, judge_names};

/// Names that belong to some files only: a run of path segments, where it may stand, and why.
pub(crate) struct Reserved {
    segments: &'static str,
    only_in: &'static [&'static str],
    why: &'static str,
}

const fn reserved(segments: &'static str, only_in: &'static [&'static str], why: &'static str) -> Reserved {
    Reserved { segments, only_in, why }
}

/// Where tasks are started: those who supervise, commands, and who waits for the end of what they started and looks at it.
const SPAWNING: &[&str] = &[
    "crates/supervise",
    "src/cli",
    "crates/bench",
    "crates/source/src/supervisor.rs",
    "crates/log/src/storage/sqlite/wal.rs",
    "crates/registry/src/shelf.rs",
    "crates/http/src/quota.rs",
    "crates/http/src/tokens.rs",
    "crates/http/src/subscriptions",
];

const RESERVED: &[Reserved] = &[
    reserved("sqlx", &["crates/log/src/storage/sqlite", "crates/bench"], "SQL stays in one backend"),
    reserved("libsqlite3_sys", &["crates/log/src/storage/sqlite"], "SQL stays in one backend"),
    reserved("std::env", &["src", "crates/bench"], "only the outermost modules read arguments and the environment"),
    reserved("clap", &["src", "crates/bench"], "only the outermost modules read arguments and the environment"),
    reserved("awc", &["crates/net"], "one gate leads out"),
    reserved("TcpStream::connect", &["crates/net", "src/cli", "crates/bench"], "one gate leads out"),
    reserved("tokio::spawn", SPAWNING, "every task is watched"),
    reserved("rt::spawn", SPAWNING, "every task is watched"),
    reserved("actix_rt::spawn", SPAWNING, "every task is watched"),
    reserved("task::spawn", SPAWNING, "every task is watched"),
    reserved("spawn_local", SPAWNING, "every task is watched"),
    reserved("spawn_blocking", SPAWNING, "every task is watched"),
    reserved("thread::spawn", SPAWNING, "every task is watched"),
    reserved("SystemTime::now", &["crates/core/src/clock.rs", "src/cli", "crates/bench"], "the wall clock comes from a Clock"),
    reserved("Utc::now", &[], "the wall clock comes from a Clock"),
    reserved("Zoned::now", &[], "the wall clock comes from a Clock"),
    reserved("Timestamp::now", &[], "the wall clock comes from a Clock"),
];

/// Files and folders that do no I/O, start nothing and read no clock.
const PURE: &[&str] = &[
    "crates/core/src/model",
    "crates/core/src/units.rs",
    "crates/core/src/codec",
    "crates/core/src/json.rs",
    "crates/core/src/signature",
    "crates/core/src/template",
    "crates/delivery/src/window.rs",
    "crates/delivery/src/policy.rs",
    "crates/delivery/src/circuit.rs",
    "crates/delivery/src/matcher.rs",
    "crates/delivery/src/checkpoint.rs",
    "crates/delivery/src/order",
    "crates/delivery/src/batch.rs",
];

/// What pure files never name.
const IMPURE: &[&str] = &[
    "SystemTime",
    "Instant::now",
    "std::fs",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::thread",
    "std::process",
    "std::env",
    "tokio",
    "actix_rt",
    "actix_web::rt",
    "Clock",
    "SystemClock",
];

/// Words that never stand in the product, comments included.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "FIXME", "TODO", "XXX"];

/// What never stands in the code of the product: it hides which file names which.
const HIDING: &[&str] = &["extern crate", "#[path", "macro_use", "macro_export", "include!("];

/// Lines outside tests a file may have; above the soft limit it is only listed.
const LINES_MAX: usize = 400;
const LINES_SOFT: usize = 300;

/// Files that are longer, and how long they may be: each is to be split, none may be added.
const LONGER: &[(&str, usize)] = &[];

fn sample(path: &str, text: &str) -> File {
    File::new(path.to_owned(), format!("//! Sample.\n{text}"))
}

/// The arrows that lie in circles today, one a line: a new one fails, and one that is gone must be taken out.
const IN_CIRCLES: &str = include_str!("layers/in_circles.txt");

/// The files of every package by the name that code calls it.
fn packages() -> BTreeMap<String, Crate> {
    let mut packages: BTreeMap<String, Vec<File>> = BTreeMap::new();
    // The program of the root package names its library as any other program would.
    for file in rules::product().into_iter().filter(|file| file.path != "src/main.rs") {
        let Some((folder, _)) = file.place() else { continue };
        let package = folder.strip_prefix("crates/").map_or("hookcast".to_owned(), |name| format!("hookcast_{name}"));
        packages.entry(package).or_default().push(file);
    }
    let read = |files: Vec<File>| Crate::new(files.iter().filter_map(|file| Some((file.place()?.1, file.code()))));
    packages.into_iter().map(|(package, files)| (package, read(files))).collect()
}

/// Where the files of a package lie.
fn folder(package: &str) -> String {
    package.strip_prefix("hookcast_").map_or("src".to_owned(), |name| format!("crates/{name}/src"))
}

#[test]
fn layers_name_only_what_they_may() {
    let mut broken = table::judge_rows(table::LAYERS);
    broken.extend(table::judge_layers(&packages(), table::LAYERS));
    assert!(broken.is_empty(), "arrows that no row allows:\n{}", broken.join("\n"));
}

#[test]
fn no_arrow_closes_a_circle_that_is_not_listed() {
    let packages = packages();
    let crates = packages.iter().map(|(package, files)| (folder(package), files)).collect();
    let broken = judge_circles(&crates, &IN_CIRCLES.lines().collect::<Vec<_>>());
    assert!(broken.is_empty(), "circles and `in_circles.txt` do not agree:\n{}", broken.join("\n"));
}

#[test]
fn nothing_hides_who_names_whom() {
    let packages = packages();
    let hidden =
        packages.iter().flat_map(|(package, files)| files.hidden(&packages).into_iter().map(move |line| (package, line)));
    let broken: Vec<_> = hidden.map(|(package, line)| format!("{}/{line}", folder(package))).collect();
    assert!(broken.is_empty(), "names that cannot be followed:\n{}", broken.join("\n"));
}

#[test]
fn names_stay_where_they_belong() {
    let broken = judge_names(&rules::product(), RESERVED, PURE, IMPURE);
    assert!(broken.is_empty(), "names out of place:\n{}", broken.join("\n"));
}

#[test]
#[allow(clippy::print_stdout, reason = "the soft limit is only told")]
fn every_file_is_tidy() {
    let files = rules::product();
    for file in files.iter().filter(|file| file.lines() > LINES_SOFT) {
        println!("longer than {LINES_SOFT} lines: {} ({})", file.path, file.lines());
    }
    let mut broken = judge_files(&files, UNFINISHED, HIDING, LINES_MAX, LONGER);
    broken
        .extend(rules::files("tests/it").iter().filter(|file| !file.has_header()).map(|file| format!("{}: no `//!`", file.path)));
    assert!(broken.is_empty(), "not tidy:\n{}", broken.join("\n"));
}

#[test]
fn every_reserved_and_impure_name_is_seen() {
    for rule in RESERVED {
        let text = format!("fn f() {{ {}::x() }}", rule.segments);
        assert_eq!(judge_names(&[sample("crates/log/src/follow.rs", &text)], RESERVED, &[], &[]).len(), 1, "{}", rule.segments);
        for place in rule.only_in {
            let path =
                if std::path::Path::new(place).extension().is_some() { (*place).to_owned() } else { format!("{place}/x.rs") };
            assert!(judge_names(&[sample(&path, &text)], RESERVED, &[], &[]).is_empty(), "{} in {path}", rule.segments);
        }
    }
    for name in IMPURE {
        let text = format!("use a::{{b, {name}}};");
        assert_eq!(judge_names(&[sample("crates/delivery/src/window.rs", &text)], &[], PURE, IMPURE).len(), 1, "{name}");
        assert!(
            judge_names(&[sample("crates/delivery/src/lane.rs", &text)], &[], PURE, IMPURE).is_empty(),
            "{name} where it may stand"
        );
    }
    assert_eq!(
        judge_names(&[sample("crates/core/src/codec/x.rs", "fn f() { clock.now(); }")], &[], PURE, IMPURE).len(),
        1,
        "a clock read"
    );
}

#[test]
fn every_untidiness_is_seen() {
    let judge =
        |path: &str, text: &str| judge_files(&[File::new(path.to_owned(), text.to_owned())], UNFINISHED, HIDING, 10, &[]).len();
    assert_eq!(judge("a.rs", "//! Fine.\nfn a() { b.unwrap_or(1) }\n"), 0);
    assert_eq!(judge("a.rs", "// no header\n"), 1);
    assert_eq!(judge("a/mod.rs", "//! Old style.\n"), 1);
    assert_eq!(judge("a.rs", "//! A.\nfn a() { b.unwrap() }\n"), 1);
    assert_eq!(judge("a.rs", "//! A.\nfn a() { b\n  .unwrap() }\n"), 1);
    assert_eq!(judge("a.rs", "//! A.\nfn a() { Result::unwrap(b) }\n"), 1);
    assert_eq!(judge("a.rs", "//! A.\n#[cfg(test)]\nmod tests { fn a() { b.unwrap() } }\n"), 0);
    assert_eq!(judge("a/tests.rs", "//! A.\nfn a() { b.unwrap() }\n"), 0);
    assert_eq!(judge("a.rs", &format!("//! A.\n{}", "// a\n".repeat(10))), 1);
    for word in UNFINISHED {
        assert_eq!(judge("a.rs", &format!("//! A.\n// {word}\n")), 1, "{word}");
    }
    for word in HIDING {
        assert_eq!(judge("a.rs", &format!("//! A.\n// {word}\n{word}\n")), 1, "{word}");
    }
    let long = File::new("a.rs".to_owned(), format!("//! A.\n{}", "// a\n".repeat(10)));
    let judge_longer = |longer: &[(&'static str, usize)]| judge_files(std::slice::from_ref(&long), &[], &[], 10, longer).len();
    assert_eq!(judge_longer(&[("a.rs", 11)]), 0, "as long as it may be");
    assert_eq!(judge_longer(&[("a.rs", 10)]), 1, "longer than it may be");
    assert_eq!(judge_longer(&[("a.rs", 11), ("b.rs", 20)]), 1, "an exception nobody needs");
}
