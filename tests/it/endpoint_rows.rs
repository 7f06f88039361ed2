//! Rows of what endpoints do and of how signatures are judged, each against a running relay and a server that does just that.
//!
//! Every row of `tests/data/endpoints/bad-inputs.csv` is looked up by its text in one of the tables here: a row without a case
//! fails. Rows about definitions (`headers`, weak secrets) are in `bad_inputs.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod signed;
mod status;
mod tls;
mod wire;

use std::any::Any;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Relay, eventually};

/// Rows that cannot be brought about here, and why.
const NOT_HERE: &[(&str, &str)] = &[
    (
        "ICMP unreachable / prohibit",
        "a process cannot make the loopback interface send such messages; the kernel's word for them, \
        a refusal to connect, is the row `connection refused`",
    ),
    ("h2 empty DATA frames without end", "HTTP/2 is never offered to an endpoint: see the row about ALPN"),
    (
        "grep of DB file, WAL, logs, core, metrics for the secret bytes and base64",
        "answers, logs and metrics are held by `secrets.rs`, what is at rest by the tests of sealed secrets",
    ),
];

/// One row.
struct Row {
    area: String,
    input: String,
    expected: String,
}

fn rows(area: &str) -> Vec<Row> {
    let path = format!("{}/tests/data/endpoints/bad-inputs.csv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let inside = line.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        let fields: Vec<String> = inside.split("\",\"").map(|field| field.replace("\"\"", "\"")).collect();
        let [area, input, expected] = <[String; 3]>::try_from(fields).unwrap();
        Row { area, input, expected }
    };
    let rows: Vec<Row> = text.lines().skip(1).map(row).filter(|row| row.area == area).collect();
    assert!(rows.len() > 10, "{area}: {} rows", rows.len());
    rows
}

fn is_not_here(row: &Row) -> bool {
    NOT_HERE.iter().any(|(input, _)| *input == row.input)
}

/// What one row needs, and what is to be seen besides its verdict.
struct Plan {
    url: String,
    /// Fields of the subscription.
    more: Value,
    /// Data of the events, each published once the one before was attempted.
    events: Vec<String>,
    /// Which of the events the row is about.
    judged: usize,
    /// Looks at the views of the deliveries, in order.
    after: Box<dyn Fn(&Relay, &[Value])>,
    /// The server, kept until the end.
    _server: Box<dyn Any>,
}

impl Plan {
    fn new(url: impl Into<String>, server: impl Any) -> Self {
        let after = Box::new(|_: &Relay, _: &[Value]| {});
        Self { url: url.into(), more: json!({}), events: vec!["{}".to_owned()], judged: 0, after, _server: Box::new(server) }
    }

    fn with(mut self, more: Value) -> Self {
        self.more = more;
        self
    }

    fn events(mut self, count: usize) -> Self {
        self.events = vec!["{}".to_owned(); count];
        self
    }

    fn then(mut self, after: impl Fn(&Relay, &[Value]) + 'static) -> Self {
        self.after = Box::new(after);
        self
    }
}

/// The first attempt of a delivery; none is kept of one that succeeded at once.
fn attempt(view: &Value) -> &Value {
    &view["attempts"][0]
}

/// Milliseconds from the last attempt to the next.
fn wait_ms(view: &Value) -> i64 {
    let at = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    at(&view["next_attempt_at"]) - at(&view["attempts"].as_array().unwrap().last().unwrap()["at"])
}

/// Distance of attempts in these tests, unless a row says otherwise.
const SCHEDULE_MS: i64 = 60_000;
/// More than it takes to try and to decide.
const SLACK_MS: i64 = 20_000;

/// Holds what was seen against the words of a row; they are read up to the first `;`.
fn judge(row: &Row, view: &Value) {
    let words = row.expected.split(';').next().unwrap().trim();
    let say = format!("{} {:?} wants {words}: {view}", row.area, row.input);
    let in_time = |from: i64, to: i64| assert!((from..to).contains(&wait_ms(view)), "{say}");
    if words.starts_with("SUCCESS") {
        return assert_eq!(view["state"], "delivered", "{say}");
    }
    if words.starts_with("DISABLE:gone") {
        assert_eq!(attempt(view)["error"], "status_410", "{say}");
        return assert!(view["state"] == "pending" || view["state"] == "retrying", "{say}");
    }
    assert_eq!(view["state"], "retrying", "{say}");
    match words {
        "RETRY" => in_time(SCHEDULE_MS, SCHEDULE_MS + SLACK_MS),
        "RETRY not before 120 s" => in_time(120_000, 120_000 + SLACK_MS),
        "RETRY capped at 24 h" => in_time(86_400_000, 86_400_000 + SLACK_MS),
        "RETRY at schedule" | "RETRY at schedule (past date)" | "RETRY not before 121 s or at schedule" => {
            in_time(SCHEDULE_MS, SCHEDULE_MS + SLACK_MS);
        }
        _ => {
            let word = words.strip_prefix("RETRY:").unwrap_or_else(|| panic!("{say}"));
            let word = word.split(' ').next().unwrap();
            assert_eq!(attempt(view)["error"], word, "{say}");
        }
    }
}

/// Carries out one row on a relay.
async fn carry_out(relay: &Relay, name: String, row: &Row, plan: Plan) {
    let retry = json!({"max_attempts": 5, "schedule": ["1m"], "jitter": 0.0});
    let mut more = json!({"retry": retry, "timeout": "20s"});
    more.as_object_mut().unwrap().extend(plan.more.as_object().unwrap().clone());
    relay.subscribe(&name, &plan.url, &name, more).await;
    let mut views = Vec::new();
    for data in &plan.events {
        let seq = relay.publish(&name, data.clone()).await;
        let view = eventually(&format!("an attempt of {:?}", row.input), async || {
            let view = relay.delivery(&name, seq).await;
            let is_tried = view["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty());
            // The last attempt is known a moment before what follows from it.
            let is_decided = view["state"] != "pending" || relay.status(&name).await["state"] == "disabled";
            ((is_tried && is_decided) || view["state"] == "delivered").then_some(view)
        })
        .await;
        views.push(view);
    }
    judge(row, &views[plan.judged]);
    (plan.after)(relay, &views);
}

/// Carries out all rows of an area at the same time.
async fn carry_out_all(area: &str, plan: impl AsyncFn(&Row) -> Option<Plan>) {
    let relay = Relay::start().await;
    let rows = rows(area);
    let mut running = Vec::new();
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| !is_not_here(row)) {
        let plan = plan(row).await.unwrap_or_else(|| panic!("no case for {area} {:?}", row.input));
        running.push(carry_out(&relay, format!("row-{index}"), row, plan));
    }
    join_all(running).await;
}

#[test]
fn what_is_not_tested_here_is_a_row_with_a_reason() {
    let all: Vec<Row> =
        ["endpoint.status", "endpoint.wire", "endpoint.tls", "signature"].iter().flat_map(|area| rows(area)).collect();
    for (input, why) in NOT_HERE {
        assert!(all.iter().any(|row| row.input == *input) && why.len() > 40, "{input}");
    }
}
