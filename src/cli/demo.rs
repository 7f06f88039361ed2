//! `hookcast demo`: the whole relay on loopback, fed by a recording, with three receivers that check what they get.
//!
//! Everything runs in this process and in a temporary directory. How a relay is started comes in from `main`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use clap::Args;
use tokio::time::Instant;

use super::client::failed;
use super::directory::TemporaryDirectory;
use super::{EXIT_BIND, Exit, Program, Relay, StopSignal, output};
use crate::config::Config;
use crate::telemetry::{self, LogForm};
use hookcast_core::model::subscription::parse::generate_secret;
use hookcast_core::signature::standard::PreparedKey;

mod receiver;
mod upstream;

use receiver::{Counts, Receiver};
use upstream::Upstream;

/// Events a second.
const PER_SECOND: u32 = 50;
/// Longest wait, after the upstream stopped, for the last event to arrive everywhere.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether everything has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Largest delivery: far above any event of the recording.
const DELIVERY_BYTES_MAX: usize = 2 << 20;
/// What events of the demo's source have as their source.
const SOURCE_PATH: &str = "/sources/wikipedia";
const TOPIC: &str = "wikipedia.edits";

/// The receivers: id of the subscription, which request in how many fails, further keys of the subscription.
const RECEIVERS: [(&str, u64, &str); 3] =
    [("healthy", 0, ""), ("flaky", 5, ""), ("limited", 0, "rate_limit = { per_second = 60, burst = 20 }")];

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Stop the upstream after so many seconds, wait until everything has arrived, and end; without it Ctrl-C does.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
}

pub(super) async fn run(args: DemoArgs, program: &Program) -> Result<(), Exit> {
    // The lines of the demo are what there is to see; whoever wants the relay's own says so.
    if std::env::var_os(telemetry::LOG_VARIABLE).is_some() {
        telemetry::init(LogForm::default());
    }
    let mut stop = StopSignal::listen()?;
    let stage = Stage::set(program).await?;
    let shown = stage.show(args.seconds, &mut stop).await;
    // In any case, so that nothing is left behind.
    let ended = stage.end().await;
    shown.and(ended)
}

fn say(line: &str) -> Result<(), Exit> {
    output::say_while_heard(line.as_bytes())
}

/// Upstream, relay and receivers, running.
struct Stage {
    upstream: Arc<Upstream>,
    receivers: Vec<Arc<Receiver>>,
    servers: Vec<ServerHandle>,
    relay: Relay,
    _directory: TemporaryDirectory,
}

impl Stage {
    async fn set(program: &Program) -> Result<Self, Exit> {
        let directory =
            TemporaryDirectory::make("hookcast-demo").map_err(|error| failed(format!("temporary directory: {error}")))?;
        let upstream = Arc::new(Upstream::new(PER_SECOND));
        let shared = web::Data::from(Arc::clone(&upstream));
        let (source_at, server) = serve(move |config| {
            config.app_data(shared.clone()).default_service(web::to(upstream::stream));
        })?;
        let mut servers = vec![server];
        let mut receivers = Vec::new();
        let mut addresses = vec![source_at];
        let mut definitions = String::new();
        for (name, fails_every, further) in RECEIVERS {
            let secret = generate_secret(&mut |bytes| getrandom::fill(bytes).expect("invariant: the system has random bytes"));
            let key = PreparedKey::new(&secret).map_err(|error| failed(error.to_string()))?;
            let receiver = Arc::new(Receiver::new(name, key, fails_every, Arc::clone(&upstream)));
            let shared = web::Data::from(Arc::clone(&receiver));
            let (address, server) = serve(move |config| {
                config
                    .app_data(shared.clone())
                    .app_data(web::PayloadConfig::new(DELIVERY_BYTES_MAX))
                    .default_service(web::to(receiver::receive));
            })?;
            definitions.push_str(&subscription(name, address, secret.expose(), further));
            addresses.push(address);
            servers.push(server);
            receivers.push(receiver);
        }
        let text = configuration(directory.path(), &addresses) + &definitions;
        let config = Config::parse(&text, "the demo's configuration", &[], &program.protocols);
        let relay = (program.start)(config.map_err(|errors| failed(errors.to_string()))?).await?;
        Ok(Self { upstream, receivers, servers, relay, _directory: directory })
    }

    /// Says how it goes, for so many seconds or until it is told to stop, and waits for what is under way then.
    async fn show(&self, seconds: Option<u64>, stop: &mut StopSignal) -> Result<(), Exit> {
        self.introduce(seconds.is_none())?;
        tokio::select! {
            done = self.watch(seconds.map(Duration::from_secs)) => done?,
            () = stop.wait() => {}
        }
        self.upstream.stop();
        tokio::select! {
            () = self.settle() => {}
            () = stop.wait() => {}
        }
        Ok(())
    }

    /// Says what runs, and what to try with it.
    fn introduce(&self, until_stopped: bool) -> Result<(), Exit> {
        let relay = format!("http://{}", self.relay.address);
        say("hookcast demo: recorded edits of Wikipedia -> one log -> three signed webhooks and as many streams as you open")?;
        say("  healthy answers every POST; flaky answers one in five with 500; limited gets at most 60 a second")?;
        say("")?;
        say("try, in another terminal:")?;
        for line in [
            format!("curl -N '{relay}/v1/topics/wikipedia.*/stream'"),
            format!("curl -N -H 'accept: text/event-stream' '{relay}/v1/topics/**/stream?since=10s'"),
            format!("curl {relay}/v1/subscriptions/flaky/status"),
            format!("curl {relay}/v1/subscriptions/flaky/undelivered"),
            format!("curl {relay}/v1/sources/wikipedia"),
            format!("curl -d '{{\"hello\":\"world\"}}' -H 'content-type: application/json' {relay}/v1/topics/demo.hello/events"),
            format!("curl {relay}/metrics"),
        ] {
            say(&format!("  {line}"))?;
        }
        say("")?;
        if until_stopped { say("Ctrl-C ends it.") } else { Ok(()) }
    }

    /// One line a second, for `duration` or until dropped.
    async fn watch(&self, duration: Option<Duration>) -> Result<(), Exit> {
        let began_at = Instant::now();
        let mut second = 0;
        loop {
            if duration.is_some_and(|duration| began_at.elapsed() >= duration) {
                return Ok(());
            }
            second += 1;
            tokio::time::sleep_until(began_at + Duration::from_secs(second)).await;
            let (events, lag) = (self.upstream.sent(), self.lag());
            let Counts { delivered, verified, retried, .. } = total(&self.receivers);
            say(&format!(
                "{second:>4} s   events {events:>6}   delivered {delivered:>7}   verified {verified:>7}   retried {retried:>6}   lag {lag:>4}"
            ))?;
        }
    }

    /// Waits until every event is everywhere, at most [`PATIENCE`].
    async fn settle(&self) {
        let end = Instant::now() + PATIENCE;
        while self.lag() > 0 && Instant::now() < end {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How many events the receiver that is furthest behind has not got yet.
    fn lag(&self) -> u64 {
        let least = self.receivers.iter().map(|receiver| receiver.counts().delivered).min().unwrap_or(0);
        self.upstream.sent().saturating_sub(least)
    }

    /// Ends everything in order and says what came of it.
    async fn end(self) -> Result<(), Exit> {
        let Self { relay, servers, receivers, upstream, _directory: directory } = self;
        upstream.stop();
        relay.stop.await;
        for server in servers {
            server.stop(false).await;
        }
        drop(directory);
        let events = upstream.sent();
        let Counts { delivered, verified, retried, wrong } = total(&receivers);
        let lost = (events * receivers.len() as u64).saturating_sub(delivered);
        say(&format!("events={events} delivered={delivered} verified={verified} retried={retried} lost={lost}"))?;
        match (lost, wrong) {
            (0, 0) => Ok(()),
            (0, _) => Err(failed(format!("{wrong} deliveries had a wrong signature or other bytes than the upstream sent"))),
            _ => {
                let missing =
                    receivers.iter().map(|one| format!("{} {}", one.name, events.saturating_sub(one.counts().delivered)));
                Err(failed(format!("events that did not arrive: {}", missing.collect::<Vec<_>>().join(", "))))
            }
        }
    }
}

fn total(receivers: &[Arc<Receiver>]) -> Counts {
    receivers.iter().map(|receiver| receiver.counts()).fold(Counts::default(), |sum, one| Counts {
        delivered: sum.delivered + one.delivered,
        verified: sum.verified + one.verified,
        retried: sum.retried + one.retried,
        wrong: sum.wrong + one.wrong,
    })
}

/// The configuration as somebody would write it for this upstream; `addresses` may be dialled, and nothing else.
fn configuration(directory: &Path, addresses: &[SocketAddr]) -> String {
    let source_at = addresses[0];
    let allow: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
[storage]
url = "sqlite://{directory}/hookcast.db"
[network]
allow = {allow:?}
[[sources]]
name = "wikipedia"
protocol = "sse"
url = "http://{source_at}/recentchange"
topic = "{TOPIC}"
"#,
        directory = directory.display()
    )
}

/// Retries come after half a second and then every second: nobody wants to wait five minutes to see one.
fn subscription(id: &str, address: SocketAddr, secret: &str, further: &str) -> String {
    format!(
        r#"
[[subscriptions]]
id = "{id}"
url = "http://{address}/{id}"
topics = ["{TOPIC}", "demo.*"]
signature = {{ scheme = "standard", secret = "{secret}" }}
retry = {{ max_attempts = 20, schedule = ["500ms", "1s"], jitter = 0.2 }}
{further}
"#
    )
}

/// Serves on any free port of loopback until the handle says stop.
fn serve(configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static) -> Result<(SocketAddr, ServerHandle), Exit> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = HttpServer::new(move || App::new().configure(configure.clone())).workers(1).disable_signals().bind(listen);
    let server = server.map_err(|error| Exit::new(EXIT_BIND, format!("cannot listen on {listen}: {error}")))?;
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok((address, handle))
}
