//! What an independent client of server-sent events makes of our streams.

use std::pin::Pin;

use bytes::Bytes;
use eventsource_client::{Client as _, ClientBuilder, Event, ReconnectOptions, SSE};
use futures_util::stream::{BoxStream, poll_fn};
use futures_util::{StreamExt as _, TryStreamExt as _};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, Request, Response, ResponseFuture, TransportError};
use tokio::sync::{mpsc, oneshot};

use super::relay::{Relay, event, event_of, small};
use crate::support::in_time;

/// Carries the client's requests with `reqwest`.
#[derive(Clone)]
pub(crate) struct Transport(pub(crate) reqwest::Client);

impl HttpTransport for Transport {
    fn request(&self, request: Request<Option<Bytes>>) -> ResponseFuture {
        let (parts, _) = request.into_parts();
        let request = self.0.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        let (answer, answered) = oneshot::channel();
        let (chunks, mut taken) = mpsc::channel(1);
        tokio::spawn(async move {
            let response = request.send().await;
            let (head, mut body) = match response {
                Ok(response) => {
                    let mut head = Response::builder().status(response.status());
                    *head.headers_mut().unwrap() = response.headers().clone();
                    (Ok(head), response.bytes_stream().boxed())
                }
                Err(error) => (Err(TransportError::new(error)), futures_util::stream::empty().boxed()),
            };
            let _ = answer.send(head);
            while let Some(chunk) = body.next().await {
                if chunks.send(chunk.map_err(TransportError::new)).await.is_err() {
                    break;
                }
            }
        });
        let body: ByteStream = Box::pin(poll_fn(move |context| taken.poll_recv(context)));
        Box::pin(async move { answered.await.expect("the request was sent")?.body(body).map_err(TransportError::new) })
    }
}

struct Source(BoxStream<'static, eventsource_client::Result<SSE>>);

impl Source {
    fn open(relay: &Relay, path: &str, last_event_id: Option<u64>) -> Self {
        let mut builder = ClientBuilder::for_url(&relay.url(path)).unwrap();
        if let Some(id) = last_event_id {
            builder = builder.last_event_id(id.to_string());
        }
        let client = builder.reconnect(ReconnectOptions::reconnect(false).build());
        let stream: Pin<Box<_>> = client.build_with_transport(Transport(reqwest::Client::new())).stream();
        Self(stream)
    }

    async fn event(&mut self) -> Event {
        loop {
            match in_time(self.0.try_next()).await.unwrap().expect("the stream goes on") {
                SSE::Event(event) => return event,
                SSE::Connected(_) | SSE::Comment(_) => {}
            }
        }
    }

    async fn connected(&mut self) {
        while !matches!(in_time(self.0.try_next()).await.unwrap(), Some(SSE::Connected(_))) {}
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_client_resumes_behind_its_last_event() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 100).await;
    let mut source = Source::open(&relay, "a/stream", Some(40));
    for seq in 41..=100 {
        let event = source.event().await;
        assert_eq!(event.id.as_deref(), Some(&*seq.to_string()));
        assert_eq!(event.data, format!("{{\"n\":{seq}}}"));
        assert_eq!(event.event_type, "message");
    }
    relay.publish("a", 1).await;
    assert_eq!(source.event().await.id.as_deref(), Some("101"));
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_client_that_saw_the_newest_event_gets_only_new_ones() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 10).await;
    let mut source = Source::open(&relay, "a/stream?since=earliest", Some(10));
    source.connected().await;
    relay.publish("a", 1).await;
    assert_eq!(source.event().await.id.as_deref(), Some("11"));
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn no_payload_breaks_out_of_its_event() {
    let payloads = [
        "x\n\ndata: forged\n\n",
        "a\rb",
        "a\r\nb\n",
        "\u{2028}line\u{2029}",
        "id: 999\nevent: admin",
        ": comment",
        "\u{feff} leading",
        "",
        "\n",
        "nul \0 inside",
    ];
    let relay = Relay::start(small(), 1024 * 1024).await;
    let mut source = Source::open(&relay, "a/stream", None);
    let mut lines = {
        source.connected().await;
        relay.listen("a/stream").await
    };
    for payload in payloads {
        relay.publish_event(event_of("a", "note", "text/plain", payload.as_bytes())).await;
    }
    relay.publish_event(event_of("a", "note", "application/octet-stream", b"\xff\x00\n")).await;
    relay.publish_event(event("a", "note", "{\n  \"pretty\": [\r\n 1 ] }")).await;
    for (seq, payload) in (1..).zip(payloads) {
        let event = source.event().await;
        assert_eq!(event.id.as_deref(), Some(&*seq.to_string()));
        assert_eq!(event.event_type, "note");
        assert_eq!(event.data, payload.replace("\r\n", "\n").replace('\r', "\n"));
        let form = lines.event().await.unwrap();
        assert_eq!(form["data"].as_str().unwrap_or_default(), payload);
        assert_eq!(form["seq"], seq.to_string());
    }
    assert_eq!(source.event().await.data, "/wAK", "bytes that are not text go in base64");
    assert_eq!(lines.event().await.unwrap()["data_base64"], "/wAK");
    assert_eq!(source.event().await.data, "{\n  \"pretty\": [\n 1 ] }");
    assert_eq!(lines.next().await.unwrap().matches("\"pretty\"").count(), 1, "one line an event");
    relay.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn the_envelope_puts_the_json_form_into_the_data() {
    let relay = Relay::start(small(), 1024).await;
    relay.publish("a", 1).await;
    let mut source = Source::open(&relay, "a/stream?since=earliest&envelope=cloudevents", None);
    let form: serde_json::Value = serde_json::from_str(&source.event().await.data).unwrap();
    assert_eq!(form["specversion"], "1.0");
    assert_eq!(form["topic"], "a");
    assert_eq!(form["seq"], "1");
    assert_eq!(form["data"]["n"], 1);
    relay.stop().await;
}
