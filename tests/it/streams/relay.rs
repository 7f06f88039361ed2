//! A relay that only streams, and the clients that listen to it.

use std::future::ready;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::rt;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use hookcast_core::clock::{SystemClock, Timestamp};
use hookcast_core::model::event::data_form;
use hookcast_core::model::{NewEvent, PageBuilder, Seq, Topic};
use hookcast_http::auth::AuthSettings;
use hookcast_http::{HttpLimits, ServerSettings, serve};
use hookcast_log::follow::Follow;
use hookcast_log::storage::{Append, EventLog, memory};
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_streams::{Egress, EgressSettings, StreamCounts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::edge::{Behind, state_over};
use crate::support::in_time;

/// A log, a server over it and what a test needs to steer them.
pub(crate) struct Relay {
    log: Arc<dyn EventLog>,
    tail: Arc<Tail>,
    egress: Egress,
    head: Mutex<Seq>,
    address: SocketAddr,
    server: ServerHandle,
    pub(crate) closing: CancellationToken,
}

/// Settings under which everything that can happen happens soon.
pub(crate) fn small() -> EgressSettings {
    EgressSettings {
        heartbeat: Duration::from_mins(1),
        tick: Duration::from_millis(10),
        ring_bytes_max: 4 * 1024,
        load_bytes_max: 2 * 1024,
        ..EgressSettings::default()
    }
}

impl Relay {
    pub(crate) async fn start(settings: EgressSettings, tail_bytes_max: usize) -> Self {
        let store = memory::open().unwrap();
        let log = Arc::clone(&store.log);
        let tail = Arc::new(Tail::new(TailSettings { bytes_max: tail_bytes_max }, Seq(1), Seq::ZERO));
        let closing = CancellationToken::new();
        let follow = Follow::new(Arc::clone(&log), Arc::clone(&tail));
        let egress =
            Egress::new(follow, Arc::new(SystemClock), closing.clone(), settings, hookcast_supervise::Supervisor::default());
        let behind = Arc::new(Behind::default());
        let state = state_over(&store, Arc::clone(&tail), &behind, AuthSettings::default(), HttpLimits::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, state, ServerSettings { workers: 2, ..ServerSettings::default() }, &egress).unwrap();
        let handle = server.handle();
        rt::spawn(server);
        Self { log, tail, egress, head: Mutex::default(), address, server: handle, closing }
    }

    /// Publishes JSON events of type `message` whose data is `{"n":<seq>}`, all in one commit.
    pub(crate) async fn publish(&self, topic: &str, count: u64) {
        let mut head = self.head.lock().await;
        let events: Vec<_> = (1..=count).map(|n| event(topic, "message", &format!("{{\"n\":{}}}", head.0 + n))).collect();
        self.commit(&mut head, &events).await;
    }

    /// Publishes one event and gives its position.
    pub(crate) async fn publish_event(&self, event: NewEvent) -> u64 {
        let mut head = self.head.lock().await;
        self.commit(&mut head, &[event]).await;
        head.0
    }

    async fn commit(&self, head: &mut Seq, events: &[NewEvent]) {
        let (mut pages, mut next) = (Vec::new(), head.next());
        let mut builder = PageBuilder::starting_at(next);
        for event in events {
            if !builder.has_room_for(event) {
                pages.push(std::mem::replace(&mut builder, PageBuilder::starting_at(next)).finish());
            }
            next = builder.push(event).next();
        }
        pages.push(builder.finish());
        self.log.append(Append { pages: pages.clone(), expected_head: *head, ..Append::default() }).await.unwrap();
        self.tail.publish(&pages);
        *head = next.prev();
    }

    /// Lets retention take everything but the newest page; gives the oldest position kept.
    pub(crate) async fn trim(&self) -> Seq {
        let (bounds, _) = self.log.trim(Timestamp(i64::MAX), 0, u32::MAX).await.unwrap();
        self.tail.set_first_kept(bounds.first);
        bounds.first
    }

    pub(crate) fn url(&self, path_and_query: &str) -> String {
        format!("http://{}/v1/topics/{path_and_query}", self.address)
    }

    pub(crate) fn counts(&self) -> StreamCounts {
        self.egress.counts()
    }

    /// Waits until as many streams are open.
    pub(crate) async fn until_open(&self, open: u64) {
        eventually(|| self.counts().open == open).await;
    }

    /// Opens a stream as a client that speaks proper HTTP.
    pub(crate) async fn listen(&self, path_and_query: &str) -> Lines {
        let response = reqwest::get(self.url(path_and_query)).await.unwrap();
        assert_eq!(response.status(), 200, "{path_and_query}");
        Lines::of(response)
    }

    /// Sends bytes over a socket of its own.
    pub(crate) async fn raw(&self, request: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(self) {
        self.closing.cancel();
        in_time(self.server.stop(true)).await;
    }
}

/// An event as a publisher would send it.
pub(crate) fn event(topic: &str, kind: &str, data: &str) -> NewEvent {
    event_of(topic, kind, "application/json", data.as_bytes())
}

pub(crate) fn event_of(topic: &str, kind: &str, content_type: &str, data: &[u8]) -> NewEvent {
    NewEvent {
        topic: Topic::parse(topic).unwrap(),
        id: "id".to_owned(),
        own_id: false,
        source: "/publish".to_owned(),
        kind: kind.to_owned(),
        subject: None,
        time: None,
        arrived_at: Timestamp(1_700_000_000_000),
        content_type: content_type.to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: data_form(content_type, data),
        data: Bytes::copy_from_slice(data),
    }
}

/// The body of a response, line by line.
pub(crate) struct Lines {
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    rest: Vec<u8>,
}

impl Lines {
    pub(crate) fn of(response: reqwest::Response) -> Self {
        Self { body: response.bytes_stream().boxed(), rest: Vec::new() }
    }

    /// The next line without its end; `None` at a clean end of the body.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if let Some(chunk) = in_time(self.body.next()).await {
                self.rest.extend_from_slice(&chunk.expect("the body ends cleanly"));
            } else {
                assert!(self.rest.is_empty(), "the body ends inside a line");
                return None;
            }
        }
    }

    /// The next JSON form, silence skipped.
    pub(crate) async fn event(&mut self) -> Option<serde_json::Value> {
        in_time(async {
            loop {
                match self.next().await?.as_str() {
                    "" => {}
                    line => return Some(serde_json::from_str(line).unwrap()),
                }
            }
        })
        .await
    }

    /// Positions of the next `count` events.
    pub(crate) async fn seqs(&mut self, count: usize) -> Vec<u64> {
        let mut seqs = Vec::with_capacity(count);
        while seqs.len() < count {
            let event = self.event().await.expect("the stream goes on");
            seqs.push(event["seq"].as_str().unwrap().parse().unwrap());
        }
        seqs
    }
}

/// Everything until the other side closes.
pub(crate) async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    in_time(socket.read_to_end(&mut all)).await.unwrap();
    String::from_utf8(all).unwrap()
}

/// Everything until `what` was seen.
pub(crate) async fn read_until(socket: &mut TcpStream, what: &str) -> String {
    let mut all = Vec::new();
    in_time(async {
        while !String::from_utf8_lossy(&all).contains(what) {
            let read = socket.read_buf(&mut all).await.unwrap();
            assert!(read > 0, "closed before {what:?}: {:?}", String::from_utf8_lossy(&all));
        }
    })
    .await;
    String::from_utf8(all).unwrap()
}

pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    crate::support::eventually("the condition", || ready(condition().then_some(()))).await;
}
