//! `hookcast upstream`: serves a recording as an upstream would, at a steady rate, over and over if asked to.
//!
//! Every path answers with the stream. Each connection has its own position: SSE goes on behind `Last-Event-ID`, and `?after=n`
//! does the same for every protocol. A protocol is one file and one row of [`PROTOCOLS`](protocol::PROTOCOLS).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::{Bytes, BytesMut};
use clap::Args;
use futures_util::stream::{Stream, unfold};
use tokio::time::Instant;

use super::{EXIT_BIND, Exit, client::failed, output};

mod json_seq;
mod length;
mod long_poll;
mod multipart;
mod ndjson;
mod protocol;
mod raw;
mod recording;
mod sse;
mod websocket;

use protocol::{Protocol, Way};
use recording::Record;

/// Size beyond which a chunk takes no further event, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// Time an open stream may take to end when the process is told to stop.
const STOP_TIMEOUT_S: u64 = 1;

#[derive(Debug, Args)]
pub(super) struct UpstreamArgs {
    /// The recording: NDJSON or SSE, plain or gzip.
    file: PathBuf,
    /// How it is served: a protocol of sources.
    #[arg(long, default_value = "ndjson", value_parser = protocol::parse)]
    protocol: &'static Protocol,
    /// Events a second on each connection; 0 = as fast as they are taken.
    #[arg(long, default_value_t = 10.0, value_parser = parse_rate)]
    rate: f64,
    /// Begin again at the end instead of closing the stream.
    #[arg(long = "loop")]
    repeat: bool,
    /// Address and port; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1e6).contains(&rate) { Ok(rate) } else { Err("allowed: 0 to 1000000".to_owned()) }
}

/// What all connections share.
#[derive(Debug)]
struct Show {
    records: Vec<Record>,
    protocol: &'static Protocol,
    rate: f64,
    repeat: bool,
}

pub(super) async fn run(args: UpstreamArgs) -> Result<(), Exit> {
    let records = recording::read(&args.file).map_err(|error| failed(format!("cannot read {}: {error}", args.file.display())))?;
    if records.is_empty() {
        return Err(failed(format!("{} holds no event", args.file.display())));
    }
    let show = Arc::new(Show { records, protocol: args.protocol, rate: args.rate, repeat: args.repeat });
    serve_http(args.listen, "upstream at", move |config| {
        config.app_data(web::Data::from(Arc::clone(&show))).default_service(web::to(stream));
    })
    .await
}

/// Serves until a signal comes; prints the bound URL behind `title`.
pub(super) async fn serve_http(
    listen: SocketAddr,
    title: &str,
    configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> Result<(), Exit> {
    let cannot_bind = |error: std::io::Error| Exit::new(EXIT_BIND, format!("cannot listen on {listen}: {error}"));
    let server = HttpServer::new(move || App::new().configure(configure.clone()))
        .workers(1)
        .shutdown_timeout(STOP_TIMEOUT_S)
        .bind(listen)
        .map_err(cannot_bind)?;
    for address in server.addrs() {
        output::say(&format!("{title} http://{address}/"))?;
    }
    server.run().await.map_err(|error| failed(error.to_string()))
}

async fn stream(request: HttpRequest, payload: web::Payload, show: web::Data<Show>) -> HttpResponse {
    let after = position(&request).unwrap_or(0);
    let show = show.into_inner();
    match show.protocol.way {
        Way::Body => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, show.protocol.content_type))
            .insert_header((CACHE_CONTROL, "no-store"))
            .streaming(events(show, after)),
        Way::WebSocket => websocket::talk(&request, payload, events(show, after)),
        Way::LongPoll => long_poll::answer(show, after).await,
    }
}

/// The number of the last event the client has.
fn position(request: &HttpRequest) -> Option<u64> {
    let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let query =
        || url::form_urlencoded::parse(request.query_string().as_bytes()).find(|(name, _)| name == "after")?.1.parse().ok();
    header.or_else(query)
}

/// Where one connection is.
struct Place {
    show: Arc<Show>,
    began_at: Instant,
    first: u64,
    next: u64,
}

/// Events number `after + 1` and on, each no earlier than the rate says.
fn events(show: Arc<Show>, after: u64) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    unfold(Place::new(show, after), |mut place| async move {
        tokio::time::sleep_until(place.due()).await;
        let now = Instant::now();
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK_BYTES && place.due() <= now {
            let Some(record) = place.record() else { break };
            (place.show.protocol.write)(record, place.next, &mut chunk);
            place.next += 1;
        }
        (!chunk.is_empty()).then(|| (Ok(chunk.freeze()), place))
    })
}

impl Place {
    fn new(show: Arc<Show>, after: u64) -> Self {
        Self { show, began_at: Instant::now(), first: after.saturating_add(1), next: after.saturating_add(1) }
    }

    /// When the next event may go out.
    fn due(&self) -> Instant {
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let number = (self.next - self.first) as f64;
        let delay = if self.show.rate > 0.0 { number / self.show.rate } else { 0.0 };
        self.began_at + Duration::try_from_secs_f64(delay).unwrap_or(Duration::MAX / 4)
    }

    fn record(&self) -> Option<&Record> {
        let index = usize::try_from(self.next - 1).ok()?;
        let records = &self.show.records;
        records.get(if self.show.repeat { index % records.len() } else { index })
    }
}
