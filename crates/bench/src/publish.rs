//! Intake beside its limits: batches beside the database alone, single events beside a handler that only answers.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::Bytes;

use crate::bare::{BareRows, commit_over_and_over};
use crate::experiment::{Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::load::{self, BATCH_EVENTS};
use crate::process;
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::Connection;
use hookcast_log::ingest::COMMIT_EVENTS_MAX;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::{NewEvent, PageBuilder, Record, Records, Seq, Topic};

/// Batches of lines, nobody subscribed.
pub(crate) const BATCHES: Experiment = Experiment {
    name: "publish-ndjson",
    subject: Subject::Publish,
    rows: &[
        Row {
            what: "events in NDJSON batches of 500, durable",
            against: "SQLite alone, the same rows of 64 events",
            unit: "/s",
            target: Target::AtLeast(0.6),
        },
        Row {
            what: "the same, beside a row an event",
            against: "SQLite alone, a row an event, 256 a statement",
            unit: "/s",
            target: Target::AtLeast(0.6),
        },
    ],
    run: |terms| Box::pin(batches(terms)),
};

/// One event a request, nobody subscribed.
pub(crate) const SINGLES: Experiment = Experiment {
    name: "publish-single",
    subject: Subject::Publish,
    rows: &[Row {
        what: "single-event POSTs, 32 connections, durable",
        against: "bare actix-web handler answering 202",
        unit: "/s",
        target: Target::AtLeast(0.5),
    }],
    run: singles,
};

/// Connections that publish batches: enough that one is always on its way while another is committed.
const BATCH_CONNECTIONS: usize = 4;
/// Connections that publish single events.
const SINGLE_CONNECTIONS: usize = 32;
/// What is sent before a measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// Where events are published.
const PATH: &str = "/v1/topics/bench/events";
/// Events that the plain program commits at once: what the relay takes at most, in whole batches.
const COMMIT_EVENTS: usize = COMMIT_EVENTS_MAX / BATCH_EVENTS * BATCH_EVENTS;

async fn batches(terms: Terms) -> anyhow::Result<Findings> {
    let body: String = (0..BATCH_EVENTS as u64).map(|number| load::event(number, now_us()) + "\n").collect();
    let request = request("application/x-ndjson", &body);
    let (answered, cpu_us, resident) = relay(terms, &request, BATCH_CONNECTIONS).await?;
    let events = answered * BATCH_EVENTS as f64;
    let rate = events / terms.duration.as_secs_f64();
    let directory = tempfile::Builder::new().prefix("hookcast-bench-").tempdir()?;
    let seconds = terms.duration.as_secs_f64().to_string();
    let mut readings = Vec::new();
    for form in ["pages", "events"] {
        let report = process::report(&["bare-storage", form, &seconds], directory.path()).await?;
        let reading = Reading::ratio(rate, report.trim().parse()?);
        readings.push(Reading { relay_cpu_us: Some(cpu_us / events), relay_resident_mib: Some(resident), ..reading });
    }
    Ok(Findings::Measured(readings))
}

fn singles(terms: Terms) -> Run {
    Box::pin(async move {
        let request = request("application/json", &load::event(1, now_us()));
        let (answered, cpu_us, resident) = relay(terms, &request, SINGLE_CONNECTIONS).await?;
        let directory = tempfile::Builder::new().prefix("hookcast-bench-").tempdir()?;
        let bare = process::Role::own(&["bare-handler"], directory.path()).await?;
        post_for(bare.address, &request, SINGLE_CONNECTIONS, WARM_UP).await?;
        let limit = post_for(bare.address, &request, SINGLE_CONNECTIONS, terms.duration).await?;
        bare.stop().await;
        let seconds = terms.duration.as_secs_f64();
        let reading = Reading::ratio(answered / seconds, limit as f64 / seconds);
        let reading = Reading { relay_cpu_us: Some(cpu_us / answered), relay_resident_mib: Some(resident), ..reading };
        Ok(Findings::Measured(vec![reading]))
    })
}

/// Requests that a relay without subscriptions answered, its processor time for them in µs, and its memory in MiB.
async fn relay(terms: Terms, request: &Bytes, connections: usize) -> anyhow::Result<(f64, f64, f64)> {
    let stage = Stage::set(&terms.scene(0)).await?;
    post_for(stage.relay.address, request, connections, WARM_UP).await?;
    let cpu_before = stage.relay.cpu_us();
    let answered = post_for(stage.relay.address, request, connections, terms.duration).await?;
    let cpu_us = stage.relay.cpu_us() - cpu_before;
    let (_, resident) = stage.relay.resident_bytes();
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok((answered as f64, cpu_us as f64, resident as f64 / (1024.0 * 1024.0)))
}

fn request(content_type: &str, body: &str) -> Bytes {
    let length = body.len();
    format!("POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

/// Sends `request` over and over on every connection for `duration`; gives how many were answered with 202.
async fn post_for(server: SocketAddr, request: &Bytes, connections: usize, duration: Duration) -> anyhow::Result<u64> {
    let end = Instant::now() + duration;
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let request = request.clone();
        tasks.push(tokio::task::spawn_local(async move {
            let mut connection = Connection::open(server).await?;
            let mut answered = 0;
            while Instant::now() < end {
                let answer = connection.exchange(&request).await?;
                anyhow::ensure!(answer.status == 202, "answered {}", answer.status);
                answered += 1;
            }
            anyhow::Ok(answered)
        }));
    }
    let mut answered = 0;
    for task in tasks {
        answered += task.await??;
    }
    Ok(answered)
}

/// The handler that sets the limit of single events: reads the body, answers 202, on as many threads as the relay has.
pub(crate) async fn serve_bare() -> anyhow::Result<()> {
    let server =
        HttpServer::new(|| App::new().route(PATH, web::post().to(async |_body: Bytes| HttpResponse::Accepted().finish())))
            .workers(std::thread::available_parallelism().map_or(1, usize::from))
            .tcp_nodelay(true)
            .bind(("127.0.0.1", 0))?;
    let address = server.addrs().first().copied().ok_or_else(|| anyhow::anyhow!("no address"))?;
    crate::say(&format!("listening on http://{address}/"));
    server.run().await?;
    Ok(())
}

/// The database that sets the limit of batches: prints how many events a second it stored in the working directory.
pub(crate) async fn store_bare(form: BareForm, seconds: f64) -> anyhow::Result<()> {
    let mut records = Records::with_capacity(COMMIT_EVENTS, 0);
    for number in 0..COMMIT_EVENTS as u64 {
        records.push(&new_event(number));
    }
    let events: Vec<Record<'_>> = records.iter().collect();
    let mut pages = Vec::new();
    let mut open = PageBuilder::starting_at(Seq(1));
    for (record, seq) in events.iter().zip(1..) {
        if !open.has_room_for_record(*record) {
            pages.push(std::mem::replace(&mut open, PageBuilder::starting_at(Seq(seq))).finish());
        }
        open.push_record(*record);
    }
    pages.push(open.finish());
    let rows = match form {
        BareForm::Pages => BareRows::Pages(&pages),
        BareForm::Events => BareRows::Events(&events),
    };
    let path = Path::new(match form {
        BareForm::Pages => "bare-pages.db",
        BareForm::Events => "bare-events.db",
    });
    let (commits, took) = commit_over_and_over(path, rows, Duration::from_secs_f64(seconds)).await?;
    crate::say(&format!("{:.0}", commits as f64 * COMMIT_EVENTS as f64 / took.as_secs_f64()));
    Ok(())
}

/// What a row of the bare database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BareForm {
    /// A page of events, as in the relay's log.
    Pages,
    /// One event.
    Events,
}

/// An event as the relay makes it of a line.
fn new_event(number: u64) -> NewEvent {
    NewEvent {
        topic: Topic::parse("bench").expect("invariant: a well-formed topic"),
        id: uuid::Uuid::now_v7().to_string(),
        own_id: false,
        source: "/publish".to_owned(),
        kind: "message".to_owned(),
        subject: None,
        time: None,
        arrived_at: Timestamp(i64::try_from(now_us() / 1000).unwrap_or(0)),
        content_type: "application/json".to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Json,
        data: load::event(number, now_us()).into(),
    }
}
