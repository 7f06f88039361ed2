//! The gate against a scripted DNS server: what is refused, what is retried, what is dialled.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hookcast_net::dial::{DialError, Gate};
use hookcast_net::{EgressRules, ResolverChoice, Target};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Stands for a public address: listed. 127.0.0.1 is not listed and stands for an inner one.
const PUBLIC: &str = "127.0.0.2";
const INNER: &str = "127.0.0.1";
/// Listed too, but nobody listens there.
const DEAD: &str = "127.0.0.3";

enum Reply {
    Records(Vec<(String, RData)>),
    Code(ResponseCode),
    Silence,
}

/// A DNS server on loopback that answers from a function of (how many A questions came before, name, type).
struct StubDns {
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StubDns {
    fn start(script: impl Fn(usize, &str, RecordType) -> Reply + Send + 'static) -> Self {
        Self::following(Box::new(script))
    }

    /// Compiled once, and not for every script of a test.
    fn following(script: Box<dyn Fn(usize, &str, RecordType) -> Reply + Send>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, halt) = (Arc::clone(&questions), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !halt.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                let name = query.name().to_ascii().to_ascii_lowercase();
                let before = match query.query_type() {
                    RecordType::A => count.fetch_add(1, Ordering::SeqCst),
                    _ => count.load(Ordering::SeqCst),
                };
                let mut answer = Message::response(question.id, OpCode::Query);
                assert_eq!(answer.message_type, MessageType::Response);
                answer.add_query(query.clone());
                match script(before, name.trim_end_matches('.'), query.query_type()) {
                    Reply::Silence => continue,
                    Reply::Code(code) => answer.metadata.response_code = code,
                    Reply::Records(records) => {
                        for (owner, data) in records {
                            answer.add_answer(Record::from_rdata(Name::from_ascii(format!("{owner}.")).unwrap(), 0, data));
                        }
                    }
                }
                socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
            }
        });
        Self { address, questions, stop, thread: Some(thread) }
    }

    fn gate(&self) -> Gate {
        let allow = [PUBLIC, DEAD].iter().map(|entry| entry.parse().unwrap()).collect();
        Gate::open(EgressRules::new(allow, true, ResolverChoice::Server(self.address), Vec::new())).unwrap()
    }
}

impl Drop for StubDns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

const HOOK: &str = "hook.example.test";

fn target(port: u16) -> Target {
    Target::parse(&format!("http://{HOOK}:{port}/")).unwrap()
}

fn record(owner: &str, ip: &str) -> (String, RData) {
    let data = match ip.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    (owner.to_owned(), data)
}

fn alias(owner: &str, to: &str) -> (String, RData) {
    (owner.to_owned(), RData::CNAME(CNAME(Name::from_ascii(format!("{to}.")).unwrap())))
}

/// Answers with those of `ips` that fit the question.
fn addresses(owner: &str, ips: &[&str], kind: RecordType) -> Reply {
    Reply::Records(ips.iter().map(|ip| record(owner, ip)).filter(|(_, data)| data.record_type() == kind).collect())
}

async fn slug_of(script: impl Fn(usize, &str, RecordType) -> Reply + Send + 'static) -> &'static str {
    let dns = StubDns::start(script);
    match dns.gate().vet(&target(80)).await {
        Ok(_) => "ok",
        Err(error) => error.slug(),
    }
}

#[tokio::test]
async fn any_blocked_record_refuses_the_whole_answer() {
    for ips in [
        &[INNER][..],
        &["169.254.169.254"],
        &["10.0.0.1", PUBLIC],
        &[PUBLIC, "10.0.0.1"],
        &[PUBLIC, "::1"],
        &["::ffff:127.0.0.1"],
        &["::ffff:127.0.0.2"],
        &["fd00:ec2::254"],
        &["0.0.0.0"],
    ] {
        assert_eq!(slug_of(move |_, name, kind| addresses(name, ips, kind)).await, "blocked_address", "{ips:?}");
    }
    assert_eq!(slug_of(|_, name, kind| addresses(name, &[PUBLIC, "93.184.216.34"], kind)).await, "ok");
}

#[tokio::test]
async fn an_alias_does_not_hide_where_it_leads() {
    let to_localhost = |_, _: &str, _| Reply::Records(vec![alias(HOOK, "localhost")]);
    assert_eq!(slug_of(to_localhost).await, "blocked_address");
    // In one message, and as an alias that has to be asked for again.
    let in_one = |_, _: &str, kind| {
        let mut records = vec![alias(HOOK, "metadata.google.internal")];
        if kind == RecordType::A {
            records.push(record("metadata.google.internal", "169.254.169.254"));
        }
        Reply::Records(records)
    };
    assert_eq!(slug_of(in_one).await, "blocked_address");
    let in_two = |_, name: &str, kind| match name {
        HOOK => Reply::Records(vec![alias(HOOK, "inner.example.test")]),
        other => addresses(other, &["169.254.169.254"], kind),
    };
    assert_eq!(slug_of(in_two).await, "blocked_address");
    let good = |_, name: &str, kind| match name {
        HOOK => Reply::Records(vec![alias(HOOK, "cdn.example.test")]),
        other => addresses(other, &[PUBLIC], kind),
    };
    assert_eq!(slug_of(good).await, "ok");
}

#[tokio::test]
async fn failures_of_the_dns_have_their_names() {
    assert_eq!(slug_of(|_, _, _| Reply::Code(ResponseCode::NXDomain)).await, "dns_nxdomain");
    assert_eq!(slug_of(|_, _, _| Reply::Code(ResponseCode::ServFail)).await, "dns_servfail");
    assert_eq!(slug_of(|_, _, _| Reply::Records(Vec::new())).await, "dns_empty");
    assert_eq!(slug_of(|_, _, _| Reply::Silence).await, "dns_timeout");
}

#[tokio::test]
async fn broken_answers_are_errors() {
    let looped = |_, name: &str, _| match name {
        HOOK => Reply::Records(vec![alias(HOOK, "b.example.test")]),
        other => Reply::Records(vec![alias(other, HOOK)]),
    };
    assert_eq!(slug_of(looped).await, "dns_error");
    let both_in_one = |_, _: &str, _| Reply::Records(vec![alias(HOOK, "b.example.test"), alias("b.example.test", HOOK)]);
    assert_eq!(slug_of(both_in_one).await, "dns_error");
    let chain = |_, _: &str, kind| {
        let mut records = vec![alias(HOOK, "a0.example.test")];
        records.extend((0..20).map(|n| alias(&format!("a{n}.example.test"), &format!("a{}.example.test", n + 1))));
        if kind == RecordType::A {
            records.push(record("a20.example.test", PUBLIC));
        }
        Reply::Records(records)
    };
    assert_eq!(slug_of(chain).await, "dns_error");
    let spoofed = |_, _: &str, kind| addresses("other.example.test", &[PUBLIC], kind);
    assert_eq!(slug_of(spoofed).await, "dns_error");
}

#[tokio::test]
async fn a_name_with_one_family_is_enough() {
    assert_eq!(slug_of(|_, name, kind| addresses(name, &[PUBLIC], kind)).await, "ok");
    // The second family fails or stays silent: what is there is used, and not late.
    let half = |_, name: &str, kind| match kind {
        RecordType::A => addresses(name, &[PUBLIC], kind),
        _ => Reply::Silence,
    };
    assert_eq!(slug_of(half).await, "ok");
    let half = |_, name: &str, kind| match kind {
        RecordType::A => addresses(name, &[PUBLIC], kind),
        _ => Reply::Code(ResponseCode::ServFail),
    };
    assert_eq!(slug_of(half).await, "ok");
}

/// Listens on the same port of the listed and of the unlisted address.
async fn pair_of_listeners() -> (tokio::net::TcpListener, tokio::net::TcpListener, u16) {
    loop {
        let public = tokio::net::TcpListener::bind((PUBLIC, 0)).await.unwrap();
        let port = public.local_addr().unwrap().port();
        if let Ok(inner) = tokio::net::TcpListener::bind((INNER, port)).await {
            return (public, inner, port);
        }
    }
}

#[tokio::test]
async fn a_name_that_turns_after_the_check_never_reaches_the_inner_address() {
    let (public, inner, port) = pair_of_listeners().await;
    let dns = StubDns::start(|before, name, kind| addresses(name, &[if before == 0 { PUBLIC } else { INNER }], kind));
    let gate = dns.gate();
    let stream = gate.connect(&target(port)).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip().to_string(), PUBLIC);
    assert_eq!(dns.questions.load(Ordering::SeqCst), 1, "one lookup a dial");
    public.accept().await.unwrap();
    // Later the name stands for the inner address: refused at that dial.
    assert_eq!(gate.connect(&target(port)).await.unwrap_err().slug(), "blocked_address");
    assert!(futures_util::FutureExt::now_or_never(inner.accept()).is_none());
}

#[tokio::test]
async fn a_flipping_name_never_reaches_the_inner_address() {
    let (public, inner, port) = pair_of_listeners().await;
    tokio::spawn(async move { while public.accept().await.is_ok() {} });
    let dns = StubDns::start(|before, name, kind| addresses(name, &[[PUBLIC, INNER][before % 2]], kind));
    let gate = dns.gate();
    let (mut connected, mut refused) = (0, 0);
    for _ in 0..1000 {
        match gate.connect(&target(port)).await {
            Ok(stream) => {
                assert_eq!(stream.peer_addr().unwrap().ip().to_string(), PUBLIC);
                connected += 1;
            }
            Err(error) => {
                assert_eq!(error.slug(), "blocked_address");
                refused += 1;
            }
        }
    }
    assert!(connected > 0 && refused > 0);
    assert!(futures_util::FutureExt::now_or_never(inner.accept()).is_none());
}

#[tokio::test]
async fn the_second_address_is_tried_when_the_first_is_dead() {
    let (public, _inner, port) = pair_of_listeners().await;
    let dns = StubDns::start(|_, name, kind| addresses(name, &[DEAD, PUBLIC], kind));
    let stream = dns.gate().connect(&target(port)).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip().to_string(), PUBLIC);
    public.accept().await.unwrap();
}

#[tokio::test]
async fn a_literal_and_localhost_take_the_same_path() {
    let (public, _inner, port) = pair_of_listeners().await;
    let dns = StubDns::start(|_, _, _| Reply::Code(ResponseCode::ServFail));
    let gate = dns.gate();
    let literal = Target::parse(&format!("http://{PUBLIC}:{port}/")).unwrap();
    gate.connect(&literal).await.unwrap();
    public.accept().await.unwrap();
    for refused in [format!("http://{INNER}:{port}/"), format!("http://localhost:{port}/")] {
        let error = gate.connect(&Target::parse(&refused).unwrap()).await.unwrap_err();
        assert!(matches!(error, DialError::Refused(_)), "{error}");
    }
    assert_eq!(dns.questions.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure() {
    let (public, inner, port) = pair_of_listeners().await;
    drop((public, inner));
    let dns = StubDns::start(|_, name, kind| addresses(name, &[PUBLIC], kind));
    assert_eq!(dns.gate().connect(&target(port)).await.unwrap_err().slug(), "connect");
}

#[tokio::test]
async fn a_host_that_drops_packets_is_a_connect_timeout() {
    // A full backlog makes the kernel drop further connection attempts.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fillers: Vec<_> = (0..4)
        .map(|_| {
            let filler = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&address.into());
            filler
        })
        .collect();
    let dns = StubDns::start(|_, name, kind| addresses(name, &[PUBLIC], kind));
    assert_eq!(dns.gate().connect(&target(address.port())).await.unwrap_err().slug(), "connect_timeout");
    drop(fillers);
}
