//! The layers of the source tree and the rules of tidiness, as tables, held against every file of `src/`.
//!
//! `ARCHITECTURE.md` tells the reasons. Tests inside `src/` may use any module; everything else keeps to the tables.

mod code;
mod rules;

use rules::{File, judge_edges, judge_files, judge_names, judge_table};

/// One module of the crate root: what it is called, its level, and the modules it may name.
pub(crate) struct Layer {
    name: &'static str,
    level: u8,
    may_use: &'static [&'static str],
}

const fn layer(level: u8, name: &'static str, may_use: &'static [&'static str]) -> Layer {
    Layer { name, level, may_use }
}

/// Everything, for the modules that join the rest.
const ALL: &[&str] = &["*"];

/// Who may name whom. A module may name lower levels and, where listed, its own level; the whole has no circle.
const LAYERS: &[Layer] = &[
    layer(0, "clock", &[]),
    layer(0, "units", &[]),
    layer(0, "model", &["clock", "units"]),
    layer(1, "codec", &["clock", "model"]),
    layer(1, "filter", &["clock", "model", "supervise"]),
    layer(1, "json", &["model"]),
    layer(1, "net", &["clock", "units"]),
    layer(1, "readiness", &[]),
    layer(1, "seal", &[]),
    layer(1, "signature", &["clock", "model"]),
    layer(1, "supervise", &["readiness"]),
    layer(1, "template", &["clock", "model", "supervise"]),
    layer(2, "storage", &["clock", "model", "readiness", "seal", "supervise"]),
    layer(2, "tail", &["clock", "model"]),
    layer(3, "follow", &["clock", "model", "storage", "tail"]),
    layer(3, "registry", &["clock", "model", "filter", "net", "template", "storage", "supervise"]),
    layer(3, "retention", &["clock", "model", "storage", "tail"]),
    layer(3, "source", &["clock", "units", "model", "codec", "json", "net", "signature", "supervise"]),
    layer(3, "ingest", &["clock", "units", "model", "codec", "json", "storage", "tail", "source", "registry", "supervise"]),
    layer(
        3,
        "delivery",
        &[
            "clock",
            "units",
            "model",
            "codec",
            "json",
            "net",
            "readiness",
            "signature",
            "supervise",
            "filter",
            "template",
            "storage",
            "follow",
            "registry",
        ],
    ),
    layer(3, "egress", &["clock", "units", "model", "codec", "json", "filter", "follow", "supervise"]),
    layer(3, "websub", &["clock", "model", "net", "storage", "follow", "registry", "delivery", "supervise"]),
    layer(
        4,
        "http",
        &[
            "clock",
            "units",
            "model",
            "codec",
            "json",
            "filter",
            "readiness",
            "storage",
            "supervise",
            "follow",
            "registry",
            "source",
            "ingest",
            "delivery",
            "egress",
            "websub",
        ],
    ),
    layer(5, "config", &["clock", "units", "model", "json", "net", "seal", "storage", "registry", "ingest", "delivery", "http"]),
    layer(5, "telemetry", &[]),
    layer(5, "app", ALL),
    layer(5, "cli", ALL),
    layer(5, "main", ALL),
];

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
    "supervise.rs",
    "supervise",
    "cli",
    "source/supervisor.rs",
    "storage/sqlite/wal.rs",
    "registry/shelf.rs",
    "http/tokens.rs",
    "http/subscriptions",
];

const RESERVED: &[Reserved] = &[
    reserved("sqlx", &["storage/sqlite"], "SQL stays in one backend"),
    reserved("libsqlite3_sys", &["storage/sqlite"], "SQL stays in one backend"),
    reserved(
        "std::env",
        &["main.rs", "config", "cli", "app", "telemetry"],
        "only the outermost modules read arguments and the environment",
    ),
    reserved("clap", &["main.rs", "cli", "telemetry"], "only the outermost modules read arguments and the environment"),
    reserved("awc", &["net"], "one gate leads out"),
    reserved("TcpStream::connect", &["net", "cli"], "one gate leads out"),
    reserved("tokio::spawn", SPAWNING, "every task is watched"),
    reserved("rt::spawn", SPAWNING, "every task is watched"),
    reserved("actix_rt::spawn", SPAWNING, "every task is watched"),
    reserved("task::spawn", SPAWNING, "every task is watched"),
    reserved("spawn_local", SPAWNING, "every task is watched"),
    reserved("spawn_blocking", SPAWNING, "every task is watched"),
    reserved("thread::spawn", SPAWNING, "every task is watched"),
    reserved("SystemTime::now", &["clock.rs", "cli"], "the wall clock comes from a Clock"),
    reserved("Utc::now", &[], "the wall clock comes from a Clock"),
    reserved("Zoned::now", &[], "the wall clock comes from a Clock"),
    reserved("Timestamp::now", &[], "the wall clock comes from a Clock"),
];

/// Files and folders that do no I/O, start nothing and read no clock.
const PURE: &[&str] = &[
    "model",
    "units.rs",
    "codec",
    "json.rs",
    "signature",
    "template.rs",
    "template",
    "delivery/window.rs",
    "delivery/policy.rs",
    "delivery/circuit.rs",
    "delivery/matcher.rs",
    "delivery/checkpoint.rs",
    "delivery/order.rs",
    "delivery/order",
    "delivery/batch.rs",
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

/// Words that never stand in `src/`, comments included.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "FIXME", "TODO", "XXX"];

/// Lines outside tests a file may have; above the soft limit it is only listed.
const LINES_MAX: usize = 400;
const LINES_SOFT: usize = 300;

/// Files that are longer, and how long they may be: each is to be split, none may be added.
const LONGER: &[(&str, usize)] = &[];

fn sample(path: &str, text: &str) -> File {
    File::new(path.to_owned(), format!("//! Sample.\n{text}"))
}

#[test]
fn modules_name_only_what_lies_below() {
    let mut broken = judge_table(LAYERS);
    broken.extend(judge_edges(&rules::files("src"), LAYERS));
    assert!(broken.is_empty(), "the layer table is broken:\n{}", broken.join("\n"));
}

#[test]
fn names_stay_where_they_belong() {
    let broken = judge_names(&rules::files("src"), RESERVED, PURE, IMPURE);
    assert!(broken.is_empty(), "names out of place:\n{}", broken.join("\n"));
}

#[test]
#[allow(clippy::print_stdout, reason = "the soft limit is only told")]
fn every_file_is_tidy() {
    let files = rules::files("src");
    for file in files.iter().filter(|file| file.lines() > LINES_SOFT) {
        println!("longer than {LINES_SOFT} lines: src/{} ({})", file.path, file.lines());
    }
    let mut broken = judge_files(&files, UNFINISHED, LINES_MAX, LONGER);
    broken.extend(
        rules::files("tests/it").iter().filter(|file| !file.has_header()).map(|file| format!("tests/it/{}: no `//!`", file.path)),
    );
    assert!(broken.is_empty(), "not tidy:\n{}", broken.join("\n"));
}

#[test]
fn the_table_must_be_sound() {
    let circle = [layer(1, "a", &["b"]), layer(1, "b", &["a"])];
    assert_eq!(judge_table(&circle).len(), 1, "a circle");
    assert_eq!(judge_table(&[layer(0, "a", &["b"]), layer(1, "b", &[])]).len(), 1, "an arrow that goes up");
    assert_eq!(judge_table(&[layer(0, "a", &["gone"])]).len(), 1, "a name that is no module");
    assert_eq!(judge_table(&[layer(0, "a", &[]), layer(0, "a", &[])]).len(), 1, "a module twice");
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    let table = [layer(2, "storage", &[]), layer(3, "source", &[])];
    for text in [
        "use crate::storage::EventLog;",
        "use crate::{storage::EventLog};",
        "use crate::{\n    storage as s,\n};",
        "use crate::storage;",
        "fn f() { crate::storage::open() }",
        "use super::super::storage::EventLog;",
        "mod inner { use super::super::super::storage::EventLog; }",
        "use hookcast::storage::EventLog;",
        "macro_rules! m { () => { $crate::storage::open() } }",
        "use crate::*;",
    ] {
        let broken = judge_edges(&[sample("source/sse.rs", text), sample("storage.rs", "")], &table);
        assert_eq!(broken.len(), 1, "{text}: {broken:?}");
    }
    for text in
        ["use super::emitter;", "// crate::storage", "#[cfg(test)]\nmod tests { use crate::storage; }", "use crate::source::x;"]
    {
        let broken = judge_edges(&[sample("source/sse.rs", text), sample("storage.rs", "")], &table);
        assert!(broken.is_empty(), "{text}: {broken:?}");
    }
}

#[test]
fn modules_and_table_must_agree() {
    let table = [layer(0, "model", &[]), layer(3, "gone", &[])];
    let broken = judge_edges(&[sample("model.rs", ""), sample("new/part.rs", "")], &table);
    assert_eq!(broken.len(), 2, "one module without a row, one row without a module: {broken:?}");
}

#[test]
fn every_reserved_and_impure_name_is_seen() {
    for rule in RESERVED {
        let text = format!("fn f() {{ {}::x() }}", rule.segments);
        assert_eq!(judge_names(&[sample("follow.rs", &text)], RESERVED, &[], &[]).len(), 1, "{}", rule.segments);
        for place in rule.only_in {
            let path = if place.contains(".rs") { (*place).to_owned() } else { format!("{place}/x.rs") };
            assert!(judge_names(&[sample(&path, &text)], RESERVED, &[], &[]).is_empty(), "{} in {path}", rule.segments);
        }
    }
    for name in IMPURE {
        let text = format!("use a::{{b, {name}}};");
        assert_eq!(judge_names(&[sample("delivery/window.rs", &text)], &[], PURE, IMPURE).len(), 1, "{name}");
        assert!(judge_names(&[sample("delivery/lane.rs", &text)], &[], PURE, IMPURE).is_empty(), "{name} where it may stand");
    }
    assert_eq!(judge_names(&[sample("codec/x.rs", "fn f() { clock.now(); }")], &[], PURE, IMPURE).len(), 1, "a clock read");
}

#[test]
fn every_untidiness_is_seen() {
    let judge = |path: &str, text: &str| judge_files(&[File::new(path.to_owned(), text.to_owned())], UNFINISHED, 10, &[]).len();
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
    let long = File::new("a.rs".to_owned(), format!("//! A.\n{}", "// a\n".repeat(10)));
    let judge_longer = |longer: &[(&'static str, usize)]| judge_files(std::slice::from_ref(&long), &[], 10, longer).len();
    assert_eq!(judge_longer(&[("a.rs", 11)]), 0, "as long as it may be");
    assert_eq!(judge_longer(&[("a.rs", 10)]), 1, "longer than it may be");
    assert_eq!(judge_longer(&[("a.rs", 11), ("b.rs", 20)]), 1, "an exception nobody needs");
}
