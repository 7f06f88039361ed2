//! Who may name whom, layer by layer. A layer is a module of `core` or `log`, another crate, or a module of the program.
//!
//! Whole crates stand in the manifests, too, and the compiler holds those; it cannot hold which modules of a crate another one
//! names, nor which modules of one crate name each other. What a layer passes on (`pub use`), it answers for. The root of a crate that
//! is cut into layers is none itself: it passes on what lies below it, and names nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::folder;
use super::names::{Crate, Module};
use super::paths::Path;

/// One layer, and those that it may name.
pub(super) struct Layer {
    name: &'static str,
    may_name: &'static [&'static str],
}

const fn layer(name: &'static str, may_name: &'static [&'static str]) -> Layer {
    Layer { name, may_name }
}

/// Everything that stands above, for those who put a relay together.
const ALL: &[&str] = &["*"];

/// From the bottom up: a row names only what stands above it, so the whole has no circle.
pub(super) const LAYERS: &[Layer] = &[
    layer("core::clock", &[]),
    layer("core::units", &[]),
    layer("core::panics", &[]),
    layer("core::model", &["core::clock", "core::units"]),
    layer("core::codec", &["core::clock", "core::model"]),
    layer("core::filter", &["core::clock", "core::model", "core::panics"]),
    layer("core::json", &["core::model"]),
    layer("core::signature", &["core::clock", "core::model"]),
    layer("core::template", &["core::model", "core::panics"]),
    layer("supervise::deadline", &[]),
    layer("supervise::readiness", &[]),
    layer("net", &["core::clock", "supervise::deadline"]),
    layer("supervise", &["core::panics", "supervise::readiness"]),
    layer("log::seal", &[]),
    layer("log::storage", &["core::clock", "core::model", "supervise", "supervise::readiness", "log::seal"]),
    layer("log::tail", &["core::model"]),
    layer("log::follow", &["core::clock", "core::model", "log::storage", "log::tail"]),
    layer("log::retention", &["core::clock", "core::model", "log::storage", "log::tail"]),
    layer("log::ingest", &["core::clock", "core::model", "supervise", "log::storage", "log::tail"]),
    layer("registry", &["core::clock", "core::model", "core::filter", "core::template", "net", "supervise", "log::storage"]),
    layer("source", &["core::clock", "core::model", "core::codec", "core::signature", "net", "supervise", "supervise::deadline"]),
    layer(
        "delivery",
        &[
            "core::clock",
            "core::model",
            "core::codec",
            "core::filter",
            "core::signature",
            "core::template",
            "net",
            "supervise",
            "supervise::deadline",
            "log::storage",
            "log::follow",
            "log::retention",
            "registry",
        ],
    ),
    layer("streams", &["core::clock", "core::units", "core::model", "core::codec", "core::filter", "supervise", "log::follow"]),
    layer(
        "websub",
        &[
            "core::clock",
            "core::model",
            "net",
            "supervise",
            "supervise::deadline",
            "log::storage",
            "log::follow",
            "registry",
            "delivery",
        ],
    ),
    layer(
        "http",
        &[
            "core::clock",
            "core::units",
            "core::model",
            "core::codec",
            "core::filter",
            "core::json",
            "supervise",
            "supervise::deadline",
            "supervise::readiness",
            "log::storage",
            "log::follow",
            "log::ingest",
            "registry",
            "source",
            "delivery",
            "streams",
            "websub",
        ],
    ),
    layer("bench", &["core::clock", "core::model", "core::filter", "supervise::readiness", "log::storage", "log::ingest"]),
    layer("config", &["core::units", "core::model", "net", "log::seal", "log::storage", "registry", "delivery"]),
    layer("telemetry", &[]),
    layer("app", ALL),
    layer(
        "cli",
        &[
            "core::clock",
            "core::units",
            "core::model",
            "core::codec",
            "core::signature",
            "net",
            "supervise",
            "supervise::readiness",
            "log::storage",
            "http",
            "config",
            "telemetry",
            "app",
        ],
    ),
    layer("program", ALL),
];

/// The layer of what lies `below` the root of `package`; none for the root itself where the package is cut into modules.
fn layer_of(package: &str, below: &[String]) -> Option<String> {
    let first = below.first().map(String::as_str);
    match (package.strip_prefix("hookcast_"), first) {
        (None, first) => first.map(str::to_owned),
        (Some(short @ ("core" | "log")), first) => first.map(|module| format!("{short}::{module}")),
        (Some(short @ "supervise"), Some(module @ ("deadline" | "readiness"))) => Some(format!("{short}::{module}")),
        (Some(short), _) => Some(short.to_owned()),
    }
}

fn may_name(layers: &[Layer], at: usize, other: &str) -> bool {
    let row = &layers[at];
    row.may_name.contains(&other) || (row.may_name == ALL && layers[..at].iter().any(|above| above.name == other))
}

/// Whether a file passes on (`pub use`) something of its own crate by this path.
fn passes_on(files: &Crate, file: &Module, path: &Path) -> bool {
    let is_public = path.import.as_ref().is_some_and(|import| import.is_public && import.is_outermost);
    is_public && files.spell(file, path).iter().all(|name| name[0] == "crate")
}

/// Every name of another layer outside tests, held against the rows; and the rows against the layers there are.
pub(super) fn judge_layers(packages: &BTreeMap<String, Crate>, layers: &[Layer]) -> Vec<String> {
    let (mut broken, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (package, files) in packages {
        for (module, source) in files.files() {
            let file = format!("{}/{}", folder(package), source.path);
            let Some(own) = layer_of(package, module) else {
                let others = source.names.iter().filter(|path| !passes_on(files, module, path));
                broken.extend(others.map(|path| {
                    let written = path.segments.join("::");
                    format!("{file}:{}: a root only passes on what lies below it ({written})", path.line)
                }));
                continue;
            };
            let Some(at) = layers.iter().position(|row| row.name == own) else {
                broken.insert(format!("{file}: `{own}` has no row"));
                continue;
            };
            seen.insert(own.clone());
            for path in &source.names {
                let named = files.meanings(module, path).into_iter().filter_map(|name| {
                    let package = if name[0] == "crate" { package } else { packages.get_key_value(&name[0])?.0 };
                    layer_of(package, &name[1..])
                });
                for other in named.filter(|other| *other != own && !may_name(layers, at, other)) {
                    let written = path.segments.join("::");
                    broken.insert(format!("{file}:{}: {own} -> {other} ({written})", path.line));
                }
            }
        }
    }
    broken.extend(layers.iter().filter(|row| !seen.contains(row.name)).map(|row| format!("`{}` is no layer", row.name)));
    broken.into_iter().collect()
}

/// The rows themselves: each layer once, and below all that it may name.
pub(super) fn judge_rows(layers: &[Layer]) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, row) in layers.iter().enumerate() {
        let is_above = |name: &str| layers[..at].iter().any(|above| above.name == name);
        if is_above(row.name) {
            broken.push(format!("{} stands there twice", row.name));
        }
        let up = row.may_name.iter().filter(|name| **name != "*" && !is_above(name));
        broken.extend(up.map(|name| format!("{} -> {name} does not go down", row.name)));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::code;
    use super::*;

    const SAMPLE: &[Layer] = &[
        layer("core::clock", &[]),
        layer("log::tail", &["core::clock"]),
        layer("log::ingest", &["log::tail"]),
        layer("streams", &[]),
    ];

    fn judge(layers: &[Layer], package: &str, path: &str, text: &str) -> Vec<String> {
        let mut files = BTreeMap::from([
            (("hookcast_core", "clock.rs"), "struct Time;"),
            (("hookcast_log", "lib.rs"), "mod ingest; mod tail; pub use ingest::Ingest;"),
            (("hookcast_log", "ingest.rs"), "use crate::tail::Tail;"),
            (("hookcast_log", "tail.rs"), "use hookcast_core::clock::Time;"),
            (("hookcast_streams", "lib.rs"), "mod ring;"),
            (("hookcast_streams", "ring.rs"), ""),
        ]);
        files.insert((package, path), text);
        let mut packages: BTreeMap<String, Vec<(&str, String)>> = BTreeMap::new();
        for ((package, path), text) in files {
            packages.entry(package.to_owned()).or_default().push((path, code::without_tests(&code::clean(text))));
        }
        let read = |files: Vec<(&str, String)>| Crate::new(files.iter().map(|(path, code)| (*path, code.as_str())));
        judge_layers(&packages.into_iter().map(|(package, files)| (package, read(files))).collect(), layers)
    }

    #[test]
    fn every_way_to_name_a_layer_is_seen() {
        for text in [
            "use hookcast_log::ingest::Ingest;",
            "use hookcast_log::{ingest::Ingest};",
            "use hookcast_log::ingest;",
            "use hookcast_log::ingest as i;",
            "use ::hookcast_log::ingest;",
            "use hookcast_log as log; fn f() { log::ingest::start() }",
            "use hookcast_log::{self as log}; fn f() { log::ingest::start() }",
            "use hookcast_log as log; use log as l; use self::l::ingest;",
            "use hookcast_log as l; mod inner { fn f() { super::l::ingest() } }",
            "use hookcast_log::Ingest;",
            "use hookcast_log::*;",
            "fn f(start: hookcast_log::ingest::Start) {}",
            "macro_rules! m { () => { hookcast_log::ingest::start() } }",
            "mod inner { pub use hookcast_log::ingest::Ingest; }",
        ] {
            let broken = judge(SAMPLE, "hookcast_streams", "ring.rs", text);
            assert_eq!(broken.len(), 1, "{text}: {broken:?}");
            let broken = judge(SAMPLE, "hookcast_log", "tail/deep.rs", text);
            assert_eq!(broken.len(), 1, "{text} in a file below its layer: {broken:?}");
        }
        for text in [
            "use crate::ingest::Ingest;",
            "use super::ingest::Ingest;",
            "use crate::{ingest as i};",
            "use crate as log; fn f() { log::ingest::start() }",
            "use crate::Ingest;",
            "mod inner { use super::super::ingest; }",
        ] {
            let broken = judge(SAMPLE, "hookcast_log", "tail.rs", text);
            assert_eq!(broken.len(), 1, "{text}: {broken:?}");
        }
        for text in ["use super::Worker;", "// hookcast_log::ingest", "#[cfg(test)] mod tests { use hookcast_log::ingest; }"] {
            let broken = judge(SAMPLE, "hookcast_streams", "ring.rs", text);
            assert!(broken.is_empty(), "{text}: {broken:?}");
        }
    }

    #[test]
    fn a_root_without_a_row_names_nothing_but_what_it_passes_on() {
        for text in [
            "use hookcast_streams::ring::Ring;",
            "pub use hookcast_streams::ring::Ring;",
            "pub use hookcast_streams;",
            "pub use std::fmt::Debug;",
            "mod tail; fn f() { hookcast_streams::ring::start() }",
            "mod tail; fn f() { tail::start() }",
            "mod tail; use tail::Tail;",
            "mod inner { pub use crate::tail::Tail; }",
        ] {
            for package in ["hookcast_log", "hookcast"] {
                let broken = judge(SAMPLE, package, "lib.rs", text);
                assert_eq!(broken.len(), 1, "{text}: {broken:?}");
            }
        }
        let open = "mod ingest; pub mod tail; pub use ingest::Ingest; pub use crate::tail::{self as t, Tail}; pub use self::tail::Place;\n\
                    #[cfg(test)] mod tests { use hookcast_streams::ring; }";
        let broken = judge(SAMPLE, "hookcast_log", "lib.rs", open);
        assert!(broken.is_empty(), "{broken:?}");
    }

    #[test]
    fn rows_and_layers_must_agree() {
        assert_eq!(judge(SAMPLE, "hookcast_log", "new/part.rs", ""), ["crates/log/src/new/part.rs: `log::new` has no row"]);
        let gone = [SAMPLE[0].name, "log::tail", "log::ingest", "streams", "gone"].map(|name| layer(name, ALL));
        assert_eq!(judge(&gone, "hookcast_streams", "ring.rs", ""), ["`gone` is no layer"]);
        assert_eq!(judge(&gone, "hookcast_log", "tail.rs", "use crate::ingest;").len(), 2, "everything is what stands above");
    }

    #[test]
    fn a_row_names_only_what_stands_above() {
        assert!(judge_rows(SAMPLE).is_empty());
        assert_eq!(judge_rows(&[layer("a", &["b"]), layer("b", &[])]).len(), 1, "an arrow that goes up");
        assert_eq!(judge_rows(&[layer("a", &["b"]), layer("b", &["a"])]).len(), 1, "a circle");
        assert_eq!(judge_rows(&[layer("a", &["gone"])]).len(), 1, "a name that is no layer");
        assert_eq!(judge_rows(&[layer("a", &[]), layer("a", &[])]).len(), 1, "a layer twice");
    }
}
