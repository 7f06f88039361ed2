//! A server of streams under test and the crowd of clients that reads it, each a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::arrivals;
use crate::experiment::Terms;
use crate::folder::Folder;
use crate::load;
use crate::peer::Peer;
use crate::process::{Role, proportional_bytes};
use crate::receiver::ReceiverStats;
use crate::stage::config;
use crate::usage::Usage;
use crate::wire::Connection;

/// Time for the clients to see the beginning of their streams.
const OPENING: Duration = Duration::from_millis(300);

/// A server whose streams are read.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    directory: Folder,
}

#[derive(Debug)]
enum Kind {
    Relay(Role),
    Peer(Peer),
}

impl Server {
    /// A relay, as it is measured everywhere.
    pub(crate) async fn relay(terms: Terms) -> anyhow::Result<Self> {
        let directory = Folder::make()?;
        std::fs::write(directory.path().join("config.toml"), config("failures"))?;
        let kind = Kind::Relay(terms.serve(directory.path()).await?);
        Ok(Self { kind, directory })
    }

    /// The peer with its module, as many workers as the relay has.
    pub(crate) async fn peer(module: &Path) -> anyhow::Result<Self> {
        let directory = Folder::make()?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let kind = Kind::Peer(Peer::start(module, directory.path(), workers).await?);
        Ok(Self { kind, directory })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match &self.kind {
            Kind::Relay(relay) => relay.address,
            Kind::Peer(peer) => peer.address,
        }
    }

    pub(crate) fn publish_path(&self) -> &'static str {
        match self.kind {
            Kind::Relay(_) => "/v1/topics/bench/events",
            Kind::Peer(_) => "/publish",
        }
    }

    fn stream_path(&self, format: &str) -> String {
        match self.kind {
            Kind::Relay(_) => format!("/v1/topics/bench/stream?format={format}"),
            Kind::Peer(_) => String::from("/stream"),
        }
    }

    /// Most events that it takes in one request, as far as that is of use.
    pub(crate) fn batch(&self) -> u64 {
        match self.kind {
            Kind::Relay(_) => load::BATCH_EVENTS as u64,
            Kind::Peer(_) => 1,
        }
    }

    fn pids(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Relay(relay) => relay.pid().into_iter().collect(),
            Kind::Peer(peer) => peer.pids(),
        }
    }

    /// Processor time of all its processes so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.pids())
    }

    /// Resident memory of all its processes, what they share counted once.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.pids().iter().map(|pid| proportional_bytes(*pid)).sum()
    }

    async fn stop(self) {
        match self.kind {
            Kind::Relay(relay) => relay.stop().await,
            Kind::Peer(peer) => peer.stop().await,
        }
    }
}

/// Clients that read a server, and a connection to publish on.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) server: Server,
    /// What a relay streams to them; the peer knows server-sent events only.
    format: &'static str,
    /// How many clients.
    pub(crate) clients: u64,
    readers: Role,
    control: Connection,
    intake: Connection,
}

impl Crowd {
    /// Opens so many streams of a format.
    pub(crate) async fn gather(server: Server, format: &'static str, clients: u64) -> anyhow::Result<Self> {
        let readers = Role::own(&["readers"], server.directory.path()).await?;
        let control = Connection::open(readers.address).await?;
        let intake = Connection::open(server.address()).await?;
        let mut crowd = Self { server, format, clients: 0, readers, control, intake };
        // The peer has no channel to subscribe to before something was published.
        crowd.publish("{}").await?;
        crowd.grow(clients).await?;
        Ok(crowd)
    }

    /// Opens more streams.
    pub(crate) async fn grow(&mut self, clients: u64) -> anyhow::Result<()> {
        let order = format!("/open?{}?{clients}?{}", self.server.address(), self.server.stream_path(self.format));
        self.control.call("POST", &order, "text/plain", b"").await?;
        self.clients += clients;
        tokio::time::sleep(OPENING).await;
        self.reset("/reset").await
    }

    /// Publishes one event.
    pub(crate) async fn publish(&mut self, event: &str) -> anyhow::Result<()> {
        let path = self.server.publish_path();
        self.intake.call("POST", path, "application/json", event.as_bytes()).await.map(drop)
    }

    /// Counts anew.
    pub(crate) async fn reset(&mut self, order: &str) -> anyhow::Result<()> {
        self.control.call("POST", order, "text/plain", b"").await.map(drop)
    }

    /// What all clients together have seen.
    pub(crate) async fn stats(&mut self) -> anyhow::Result<ReceiverStats> {
        arrivals::stats(&mut self.control).await
    }

    /// Waits until every client has so many events.
    ///
    /// # Errors
    /// When they do not come.
    pub(crate) async fn wait(&mut self, events: u64) -> anyhow::Result<ReceiverStats> {
        let wanted = events * self.clients;
        let answer = self.control.call("GET", &format!("/wait?{wanted}"), "text/plain", b"").await?;
        let stats: ReceiverStats = serde_json::from_slice(&answer)?;
        anyhow::ensure!(
            stats.received == wanted,
            "the server lost events, sent some twice or held them back: {} of {wanted} reached the clients",
            stats.received
        );
        Ok(stats)
    }

    /// Ends everything.
    pub(crate) async fn disperse(self) {
        self.readers.stop().await;
        self.server.stop().await;
    }
}
