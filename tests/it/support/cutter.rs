//! A TCP proxy that cuts: what a network between a client and the relay does now and then.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A proxy on loopback; ends when dropped.
pub(crate) struct Cutter {
    pub(crate) port: u16,
    left: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Cutter {
    /// Leads to `target` and cuts a connection that has carried `bytes` towards its client, until `cuts` were cut.
    pub(crate) async fn start(target: &str, bytes: usize, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (left, connections) = (Arc::new(AtomicUsize::new(cuts)), Arc::new(AtomicUsize::new(0)));
        let target = target.trim_start_matches("http://").to_owned();
        let task = tokio::spawn({
            let (left, connections) = (Arc::clone(&left), Arc::clone(&connections));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (target, left) = (target.clone(), Arc::clone(&left));
                    tokio::spawn(async move {
                        let _ = carry(client, &target, bytes, &left).await;
                    });
                }
            }
        });
        Self { port, left, connections, task }
    }

    /// Cuts that are still to come.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    /// Connections that came.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, target: &str, bytes: usize, left: &AtomicUsize) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let down = async {
        let (mut carried, mut buffer) = (0, vec![0; 4096]);
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            carried += read;
            let is_last = |left: usize| left.checked_sub(1);
            if carried >= bytes && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_last).is_ok() {
                // Amid an event, most likely.
                to_client.write_all(&buffer[..read / 2]).await?;
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        done = down => done,
        done = tokio::io::copy(&mut from_client, &mut to_server) => done.map(drop),
    }
}
