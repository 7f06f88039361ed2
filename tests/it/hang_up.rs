//! SIGHUP: the declared definitions are applied anew, all or none, and it never ends a relay.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::json;

use crate::support::{Answer, Receiver, Relay, SECRET, eventually};

fn declared(id: &str, url: &str, more: &str) -> String {
    format!(
        "[[subscriptions]]\nid = \"{id}\"\nurl = \"{url}\"\ntopics = [\"t\"]\n\
         signature = {{ scheme = \"standard\", secret = \"{SECRET}\" }}\n{more}\n"
    )
}

/// Sends the signal and waits for the line that it is over.
async fn hang_up(relay: &Relay, over: &str) {
    let before = relay.log().matches(over).count();
    relay.signal("HUP").await;
    eventually(&format!("a line: {over}"), async || (relay.log().matches(over).count() > before).then_some(())).await;
}

const APPLIED: &str = "the declared definitions were applied";
const REFUSED: &str = "the declared definitions were not applied";

#[tokio::test]
async fn declared_definitions_are_applied_without_a_restart() {
    let (one, other) = (Receiver::start().await, Receiver::start().await);
    let source = |name: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\nprotocol = \"sse\"\nurl = \"https://example.com/\"\ntopic = \"f\"\nenabled = false\n"
        )
    };
    let mut relay = Relay::start_with(&[declared("a", one.url(), ""), declared("b", one.url(), ""), source("s")].concat()).await;
    relay.publish("t", "{}").await;
    one.sees(2).await;
    relay.status_becomes("a", json!({"lag": 0, "in_flight": 0})).await;
    // One changed, one removed, one new; and a key that needs a restart.
    let retention = "[retention]\nmax_age = \"9d\"\n";
    let (changed, new) = (declared("a", other.url(), "types = [\"message\"]"), declared("c", other.url(), ""));
    relay.configure(&format!("{changed}{new}{}{retention}", source("u")));
    hang_up(&relay, APPLIED).await;
    let seq = relay.publish("t", "{}").await;
    let paths = |receiver: &Receiver| receiver.of_each(crate::support::Delivery::seq);
    eventually("both at the new place", async || (paths(&other) == [seq, seq]).then_some(())).await;
    eventually("one at the old", async || (one.count() == 3).then_some(())).await;
    for (path, is_declared) in [
        ("subscriptions/a", true),
        ("subscriptions/b", false),
        ("subscriptions/c", true),
        ("sources/s", false),
        ("sources/u", true),
    ] {
        assert_eq!(relay.get(&format!("/v1/{path}")).await["declared"], is_declared, "{path}");
    }
    let log = relay.log();
    let waiting: Vec<&str> = log.lines().filter(|line| line.contains("need a restart")).collect();
    assert!(waiting.len() == 1 && waiting[0].contains("WARN") && waiting[0].contains("retention.max_age"), "{waiting:?}");
    for freed in ["names=\"b\"", "names=\"s\""] {
        assert!(log.lines().any(|line| line.contains("declares no more") && line.contains(freed)), "{freed}: {log}");
    }
    // It stood at the same place all the time, and does after a restart.
    assert_eq!(relay.terminate().await, Some(0));
    relay.restart().await;
    relay.status_becomes("a", json!({"cursor": seq, "lag": 0})).await;
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_is_said_as_check_says_it() {
    let receiver = Receiver::start().await;
    let relay = Relay::start_with(&declared("a", receiver.url(), "")).await;
    let before = relay.get("/v1/subscriptions/a").await;
    let good = declared("a", receiver.url(), "description = \"changed\"");
    for (wrong, said) in [
        (declared("b", receiver.url(), "max_in_flght = 3"), "did you mean `max_in_flight`? [unknown_key]"),
        (declared("b", "http://10.0.0.1/", ""), "subscriptions[1].url: "),
        (
            format!("{}[limit_groups.new]\nper_second = 1\n", declared("b", receiver.url(), "limit_group = \"new\"")),
            "needs a restart",
        ),
        ("[server]\nlisten = 5\n".to_owned(), "server.listen"),
        ("[retention\n".to_owned(), "config.toml:"),
    ] {
        relay.configure(&format!("{good}{wrong}"));
        if wrong.starts_with("[server]") {
            std::fs::write(relay.path("config.toml"), &wrong).unwrap();
        }
        hang_up(&relay, REFUSED).await;
        relay.log_says(said).await;
        assert_eq!(relay.get("/v1/subscriptions/a").await, before, "{wrong}");
        assert_eq!(relay.ask("GET", "/v1/subscriptions/b", None).await.0, 404, "{wrong}");
    }
    // What `check` says of the same file.
    let (code, _, said) = relay.run(&["check"]).await;
    assert_eq!(code, Some(78));
    assert!(relay.log().contains(said.trim_end()), "{said}");
    std::fs::remove_file(relay.path("config.toml")).unwrap();
    hang_up(&relay, REFUSED).await;
    relay.configure(&good);
    hang_up(&relay, APPLIED).await;
    assert_eq!(relay.get("/v1/subscriptions/a").await["description"], "changed");
}

#[tokio::test]
async fn a_storm_of_signals_ends_nothing_not_even_during_start_and_stop() {
    let receiver = Receiver::with(|_, _| Answer::ok().when_released()).await;
    let many: String = (0..200).map(|n| declared(&format!("s{n}"), receiver.url(), "")).collect();
    let mut relay = Relay::start_with(&declared("a", receiver.url(), "")).await;
    let pid = relay.pid().to_string();
    let storm = async |pid: String, times: usize| {
        for _ in 0..times {
            let sent = tokio::process::Command::new("kill").args(["-HUP", &pid]).stderr(std::process::Stdio::null()).status();
            assert!(sent.await.is_ok());
        }
    };
    let seq = relay.publish("t", "{}").await;
    eventually("an open request", async || (receiver.open() == 1).then_some(())).await;
    relay.configure(&format!("{}{many}", declared("a", receiver.url(), "")));
    storm(pid.clone(), 50).await;
    eventually("the last of them", async || (relay.ask("GET", "/v1/subscriptions/s199", None).await.0 == 200).then_some(()))
        .await;
    relay.signal("TERM").await;
    relay.log_says("a second signal stops at once").await;
    storm(pid, 20).await;
    receiver.release(1);
    assert_eq!(relay.ended().await, Some(0), "it drains and ends as ever");
    receiver.change(|_, _| Answer::ok());
    relay.restart().await;
    relay.delivery_becomes("a", seq, "delivered").await;
}
