//! Connections and the file descriptors that they take: how many there may be, and who is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Answer, PATIENCE, Receiver, Relay, eventually};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A connection from an address of this machine.
async fn connect(to: &str, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    timeout(PATIENCE, socket.connect(to.parse().unwrap())).await.unwrap().unwrap()
}

/// One answer, and whether the connection stays.
async fn ask(stream: &mut TcpStream, request: &str) -> (String, bool) {
    let (mut text, mut piece) = (String::new(), vec![0; 64 * 1024]);
    // Whoever is refused at once may find the way shut before everything is said.
    let _ = stream.write_all(request.as_bytes()).await;
    loop {
        match timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer") {
            Ok(0) | Err(_) => return (text, false),
            Ok(read) => text.push_str(&String::from_utf8_lossy(&piece[..read])),
        }
        let head = text.find("\r\n\r\n").map(|end| end + 4);
        let length =
            text.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        if let (Some(head), Some(length)) = (head, length)
            && text.len() >= head + length
            && !text.to_lowercase().contains("connection: close")
        {
            return (text, true);
        }
    }
}

/// The value of one line of the metrics.
async fn metric(stream: &mut TcpStream, name: &str) -> f64 {
    let (text, _) = ask(stream, &GET.replace("/healthz", "/metrics")).await;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_counted_and_told() {
    let relay = Relay::start_served("tcp_listen = \"127.0.0.1:0\"\n", "[limits]\nconnections = 16\n").await;
    let address = relay.url.trim_start_matches("http://").to_owned();
    let mut of_one = Vec::new();
    for _ in 0..12 {
        let mut stream = connect(&address, "127.0.0.1").await;
        assert!(ask(&mut stream, GET).await.1);
        of_one.push(stream);
    }
    // Streams count, and the door without HTTP, too.
    let mut stream = connect(&address, "127.0.0.1").await;
    stream.write_all(GET.replace("/healthz", "/v1/topics/t/stream").as_bytes()).await.unwrap();
    timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap();
    let mut plain = connect(relay.tcp(), "127.0.0.1").await;
    plain.write_all(b"-\nt\n").await.unwrap();
    assert_eq!(timeout(PATIENCE, plain.read_u8()).await.unwrap().unwrap(), b'o');
    for _ in 0..3 {
        let (text, stays) = ask(&mut connect(&address, "127.0.0.1").await, GET).await;
        assert!(!stays && text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("retry-after: 5") && text.contains("\"type\":\"/problems/unavailable\""), "{text}");
    }
    let (text, _) = ask(&mut connect(relay.tcp(), "127.0.0.1").await, "-\nt\n").await;
    assert!(text.starts_with("error unavailable "), "{text}");
    // One address cannot take the places of all.
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&address, "127.0.0.2").await;
        assert!(ask(&mut stream, GET).await.1);
        others.push(stream);
    }
    for from in ["127.0.0.2", "127.0.0.3"] {
        assert!(ask(&mut connect(&address, from).await, GET).await.0.starts_with("HTTP/1.1 503 "), "{from}");
    }
    assert!((metric(&mut others[0], "hookcast_connections_refused_total{reason=\"address\"}").await - 4.0).abs() < 0.5);
    assert!((metric(&mut others[0], "hookcast_connections_refused_total{reason=\"all\"}").await - 2.0).abs() < 0.5);
    assert!((metric(&mut others[0], "hookcast_connections_open").await - 16.0).abs() < 0.5);
    relay.log_says("connections are refused").await;
    assert_eq!(relay.log().matches("connections are refused").count(), 1, "{}", relay.log());
    relay.log_says("limits.streams is 15000").await;
    // Who is inside is served as ever, and places that are left are given again.
    for stream in &mut of_one {
        assert!(ask(stream, GET).await.0.contains("200 OK"));
    }
    drop((of_one, stream, plain));
    eventually("a place", async || ask(&mut connect(&address, "127.0.0.1").await, GET).await.1.then_some(())).await;
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_a_part_of_it_kept() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), "[server]\nlisten = \"127.0.0.1:0\"\n[limits]\nstreams = 800\n")
        .unwrap();
    let script = "ulimit -Sn 512 && ulimit -Hn 1024 && exec \"$0\" serve --config config.toml";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_hookcast")]).current_dir(directory.path()).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    timeout(PATIENCE, lines.next_line()).await.expect("an address").unwrap().expect("a line");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let files: Vec<&str> = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["1024", "1024"], "soft and hard");
    // The log may come behind the address.
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut all = String::new();
    let found = timeout(PATIENCE, async {
        loop {
            let line = log.next_line().await.unwrap()?;
            if line.contains("limits.streams is 800") {
                return Some(line);
            }
            all.push_str(&line);
            all.push('\n');
        }
    });
    let told = found.await.ok().flatten().unwrap_or_else(|| panic!("no line about streams: {all}"));
    assert!(told.contains("WARN") && told.contains("768"), "{told}");
    child.kill().await.unwrap();
}

/// Sets the limit of open files of a relay; gives the one before.
fn set_limit(relay: &Relay, limit: Rlimit) -> Rlimit {
    set_limit_of(relay.pid(), limit)
}

fn set_limit_of(pid: u32, limit: Rlimit) -> Rlimit {
    prlimit(Pid::from_raw(i32::try_from(pid).unwrap()), Resource::Nofile, limit).unwrap()
}

/// Leaves a relay no descriptor; gives the limit before. The test's connection stays open all the time; no number below the limit
/// is free for another.
async fn starve(relay: &Relay) -> Rlimit {
    set_limit(relay, starving(relay).await)
}

/// The limit of open files that leaves a relay no descriptor.
async fn starving(relay: &Relay) -> Rlimit {
    relay.get("/v1/topics").await;
    let files = std::fs::read_dir(format!("/proc/{}/fd", relay.pid())).unwrap();
    let taken: Vec<u64> = files.map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let lowest = (0..=taken.len() as u64).find(|number| !taken.contains(number));
    Rlimit { current: lowest, maximum: getrlimit(Resource::Nofile).maximum }
}

/// Waits until so often a descriptor was missing.
async fn faults_become(relay: &Relay, wanted: u64) {
    eventually("faults of our own", async || {
        let text = relay.client.get(format!("{}/metrics", relay.url)).send().await.ok()?.text().await.ok()?;
        let faults = text.lines().find_map(|line| line.strip_prefix("hookcast_own_faults_total{kind=\"emfile\"} "))?;
        (faults.parse::<u64>().ok()? >= wanted).then_some(())
    })
    .await;
}

/// What is not a delivery of an event as it comes up waits for the end of a shortage as well: questions and recovery jobs.
#[tokio::test]
async fn a_shortage_of_our_own_uses_up_no_question_and_fails_no_job() {
    let relay = Relay::start_with("[websub]\ntopics = [\"orders.**\"]\n").await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    let once = json!({"max_attempts": 1, "schedule": ["1h"]});
    let batch = json!({"max_events": 2, "max_wait": "1ms", "format": "json-array"});
    relay.subscribe("single", receiver.url(), "t", json!({"retry": once})).await;
    relay.subscribe("batched", receiver.url(), "t", json!({"retry": once, "batch": batch})).await;
    let seqs = relay.publish_numbers("t", 0..5).await;
    for id in ["single", "batched"] {
        relay.status_becomes(id, json!({"dead": 5, "lag": 0, "in_flight": 0})).await;
        relay.saved(id).await;
    }
    let asked = Receiver::with(|request, _| {
        let challenge = request.path.split(['?', '&']).find_map(|member| member.split_once("challenge="));
        Answer::ok().body(challenge.map(|(_, challenge)| challenge.to_owned()).unwrap_or_default())
    })
    .await;
    let all = receiver.count();
    receiver.change(|_, _| Answer::ok());
    // What was connected so far is not used again.
    relay.must("PATCH", "/v1/subscriptions/single", json!({"url": format!("{}?anew", asked.url())})).await;
    relay.must("PATCH", "/v1/subscriptions/batched", json!({"url": format!("{}?anew", asked.url())})).await;
    let before = starve(&relay).await;
    relay.subscribe("consents", asked.url(), "none", json!({"verify": "challenge"})).await;
    let topic = format!("{}/v1/topics/orders.x", relay.url);
    let form = [("hub.mode", "subscribe"), ("hub.topic", &topic), ("hub.callback", &format!("{}?websub", asked.url()))];
    let answer = relay.client.post(format!("{}/websub", relay.url)).form(&form).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    let mut jobs = Vec::new();
    for id in ["single", "batched"] {
        let path = format!("/v1/subscriptions/{id}/dead-letters/redrive");
        let made = relay.must("POST", &path, json!({"all": true})).await;
        jobs.push((id, format!("/v1/subscriptions/{id}/jobs/{}", made["job"].as_str().unwrap())));
    }
    faults_become(&relay, 10).await;
    let verification = relay.status("consents").await["verification"].take();
    assert_eq!((&verification["last_error"], &verification["last_attempt_at"]), (&json!(null), &json!(null)), "{verification}");
    let asked_now = relay.must("POST", "/v1/subscriptions/consents/verify", json!({})).await;
    assert_eq!((&asked_now["outcome"], &asked_now["error"]), (&json!("failure"), &json!("own_fault")));
    for (id, path) in &jobs {
        let job = relay.get(path).await;
        assert_eq!((&job["state"], &job["done"], &job["failed"]), (&json!("running"), &json!(0), &json!(0)), "{id}: {job}");
        assert_eq!(relay.status(id).await["dead"], 5, "{id}");
    }
    set_limit(&relay, before);
    relay.status_becomes("consents", json!({"state": "active"})).await;
    eventually("a subscriber of the hub", async || {
        let items = relay.get("/v1/subscriptions").await["items"].take();
        items.as_array().unwrap().iter().any(|item| item["websub"].is_object()).then_some(())
    })
    .await;
    for (id, path) in &jobs {
        let done = eventually("the end of the job", async || {
            let job = relay.get(path).await;
            (job["state"] == "done").then_some(job)
        });
        let done = done.await;
        assert_eq!((&done["done"], &done["failed"]), (&json!(5), &json!(0)), "{id}: {done}");
        relay.status_becomes(id, json!({"dead": 0, "retrying": 0, "failed_attempts_total": 5})).await;
        relay.delivery_becomes(id, seqs[0], "delivered").await;
    }
    assert_eq!(receiver.count(), all);
}

/// The relay has a token, and then no descriptor to ask the endpoint with that it is for.
#[tokio::test]
async fn a_token_for_a_question_that_waits_for_the_end_of_a_shortage_is_fetched_once() {
    let relay = Relay::start().await;
    let (pid, limit, before) = (relay.pid(), starving(&relay).await, OnceLock::new());
    let before = Arc::new(before);
    let (is_short, receiver) = (Arc::clone(&before), Receiver::start().await);
    receiver.change(move |request, _| {
        if request.path == "/hook/token" {
            is_short.get_or_init(|| set_limit_of(pid, limit));
            return Answer::ok().body(json!({"access_token": "a", "token_type": "Bearer", "expires_in": 3600}).to_string());
        }
        let challenge = request.path.split(['?', '&']).find_map(|member| member.strip_prefix("challenge="));
        Answer::ok().body(challenge.map(str::to_owned).unwrap_or_default())
    });
    let oauth2 = json!({"token_url": format!("{}/token", receiver.url()), "client_id": "relay", "client_secret": "secret"});
    relay.subscribe("a", receiver.url(), "none", json!({"verify": "challenge", "auth": {"oauth2": oauth2}})).await;
    faults_become(&relay, 3).await;
    set_limit(&relay, *before.get().unwrap());
    relay.status_becomes("a", json!({"state": "active"})).await;
    let seen = receiver.seen();
    let paths: Vec<&str> = seen.iter().map(|request| request.path.split('?').next().unwrap()).collect();
    assert_eq!((paths, seen[1].header("authorization")), (vec!["/hook/token", "/hook"], "Bearer a"));
}

/// A subscriber of the hub asks three times while the relay cannot ask it back.
#[tokio::test]
async fn a_subscriber_that_was_not_asked_is_not_said_to_have_kept_silent() {
    let relay = Relay::start_with("[websub]\ntopics = [\"orders.**\"]\n").await;
    let asked = Receiver::with(|request, _| {
        let challenge = request.path.split(['?', '&']).find_map(|member| member.strip_prefix("hub.challenge="));
        Answer::ok().body(challenge.map(str::to_owned).unwrap_or_default())
    })
    .await;
    let before = starve(&relay).await;
    let topic = format!("{}/v1/topics/orders.x", relay.url);
    let form = [("hub.mode", "subscribe"), ("hub.topic", &topic), ("hub.callback", asked.url())];
    let ask = async || {
        let answer = relay.client.post(format!("{}/websub", relay.url)).form(&form).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 202);
    };
    let was_overtaken = "a WebSub callback was not asked; something newer was asked for";
    let overtaken = async |count| {
        let enough = async || (relay.log().matches(was_overtaken).count() >= count).then_some(());
        eventually("a word on the one before", enough).await;
    };
    ask().await;
    ask().await;
    overtaken(1).await;
    // The second is overtaken while it waits for the end of the shortage, which comes before it tries again.
    ask().await;
    set_limit(&relay, before);
    overtaken(2).await;
    relay.log_says("a WebSub callback confirmed").await;
    assert_eq!(asked.count(), 1);
    assert!(!relay.log().contains("did not confirm"), "{}", relay.log());
}

/// The relay is short of descriptors: deliveries wait for that to end, and the receiver has nothing to do with it.
#[tokio::test]
async fn a_shortage_of_our_own_is_not_the_receivers_fault() {
    let relay = Relay::start().await;
    let receiver = Receiver::start().await;
    let retry = json!({"max_attempts": 2, "schedule": ["1s"], "jitter": 0});
    relay.subscribe("a", receiver.url(), "t", json!({"retry": retry, "on_full": "dead", "max_retrying": 1})).await;
    let batch = json!({"max_events": 10, "max_wait": "1ms", "format": "json-array"});
    relay.subscribe("batched", receiver.url(), "t", json!({"retry": retry, "batch": batch})).await;
    relay.subscribe("ordered", receiver.url(), "t", json!({"retry": retry, "ordering": "strict"})).await;
    let before = starve(&relay).await;
    let seqs = relay.publish_numbers("t", 0..12).await;
    faults_become(&relay, 30).await;
    let status = relay.status("a").await;
    assert_eq!((&status["circuit"], &status["dead"]), (&json!("closed"), &json!(0)), "{status}");
    assert_eq!((&status["failed_attempts_total"], &status["last_attempt"]), (&json!(0), &json!(null)), "{status}");
    relay.log_says("emfile").await;
    set_limit(&relay, before);
    for id in ["a", "batched", "ordered"] {
        for seq in &seqs {
            let view = relay.delivery_becomes(id, *seq, "delivered").await;
            let attempts = view["attempts"].as_array().unwrap();
            assert!(attempts.iter().all(|attempt| attempt["outcome"] == "success" && attempt["n"] == 1), "{id} {seq}: {view}");
        }
    }
    assert!(receiver.seen().iter().all(|request| request.header("hookcast-attempt") == "1"));
}
