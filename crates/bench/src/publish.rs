//! Intake beside its limits: batches beside the database alone, single events beside a handler that only answers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use bytes::Bytes;

use crate::bare::{BareRows, Committed, commit_over_and_over};
use crate::experiment::{Cost, Experiment, Findings, Reading, Row, Run, Subject, Target, Terms};
use crate::folder::Folder;
use crate::load::{self, BATCH_EVENTS};
use crate::process;
use crate::receiver::now_us;
use crate::stage::Stage;
use crate::wire::Connection;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::{NewEvent, PageBuilder, Record, Records, Seq, Topic};
use hookcast_log::ingest::COMMIT_EVENTS_MAX;

/// Batches of lines, nobody subscribed.
pub(crate) const BATCHES: Experiment = Experiment {
    name: "publish-ndjson",
    subject: Subject::Publish,
    rows: &[
        Row {
            what: "events in NDJSON batches of 500, durable",
            against: "SQLite alone, the same rows of 64 events",
            unit: "/s",
            target: Target::Processor(0.5),
        },
        Row {
            what: "the same, beside a row an event",
            against: "SQLite alone, a row an event, 256 a statement",
            unit: "/s",
            target: Target::Processor(0.5),
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
        target: Target::Processor(0.2),
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
    let relay = relay(terms, &request, BATCH_CONNECTIONS).await?;
    let (rate, cost) = (relay.rate * BATCH_EVENTS as f64, relay.cost(BATCH_EVENTS as f64));
    let directory = Folder::make()?;
    let mut readings = Vec::new();
    for form in ["pages", "events"] {
        let mut limit = None;
        if terms.want_limit() {
            limit = Some(bare_storage(form, terms.duration, directory.path()).await?);
        }
        readings.push(Reading::costing(rate, cost, limit).with_resident(relay.resident_bytes));
    }
    Ok(Findings::Measured(readings))
}

fn singles(terms: Terms) -> Run {
    Box::pin(async move {
        let request = request("application/json", &load::event(1, now_us()));
        let relay = relay(terms, &request, SINGLE_CONNECTIONS).await?;
        let mut limit = None;
        if terms.want_limit() {
            let directory = Folder::make()?;
            let bare = process::Role::own(&["bare-handler"], directory.path()).await?;
            let answered = answer(&bare, &request, SINGLE_CONNECTIONS, Terms { work: None, ..terms }).await?;
            bare.stop().await;
            limit = Some((answered.rate, answered.cost(1.0).cpu_us));
        }
        let reading = Reading::costing(relay.rate, relay.cost(1.0), limit);
        Ok(Findings::Measured(vec![reading.with_resident(relay.resident_bytes)]))
    })
}

/// What a server did.
struct Answered {
    requests: u64,
    /// Requests a second.
    rate: f64,
    /// Processor time of the server for all of them.
    cpu_us: f64,
    resident_bytes: u64,
}

impl Answered {
    fn cost(&self, events_a_request: f64) -> Cost {
        Cost { cpu_us: self.cpu_us / (self.requests as f64 * events_a_request), work: self.requests }
    }
}

/// What a relay without subscriptions does.
async fn relay(terms: Terms, request: &Bytes, connections: usize) -> anyhow::Result<Answered> {
    let stage = Stage::set(&terms.scene(0)).await?;
    let answered = answer(&stage.relay, request, connections, terms).await?;
    stage.relay.stop().await;
    stage.receiver.stop().await;
    Ok(answered)
}

async fn answer(server: &process::Role, request: &Bytes, connections: usize, terms: Terms) -> anyhow::Result<Answered> {
    let warm_up = Terms { duration: WARM_UP, work: None, ..terms };
    post(server.address, request, connections, warm_up).await?;
    terms.both_ready().await;
    let (before, began) = (server.usage(), Instant::now());
    let requests = post(server.address, request, connections, terms).await?;
    let (took, cpu_us) = (began.elapsed(), server.usage().since(&before));
    let (_, resident_bytes) = server.resident_bytes();
    Ok(Answered { requests, rate: requests as f64 / took.as_secs_f64(), cpu_us, resident_bytes })
}

/// What the database alone stores a second in a directory, and its processor time for an event.
pub(crate) async fn bare_storage(form: &str, duration: Duration, directory: &Path) -> anyhow::Result<(f64, f64)> {
    let seconds = duration.as_secs_f64().to_string();
    let report = process::report(&["bare-storage", form, &seconds], directory).await?;
    let (rate, cpu_us) = report.trim().split_once(' ').context("the bare database reports two figures")?;
    Ok((rate.parse()?, cpu_us.parse()?))
}

fn request(content_type: &str, body: &str) -> Bytes {
    let length = body.len();
    format!("POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

/// Sends `request` over and over on every connection as the terms say; gives how many were answered with 202.
async fn post(server: SocketAddr, request: &Bytes, connections: usize, terms: Terms) -> anyhow::Result<u64> {
    let (began, sent) = (Instant::now(), Rc::new(Cell::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (request, sent) = (request.clone(), Rc::clone(&sent));
        tasks.push(tokio::task::spawn_local(async move {
            let mut connection = Connection::open(server).await?;
            while terms.go_on(began, sent.get()).await {
                sent.set(sent.get() + 1);
                let answer = connection.exchange(&request).await?;
                anyhow::ensure!(answer.status == 202, "answered {}", answer.status);
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(sent.get())
}

/// The handler that sets the limit of single events: reads the body, answers 202, on as many threads as the relay has.
pub(crate) async fn serve_bare() -> anyhow::Result<()> {
    let server =
        HttpServer::new(|| App::new().route(PATH, web::post().to(async |_body: Bytes| HttpResponse::Accepted().finish())))
            .workers(std::thread::available_parallelism().map_or(1, usize::from))
            .tcp_nodelay(true)
            .bind(("127.0.0.1", 0))?;
    let address = server.addrs().first().copied().ok_or_else(|| anyhow::anyhow!("no address"))?;
    crate::say::say(&format!("listening on http://{address}/"));
    server.run().await?;
    Ok(())
}

/// The database that sets the limit of batches: prints how many events a second it stored in the working directory, and its
/// processor time for one in microseconds.
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
    let Committed { commits, took, cpu_us } = commit_over_and_over(path, rows, Duration::from_secs_f64(seconds)).await?;
    let stored = commits as f64 * COMMIT_EVENTS as f64;
    crate::say::say(&format!("{:.0} {:.6}", stored / took.as_secs_f64(), cpu_us / stored));
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
