//! One tenant's noise beside another's deliveries: a backlog, endpoints that refuse and fail, filters and templates that fail.

use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::latency;
use crate::load;
use crate::process::Role;
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::Connection;

/// The quiet tenant at 200 events a second.
pub(crate) const NOISE: Experiment = Experiment {
    name: "tenants",
    subject: Subject::Latency,
    rows: &[Row {
        what: "p99 of a tenant at 200/s beside a noisy one",
        against: "alone, twice or 100 ms more",
        unit: "ms",
        target: Target::AtMost(1.0),
    }],
    run,
};

/// Subscriptions of each noisy kind.
const EACH_KIND: u64 = 10;
/// Events of one batch of the noisy tenant: with four batches a second its load is far from filling the machine, because what is
/// asked here is whether failures spread, not who gets the processor.
const BATCH_EVENTS: usize = 100;
/// Batches that the noisy tenant has published before.
const BACKLOG_BATCHES: usize = 40;
/// What the quiet tenant's p99 may grow by in any case, in milliseconds.
const GROWTH_MS: f64 = 100.0;

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let stage = Stage::set(&terms.scene(1)).await?;
        let alone_ms = latency::measure(&stage, 200, terms.duration).await?.p99_ms;
        let failing = Role::own(&["receiver", "--fail-every", "1"], stage.directory.path()).await?;
        let mut control = Connection::open(stage.relay.address).await?;
        let batch = (load::event(0, now_us()).replace("sent_us", "was_us") + "\n").repeat(BATCH_EVENTS);
        for _ in 0..BACKLOG_BATCHES {
            control.call("POST", "/v1/topics/noise.x/events", "application/x-ndjson", batch.as_bytes()).await?;
        }
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        for number in 0..EACH_KIND {
            for (kind, address, more) in [
                ("refusing", nobody, serde_json::json!({})),
                ("failing", failing.address, serde_json::json!({"retry": {"schedule": ["250ms"]}})),
                ("filter", failing.address, serde_json::json!({"filter": "data.nothing.here > 1"})),
                (
                    "template",
                    failing.address,
                    serde_json::json!({"payload": "template", "template": {"body": "{{ data.nothing.here }}"}}),
                ),
            ] {
                let mut body = serde_json::json!({
                    "id": format!("{kind}-{number}"), "url": format!("http://{address}/hook"), "topics": ["noise.**"], "from": "earliest",
                });
                if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
                    body.extend(more.clone());
                }
                control.call("POST", "/v1/subscriptions", "application/json", body.to_string().as_bytes()).await?;
            }
        }
        let publishing = tokio::task::spawn_local(async move {
            const EVERY: std::time::Duration = std::time::Duration::from_millis(250);
            loop {
                control.call("POST", "/v1/topics/noise.x/events", "application/x-ndjson", batch.as_bytes()).await?;
                tokio::time::sleep(EVERY).await;
            }
            #[allow(unreachable_code, reason = "the type of the task")]
            anyhow::Ok(())
        });
        let beside_ms = latency::measure(&stage, 200, terms.duration).await?.p99_ms;
        anyhow::ensure!(!publishing.is_finished(), "the noisy publisher was refused");
        publishing.abort();
        failing.stop().await;
        stage.relay.stop().await;
        stage.receiver.stop().await;
        let limit_ms = (2.0 * alone_ms).max(alone_ms + GROWTH_MS);
        Ok(Findings::Measured(vec![Reading::ratio(beside_ms, limit_ms)]))
    })
}
