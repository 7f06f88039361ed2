//! What it takes and what it says about that.

use crate::bench;

/// Whether it ended well, and what it said on both its outputs. Where it could not do what it was told, it ends with 2.
fn says(arguments: &[&str]) -> (bool, String) {
    let output = bench().args(arguments).output().expect("it starts");
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code();
    assert!([Some(0), Some(2)].contains(&code), "{code:?} is for rows");
    (code == Some(0), String::from_utf8(text).expect("it prints UTF-8"))
}

#[test]
fn the_help_names_what_people_run_and_not_the_roles() {
    let (is_well, text) = says(&["--help"]);
    assert!(is_well);
    for name in [
        "deliver",
        "latency",
        "publish",
        "stream",
        "backlog",
        "subscriptions",
        "all",
        "guard",
        "compare",
        "scaling",
        "--relay",
        "--strict",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    for role in ["receiver", "bare-handler", "bare-storage", "bare-log", "readers", "held"] {
        assert!(!text.contains(role), "{role} in {text}");
    }
}

#[test]
fn an_experiment_that_is_not_there_is_told_with_those_that_are() {
    let (is_well, text) = says(&["all", "--only", "no-such", "--relay", "/bin/true"]);
    assert!(!is_well && text.contains("deliver-10") && text.contains("catch-up"), "{text}");
}

#[test]
fn a_relay_that_is_not_there_is_told() {
    let (is_well, text) = says(&["deliver", "--relay", "/no/such/relay"]);
    assert!(!is_well && text.contains("/no/such/relay"), "{text}");
}

#[test]
fn a_comparison_says_what_it_cannot_compare() {
    let (is_well, text) = says(&["compare", "/bin/true", "--rows", "guard,no-such"]);
    assert!(!is_well && text.contains("no such experiment"), "{text}");
    let (is_well, text) = says(&["compare", "/no/such/relay", "--rows", "deliver-1"]);
    assert!(!is_well && text.contains("/no/such/relay"), "{text}");
    assert!(!says(&["compare"]).0, "an old build is needed");
    assert!(!says(&["compare", "/bin/true", "--new", "/bin/true", "--relay", "/bin/true"]).0, "one new build is enough");
}

#[test]
fn a_build_that_breaks_is_named() {
    let relay = crate::relay();
    let relay = relay.to_str().expect("a path that is text");
    let (is_well, text) = says(&["compare", "/bin/true", "--new", relay, "--rows", "deliver-1"]);
    assert!(!is_well && text.contains("the old build (/bin/true)"), "{text}");
    let (is_well, text) =
        says(&["compare", relay, "--new", "/bin/true", "--rows", "deliver-1", "--seconds", "1", "--pairs", "1"]);
    assert!(!is_well && text.contains("the new build (/bin/true)"), "{text}");
}

#[test]
fn a_held_program_does_not_start_when_its_parent_is_gone() {
    // Somebody else's parent, and so not the one that started it.
    let (is_well, text) = says(&["held", "--parent", "1", "--", "/bin/echo", "started"]);
    assert!(!is_well && text.contains("gone already") && !text.contains("started\n"), "{text}");
}
