//! Answers that came while the process stood still until the deadline had passed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::{Duration, Instant};

use hookcast_net::Target;
use hookcast_net::fetch::{FetchRequest, Fetcher, HeaderMap, Method};
use hookcast_net::tls::Tls;
use tokio::net::UnixStream;
use tokio::task::yield_now;

use crate::net_wire::{client, gate, post_to, prepared, word};

/// Long enough for a request to reach its endpoint.
const LIMIT: Duration = Duration::from_millis(500);
/// An alarm rings so much too late at most when the thread is free.
const TICK: Duration = Duration::from_millis(2);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// An endpoint that answers one request when it is told to.
struct Endpoint {
    url: String,
    asked: Receiver<()>,
    answer: Sender<()>,
    answered: Receiver<()>,
}

impl Endpoint {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let ((tell_asked, asked), (answer, on_answer), (tell_answered, answered)) = (channel(), channel(), channel());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            tell_asked.send(()).unwrap();
            on_answer.recv().unwrap();
            stream.write_all(ANSWER).unwrap();
            tell_answered.send(()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        Self { url, asked, answer, answered }
    }

    /// What `request` gives when its answer comes in time, and the thread stands still until `LIMIT` has passed.
    async fn outlasts<T>(&self, request: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut request = Box::pin(request);
        while self.asked.try_recv().is_err() {
            assert!(poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await.is_pending(), "it is not answered yet");
            yield_now().await;
        }
        for _ in 0..8 {
            // Whatever the system has to tell of that, and the runtime itself of the alarm.
            yield_now().await;
        }
        assert!(poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await.is_pending(), "it is not answered yet");
        // Something else that the system tells first, namely that it can be written to.
        let _other = UnixStream::pair().unwrap().0;
        self.answer.send(()).unwrap();
        self.answered.recv().unwrap();
        while began.elapsed() <= LIMIT + TICK {
            std::thread::yield_now();
        }
        request.await
    }
}

/// Runs it where the runtime takes one event from the system at a time. Any takes only so many: with none or some of them the
/// alarms ring while there are more.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(1).build().unwrap().block_on(test)
}

#[test]
fn a_delivery_that_was_answered_in_time_is_answered() {
    run(async {
        let endpoint = Endpoint::start();
        let (client, target) = (client(), prepared(&endpoint.url));
        let answer = endpoint.outlasts(post_to(&client, &target, LIMIT)).await;
        assert_eq!(word(&answer), "200");
    });
}

#[test]
fn a_request_that_was_answered_in_time_is_answered() {
    run(async {
        let endpoint = Endpoint::start();
        let fetcher = Fetcher::new(gate(), Tls::new(&[]).unwrap());
        let target = Target::parse(&endpoint.url).unwrap();
        let request = FetchRequest {
            method: Method::GET,
            target: &target,
            headers: HeaderMap::new(),
            body: "".into(),
            head_timeout: LIMIT,
        };
        let answer = endpoint.outlasts(fetcher.fetch(request)).await;
        assert_eq!(answer.map(|response| response.status).map_err(|error| error.to_string()), Ok(200));
    });
}
