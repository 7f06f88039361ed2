//! What an endpoint may answer, row by row, and what becomes of the delivery.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::json;

use crate::net_fault::FaultServer;
use crate::support::{Answer, Receiver, Relay};

/// `endpoint.status` of the contract's bad inputs: what is answered, and what becomes of the delivery.
#[tokio::test]
async fn every_status_has_its_consequence() {
    let rows: [(u16, Option<&str>, &str, Option<&str>); 23] = [
        (200, None, "delivered", None),
        (201, None, "delivered", None),
        (202, None, "delivered", None),
        (204, None, "delivered", None),
        (206, None, "delivered", None),
        (301, None, "retrying", Some("redirect_not_followed")),
        (307, None, "retrying", Some("redirect_not_followed")),
        (308, None, "retrying", Some("redirect_not_followed")),
        (304, None, "retrying", Some("status_304")),
        (400, None, "retrying", Some("status_400")),
        (401, None, "retrying", Some("status_401")),
        (404, None, "retrying", Some("status_404")),
        (408, None, "retrying", Some("status_408")),
        (413, None, "retrying", Some("status_413")),
        (429, Some("120"), "retrying", Some("status_429")),
        (503, Some("-5"), "retrying", Some("status_503")),
        (503, Some("Wed, 21 Oct 2015 07:28:00 GMT"), "retrying", Some("status_503")),
        (503, Some("Fri, 31 Dec 2099 23:59:59 GMT"), "retrying", Some("status_503")),
        (503, Some("soon"), "retrying", Some("status_503")),
        (503, Some("120.5"), "retrying", Some("status_503")),
        (502, None, "retrying", Some("status_502")),
        (504, None, "retrying", Some("status_504")),
        (999, None, "retrying", Some("status_999")),
    ];
    let relay = Relay::start().await;
    let minute = json!({"retry": {"max_attempts": 3, "schedule": ["1m"], "jitter": 0.0}});
    let mut receivers = Vec::new();
    for (index, (status, retry_after, _, _)) in rows.into_iter().enumerate() {
        let receiver = Receiver::with(move |_, _| match retry_after {
            Some(text) => Answer::status(status).header("retry-after", text),
            None => Answer::status(status).header("location", "http://169.254.169.254/latest/meta-data/"),
        })
        .await;
        relay.subscribe(&format!("s{index}"), receiver.url(), "t", minute.clone()).await;
        receivers.push(receiver);
    }
    let seq = relay.publish("t", "{}").await;
    for (index, (status, retry_after, state, reason)) in rows.into_iter().enumerate() {
        let view = relay.delivery_becomes(&format!("s{index}"), seq, state).await;
        assert_eq!(view["reason"], json!(reason), "{status} {retry_after:?}: {view}");
        if state == "retrying" {
            let at: jiff::Timestamp = view["next_attempt_at"].as_str().unwrap().parse().unwrap();
            let delay_s = at.as_second() - jiff::Timestamp::now().as_second();
            let wanted_s = match retry_after {
                Some("Fri, 31 Dec 2099 23:59:59 GMT") => 24 * 3600,
                Some("120") => 120,
                Some(_) | None => 60,
            };
            assert!((wanted_s - 45..=wanted_s + 1).contains(&delay_s), "{status} {retry_after:?}: {delay_s} s");
        }
        assert_eq!(receivers[index].count(), 1);
    }
}

/// The rows of `endpoint.status` that no well-behaved server answers.
#[tokio::test]
async fn answers_that_are_none_are_told_from_answers() {
    let relay = Relay::start().await;
    let rows: [(&[u8], &str, Option<&str>); 3] = [
        (b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", "dead", Some("protocol")),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "dead", Some("protocol")),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "delivered", None),
    ];
    let once = json!({"retry": {"max_attempts": 1, "schedule": ["1s"]}, "timeout": "5s"});
    let mut servers = Vec::new();
    for (index, (answer, ..)) in rows.into_iter().enumerate() {
        let server = FaultServer::answering(answer);
        relay.subscribe(&format!("s{index}"), &server.url(), "t", once.clone()).await;
        servers.push(server);
    }
    let seq = relay.publish("t", "{}").await;
    for (index, (answer, state, reason)) in rows.into_iter().enumerate() {
        let view = relay.delivery_becomes(&format!("s{index}"), seq, state).await;
        assert_eq!(view["reason"], json!(reason), "{}", String::from_utf8_lossy(answer));
    }
}
