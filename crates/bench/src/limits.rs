//! Limits at the sender: the most that goes out in any second, and how much of the rate is used while there is a backlog.
//!
//! The receiver refuses every event (400, which says nothing against an endpoint), so that the relay remembers each attempt with
//! the time at which it sent it; those times are what is measured.

use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load;
use crate::stage::{Scene, Stage};
use crate::wire::Connection;
use hookcast_core::clock::Timestamp;

/// One limit of each kind.
pub(crate) const LIMITS: Experiment = Experiment {
    name: "limits",
    subject: Subject::Deliver,
    rows: &[
        Row { what: "most in any second, one subscription", against: "rate + burst", unit: "", target: Target::AtMost(1.0) },
        Row { what: "rate with a backlog, one subscription", against: "rate", unit: "/s", target: Target::AtLeast(0.97) },
        Row { what: "most in any second, four of one host", against: "rate + burst", unit: "", target: Target::AtMost(1.0) },
        Row { what: "rate with a backlog, four of one host", against: "rate", unit: "/s", target: Target::AtLeast(0.97) },
        Row { what: "most in any second, four of one group", against: "rate + burst", unit: "", target: Target::AtMost(1.0) },
        Row { what: "rate with a backlog, four of one group", against: "rate", unit: "/s", target: Target::AtLeast(0.97) },
    ],
    run,
};

const RATE: u64 = 500;
const BURST: u64 = 50;
/// How often the receiver is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn run(terms: Terms) -> Run {
    Box::pin(async move {
        let mut readings = Vec::new();
        let own = serde_json::json!({"rate_limit": {"per_second": RATE, "burst": BURST}});
        let group = serde_json::json!({"limit_group": "bench"});
        let by_host = "[delivery]\nper_host_per_second = 500\nper_host_burst = 50\n";
        let by_group = "[limit_groups.bench]\nper_second = 500\nburst = 50\n";
        for (subscriptions, fields, config) in [(1, own, ""), (4, serde_json::json!({}), by_host), (4, group, by_group)] {
            let sent_at = sent(subscriptions, fields, config, terms).await?;
            readings.extend(judge(&sent_at)?);
        }
        Ok(Findings::Measured(readings))
    })
}

/// Lets a backlog go out and gives when each first attempt was sent, in milliseconds, rising.
async fn sent(subscriptions: u64, fields: serde_json::Value, config: &'static str, terms: Terms) -> anyhow::Result<Vec<i64>> {
    let fixed =
        serde_json::json!({"max_in_flight": 64, "max_retrying": 100_000, "retry": {"max_attempts": 9, "schedule": ["1h"]}});
    let mut all = fixed;
    if let (Some(all), Some(fields)) = (all.as_object_mut(), fields.as_object()) {
        all.extend(fields.clone());
    }
    let scene = Scene { fields: all, config, receiver: &["--refuse"], ..terms.scene(subscriptions) };
    let stage = Stage::set(&scene).await?;
    let (mut intake, mut receiver) =
        (Connection::open(stage.relay.address).await?, Connection::open(stage.receiver.address).await?);
    let wanted = (RATE * terms.duration.as_secs().max(2) + BURST) / subscriptions;
    let (mut published, mut batch) = (0, String::new());
    while published < wanted {
        published = load::publish_batch(&mut intake, &mut batch, published).await?;
    }
    let (wanted_in_all, patience) = (wanted * subscriptions, terms.duration * 3);
    Arrivals { wanted: wanted_in_all, of: |stats| stats.failed, patience, look_every: LOOK_EVERY }.all(&mut receiver).await?;
    let (mut sent_at, mut all_have_backlog_until) = (Vec::new(), i64::MAX);
    for number in 0..subscriptions {
        let from = sent_at.len();
        // What is in flight in the end is not asked for.
        for seq in 1..=wanted.saturating_sub(80) {
            let path = format!("/v1/subscriptions/bench-{number}/deliveries/{seq}");
            let view: serde_json::Value = serde_json::from_slice(&intake.call("GET", &path, "text/plain", b"").await?)?;
            let at = view["attempts"][0]["at"].as_str().map(Timestamp::parse_rfc3339);
            sent_at.extend(at.transpose()?.map(|at| at.0));
        }
        all_have_backlog_until = all_have_backlog_until.min(sent_at[from..].iter().copied().max().unwrap_or(0));
    }
    // From then on not everything that was sent is known.
    sent_at.retain(|at| *at <= all_have_backlog_until);
    stage.relay.stop().await;
    stage.receiver.stop().await;
    sent_at.sort_unstable();
    Ok(sent_at)
}

fn judge(sent_at: &[i64]) -> anyhow::Result<[Reading; 2]> {
    let (Some(first), Some(last)) = (sent_at.first(), sent_at.last()) else { anyhow::bail!("nothing was sent") };
    let mut from = 0;
    let mut peak = 0;
    for (to, at) in sent_at.iter().enumerate() {
        while sent_at[from] <= at - 1000 {
            from += 1;
        }
        peak = peak.max(to + 1 - from);
    }
    let mean = (sent_at.len() as f64 - BURST as f64) * 1000.0 / (last - first).max(1) as f64;
    Ok([Reading::ratio(peak as f64, (RATE + BURST) as f64), Reading::ratio(mean, RATE as f64)])
}
