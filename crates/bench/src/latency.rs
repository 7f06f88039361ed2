//! The time from send to receipt at a steady rate, one subscription, with the commit in between; beside the floor that disk and
//! network leave.

use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::floor::Floor;
use crate::folder::Folder;
use crate::load;
use crate::pace;
use crate::receiver::now_us;
use crate::slow_disk::{self, SlowDisk};
use crate::stage::{Scene, Stage};
use crate::wire::Connection;

/// What delays are held against.
const FLOOR: &str = "flush of an event's bytes + bare POST";

/// 200 events a second.
pub(crate) const CALM: Experiment = Experiment {
    name: "latency-200",
    subject: Subject::Latency,
    rows: &[
        Row { what: "send to receipt at 200/s, p50", against: FLOOR, unit: "ms", target: Target::AtMost(3.0) },
        Row { what: "send to receipt at 200/s, p99", against: FLOOR, unit: "ms", target: Target::AtMost(4.0) },
    ],
    run: |terms| run(200, terms),
};

/// 5,000 events a second.
pub(crate) const BUSY: Experiment = Experiment {
    name: "latency-5000",
    subject: Subject::Latency,
    rows: &[
        Row { what: "send to receipt at 5,000/s, p50", against: FLOOR, unit: "ms", target: Target::AtMost(4.0) },
        Row { what: "send to receipt at 5,000/s, p99", against: FLOOR, unit: "ms", target: Target::AtMost(8.0) },
    ],
    run: |terms| run(5_000, terms),
};

/// 200 events a second on a disk whose flushes take 5 ms longer, while old pages go, the WAL is copied, and another
/// subscription catches up.
pub(crate) const SLOW_DISK: Experiment = Experiment {
    name: "latency-slow-disk",
    subject: Subject::Latency,
    rows: &[Row {
        what: "the same at 200/s, flushes of 5 ms, beside a catch-up, p99",
        against: FLOOR,
        unit: "ms",
        target: Target::AtMost(4.0),
    }],
    run: |terms| Box::pin(slow_disk(terms)),
};

/// What is sent before the measurement, so that connections are open.
const WARM_UP: Duration = Duration::from_secs(1);
/// What a flush of the slow disk takes longer.
const FLUSH_LONGER: Duration = Duration::from_millis(5);
/// How often the receiver is asked whether everything arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it may take until everything has arrived.
const PATIENCE: Duration = Duration::from_secs(30);
/// Batches of old events that the other subscription finds, more than the log may keep.
const OLD_BATCHES: usize = 80;

fn run(rate: u32, terms: Terms) -> Run {
    Box::pin(async move {
        let stage = Stage::set(&terms.scene(1)).await?;
        let rows = beside_floor(&stage, rate, terms.duration, 0.0).await?;
        stage.relay.stop().await;
        stage.receiver.stop().await;
        Ok(Findings::Measured(rows.to_vec()))
    })
}

async fn slow_disk(terms: Terms) -> anyhow::Result<Findings> {
    let config = "[retention]\nmax_bytes = \"16MiB\"\n";
    let directory = Folder::make()?;
    let library = match slow_disk::make(directory.path(), FLUSH_LONGER).await? {
        SlowDisk::Made(library) => library,
        SlowDisk::Missing(reason) => return Ok(Findings::Skipped(reason)),
    };
    let stage = Stage::set(&Scene { config, environment: vec![("LD_PRELOAD", library)], ..terms.scene(1) }).await?;
    if !stage.relay.pid().is_some_and(slow_disk::is_loaded) {
        return Ok(Findings::Skipped(String::from("needs a relay that is linked with the system's C library")));
    }
    let mut control = Connection::open(stage.relay.address).await?;
    let old = load::event(0, now_us()).replace("sent_us", "was_us") + "\n";
    let batch = old.repeat(load::BATCH_EVENTS);
    for _ in 0..OLD_BATCHES {
        control.call("POST", "/v1/topics/past/events", "application/x-ndjson", batch.as_bytes()).await?;
    }
    let behind = serde_json::json!({
        "id": "behind", "url": format!("http://{}/hook", stage.receiver.address), "topics": ["past"], "from": "earliest",
        "rate_limit": { "per_second": 2000, "burst": 100 },
    });
    control.call("POST", "/v1/subscriptions", "application/json", behind.to_string().as_bytes()).await?;
    let adding = tokio::task::spawn_local(async move {
        // The log goes on growing, so that there is always something to drop.
        const EVERY: Duration = Duration::from_millis(250);
        loop {
            control.call("POST", "/v1/topics/past/events", "application/x-ndjson", batch.as_bytes()).await?;
            tokio::time::sleep(EVERY).await;
        }
        #[allow(unreachable_code, reason = "the type of the task")]
        anyhow::Ok(())
    });
    let [_, p99] = beside_floor(&stage, 200, terms.duration, FLUSH_LONGER.as_secs_f64() * 1000.0).await?;
    anyhow::ensure!(!adding.is_finished(), "the other publisher was refused");
    adding.abort();
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok(Findings::Measured(vec![p99]))
}

/// Delays beside the floor of the same minutes: half of its steps are taken before and half after. A step writes an event's share of
/// everything that the relay writes meanwhile: its commits, the copying of the WAL, the progress of deliveries. A flush takes
/// `longer_ms` more than the floor knows.
async fn beside_floor(stage: &Stage, rate: u32, duration: Duration, longer_ms: f64) -> anyhow::Result<[Reading; 2]> {
    let before = stage.relay.written_bytes();
    let events = pace::publish(stage.relay.address, rate, WARM_UP).await?;
    let bytes = (stage.relay.written_bytes() - before) / events.max(1);
    let mut floor = Floor::lay(stage.directory.path(), bytes).await?;
    floor.walk(duration / 2).await?;
    let delays = measure(stage, rate, duration).await?;
    floor.walk(duration / 2).await?;
    let (p50_ms, p99_ms) = floor.leave().await;
    let beside = |delay_ms, floor_ms| Reading { cost: Some(delays.cost), ..Reading::ratio(delay_ms, floor_ms + longer_ms) };
    Ok([beside(delays.p50_ms, p50_ms), beside(delays.p99_ms, p99_ms)])
}

/// Times from send to receipt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    /// Median.
    pub(crate) p50_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
    /// What an event cost the relay.
    pub(crate) cost: Cost,
}

/// Delays at `rate` events a second.
pub(crate) async fn measure(stage: &Stage, rate: u32, duration: Duration) -> anyhow::Result<Delays> {
    let mut control = Connection::open(stage.receiver.address).await?;
    let timed = |wanted| Arrivals { wanted, of: |stats| stats.timed, patience: PATIENCE, look_every: LOOK_EVERY };
    control.call("POST", "/reset?timed", "text/plain", b"").await?;
    let events = pace::publish(stage.relay.address, rate, WARM_UP).await?;
    // What of the run-up comes late is not taken for what follows.
    timed(events).all(&mut control).await?;
    control.call("POST", "/reset?timed", "text/plain", b"").await?;
    let before = stage.relay.usage();
    let events = pace::publish(stage.relay.address, rate, duration).await?;
    let cost = Cost { cpu_us: stage.relay.usage().since(&before) / events as f64, work: events };
    let stats = timed(events).all(&mut control).await?;
    Ok(Delays { p50_ms: stats.p50_us as f64 / 1000.0, p99_ms: stats.p99_us as f64 / 1000.0, cost })
}
