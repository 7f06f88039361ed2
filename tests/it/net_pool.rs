//! What the delivery client keeps between requests: connections, and nothing of their past.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use crate::net_fault::FaultServer;
use crate::net_wire::{EMPTY, OK, PATIENT, client, post, post_body, post_to, prepared, word};
use hookcast_net::client::WireClient;
use hookcast_net::dial::Gate;
use hookcast_net::{EgressRules, ResolverChoice};

#[actix_rt::test(system = "crate::support::System")]
async fn bytes_behind_an_answer_do_not_answer_the_next_request() {
    // At once behind the answer, and while the connection is idle.
    for late in [false, true] {
        for first in [OK, EMPTY, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 204 x\r\n\r\n"] {
            let extra = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
            let (answered, on_answer) = std::sync::mpsc::channel::<()>();
            let (sent, mut on_sent) = tokio::sync::mpsc::unbounded_channel();
            let on_answer = std::sync::Mutex::new(on_answer);
            let server = FaultServer::start(move |mut peer| {
                if peer.number > 0 {
                    while peer.request().is_some() && peer.send("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n") {}
                    return;
                }
                peer.request();
                if late {
                    peer.send(first);
                    on_answer.lock().unwrap().recv().unwrap();
                    peer.send(extra);
                } else {
                    peer.send(format!("{first}{extra}"));
                }
                sent.send(()).unwrap();
                peer.wait_for_close();
            });
            let (client, target) = (client(), prepared(&server.url()));
            assert!(post_to(&client, &target, PATIENT).await.is_ok());
            answered.send(()).unwrap();
            on_sent.recv().await.unwrap();
            // The runtime learns of the bytes when it next looks at its sockets.
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            let next = word(&post_to(&client, &target, PATIENT).await);
            assert_eq!((next.as_str(), server.connections()), ("500", 2), "{first:?} late={late}");
        }
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_stale_connection_is_replaced_once_and_for_free() {
    // The first connection answers once and dies at the next request; the second answers.
    let server = FaultServer::start(|mut peer| {
        peer.request();
        peer.send(OK);
        if peer.number == 0 {
            peer.request();
            return;
        }
        while peer.request().is_some() && peer.send(OK) {}
    });
    let (client, target) = (client(), prepared(&server.url()));
    assert_eq!(word(&post_to(&client, &target, PATIENT).await), "200");
    assert_eq!(word(&post_to(&client, &target, PATIENT).await), "200");
    assert_eq!((server.connections(), server.requests().len()), (2, 3));
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_fresh_connection_that_dies_is_not_tried_again() {
    let server = FaultServer::start(|mut peer| drop(peer.request()));
    assert_eq!(word(&post(&server, PATIENT).await), "eof");
    assert_eq!(server.connections(), 1);
    // Nor one that had begun to answer.
    let server = FaultServer::start(|mut peer| {
        peer.request();
        peer.send(OK);
        peer.request();
        peer.send("HTTP/1.1 2");
    });
    let (client, target) = (client(), prepared(&server.url()));
    assert_eq!(word(&post_to(&client, &target, PATIENT).await), "200");
    assert_eq!(word(&post_to(&client, &target, PATIENT).await), "eof");
    assert_eq!(server.connections(), 1);
}

#[actix_rt::test(system = "crate::support::System")]
async fn connections_are_kept_and_closed_when_idle() {
    let (closed, mut on_close) = tokio::sync::mpsc::unbounded_channel();
    let server = FaultServer::start(move |mut peer| {
        while peer.request().is_some() && peer.send(OK) {}
        let _ = closed.send(());
    });
    let (client, target) = (client(), prepared(&server.url()));
    for _ in 0..5 {
        assert_eq!(word(&post_to(&client, &target, PATIENT).await), "200");
    }
    assert_eq!((server.connections(), client.origins()), (1, 1));
    client.sweep();
    assert_eq!(client.origins(), 1, "used since the sweep before");
    client.sweep();
    assert_eq!(client.origins(), 0);
    tokio::time::timeout(PATIENT, on_close.recv()).await.unwrap().unwrap();
}

#[actix_rt::test(system = "crate::support::System")]
async fn origins_are_bounded() {
    let server = FaultServer::answering(EMPTY);
    let client = client();
    for n in 0..600 {
        let url = format!("http://127.{}.{}.1:{}/", 1 + n / 250, n % 250, server.address().port());
        // Nobody listens there; the origin is made all the same.
        assert_eq!(word(&post_to(&client, &prepared(&url), PATIENT).await), "connect");
    }
    assert!(client.origins() <= 512);
    assert_eq!(word(&post_to(&client, &prepared(&server.url()), PATIENT).await), "200");
}

#[actix_rt::test(system = "crate::support::System")]
async fn refused_addresses_see_no_packet() {
    let server = FaultServer::answering(EMPTY);
    let closed = WireClient::new(
        Gate::open(EgressRules::new(Vec::new(), true, ResolverChoice::Server(server.address()), Vec::new())).unwrap(),
    );
    assert_eq!(word(&post_to(&closed, &prepared(&server.url()), PATIENT).await), "blocked_address");
    assert_eq!(server.connections(), 0);
}

#[actix_rt::test(system = "crate::support::System")]
async fn many_requests_at_once_do_not_mix_their_answers() {
    let server = FaultServer::start(|mut peer| {
        while let Some(request) = peer.request() {
            let body = request.split("\r\n\r\n").nth(1).unwrap().to_owned();
            if !peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())) {
                return;
            }
        }
    });
    let (client, target) = (client(), prepared(&server.url()));
    for round in 0..5 {
        let posts = (0..40).map(|n| {
            let body = format!("{round}:{n}");
            let (client, target) = (&client, &target);
            async move {
                let answer = post_body(client, target, body.clone().into(), PATIENT).await.unwrap();
                assert_eq!(answer.body_head, body.as_bytes());
            }
        });
        futures_util::future::join_all(posts).await;
    }
    assert!(server.connections() <= 40);
}
