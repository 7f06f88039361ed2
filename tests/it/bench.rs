//! `hookcast bench` is another program: it is found and started with everything that was said, or one is told how to get it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// A script that says its name and arguments.
fn put_program(folder: &Path) {
    let program = folder.join("hookcast-bench");
    std::fs::write(&program, "#!/bin/sh\necho \"measured by $0\"\nfor word in \"$@\"; do echo \"[$word]\"; done\n").unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The relay in this folder, called with `bench` and these arguments.
fn bench(folder: &Path, path: &Path, arguments: &[&str]) -> Output {
    let relay = folder.join("hookcast");
    if !relay.exists() && std::fs::hard_link(env!("CARGO_BIN_EXE_hookcast"), &relay).is_err() {
        std::fs::copy(env!("CARGO_BIN_EXE_hookcast"), &relay).unwrap();
    }
    Command::new(relay).arg("bench").args(arguments).env("PATH", path).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn bench_starts_the_program_beside_it_with_every_argument() {
    let folder = tempfile::tempdir().unwrap();
    put_program(folder.path());
    let done = bench(folder.path(), Path::new("/usr/bin:/bin"), &["compare", "old build", "--pairs", "7", "--help"]);
    let beside = folder.path().join("hookcast-bench");
    let wanted = format!("measured by {}\n[compare]\n[old build]\n[--pairs]\n[7]\n[--help]\n", beside.display());
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(0), wanted), "{}", text(&done.stderr));
}

#[test]
fn a_program_on_the_path_is_told_which_relay_to_measure() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put_program(elsewhere.path());
    let path = format!("{}:/usr/bin:/bin", elsewhere.path().display());
    let said = text(&bench(folder.path(), Path::new(&path), &["all"]).stdout);
    assert!(said.ends_with(&format!("[--relay]\n[{}]\n[all]\n", folder.path().join("hookcast").display())), "{said}");
    let said = text(&bench(folder.path(), Path::new(&path), &["all", "--relay", "other"]).stdout);
    assert!(said.ends_with("hookcast-bench\n[all]\n[--relay]\n[other]\n"), "{said}");
}

#[test]
fn without_the_program_one_is_told_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let done = bench(folder.path(), Path::new("/no/such/folder"), &["all"]);
    let said = text(&done.stderr);
    assert_eq!((done.status.code(), said.lines().count()), (Some(2), 1), "1 is for rows that miss: {said}");
    assert!(said.contains("cargo build --release -p hookcast-bench"), "{said}");
}
