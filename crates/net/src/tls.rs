//! The certificate rules of everything we dial.
//!
//! Owns root certificates, client certificates and the handshake with its time limit. The crypto provider is passed
//! explicitly, never taken from the process. Must not know HTTP beyond the ALPN name.

use super::dial::DialError;
use super::target::{Host, Target};
use hookcast_supervise::deadline::within;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use std::{fmt, io};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A handshake takes no longer than this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Sets of roots and identity of endpoints of their own that are shared; those beyond are made for each anew.
pub const PARTIES_MAX: usize = 4096;

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
#[derive(Clone)]
pub struct Tls {
    party: Arc<Party>,
    /// What was made for endpoints of their own trust or identity, found again by a digest of both.
    parties: Arc<Parties>,
}

/// One set of roots and one identity.
struct Party {
    /// Never used twice in a process.
    number: u64,
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

#[derive(Default)]
struct Parties {
    made: AtomicU64,
    known: Mutex<HashMap<[u8; 32], Weak<Party>>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("number", &self.party.number).finish_non_exhaustive()
    }
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
        let parties = Arc::new(Parties::default());
        let party = Arc::new(parties.make(Arc::new(roots), None)?);
        Ok(Self { party, parties })
    }

    /// The same for an endpoint of its own: trusts only the certificates in `ca_pem`, if given, and shows `identity` (chain of
    /// certificates and key, PEM).
    ///
    /// Equal arguments give the same value as long as one of them is in use, for at most [`PARTIES_MAX`] different ones.
    ///
    /// # Errors
    /// If a PEM text holds nothing usable or the key does not fit.
    pub fn with(&self, ca_pem: Option<&str>, identity: Option<(&str, &str)>) -> Result<Self, TlsError> {
        if ca_pem.is_none() && identity.is_none() {
            return Ok(self.clone());
        }
        let (cert, key) = identity.unwrap_or_default();
        self.shared(&["only", ca_pem.unwrap_or_default(), cert, key], |parties| {
            let roots = ca_pem.map_or_else(|| Ok(Arc::clone(&self.party.roots)), |pem| roots_of(pem).map(Arc::new))?;
            parties.make(roots, identity)
        })
    }

    /// The same, which also trusts the certificates in `ca_pem`; shared like [`Tls::with`].
    ///
    /// # Errors
    /// If the PEM text holds nothing usable.
    pub fn also(&self, ca_pem: &str) -> Result<Self, TlsError> {
        self.shared(&["also", ca_pem], |parties| {
            let mut roots = RootCertStore::clone(&self.party.roots);
            roots.roots.extend(roots_of(ca_pem)?.roots);
            parties.make(Arc::new(roots), None)
        })
    }

    fn shared(&self, of: &[&str], make: impl FnOnce(&Parties) -> Result<Party, TlsError>) -> Result<Self, TlsError> {
        let digest = digest(self.party.number, of);
        let mut known = self.parties.known.lock().unwrap_or_else(PoisonError::into_inner);
        let party = match known.get(&digest).and_then(Weak::upgrade) {
            Some(party) => party,
            None => Arc::new(make(&self.parties)?),
        };
        if known.len() >= PARTIES_MAX {
            known.retain(|_, party| party.strong_count() > 0);
        }
        if known.len() < PARTIES_MAX {
            known.insert(digest, Arc::downgrade(&party));
        }
        Ok(Self { party, parties: Arc::clone(&self.parties) })
    }

    /// Two values with the same number make the same handshakes; part of a connection pool's key.
    pub(crate) fn number(&self) -> u64 {
        self.party.number
    }

    /// Makes the handshake on a fresh connection to `target`, within [`HANDSHAKE_TIMEOUT`].
    ///
    /// # Errors
    /// `Tls`, `TlsTimeout` or `Reset`.
    pub async fn handshake(&self, target: &Target, stream: TcpStream) -> Result<TlsStream<TcpStream>, DialError> {
        let name = server_name(target)?;
        let handshake = TlsConnector::from(Arc::clone(&self.party.config)).connect(name, stream);
        match within(HANDSHAKE_TIMEOUT, handshake).await {
            None => Err(DialError::TlsTimeout),
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Err(DialError::Reset(error)),
            Some(Err(error)) => Err(DialError::Tls(error.to_string())),
        }
    }
}

impl Parties {
    fn make(&self, roots: Arc<RootCertStore>, identity: Option<(&str, &str)>) -> Result<Party, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&roots));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert_pem, key_pem)) => {
                // What the parser says of a broken key may repeat some of it.
                let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
                    .map_err(|_| TlsError::Identity("no usable private key in the PEM text".to_owned()))?;
                builder
                    .with_client_auth_cert(certificates(cert_pem)?, key)
                    .map_err(|error| TlsError::Identity(error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would skip the check of a certificate that has become invalid since.
        config.resumption = Resumption::disabled();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Ok(Party { number, roots, config: Arc::new(config) })
    }
}

/// Judges a PEM text that is to be trusted: every certificate in it must be usable.
///
/// # Errors
/// What is wrong with it.
pub fn check_certificates(pem: &str) -> Result<(), TlsError> {
    roots_of(pem).map(drop)
}

/// Judges a chain of certificates and the key of its leaf, in PEM.
///
/// # Errors
/// What is wrong with them; never repeats the key.
pub fn check_client_identity(cert_pem: &str, key_pem: &str) -> Result<(), TlsError> {
    Parties::default().make(Arc::new(RootCertStore::empty()), Some((cert_pem, key_pem))).map(drop)
}

fn roots_of(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| TlsError::Certificate(format!(": number {} is not one: {error}", index + 1)))?;
    }
    Ok(roots)
}

fn digest(number: u64, parts: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(number.to_be_bytes());
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
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
