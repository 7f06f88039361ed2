//! The delivery client against endpoints whose TLS is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use crate::net_fault::FaultServer;
use crate::net_wire::gate;
use hookcast::net::Target;
use hookcast::net::client::{PostRequest, PreparedTarget, WireAnswer, WireClient, WireFailure};
use hookcast::net::tls::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

const PATIENT: Duration = Duration::from_secs(20);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, params: &CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn server(&self, name: &str) -> ServerConfig {
        self.server_with(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    fn server_with(&self, params: &CertificateParams) -> ServerConfig {
        let (cert, key) = self.issue(params);
        config(cert.der().clone(), &key)
    }

    fn expired(&self) -> ServerConfig {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.server_with(&params)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

fn config(cert: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], private(key))
        .unwrap()
}

/// Answers 200 once a connection; connection n uses the n-th configuration, the last one repeats.
async fn serve(configs: Vec<ServerConfig>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let configs: Vec<Arc<ServerConfig>> = configs.into_iter().map(Arc::new).collect();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let config = Arc::clone(&configs[number.min(configs.len() - 1)]);
            tokio::spawn(async move {
                let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else {
                    return;
                };
                let mut bytes = [0; 4096];
                let _ = stream.read(&mut bytes).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

async fn post(client: &WireClient, tls: &Tls, address: SocketAddr) -> Result<WireAnswer, WireFailure> {
    let target = Target::parse(&format!("https://{address}/")).unwrap();
    let target = PreparedTarget::new(target, tls).unwrap();
    let request = PostRequest { target: &target, lines: &[], body: &"{}".into() };
    client.post(request, Instant::now(), PATIENT).await.0
}

fn word(outcome: &Result<WireAnswer, WireFailure>) -> String {
    match outcome {
        Ok(answer) => answer.status.to_string(),
        Err(failure) => failure.slug().to_owned(),
    }
}

async fn word_for(authority: &Authority, config: ServerConfig) -> String {
    let tls = Tls::new(&[authority.root()]).unwrap();
    word(&post(&WireClient::new(gate()), &tls, serve(vec![config]).await).await)
}

#[actix_web::test]
async fn a_good_certificate_is_enough() {
    let authority = Authority::new();
    assert_eq!(word_for(&authority, authority.server("127.0.0.1")).await, "200");
}

#[actix_web::test]
async fn bad_certificates_are_refused() {
    let authority = Authority::new();
    assert_eq!(word_for(&authority, authority.expired()).await, "tls");
    assert_eq!(word_for(&authority, authority.server("hook.example.test")).await, "tls");
    assert_eq!(word_for(&authority, Authority::new().server("127.0.0.1")).await, "tls");
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    assert_eq!(word_for(&authority, config(own.cert.der().clone(), &own.signing_key)).await, "tls");
}

#[actix_web::test]
async fn a_certificate_that_turns_bad_is_refused_despite_the_session_before() {
    let authority = Authority::new();
    let tls = Tls::new(&[authority.root()]).unwrap();
    let client = WireClient::new(gate());
    let address = serve(vec![authority.server("127.0.0.1"), authority.expired()]).await;
    assert_eq!(word(&post(&client, &tls, address).await), "200");
    assert_eq!(word(&post(&client, &tls, address).await), "tls");
}

#[actix_web::test]
async fn http_2_is_not_offered() {
    let authority = Authority::new();
    let with_alpn = |names: &[&[u8]]| {
        let mut config = authority.server("127.0.0.1");
        config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        config
    };
    assert_eq!(word_for(&authority, with_alpn(&[b"h2", b"http/1.1"])).await, "200");
    assert_eq!(word_for(&authority, with_alpn(&[b"h2"])).await, "tls");
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[actix_web::test]
async fn an_alert_is_a_tls_failure() {
    let authority = Authority::new();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    assert_eq!(word_for(&authority, config).await, "tls");
}

#[actix_web::test]
async fn servers_without_modern_tls_are_tls_failures() {
    let tls = Tls::new(&[]).unwrap();
    let client = WireClient::new(gate());
    // Plain HTTP, and an old server's alert: protocol_version.
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0x15, 3, 1, 0, 2, 2, 70]] {
        let server = FaultServer::start(move |mut peer| {
            peer.send(bytes);
            peer.half_close();
            peer.wait_for_close();
        });
        assert_eq!(word(&post(&client, &tls, server.address()).await), "tls");
    }
}

#[actix_web::test]
async fn a_stalled_handshake_ends_by_itself() {
    let stalled = FaultServer::start(|mut peer| {
        peer.wait_for_close();
    });
    let tls = Tls::new(&[]).unwrap();
    assert_eq!(word(&post(&WireClient::new(gate()), &tls, stalled.address()).await), "tls_timeout");
}

#[actix_web::test]
async fn a_subscription_may_bring_its_own_roots_and_certificate() {
    let authority = Authority::new();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.root()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let server = || {
        let (cert, key) = authority.issue(&CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(vec![cert.der().clone()], private(&key))
            .unwrap();
        config.send_tls13_tickets = 0;
        config
    };
    let (cert, key) = authority.issue(&CertificateParams::new(vec!["relay".to_owned()]).unwrap());
    let base = Tls::new(&[]).unwrap();
    let client = WireClient::new(gate());
    let address = serve(vec![server()]).await;
    assert_eq!(word(&post(&client, &base, address).await), "tls");
    let trusting = base.with(Some(&authority.pem()), None).unwrap();
    assert_eq!(word(&post(&client, &trusting, address).await), "tls");
    let (cert_pem, key_pem) = (cert.pem(), key.serialize_pem());
    let known = base.with(Some(&authority.pem()), Some((&cert_pem, &key_pem))).unwrap();
    assert_eq!(word(&post(&client, &known, address).await), "200");
}

#[test]
fn unusable_pem_is_refused() {
    let base = Tls::new(&[]).unwrap();
    assert!(base.with(Some("no certificate"), None).is_err());
    let own = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    assert!(base.with(None, Some((&own.cert.pem(), "no key"))).is_err());
    assert!(base.with(None, Some((&own.cert.pem(), &other))).is_err());
    assert!(base.with(None, Some((&own.cert.pem(), &own.signing_key.serialize_pem()))).is_ok());
}
