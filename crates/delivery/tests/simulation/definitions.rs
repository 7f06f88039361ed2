//! Definitions of subscriptions as the seed makes them, and what changes of them do.

use serde_json::{Map, Value, json};

use crate::lives::{Alone, Life};

/// Groups of limits that there are.
pub(crate) const GROUPS: [&str; 2] = ["narrow", "slow"];

/// A definition of everything that the scheduler goes by.
pub(crate) fn definition(random: &mut fastrand::Rng, id: &str, life: Life) -> Value {
    let topics = [json!(["t.a"]), json!(["t.a", "t.b"]), json!(["t.*"]), json!(["t.*"])];
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| {
        members.insert(name.to_owned(), value);
    };
    put("id", json!(id));
    put("url", url(random, life));
    put("topics", topics[random.usize(..topics.len())].clone());
    put("types", if random.u8(..4) == 0 { json!(["x"]) } else { json!([]) });
    put("filter", if random.u8(..4) == 0 { json!("data.p == true") } else { Value::Null });
    put("payload", json!(["binary", "structured"][random.usize(..2)]));
    let ordering = [json!("none"), json!("none"), json!("strict"), json!({"key": "/k"})];
    let ordering = ordering[random.usize(..ordering.len())].clone();
    put("on_dead", if ordering == "none" { Value::Null } else { json!(["skip", "block"][random.usize(..2)]) });
    put("ordering", ordering);
    put("batch", batch(random));
    put("max_in_flight", json!(1 + random.u8(..6)));
    let per_second = [5, 20, 100][random.usize(..3)];
    put("rate_limit", if random.u8(..4) == 0 { json!({"per_second": per_second, "burst": 3}) } else { Value::Null });
    put("limit_group", if random.u8(..4) == 0 { json!(GROUPS[random.usize(..2)]) } else { Value::Null });
    let schedule = [json!(["20ms", "300ms"]), json!(["1s"]), json!(["50ms", "2s", "9s"])];
    put("retry", json!({"max_attempts": 1 + random.u8(..5), "schedule": schedule[random.usize(..3)], "jitter": 0.2}));
    put("max_retrying", json!([1, 3, 100][random.usize(..3)]));
    put("on_full", json!(["wait", "dead"][random.usize(..2)]));
    put("timeout", json!(["200ms", "3s"][random.usize(..2)]));
    put("disable_after", json!(["3s", "1h"][random.usize(..2)]));
    put("verify", json!(["none", "none", "none", "challenge", "cloudevents"][random.usize(..5)]));
    put("enabled", json!(random.u8(..10) > 0));
    Value::Object(members)
}

fn url(random: &mut fastrand::Rng, life: Life) -> Value {
    json!(format!("http://e{}.example/{}", random.u8(..6), life.0))
}

fn batch(random: &mut fastrand::Rng) -> Value {
    if random.u8(..4) > 0 {
        return Value::Null;
    }
    let format = ["json-array", "ndjson", "cloudevents"][random.usize(..3)];
    let max_wait = ["0s", "200ms"][random.usize(..2)];
    json!({"max_events": 1 + random.u8(..8), "max_bytes": 100_000, "max_wait": max_wait, "format": format})
}

/// A change of one to three members.
pub(crate) fn patch(random: &mut fastrand::Rng, life: Life) -> Value {
    let Value::Object(mut all) = definition(random, "x", life) else { unreachable!("a definition is an object") };
    all.remove("id");
    let names: Vec<String> = all.keys().cloned().collect();
    let count = 1 + random.usize(..3);
    let patch: Map<String, Value> = (0..count)
        .map(|_| names[random.usize(..names.len())].clone())
        .map(|name| {
            let value = all[&name].clone();
            (name, value)
        })
        .collect();
    Value::Object(patch)
}

/// What a definition promises its endpoint: how many requests may be open.
pub(crate) fn alone(definition: &hookcast_core::model::subscription::SubscriptionSpec) -> Alone {
    use hookcast_core::model::subscription::Ordering;
    match definition.ordering {
        Ordering::None => Alone::No,
        Ordering::Strict => Alone::Always,
        Ordering::Key(_) => Alone::ByKey,
    }
}
