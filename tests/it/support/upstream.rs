//! Upstreams: an independent server in Python that serves a recording, and a scripted one that goes on behind a token.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::PATIENCE;

/// Serves one file to the first request and nothing (204) to those after it.
const PYTHON: &str = r"
import http.server, sys
data, kind, framing = open(sys.argv[1], 'rb').read(), sys.argv[2], sys.argv[3]
served = [0]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    def do_GET(self):
        served[0] += 1
        if served[0] > 1:
            self.send_response(503); self.send_header('Content-Length', '0'); self.end_headers(); return
        self.send_response(200)
        self.send_header('Content-Type', kind)
        if framing == 'chunked':
            self.send_header('Transfer-Encoding', 'chunked')
        else:
            self.send_header('Connection', 'close')
        self.end_headers()
        for at in range(0, len(data), 97):
            piece = data[at:at + 97]
            if framing == 'chunked':
                self.wfile.write(b'%x\r\n%s\r\n' % (len(piece), piece))
            else:
                self.wfile.write(piece)
            self.wfile.flush()
        if framing == 'chunked':
            self.wfile.write(b'0\r\n\r\n')
        else:
            self.close_connection = True
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
";

/// A recording served by Python's own server; ends when dropped.
pub(crate) struct PythonUpstream {
    _child: Child,
    pub(crate) url: String,
}

impl PythonUpstream {
    /// `framing` is `eof` or `chunked`.
    pub(crate) async fn start(file: &str, media_type: &str, framing: &str) -> Self {
        let path = format!("{}/tests/data/recorded/{file}", env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new("python3")
            .args(["-c", PYTHON, &path, media_type, framing])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        Self { _child: child, url: format!("http://127.0.0.1:{port}/stream") }
    }
}

/// An SSE upstream of numbered events that goes on behind `Last-Event-ID`: event `n` is `{"n":n}` with the id `n`.
#[derive(Clone)]
pub(crate) struct CountingUpstream {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Option<u64>>>>,
}

impl CountingUpstream {
    /// Sends one event every `pace`, up to `last`, then keeps the connection open. Starts `overlap` events before the token.
    pub(crate) async fn start(pace: Duration, last: u64, overlap: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/feed", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Option<u64>>>> = Arc::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(count(stream, pace, last, overlap, Arc::clone(&log)));
            }
        });
        Self { url, asked }
    }

    /// The `Last-Event-ID` of every connection.
    pub(crate) fn asked(&self) -> Vec<Option<u64>> {
        self.asked.lock().unwrap().clone()
    }
}

/// The head of a request, in lower case; `None` when the other side goes before its end.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap().to_ascii_lowercase())
}

async fn count(
    mut stream: TcpStream,
    pace: Duration,
    last: u64,
    overlap: u64,
    asked: Arc<Mutex<Vec<Option<u64>>>>,
) -> Option<()> {
    let head = read_head(&mut stream).await?;
    let token = head.lines().find_map(|line| line.strip_prefix("last-event-id: ")).map(|token| token.trim().parse().unwrap());
    asked.lock().unwrap().push(token);
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 10\n\n";
    stream.write_all(answer.as_bytes()).await.ok()?;
    for n in token.unwrap_or(0).saturating_sub(overlap) + 1..=last {
        stream.write_all(format!("id: {n}\ndata: {{\"n\":{n}}}\n\n").as_bytes()).await.ok()?;
        tokio::time::sleep(pace).await;
    }
    // Until the other side goes.
    stream.read_u8().await.ok().map(drop)
}
