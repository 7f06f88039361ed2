//! The delivery client against endpoints whose TLS is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use crate::net_fault::FaultServer;
use crate::net_wire::gate;
use hookcast_net::Target;
use hookcast_net::client::{PostRequest, PreparedTarget, WireAnswer, WireClient, WireFailure};
use hookcast_net::tls::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

const PATIENT: Duration = Duration::from_secs(20);

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, params: &CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    pub(crate) fn server(&self, name: &str) -> ServerConfig {
        self.server_with(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    fn server_with(&self, params: &CertificateParams) -> ServerConfig {
        let (cert, key) = self.issue(params);
        config(cert.der().clone(), &key)
    }

    /// A server that lets only those in that this authority has issued.
    pub(crate) fn server_for_clients(&self, name: &str) -> ServerConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let (cert, key) = self.issue(&CertificateParams::new(vec![name.to_owned()]).unwrap());
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], private(&key))
            .unwrap()
    }

    /// Certificate and key of a client, in PEM.
    pub(crate) fn client(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let (cert, key) = self.issue(&params);
        (cert.pem(), key.serialize_pem())
    }

    pub(crate) fn expired(&self) -> ServerConfig {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.server_with(&params)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

pub(crate) fn config(cert: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], private(key))
        .unwrap()
}

/// An endpoint behind TLS that keeps its connections.
pub(crate) struct TlsEndpoint {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    served: Arc<Mutex<Vec<String>>>,
}

impl TlsEndpoint {
    /// Answers every request with 200.
    pub(crate) async fn start(config: ServerConfig) -> Self {
        Self::answering(config, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()).await
    }

    /// Answers every request with the same text.
    pub(crate) async fn answering(config: ServerConfig, answer: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self { address: listener.local_addr().unwrap(), handshakes: Arc::default(), served: Arc::default() };
        let (handshakes, served) = (Arc::clone(&endpoint.handshakes), Arc::clone(&endpoint.served));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let (handshakes, served) = (Arc::clone(&handshakes), Arc::clone(&served));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    handshakes.fetch_add(1, Ordering::SeqCst);
                    let name = stream.get_ref().1.peer_certificates().map_or_else(String::new, |certs| common_name(&certs[0]));
                    let mut request = Vec::new();
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                        request.extend_from_slice(&bytes[..count]);
                        if is_whole(&request) {
                            request.clear();
                            served.lock().unwrap().push(name.clone());
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                    }
                });
            }
        });
        endpoint
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/hook", self.address.port())
    }

    /// Connections whose handshake went well.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// The name in the client's certificate for each request, if it showed one.
    pub(crate) fn served(&self) -> Vec<String> {
        self.served.lock().unwrap().clone()
    }
}

/// Whether head and body of one request are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |value| value.parse().unwrap());
    body.len() >= length
}

/// `CN=…`: the name stands as a text in the certificate, behind the object identifier 2.5.4.3 and two bytes of type and length.
fn common_name(certificate: &CertificateDer<'_>) -> String {
    let bytes: &[u8] = certificate.as_ref();
    let places = bytes.windows(3).enumerate().filter(|(_, window)| *window == [0x55, 4, 3]).map(|(place, _)| place);
    // The issuer comes first, the subject last.
    let at = places.max().unwrap() + 3;
    let length = usize::from(bytes[at + 1]);
    format!("CN={}", String::from_utf8_lossy(&bytes[at + 2..at + 2 + length]))
}

/// Answers 200 once a connection; connection n uses the n-th configuration, the last one repeats.
pub(crate) async fn serve(configs: Vec<ServerConfig>) -> SocketAddr {
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

#[actix_rt::test(system = "crate::support::System")]
async fn a_good_certificate_is_enough() {
    let authority = Authority::new();
    assert_eq!(word_for(&authority, authority.server("127.0.0.1")).await, "200");
}

#[actix_rt::test(system = "crate::support::System")]
async fn bad_certificates_are_refused() {
    let authority = Authority::new();
    assert_eq!(word_for(&authority, authority.expired()).await, "tls");
    assert_eq!(word_for(&authority, authority.server("hook.example.test")).await, "tls");
    assert_eq!(word_for(&authority, Authority::new().server("127.0.0.1")).await, "tls");
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    assert_eq!(word_for(&authority, config(own.cert.der().clone(), &own.signing_key)).await, "tls");
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_certificate_that_turns_bad_is_refused_despite_the_session_before() {
    let authority = Authority::new();
    let tls = Tls::new(&[authority.root()]).unwrap();
    let client = WireClient::new(gate());
    let address = serve(vec![authority.server("127.0.0.1"), authority.expired()]).await;
    assert_eq!(word(&post(&client, &tls, address).await), "200");
    assert_eq!(word(&post(&client, &tls, address).await), "tls");
}

#[actix_rt::test(system = "crate::support::System")]
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

#[actix_rt::test(system = "crate::support::System")]
async fn an_alert_is_a_tls_failure() {
    let authority = Authority::new();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    assert_eq!(word_for(&authority, config).await, "tls");
}

#[actix_rt::test(system = "crate::support::System")]
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

#[actix_rt::test(system = "crate::support::System")]
async fn a_stalled_handshake_ends_by_itself() {
    let stalled = FaultServer::start(|mut peer| {
        peer.wait_for_close();
    });
    let tls = Tls::new(&[]).unwrap();
    assert_eq!(word(&post(&WireClient::new(gate()), &tls, stalled.address()).await), "tls_timeout");
}

#[actix_rt::test(system = "crate::support::System")]
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
