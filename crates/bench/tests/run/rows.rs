//! One short run of a row, and what it prints: its structure, never its figures.

use std::process::Output;

use serde_json::Value;

use crate::{bench, relay};

fn run(arguments: &[&str]) -> (Output, Value) {
    let output = bench().args(arguments).arg("--relay").arg(relay()).output().expect("it starts");
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output, report)
}

#[test]
fn a_row_tells_figure_limit_spread_and_verdict() {
    let (output, report) = run(&["deliver", "--only", "deliver-1", "--pairs", "1", "--seconds", "1", "--json"]);
    let [row] = report["rows"].as_array().expect("there are rows").as_slice() else { panic!("one row: {report}") };
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("a number: {row}"));
    assert_eq!(row["experiment"], "deliver-1");
    assert!(number(&row["median"]["measured"]) > 0.0 && number(&row["median"]["limit"]) > 0.0, "{row}");
    let (cost, limit) = (number(&row["median"]["cost"]["cpu_us"]), number(&row["median"]["limit_cpu_us"]));
    let value = number(&row["spread"]["median"]);
    assert!(cost > 0.0 && (value - limit / cost).abs() < 1e-9, "the verdict is by processor time: {row}");
    assert_eq!((number(&row["spread"]["min"]), number(&row["spread"]["max"])), (value, value), "one pair does not spread");
    let verdict = row["verdict"].as_str().expect("there is a verdict");
    assert!(["held", "missed"].contains(&verdict), "a limit that was measured once did not move: {row}");
    assert_eq!(output.status.code(), Some(i32::from(verdict == "missed")));
    let beside = String::from_utf8(output.stderr).expect("it prints UTF-8");
    assert!(beside.contains("1 row: ") && beside.contains(&format!("1 {verdict}")), "the last line counts: {beside}");
}

#[test]
fn rows_are_printed_although_a_later_one_breaks() {
    let relay = relay();
    let old = relay.to_str().expect("a path that is text");
    // The second is not about processor time, so that nothing can be compared.
    let (output, report) = run(&["compare", old, "--rows", "deliver-1,filter", "--pairs", "1", "--seconds", "1", "--json"]);
    assert_eq!((&report["rows"][0]["experiment"], output.status.code()), (&Value::from("deliver-1"), Some(2)), "{report}");
    let (broke, beside) = (report["broke"].as_str().expect("it broke"), String::from_utf8_lossy(&output.stderr));
    assert!(broke.starts_with("filter: the old build") && beside.trim_end().ends_with(broke), "{broke}: {beside}");
}

#[test]
fn a_comparison_tells_both_builds_their_ratio_and_the_change() {
    let relay = relay();
    let old = relay.to_str().expect("a path that is text");
    let (output, report) = run(&["compare", old, "--rows", "deliver-1", "--pairs", "1", "--seconds", "1", "--json"]);
    let [row] = report["rows"].as_array().expect("there are rows").as_slice() else { panic!("one row: {report}") };
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("a number: {row}"));
    let (old_us, new_us, ratio) = (number(&row["old_cpu_us"]), number(&row["new_cpu_us"]), number(&row["spread"]["median"]));
    assert!(old_us > 0.0 && new_us > 0.0 && (ratio - new_us / old_us).abs() < 1e-9, "{row}");
    assert_eq!((&row["change"], output.status.code()), (&Value::from("undecided"), Some(0)), "one pair decides nothing: {row}");
    let beside = String::from_utf8(output.stderr).expect("it prints UTF-8");
    assert!(beside.trim_end().ends_with("same") && beside.contains("1 undecided"), "the last line counts: {beside}");
}
