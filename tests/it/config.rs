//! `hookcast check` as an operator sees it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::process::{Command, Output};

fn check(directory: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookcast"));
    command.arg("check").args(arguments).current_dir(directory).env_clear().envs(env.iter().copied());
    command.output().unwrap()
}

fn refused(output: &Output) -> String {
    let shown = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{shown}");
    assert!(output.stdout.is_empty());
    shown
}

#[test]
fn the_shipped_file_is_good_and_so_is_none() {
    let empty = tempfile::tempdir().unwrap();
    let shipped = check(Path::new(env!("CARGO_MANIFEST_DIR")), &[], &[]);
    let named = check(empty.path(), &["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")], &[]);
    for output in [shipped, named, check(empty.path(), &[], &[])] {
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"ok\n"[..]));
    }
}

#[test]
fn every_mistake_is_one_line_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[server]\nlisten = \"0.0.0.0:1\"\nhots = []\n\n[delivery]\ntimeout = 10\n";
    std::fs::write(directory.path().join("config.toml"), text).unwrap();
    let shown = refused(&check(directory.path(), &[], &[("HOOKCAST__STORAGE__URL", "sqlite://x.db?mode=memory")]));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert_eq!(lines[0], "config.toml:3: server.hots: \"hots\" is not a known key; did you mean `hosts`? [unknown_key]");
    assert!(lines[1].starts_with("HOOKCAST__STORAGE__URL: storage.url: ") && lines[1].ends_with(" [durability]"), "{shown}");
    assert!(lines[2].starts_with("config.toml:6: delivery.timeout: 10 needs a unit; allowed: "), "{shown}");
    assert!(lines[3].starts_with("config.toml:2: server.listen: ") && lines[3].ends_with(" [tokens_required]"), "{shown}");
}

#[test]
fn what_is_no_configuration_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("large.toml"), "# ".to_owned() + &"x".repeat(2 << 20)).unwrap();
    std::fs::write(at("latin1.toml"), b"# \xe9\n").unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe.toml")).status().unwrap().success());
    for (path, slug) in [
        (at("large.toml"), "config_too_large"),
        (at("pipe.toml"), "config_too_large"),
        ("/dev/zero".to_owned(), "config_too_large"),
        (directory.path().display().to_string(), "config_too_large"),
        (at("latin1.toml"), "invalid_utf8"),
        (at("missing.toml"), "config_unreadable"),
    ] {
        let shown = refused(&check(directory.path(), &["--config", &path], &[]));
        assert!(shown.starts_with(&format!("{path}: ")) && shown.contains(slug), "{shown}");
    }
}

#[test]
fn a_weak_admin_token_is_refused_and_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let shown = refused(&check(directory.path(), &[], &[("HOOKCAST_ADMIN_TOKEN", "hunter2")]));
    assert!(shown.contains("[weak_token]") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_weakened_promise_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let output = check(directory.path(), &[], &[("HOOKCAST__STORAGE__DURABILITY", "normal")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("power failure"));
}
