//! Servers as processes, a wire that can be cut at any byte, and what a relay makes of an upstream.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

use crate::support::{PATIENCE, Relay, eventually};

/// The folder of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of another project; fails with what to do when it is not installed.
pub(crate) fn installed(path: &str) -> PathBuf {
    let path = root().join(path);
    assert!(path.exists(), "{} is not installed: run `make tools` first", path.display());
    path
}

/// A server as a process; killed when dropped.
pub(crate) struct Tool {
    child: Child,
    /// What it printed first.
    pub(crate) port: u16,
    /// Whether it is asked to end, because it has children of its own to end.
    is_asked: bool,
}

impl Drop for Tool {
    fn drop(&mut self) {
        if self.is_asked {
            let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Tool {
    /// Starts a program that prints its port.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // The last number of the line: some print a whole URL.
        let port = line.trim_end().trim_end_matches('/').rsplit(':').next().unwrap_or_default();
        let port = port.parse().unwrap_or_else(|_| panic!("{command:?} printed no port: {line:?}"));
        Self { child, port, is_asked: false }
    }

    /// Starts a program of `tests/tools` in Python.
    pub(crate) fn python(script: &str, arguments: &[&str]) -> Self {
        let python = installed("target/tools/py/bin/python");
        Self::start(Command::new(python).arg(root().join("tests/tools").join(script)).args(arguments))
    }

    /// Starts one in JavaScript; its first argument is where the libraries are.
    pub(crate) fn node(script: &str, arguments: &[&str]) -> Self {
        let modules = installed("target/tools/node/node_modules");
        Self::start(Command::new("node").arg(root().join("tests/tools").join(script)).arg(modules).args(arguments))
    }

    /// Starts a program that listens on a port it was given, and waits until it does.
    pub(crate) async fn listening(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; run `make tools` first"));
        let tool = Self { child, port, is_asked: false };
        eventually("a server that listens", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        tool
    }

    /// The same, asked to end instead of killed.
    pub(crate) fn gently(mut self) -> Self {
        self.is_asked = true;
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A wire to a server: the n-th connection is cut after so many bytes of its answer as the n-th cut says, later ones hold.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr, cuts: &[usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let (handles, mut cuts) = (Arc::clone(&open), Vec::from(cuts).into_iter());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let carrying = tokio::spawn(carry(client, server, cuts.next().unwrap_or(usize::MAX)));
                handles.lock().unwrap().push(carrying.abort_handle());
            }
        });
        Self { address, open, task }
    }

    /// Cuts what is open now.
    pub(crate) fn cut(&self) {
        for handle in self.open.lock().unwrap().drain(..) {
            handle.abort();
        }
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut bytes_max: usize) -> Option<()> {
    let server = TcpStream::connect(server).await.ok()?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = async move {
        let mut buffer = vec![0; 4096];
        loop {
            let read = from_server.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
            let sent = read.min(bytes_max);
            to_client.write_all(&buffer[..sent]).await.ok()?;
            bytes_max -= sent;
            if bytes_max == 0 {
                to_client.shutdown().await.ok()?;
                return Some(());
            }
        }
    };
    let up = async move {
        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
        // Half of a connection is nobody's end.
        std::future::pending::<Option<()>>().await
    };
    tokio::select! { done = down => done, done = up => done }
}

/// A number below `end` that is another one in every run; say it in messages.
pub(crate) fn random_below(end: usize) -> usize {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    usize::try_from(random % end as u64).unwrap()
}

/// Makes a source that feeds the topic of its own name.
pub(crate) async fn read_from(relay: &Relay, name: &str, protocol: &str, url: &str, settings: Value) {
    read_as(relay, name, protocol, url, json!({"settings": settings})).await;
}

/// The same with fields of a definition.
pub(crate) async fn read_as(relay: &Relay, name: &str, protocol: &str, url: &str, fields: Value) {
    let mut body = json!({"name": name, "protocol": protocol, "url": url, "topic": name});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    relay.must("POST", "/v1/sources", body).await;
}

/// What a GET shows of a source.
pub(crate) async fn source(relay: &Relay, name: &str) -> Value {
    relay.get(&format!("/v1/sources/{name}")).await
}

/// The first `count` events of a topic, in order, without those that tell of a gap of its source.
pub(crate) async fn events(relay: &Relay, topic: &str, count: usize) -> Vec<Value> {
    let path = format!("{}/v1/topics/{topic}/stream?format=ndjson&since=earliest", relay.url);
    let asked = async {
        let mut response = relay.client.get(path).send().await.unwrap();
        let (mut held, mut events) = (Vec::new(), Vec::new());
        while events.len() < count {
            held.extend_from_slice(&response.chunk().await.unwrap().expect("a stream does not end"));
            while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                let event: Option<Value> = serde_json::from_slice(&line).ok();
                events.extend(event.filter(|event| event["type"] != "hookcast.source.gap"));
            }
        }
        events.truncate(count);
        events
    };
    let Ok(events) = tokio::time::timeout(PATIENCE, asked).await else {
        panic!("not {count} events of {topic}: {}", source(relay, topic).await);
    };
    events
}

/// The data of the first `count` events of a topic.
pub(crate) async fn data(relay: &Relay, topic: &str, count: usize) -> Vec<Value> {
    events(relay, topic, count).await.into_iter().map(|mut event| event["data"].take()).collect()
}

/// The `n` of `{"n": …}` of the first `count` events of a topic.
pub(crate) async fn numbers(relay: &Relay, topic: &str, count: usize) -> Vec<u64> {
    data(relay, topic, count).await.iter().map(|data| data["n"].as_u64().unwrap_or_else(|| panic!("{topic}: {data}"))).collect()
}
