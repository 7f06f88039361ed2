//! Rows about certificates and handshakes. Subscriptions trust an authority of the tests.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::{Plan, Row, attempt, carry_out_all};
use crate::net_fault::FaultServer;
use crate::net_tls::{Authority, TlsEndpoint, config, serve};

/// The endpoint of a certificate that is wrong in some way.
async fn serving(config: rustls::ServerConfig) -> Plan {
    let endpoint = TlsEndpoint::start(config).await;
    Plan::new(endpoint.url("127.0.0.1"), endpoint)
}

/// An endpoint that says these bytes to whatever comes.
fn saying(bytes: &'static [u8]) -> Plan {
    let server = FaultServer::start(move |mut peer| {
        peer.bytes();
        peer.send(bytes);
        peer.half_close();
        peer.wait_for_close();
    });
    Plan::new(format!("https://{}/", server.address()), server)
}

/// Hands a client hello on, and of the answer the first record only: the server hello.
fn stalling(endpoint: SocketAddr) -> FaultServer {
    FaultServer::start(move |mut peer| {
        let mut stream = TcpStream::connect(endpoint).unwrap();
        stream.write_all(&peer.bytes()).unwrap();
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut record).unwrap();
        assert_eq!((head[0], record[0]), (22, 2), "a server hello");
        peer.send(head);
        peer.send(record);
        peer.wait_for_close();
    })
}

async fn plan(row: &Row, authority: &Authority) -> Option<Plan> {
    Some(match row.input.as_str() {
        "expired certificate" => serving(authority.expired()).await,
        "wrong host name" => serving(authority.server("hook.example.test")).await,
        "self-signed" => {
            let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
            serving(config(own.cert.der().clone(), &own.signing_key)).await
        }
        "unknown CA" => serving(Authority::new().server("127.0.0.1")).await,
        // The alerts protocol_version and unrecognized_name.
        "TLS 1.0 / 1.1 only" => saying(&[0x15, 3, 1, 0, 2, 2, 70]),
        "SNI alert unrecognized_name" => saying(&[0x15, 3, 3, 0, 2, 2, 112]),
        "plain HTTP on 443" => saying(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"),
        "handshake stalls after ServerHello" => {
            let endpoint = TlsEndpoint::start(authority.server("127.0.0.1")).await;
            let server = stalling(endpoint.address());
            Plan::new(format!("https://{}/", server.address()), (server, endpoint))
        }
        "certificate changes to invalid between attempts" => {
            let address = serve(vec![authority.server("127.0.0.1"), authority.expired()]).await;
            let mut plan = Plan::new(format!("https://{address}/"), ()).events(2);
            plan.judged = 1;
            plan.then(|_, views| assert_eq!(views[0]["state"], "delivered"))
        }
        "ALPN h2 offered, then GOAWAY storm" => {
            let mut config = authority.server("127.0.0.1");
            config.alpn_protocols = vec![b"h2".to_vec()];
            // Nobody gets as far as a GOAWAY: whoever speaks HTTP/2 only is refused in the handshake.
            serving(config).await.then(|_, views| assert_eq!(attempt(&views[0])["error"], "tls", "{}", views[0]))
        }
        _ => return None,
    })
}

#[tokio::test]
async fn every_tls_row_holds() {
    let authority = Authority::new();
    let trusting = |plan: Plan| {
        let mut more: Value = json!({"ca_pem": authority.pem()});
        more.as_object_mut().unwrap().extend(plan.more.as_object().unwrap().clone());
        plan.with(more)
    };
    carry_out_all("endpoint.tls", async |row| plan(row, &authority).await.map(trusting)).await;
}
