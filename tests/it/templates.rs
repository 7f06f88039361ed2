//! The payload form `template` from outside, with the examples that are shipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::support::{Answer, PATIENCE, Receiver, Relay};

const ORDER: &str = r#"{"customer": "Ann \"A\" <O'Neil> & Co", "amount": 120, "lines": [{"n": 1}, {"n": 2}]}"#;

fn with_template(body: &str) -> Value {
    json!({"payload": "template", "template": {"body": body, "content_type": "text/plain"}})
}

#[tokio::test]
async fn the_body_is_what_the_template_makes_and_is_signed_and_repeated_as_it_is() {
    let relay = Relay::start().await;
    let receiver = Receiver::with(|_, before| if before == 0 { Answer::status(500) } else { Answer::ok() }).await;
    let mut more =
        with_template("{{ type }} {{ seq }}: {{ data.customer|upper }}{% for l in data.lines %} {{ l.n }}{% endfor %}");
    more["retry"] = json!({"schedule": ["50ms"]});
    relay.subscribe("a", receiver.url(), "t", more).await;
    relay.publish("t", ORDER).await;
    let seen = receiver.sees(2).await;
    for delivery in &seen {
        delivery.verify();
        assert_eq!(delivery.text(), "message 1: ANN \"A\" <O'NEIL> & CO 1 2");
        assert_eq!(delivery.header("content-type"), "text/plain");
        assert_eq!(delivery.header("hookcast-hops"), "1");
        assert_eq!(delivery.header("ce-id"), "");
    }
    assert_eq!(seen[0].id(), seen[1].id());
    assert_eq!((seen[0].attempt(), seen[1].attempt()), (1, 2));
}

#[tokio::test]
async fn a_template_that_fails_on_an_event_makes_a_dead_letter_and_nothing_else() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("ops", receiver.url(), "hookcast.**", json!({"types": ["delivery.dead"]})).await;
    relay.subscribe("a", receiver.url(), "t", with_template("{{ data.customer.name.first }}")).await;
    for _ in 0..20 {
        relay.publish("t", r#"{"customer": {}}"#).await;
    }
    relay.publish("t", r#"{"customer": {"name": {"first": "Ann"}}}"#).await;
    let status = relay.status_becomes("a", json!({"dead": 20, "delivered_total": 1})).await;
    assert_eq!((&status["circuit"], &status["state"], &status["retrying"]), (&json!("closed"), &json!("active"), &json!(0)));
    let view = relay.delivery("a", 1).await;
    assert_eq!(view["state"], "dead");
    assert!(view["reason"].as_str().unwrap().starts_with("template: undefined value"), "{view}");
    assert_eq!(view["attempts"].as_array().unwrap().len(), 1);
    let seen = receiver.sees(21).await;
    assert!(seen.iter().any(|delivery| delivery.text() == "Ann"));
    // The subscriber mends the template; what is dead can go out.
    relay.must("PATCH", "/v1/subscriptions/a", json!({"template": {"body": "{{ data.customer.name }}!"}})).await;
    relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({"seqs": [1]})).await;
    relay.delivery_becomes("a", 1, "delivered").await;
}

/// What a library breaks over is the template's fault or the filter's, and no trouble of the relay.
#[tokio::test]
async fn what_breaks_the_engine_is_a_dead_letter_and_no_panic_of_a_task() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    let long = "{{ data.long|length }}{% for a in [1] %}{{ loop.cycle() }}{% endfor %}";
    relay.subscribe("a", receiver.url(), "t", with_template("{% for a in [1] %}{{ loop.cycle() }}{% endfor %}")).await;
    relay.subscribe("b", receiver.url(), "t", with_template(long)).await;
    for _ in 0..5 {
        relay.publish("t", &json!({"long": "x".repeat(10_000)}).to_string()).await;
    }
    for id in ["a", "b"] {
        relay.status_becomes(id, json!({"dead": 5})).await;
        let view = relay.delivery(id, 1).await;
        assert_eq!(view["reason"], "template: cannot be filled in with this event", "{view}");
    }
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
    let metrics = relay.client.get(format!("{}/metrics", relay.url)).send().await.unwrap().text().await.unwrap();
    assert!(!metrics.contains("hookcast_task_panics_total"), "{metrics}");
}

#[tokio::test]
async fn what_grows_without_bound_or_loads_anything_is_refused_or_dies() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    for body in ["{% include '/etc/passwd' %}", "{% set x = 'a' %}{{ x }}", "{{ amount }}", "{{ data", "{{ data|shell }}"] {
        let mut definition = with_template(body);
        definition["url"] = json!("http://127.0.0.1:8999/");
        definition["topics"] = json!(["t"]);
        let (status, problem) = relay.ask("POST", "/v1/subscriptions", Some(&definition)).await;
        assert_eq!(status, 422, "{body}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], "/template/body");
    }
    let loops = "{% for a in range(1000) %}{% for b in range(1000) %}{{ data.n }}{% endfor %}{% endfor %}";
    relay.subscribe("a", receiver.url(), "t", with_template(loops)).await;
    relay.subscribe("b", receiver.url(), "t", with_template("{{ range(1000)|join(data.s) }}")).await;
    relay.publish("t", json!({"n": 1, "s": "x".repeat(10_000)}).to_string()).await;
    for (id, words) in [("a", "too many steps"), ("b", "262144 bytes")] {
        let view = relay.delivery_becomes(id, 1, "dead").await;
        assert!(view["reason"].as_str().unwrap().contains(words), "{view}");
    }
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn what_would_end_the_process_or_burn_a_core_is_refused_or_dies_while_others_get_theirs() {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    for (body, reason) in [
        (format!("{{{{ id{} }}}}", "|tojson".repeat(60)), "more than 8 filters"),
        (format!("{{{{ 1{} }}}}", "-1".repeat(30_000)), "more than 200 operators"),
        (format!("{{{{ {}id }}}}", "not ".repeat(16_000)), "more than 200 operators"),
        (format!("{{% if id %}}{}{{% endif %}}", "{% elif id %}".repeat(4800)), "more than 32 conditions"),
    ] {
        let mut definition = with_template(&body);
        definition["url"] = json!("http://127.0.0.1:8999/");
        definition["topics"] = json!(["t"]);
        let (status, problem) = relay.ask("POST", "/v1/subscriptions", Some(&definition)).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/template/body")), "{problem}");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(reason), "{problem}");
    }
    let bodies = [
        "{{ data.t|list|map('replace', 'x', data.t)|list|length }}",
        "{% for a in data.l %}{{ data.l|select('in', data.l)|list|length }}{% endfor %}",
        "{% for a in range(1000) %}{{ data.l|sort|length }}{% endfor %}",
    ];
    for (number, body) in bodies.iter().enumerate() {
        relay.subscribe(&format!("bad{number}"), receiver.url(), "t", with_template(body)).await;
    }
    relay.subscribe("good", receiver.url(), "t", with_template("{{ seq }} {{ data.t|length }}")).await;
    let data = json!({"t": "x".repeat(20_000), "l": (0..30_000).collect::<Vec<_>>()}).to_string();
    relay.publish("t", data).await;
    relay.delivery_becomes("good", 1, "delivered").await;
    for number in 0..bodies.len() {
        let view = relay.delivery_becomes(&format!("bad{number}"), 1, "dead").await;
        let reason = view["reason"].as_str().unwrap();
        assert!(reason.contains("makes or looks at more than") || reason.contains("takes more than"), "{view}");
    }
    assert_eq!(receiver.of_each(|delivery| delivery.text().to_owned()), ["1 20000"]);
}

/// Stops the process while it fills an event in, as the file beside the database tells, and kills it.
async fn killed_while_it_fills_in(relay: &mut Relay) {
    let (file, state) = (relay.path("data/hookcast.db.renderings"), format!("/proc/{}/stat", relay.pid()));
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        relay.signal("STOP").await;
        while !std::fs::read_to_string(&state).unwrap().contains(") T ") {
            tokio::task::yield_now().await;
        }
        if std::fs::read(&file).unwrap().iter().any(|byte| *byte != 0) {
            return relay.kill9().await;
        }
        assert!(std::time::Instant::now() < end, "nothing was filled in");
        relay.signal("CONT").await;
    }
}

#[tokio::test]
async fn a_rendering_during_which_the_process_died_is_a_dead_letter_until_somebody_asks_for_it_again() {
    const EVENTS: usize = 60;
    let body = "{{ seq }}{% for i in range(20) if not data|title %}x{% endfor %}";
    let (mut relay, receiver) = (Relay::start().await, Receiver::start().await);
    relay.subscribe("a", receiver.url(), "t", with_template(body)).await;
    for _ in 0..EVENTS {
        relay.publish("t", json!("x".repeat(8000)).to_string()).await;
    }
    killed_while_it_fills_in(&mut relay).await;
    relay.restart().await;
    let status = relay.status_becomes("a", json!({"lag": 0, "in_flight": 0, "retrying": 0})).await;
    let letters = relay.get("/v1/subscriptions/a/dead-letters").await;
    let letters = letters["items"].as_array().unwrap();
    assert!(!letters.is_empty() && letters.iter().all(|letter| letter["reason"] == "rendering_crashed"), "{status} {letters:?}");
    relay.log_says("the relay ended while it filled events into templates").await;
    let mut seen = receiver.of_each(|delivery| delivery.text().to_owned());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len() + letters.len(), EVENTS, "{status}");
    let seqs: Vec<_> = letters.iter().map(|letter| letter["seq"].clone()).collect();
    relay.must("POST", "/v1/subscriptions/a/dead-letters/redrive", json!({"seqs": seqs})).await;
    for seq in seqs {
        relay.delivery_becomes("a", seq.as_u64().unwrap(), "delivered").await;
    }
    // No second start finds it again.
    relay.kill9().await;
    relay.restart().await;
    relay.status_becomes("a", json!({"lag": 0, "dead": 0})).await;
}

/// Posts an order through an example as it is shipped, but for its URL, and gives what arrived.
async fn through(example: &str) -> Value {
    let (relay, receiver) = (Relay::start().await, Receiver::start().await);
    let text = std::fs::read_to_string(format!("{}/examples/{example}.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut definition: Value = serde_json::from_str(&text).unwrap();
    definition["url"] = json!(receiver.url());
    relay.must("PUT", &format!("/v1/subscriptions/{example}"), definition).await;
    relay.publish("orders.eu", ORDER).await;
    let seen = receiver.sees(1).await;
    assert_eq!(seen[0].header("content-type"), "application/json");
    assert_eq!(seen[0].header("webhook-signature"), "");
    serde_json::from_slice(&seen[0].body).unwrap_or_else(|error| panic!("{error}: {}", seen[0].text()))
}

#[tokio::test]
async fn the_example_for_slack_is_a_message_with_blocks() {
    let message = through("slack").await;
    // Incoming webhooks want `text`, at most 50 blocks, and at most 3,000 characters of mrkdwn in a section.
    assert_eq!(message["text"], "message in orders.eu");
    let blocks = message["blocks"].as_array().unwrap();
    assert!((1..=50).contains(&blocks.len()));
    for block in blocks {
        assert_eq!((&block["type"], &block["text"]["type"]), (&json!("section"), &json!("mrkdwn")));
        assert!((1..=3000).contains(&block["text"]["text"].as_str().unwrap().chars().count()));
    }
    assert!(blocks[1]["text"]["text"].as_str().unwrap().contains("&lt;O'Neil&gt; &amp; Co"), "{message}");
}

#[tokio::test]
async fn the_example_for_discord_is_a_message_with_an_embed() {
    let message = through("discord").await;
    assert!((1..=2000).contains(&message["content"].as_str().unwrap().chars().count()));
    assert_eq!(message["allowed_mentions"], json!({"parse": []}));
    let embed = &message["embeds"][0];
    assert!((1..=256).contains(&embed["title"].as_str().unwrap().chars().count()));
    assert!((1..=4096).contains(&embed["description"].as_str().unwrap().chars().count()));
    assert!(embed["description"].as_str().unwrap().contains("<O'Neil> & Co"), "{message}");
    assert!(embed["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn the_example_for_teams_is_an_adaptive_card() {
    let message = through("teams").await;
    assert_eq!(message["type"], "message");
    let attachment = &message["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
    let kinds: Vec<_> = card["body"].as_array().unwrap().iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["TextBlock", "FactSet", "TextBlock"]);
    assert_eq!(card["body"][1]["facts"][0], json!({"title": "Topic", "value": "orders.eu"}));
    assert!(card["body"][2]["text"].as_str().unwrap().contains("<O'Neil> & Co"), "{message}");
}
