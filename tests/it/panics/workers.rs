//! A worker of the HTTP server: it panics where it takes a connection, in a process of its own, whose log is the trap.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hookcast::config::Config;
use hookcast_supervise::readiness::Readiness;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::house::{Trap, trapped};
use crate::support::{PATIENCE, eventually};

/// Where the child finds its data.
const CHILD: &str = "WORKERS_CHILD_IN";
const NAME: &str = "panics::workers::a_worker_of_the_server_that_panics_ends_its_connections_and_is_replaced";
/// Connections that one address may have: seven eighths of the room.
const OF_ONE: usize = 14;

/// Panics once where it is said that there is no room, which a worker does before anybody would catch that.
struct TrapInTheLog(Arc<AtomicBool>);

impl<S: tracing::Subscriber> Layer<S> for TrapInTheLog {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().ends_with("connections::room") {
            assert!(!self.0.swap(false, Ordering::SeqCst), "the trap in the log");
        }
    }
}

/// One answer to a request on a connection that stays; `None` when it does not.
async fn ask(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ok()?;
    let mut piece = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer or an end").ok()?;
    Some(String::from_utf8_lossy(&piece[..read]).into_owned()).filter(|text| text.starts_with("HTTP/1.1 200 "))
}

/// As many connections as one address may have, each served.
async fn crowd(address: std::net::SocketAddr) -> Option<Vec<TcpStream>> {
    let mut crowd = Vec::new();
    for _ in 0..OF_ONE {
        let mut stream = TcpStream::connect(address).await.ok()?;
        ask(&mut stream).await?;
        crowd.push(stream);
    }
    Some(crowd)
}

async fn child(directory: &std::path::Path) {
    let trap = Arc::new(AtomicBool::new(false));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let log = tracing_subscriber::registry().with(lines).with(TrapInTheLog(Arc::clone(&trap)));
    tracing::subscriber::set_global_default(log).unwrap();
    hookcast_supervise::tell_panics_by_log();
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n[delivery]\nlanes = 1\n[limits]\nconnections = 16\n";
    let config = Config::parse(text, "test", &[], &["sse"]).unwrap();
    let (app, _) = trapped(&config, directory, &Arc::new(Trap::default())).await;
    let (address, readiness): (_, Readiness) = (app.address(), app.readiness().clone());
    let mut inside = crowd(address).await.expect("as many as may be");
    trap.store(true, Ordering::SeqCst);
    let mut one_more = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut one_more).await, None);
    assert!(!trap.load(Ordering::SeqCst), "the trap is sprung");
    // Whoever another worker has is served as before.
    let mut served = 0;
    for stream in &mut inside {
        served += usize::from(ask(stream).await.is_some());
    }
    assert!(served < OF_ONE, "the others went with their worker");
    drop((inside, one_more));
    // No place is lost with the worker, and as many connections are served as before.
    for _ in 0..3 {
        drop(eventually("as many as before", async || crowd(address).await).await);
    }
    let metrics = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
    let told: Vec<&str> = metrics.lines().filter(|line| line.starts_with("hookcast_task_panics_total")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("} 1"), "{told:?}");
    assert!(readiness.troubles().is_empty());
    assert_eq!(futures_util::FutureExt::now_or_never(readiness.ended()), None, "the process goes on");
    timeout(PATIENCE, app.stop()).await.expect("an end in time");
}

#[test]
fn a_worker_of_the_server_that_panics_ends_its_connections_and_is_replaced() {
    if let Ok(directory) = std::env::var(CHILD) {
        actix_web::rt::System::new().block_on(child(directory.as_ref()));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", NAME, "--nocapture"]).env(CHILD, directory.path()).stdin(Stdio::null()).kill_on_drop(true);
    let run = async { timeout(2 * PATIENCE, child.output()).await.expect("an end in time").unwrap() };
    let output = actix_web::rt::System::new().block_on(run);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
