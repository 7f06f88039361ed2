//! A callback endpoint of its own: remembers every request and answers by a script.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{SECRET, eventually};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case; a repeated header is joined by `, `.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The position in `ce-seq`.
    pub(crate) fn seq(&self) -> u64 {
        self.header("ce-seq").parse().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.header("hookcast-attempt").parse().unwrap()
    }

    /// Whether the signature is good under `secret`, by the judgement of the published library; of a body that is no text,
    /// which the library does not take, by the definition.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        if std::str::from_utf8(&self.body).is_err() {
            return self.header("webhook-signature").split(' ').any(|one| one == self.signature(secret));
        }
        let mut headers = reqwest::header::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, self.header(name).parse().unwrap());
        }
        standardwebhooks::Webhook::new(secret).unwrap().verify(&self.body, &headers).is_ok()
    }

    fn signature(&self, secret: &str) -> String {
        let base64 = base64::engine::general_purpose::STANDARD;
        let key = base64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", self.id(), self.header("webhook-timestamp")).as_bytes());
        mac.update(&self.body);
        format!("v1,{}", base64.encode(mac.finalize().into_bytes()))
    }

    /// Fails unless it is signed with the tests' secret.
    pub(crate) fn verify(&self) {
        assert!(self.is_signed_with(SECRET), "a bad signature: {:?}", self.headers);
    }
}

/// What a request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: String,
    body: String,
    delay: Option<Duration>,
    hangs: bool,
    waits: bool,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: String::new(), body: String::new(), delay: None, hangs: false, waits: false }
    }

    pub(crate) fn ok() -> Self {
        Self::status(200)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// Answers only after this time.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Never answers.
    pub(crate) fn never() -> Self {
        Self { hangs: true, ..Self::ok() }
    }

    /// Answers when the test calls [`Receiver::release`], one request a permit.
    pub(crate) fn when_released(mut self) -> Self {
        self.waits = true;
        self
    }
}

type Script = Box<dyn Fn(&Delivery, usize) -> Answer + Send + Sync>;

struct State {
    script: Script,
    keeps_little: bool,
    seen: Vec<Delivery>,
    open: usize,
    most_open: usize,
    connections: usize,
    ended: usize,
}

/// The endpoint; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Receiver {
    url: String,
    state: Arc<Mutex<State>>,
    permits: Arc<Semaphore>,
}

impl Receiver {
    /// Answers every request with 200.
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| Answer::ok()).await
    }

    /// Answers as `script` says of the request and of how many came before it.
    pub(crate) async fn with(script: impl Fn(&Delivery, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::following(Box::new(script)).await
    }

    /// Compiled once, and not for every script of a test.
    async fn following(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let state = State { script, keeps_little: false, seen: Vec::new(), open: 0, most_open: 0, connections: 0, ended: 0 };
        let receiver = Self { url, state: Arc::new(Mutex::new(state)), permits: Arc::new(Semaphore::new(0)) };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                serving.state.lock().unwrap().connections += 1;
                let serving = serving.clone();
                tokio::spawn(async move {
                    serving.clone().converse(stream).await;
                    serving.state.lock().unwrap().ended += 1;
                });
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Lets waiting answers go.
    pub(crate) fn release(&self, count: usize) {
        self.permits.add_permits(count);
    }

    /// Remembers of each request only what tells it apart, for tests with very many.
    pub(crate) fn keep_little(&self) {
        self.state.lock().unwrap().keeps_little = true;
    }

    /// Answers by another script from now on.
    pub(crate) fn change(&self, script: impl Fn(&Delivery, usize) -> Answer + Send + Sync + 'static) {
        self.state.lock().unwrap().script = Box::new(script);
    }

    /// Everything that came, in order.
    pub(crate) fn seen(&self) -> Vec<Delivery> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The positions of all requests, rising: what goes out side by side arrives in any order.
    pub(crate) fn seqs(&self) -> Vec<u64> {
        let mut seqs = self.of_each(Delivery::seq);
        seqs.sort_unstable();
        seqs
    }

    /// One thing of each request that came.
    pub(crate) fn of_each<T>(&self, what: impl Fn(&Delivery) -> T) -> Vec<T> {
        self.state.lock().unwrap().seen.iter().map(what).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Waits until every connection has been read to its end.
    pub(crate) async fn has_heard_all(&self) {
        eventually("the end of every connection", async || {
            let state = self.state.lock().unwrap();
            (state.connections == state.ended).then_some(())
        })
        .await;
    }

    /// Requests that were open at the same time, at most.
    pub(crate) fn most_open(&self) -> usize {
        self.state.lock().unwrap().most_open
    }

    /// Requests that are not answered yet.
    pub(crate) fn open(&self) -> usize {
        self.state.lock().unwrap().open
    }

    /// Waits until this many requests came.
    pub(crate) async fn sees(&self, count: usize) -> Vec<Delivery> {
        let what = format!("{count} requests");
        eventually(&what, async || (self.count() >= count).then(|| self.seen())).await
    }

    async fn converse(self, mut stream: TcpStream) {
        let mut buffered = Vec::new();
        while let Some(mut delivery) = read_request(&mut stream, &mut buffered).await {
            let answer = {
                let mut state = self.state.lock().unwrap();
                let answer = (state.script)(&delivery, state.seen.len());
                if state.keeps_little {
                    delivery.headers.retain(|name, _| matches!(&**name, "webhook-id" | "ce-seq" | "hookcast-attempt"));
                }
                state.seen.push(delivery);
                state.open += 1;
                state.most_open = state.most_open.max(state.open);
                answer
            };
            let sent = answer_with(&mut stream, &answer, &self.permits, &self.state).await;
            if !sent {
                return;
            }
        }
    }
}

async fn answer_with(stream: &mut TcpStream, answer: &Answer, permits: &Semaphore, state: &Mutex<State>) -> bool {
    if answer.hangs {
        // Until the other side gives up.
        let mut rest = [0; 64];
        while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
        state.lock().unwrap().open -= 1;
        return false;
    }
    if answer.waits {
        permits.acquire().await.unwrap().forget();
    }
    if let Some(delay) = answer.delay {
        tokio::time::sleep(delay).await;
    }
    // Before the answer is out: the other side may send its next request at once.
    state.lock().unwrap().open -= 1;
    let Answer { status, headers, body, .. } = answer;
    let whole = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
    stream.write_all(whole.as_bytes()).await.is_ok()
}

async fn read_request(stream: &mut TcpStream, buffered: &mut Vec<u8>) -> Option<Delivery> {
    loop {
        if let Some(end) = buffered.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(buffered[..end].to_vec()).unwrap();
            let headers = headers_of(&head);
            let length: usize = headers.get("content-length").map_or(0, |value| value.parse().unwrap());
            if buffered.len() >= end + 4 + length {
                let body = buffered[end + 4..end + 4 + length].to_vec();
                buffered.drain(..end + 4 + length);
                let mut start = head.split(' ').map(str::to_owned);
                let (method, path) = (start.next().unwrap(), start.next().unwrap());
                return Some(Delivery { at: Instant::now(), method, path, headers, body });
            }
        }
        let mut bytes = [0; 16 * 1024];
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffered.extend_from_slice(&bytes[..n]),
        }
    }
}

fn headers_of(head: &str) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(':').unwrap();
        headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|joined| *joined = format!("{joined}, {}", value.trim()))
            .or_insert_with(|| value.trim().to_owned());
    }
    headers
}
