//! Rows about connections and bytes.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Plan, Row, attempt, carry_out_all};
use crate::net_fault::{FaultServer, Peer};
use crate::support::PATIENCE;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// What stands for the fifteen seconds of the rows.
const BRIEF: &str = "1s";
const BRIEF_MS: u64 = 1000;

/// A server that runs `script` for each connection, and the plan to post to it.
fn serving(script: impl Fn(Peer) + Send + Sync + 'static) -> Plan {
    let server = FaultServer::start(script);
    Plan::new(server.url(), server)
}

/// A plan whose end looks at the server, too.
fn watched(server: FaultServer, events: usize, after: impl Fn(&FaultServer, &[Value]) + 'static) -> Plan {
    let server = Arc::new(server);
    let seen = Arc::clone(&server);
    Plan::new(server.url(), server).events(events).then(move |_, views| after(&seen, views))
}

/// Ends by the deadline of the attempt, neither long before nor for another reason.
fn timed_out(plan: Plan) -> Plan {
    plan.with(json!({"timeout": BRIEF})).then(|_, views| {
        let latency = attempt(&views[0])["latency_ms"].as_u64().unwrap();
        assert!(latency >= BRIEF_MS, "{latency}");
    })
}

/// An answer with this body; the second one says 500, so that the start of the body is kept.
fn kept_body(head: &'static str, body: &'static [u8], wanted: &'static str) -> Plan {
    let server = FaultServer::start(move |mut peer| {
        let mut count = 0;
        while peer.request().is_some() {
            let status = if count == 0 { 200 } else { 500 };
            count += 1;
            peer.send(format!("HTTP/1.1 {status} x\r\n{head}content-length: {}\r\n\r\n", body.len()));
            peer.send(body);
        }
    });
    watched(server, 2, move |_, views| {
        let response = attempt(&views[1])["response"].as_str().unwrap();
        assert!(response.starts_with(wanted) && response.len() <= 16 * 1024, "{response:?}");
    })
}

/// Rows about connections that come to nothing.
fn unconnected(row: &Row) -> Option<Plan> {
    Some(match row.input.as_str() {
        "connection refused" => {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            Plan::new(format!("http://{address}/"), ())
        }
        "SYN dropped (blackhole)" => {
            // A full backlog makes the kernel drop further connection attempts.
            let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let socket = new();
            socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            socket.listen(0).unwrap();
            let address = socket.local_addr().unwrap();
            let fillers: Vec<_> = (0..4)
                .map(|_| {
                    let filler = new();
                    filler.set_nonblocking(true).unwrap();
                    let _ = filler.connect(&address);
                    filler
                })
                .collect();
            let url = format!("http://{}/", address.as_socket().unwrap());
            Plan::new(url, (socket, fillers))
        }
        "accept then RST" => serving(Peer::reset),
        "reads request, closes without answer" => serving(|mut peer| {
            peer.request();
        }),
        "RST after full request read" => {
            let (came, requests) = mpsc::channel();
            let server = FaultServer::start(move |mut peer| {
                if peer.request().is_some() {
                    let _ = came.send(());
                }
                if peer.number == 0 {
                    peer.reset();
                } else {
                    peer.send(OK);
                }
            });
            watched(server, 2, move |server, _| {
                for request in ["the first event", "the second, and the first once more", "the other of these two"] {
                    requests.recv_timeout(PATIENCE).expect(request);
                }
                let ids: Vec<String> = server.requests().iter().map(|request| webhook_id(request)).collect();
                assert!(ids[1..].contains(&ids[0]), "{ids:?}");
            })
            .with(
                json!({"ordering": "none", "max_in_flight": 1, "retry": {"max_attempts": 5, "schedule": ["3s"], "jitter": 0.0}}),
            )
        }
        "never answers" => timed_out(serving(|mut peer| {
            peer.wait_for_close();
        })),
        "head at 1 byte/s" => timed_out(serving(|mut peer| {
            peer.request();
            for byte in OK.bytes().cycle() {
                if !peer.send([byte]) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        })),
        _ => return None,
    })
}

fn webhook_id(request: &str) -> String {
    let line = request.lines().find_map(|line| line.strip_prefix("webhook-id: "));
    line.unwrap().to_owned()
}

/// An answer that would never end, and how little of it goes out.
fn endless() -> Plan {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let (over, closed) = mpsc::channel();
    let plan = serving(move |mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n");
        let block = vec![b'x'; 64 * 1024];
        while peer.send(&block) {
            counted.fetch_add(block.len(), Ordering::SeqCst);
        }
        let _ = over.send(());
    });
    plan.then(move |_, _| {
        closed.recv_timeout(PATIENCE).expect("the relay closes the socket");
        // What is more than the 64 KiB that are read lay in the buffers of the two sockets.
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < 64 << 20, "{sent} bytes went out");
    })
}

/// Rows whose answer is a success, whatever follows it.
fn answered(row: &Row) -> Option<Plan> {
    Some(match row.input.as_str() {
        "answers 200 before reading the body" => {
            let mut plan = serving(|mut peer| {
                peer.send(OK);
                peer.wait_for_close();
            });
            plan.events = vec![format!("\"{}\"", "x".repeat(900_000))];
            plan
        }
        "200 head, body 1 byte/s for ever" => {
            let (over, closed) = mpsc::channel();
            let plan = serving(move |mut peer| {
                peer.request();
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
                while peer.send("x") {
                    std::thread::sleep(Duration::from_millis(50));
                }
                let _ = over.send(());
            });
            plan.then(move |_, _| closed.recv_timeout(PATIENCE).expect("the relay closes the socket"))
        }
        "200 with 10 GiB body" => endless(),
        "200 Content-Encoding: gzip bomb" => {
            kept_body("content-encoding: gzip\r\n", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "\u{1f}\u{fffd}\u{8}")
        }
        "Content-Length: 5 then 3 bytes and close" => serving(|mut peer| {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc");
        }),
        "extra bytes after the response (desync)" => {
            let server = FaultServer::start(|mut peer| {
                while peer.request().is_some() {
                    peer.send(format!("{OK}HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n"));
                }
            });
            watched(server, 2, |server, views| {
                assert_eq!((server.connections(), &views[1]["state"]), (2, &json!("delivered")));
            })
        }
        "header value with \\x1b[2J ANSI" => {
            let server =
                FaultServer::answering("HTTP/1.1 200 OK\r\nx-odd: \x1b[2J\r\nretry-after: \x1b[2J\r\ncontent-length: 0\r\n\r\n");
            Plan::new(server.url(), server).then(|relay, _| assert!(!relay.log().contains("\x1b[2J")))
        }
        "body with NUL and invalid UTF-8" => kept_body("", b"a\0b\xff\xfec", "a\0b\u{fffd}\u{fffd}c"),
        "Set-Cookie: a=b" => {
            let server = FaultServer::answering("HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n");
            watched(server, 2, |server, _| {
                assert!(server.requests().iter().all(|request| !request.to_ascii_lowercase().contains("\r\ncookie:")));
            })
        }
        _ => return None,
    })
}

/// Rows whose answer is none.
fn broken(row: &Row) -> Option<Plan> {
    Some(match row.input.as_str() {
        "Content-Length and Transfer-Encoding" => {
            let both = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
            watched(FaultServer::answering(both), 2, |server, _| assert_eq!(server.connections(), 2, "the socket is used again"))
        }
        "header of 200 KiB" => serving(|mut peer| {
            peer.request();
            peer.send(format!("HTTP/1.1 200 OK\r\nx-long: {}", "x".repeat(200 * 1024)));
            peer.send("\r\ncontent-length: 0\r\n\r\n");
            peer.wait_for_close();
        }),
        "SSH-2.0-OpenSSH banner" => serving(|mut peer| {
            peer.send("SSH-2.0-OpenSSH_9.6\r\n");
            peer.wait_for_close();
        }),
        "HTTP/0.9 body only" => serving(|mut peer| {
            peer.request();
            peer.send("<html>hello</html>\r\n");
            peer.half_close();
            peer.wait_for_close();
        }),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wire_row_holds() {
    carry_out_all("endpoint.wire", async |row| unconnected(row).or_else(|| answered(row)).or_else(|| broken(row))).await;
}
