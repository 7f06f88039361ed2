//! The certificate rules of everything we dial.
//!
//! Owns root certificates, client certificates and the handshake with its time limit. The crypto provider is passed
//! explicitly, never taken from the process. Must not know HTTP beyond the ALPN name.

use super::dial::DialError;
use super::target::{Host, Target};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A handshake takes no longer than this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate, or none that is readable, in the PEM text.
    #[error("no usable certificate in the PEM text{0}")]
    Certificate(String),
    /// The private key is unreadable or does not fit its certificate.
    #[error("the client certificate or its key cannot be used: {0}")]
    Identity(String),
    /// The protocol versions cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Trusted roots and, optionally, our own certificate; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts the system's roots and `extra_roots`.
    ///
    /// # Errors
    /// If the protocol versions cannot be set up; unreadable system roots are left out.
    pub fn new(extra_roots: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(extra_roots.iter().cloned());
        Self::from_roots(Arc::new(roots), None)
    }

    /// A copy that also trusts the certificates in `ca_pem` and shows `identity` (certificate chain and key, PEM).
    ///
    /// # Errors
    /// If a PEM text holds nothing usable or the key does not fit.
    pub fn with(&self, ca_pem: Option<&str>, identity: Option<(&str, &str)>) -> Result<Self, TlsError> {
        let mut roots = Arc::clone(&self.roots);
        if let Some(pem) = ca_pem {
            let certs = certificates(pem)?;
            let (added, _) = Arc::make_mut(&mut roots).add_parsable_certificates(certs);
            if added == 0 {
                return Err(TlsError::Certificate(String::new()));
            }
        }
        Self::from_roots(roots, identity)
    }

    fn from_roots(roots: Arc<RootCertStore>, identity: Option<(&str, &str)>) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&roots));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert_pem, key_pem)) => {
                let key =
                    PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| TlsError::Identity(error.to_string()))?;
                builder
                    .with_client_auth_cert(certificates(cert_pem)?, key)
                    .map_err(|error| TlsError::Identity(error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would skip the check of a certificate that has become invalid since.
        config.resumption = Resumption::disabled();
        Ok(Self { roots, config: Arc::new(config) })
    }

    /// Two values with the same key make the same handshakes; part of a connection pool's key.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.config) as usize
    }

    /// Makes the handshake on a fresh connection to `target`, within [`HANDSHAKE_TIMEOUT`].
    ///
    /// # Errors
    /// `Tls`, `TlsTimeout` or `Reset`.
    pub async fn handshake(&self, target: &Target, stream: TcpStream) -> Result<TlsStream<TcpStream>, DialError> {
        let name = server_name(target)?;
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Err(_) => Err(DialError::TlsTimeout),
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Err(DialError::Reset(error)),
            Ok(Err(error)) => Err(DialError::Tls(error.to_string())),
        }
    }
}

fn server_name(target: &Target) -> Result<ServerName<'static>, DialError> {
    match target.host() {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| DialError::Tls(error.to_string())),
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate(format!(": {error}")))?;
    if certs.is_empty() {
        return Err(TlsError::Certificate(String::new()));
    }
    Ok(certs)
}
