//! A way between a client and the relay that can be cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes bytes on until it is cut; those who come again afterwards pass as before.
pub(super) struct Cutter {
    address: SocketAddr,
    cuts: watch::Sender<u32>,
    passing: tokio::task::JoinHandle<()>,
}

impl Cutter {
    /// In front of the relay at this address, `http://…`.
    pub(super) async fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let cuts = watch::Sender::new(0);
        let watched = cuts.clone();
        let passing = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (target, mut cut) = (target.clone(), watched.subscribe());
                tokio::spawn(async move {
                    let mut relay = TcpStream::connect(&target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut relay) => {}
                        _ = cut.changed() => {
                            // As a cable that is pulled out: no end of the body, no end of the connection.
                            let _ = client.set_zero_linger();
                            let _ = relay.set_zero_linger();
                        }
                    }
                });
            }
        });
        Self { address, cuts, passing }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts every connection there is.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.passing.abort();
    }
}
