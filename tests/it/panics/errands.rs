//! Errands of a shard, sources, requests, connections and the hub: each panics for real.

use serde_json::json;

use super::house::House;
use super::{both, quick};
use crate::support::upstream::CountingUpstream;
use crate::support::{Answer, PATIENCE, Receiver, eventually};

#[actix_rt::test(system = "crate::support::System")]
async fn an_errand_of_a_shard_that_panics_ends_the_process_and_a_restart_loses_nothing() {
    for (function, part) in [("start::hear", "bell"), ("sorting::read", "order"), ("start::forget", "forgetting")] {
        let receiver = Receiver::with(|_, _| Answer::status(500)).await;
        let mut house = House::start().await;
        let one = json!({"limit_group": "one", "ordering": {"key": "/n"}});
        house.subscribe("a", receiver.url(), both(quick(99), &one)).await;
        house.subscribe("b", receiver.url(), both(quick(99), &one)).await;
        house.subscribe("c", receiver.url(), json!({"topics": ["other"]})).await;
        match part {
            "order" => {
                house.publish(1).await.unwrap();
                receiver.sees(2).await;
                house.stop().await;
                house.trap.arm(function, 1);
                house.restart().await;
            }
            "forgetting" => {
                house.trap.arm(function, 1);
                drop(house.ask("DELETE", "/v1/subscriptions/c", None).await);
                house.publish(1).await.unwrap();
            }
            _ => {
                house.trap.arm(function, 1);
                house.publish(1).await.unwrap();
            }
        }
        let ending = house.must_end().await;
        assert_eq!((ending.exit_code, ending.reason), (70, format!("shard-1/{part} panicked: the trap in {function}")));
        assert_eq!(house.not_ready().await, ["/task/shard-1"], "{part}");
        house.stop().await;
        receiver.change(|_, _| Answer::ok());
        house.restart().await;
        for id in ["a", "b"] {
            house.status_becomes(id, json!({"lag": 0, "retrying": 0, "in_flight": 0, "dead": 0})).await;
        }
        assert!(house.not_ready().await.is_empty(), "{part}");
        house.stop().await;
    }
}

async fn metrics(house: &House) -> String {
    house.client.get(format!("{}/metrics", house.url)).send().await.unwrap().text().await.unwrap()
}

#[actix_rt::test(system = "crate::support::System")]
async fn the_reader_of_a_source_that_panics_is_started_again_where_it_was() {
    let mut house = House::start().await;
    let upstream = CountingUpstream::start(std::time::Duration::ZERO, 3, 0).await;
    house.trap.arm("Session::connected", 1);
    let source = json!({"url": upstream.url, "topic": "t", "protocol": "sse"});
    house.must("PUT", "/v1/sources/panicky", source).await;
    eventually("the panic as its last error", async || {
        let source = house.ask("GET", "/v1/sources/panicky", None).await.1;
        source.to_string().contains("panic: the reader failed").then_some(())
    })
    .await;
    eventually("all of its events", async || {
        let text = metrics(&house).await;
        let events = house.ask("GET", "/v1/sources/panicky", None).await.1;
        (text.contains("hookcast_task_restarts_total{task=\"source-panicky\"} 1") && events.to_string().contains("\"events\":3"))
            .then_some(())
    })
    .await;
    house.must_not_end();
    house.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_keeps_sources_in_line_is_started_again_when_it_panics() {
    let mut house = House::start().await;
    let upstream = CountingUpstream::start(std::time::Duration::ZERO, 3, 0).await;
    let source = json!({"url": upstream.url, "topic": "t", "protocol": "sse"});
    house.must("PUT", "/v1/sources/whole", source).await;
    // One of a build that knew more: whoever starts it looks at the clock.
    let catalog = house.catalog.clone().unwrap();
    let mut unknown = catalog.sources().await.unwrap().remove(0);
    unknown.spec.name = "ahead".to_owned();
    unknown.spec.protocol = "unknown".to_owned();
    catalog.put_source(unknown, 0).await.unwrap();
    house.stop().await;
    house.trap.arm("Sources::start", 1);
    house.restart().await;
    eventually("sources not ready", async || (house.not_ready().await == ["/task/sources"]).then_some(())).await;
    eventually("sources ready again", async || house.not_ready().await.is_empty().then_some(())).await;
    eventually("the source that can be read is read", async || {
        let whole = house.ask("GET", "/v1/sources/whole", None).await.1;
        whole.to_string().contains("\"connected\"").then_some(())
    })
    .await;
    house.must_not_end();
    house.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_request_or_a_connection_that_panics_is_the_only_one_that_suffers() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut house = House::start().await;
    house.trap.arm("publish::publish", 1);
    assert_eq!(house.publish(1).await, Err(500));
    assert_eq!(house.publish(2).await, Ok(1), "nothing of the other was taken");
    let connect = async || tokio::net::TcpStream::connect(house.tcp.unwrap()).await.unwrap();
    let lines = b"-\nt since=2020-01-01T00:00:00Z\n";
    house.trap.arm("tcp::open", 1);
    let (mut broken, mut said) = (connect().await, String::new());
    broken.write_all(lines).await.unwrap();
    tokio::time::timeout(PATIENCE, broken.read_to_string(&mut said)).await.expect("an end").unwrap();
    assert_eq!((said.as_str(), house.trap.is_sprung()), ("", true));
    let (mut whole, mut said) = (connect().await, [0; 5]);
    whole.write_all(lines).await.unwrap();
    tokio::time::timeout(PATIENCE, whole.read_exact(&mut said)).await.expect("an answer").unwrap();
    assert_eq!(&said, b"ok 0\n");
    drop(whole);
    house.must_not_end();
    house.stop().await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_websub_request_that_panics_gives_its_place_back() {
    let mut house = House::start().await;
    let receiver = Receiver::with(|request, _| {
        let challenge = request.path.split('&').find_map(|member| member.strip_prefix("hub.challenge="));
        Answer::ok().body(challenge.unwrap_or_default())
    })
    .await;
    house.trap.arm("Hub>::subscribe", 1);
    let topic = format!("{}/v1/topics/offered.x", house.url);
    let form = [("hub.mode", "subscribe"), ("hub.topic", &*topic), ("hub.callback", receiver.url())];
    let submit = async || house.client.post(format!("{}/websub", house.url)).form(&form).send().await.unwrap().status().as_u16();
    assert_eq!(submit().await, 202);
    eventually("the panic", async || {
        metrics(&house).await.contains("hookcast_task_panics_total{task=\"websub-request\"} 1").then_some(())
    })
    .await;
    let subscriptions = async || house.ask("GET", "/v1/subscriptions", None).await.1.to_string();
    assert!(!subscriptions().await.contains("websub_"), "nothing is half made");
    // The same callback is asked once at a time.
    assert_eq!(submit().await, 202);
    eventually("the subscription", async || subscriptions().await.contains("websub_").then_some(())).await;
    house.must_not_end();
    house.stop().await;
}
