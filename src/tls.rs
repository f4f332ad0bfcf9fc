//! Certificates and private keys, read from PEM.
//!
//! All checks happen when the configuration is read, and not when a connection is made: for example, a key must belong
//! to its certificate.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig};

/// Why PEM text cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemError {
    /// It has no block `CERTIFICATE`.
    NoCertificate,
    /// One of its certificates cannot be read.
    BadCertificate,
    /// It has no block `PRIVATE KEY`, or only an encrypted one.
    NoKey,
    /// Its key cannot be read, or its type is not supported.
    BadKey,
}

/// A certificate chain that begins with the end-entity certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateChain(Vec<CertificateDer<'static>>);

/// A private key.
#[derive(Clone)]
pub struct PrivateKey(Arc<PrivateKeyDer<'static>>);

/// A certificate chain and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    chain: CertificateChain,
    key: PrivateKey,
}

/// Trusted authorities.
#[derive(Clone)]
pub struct Authorities(Arc<RootCertStore>);

/// The settings of a TLS client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// The authorities for the server's certificate.
    pub authorities: Authorities,
    /// The client certificate, if there is one.
    pub identity: Option<TlsIdentity>,
}

impl CertificateChain {
    /// Reads all certificates of `pem`.
    pub fn read(pem: &[u8]) -> Result<Self, PemError> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match all {
            Ok(chain) if chain.is_empty() => Err(PemError::NoCertificate),
            Ok(chain) => Ok(Self(chain)),
            Err(_) => Err(PemError::BadCertificate),
        }
    }
}

impl PrivateKey {
    /// Reads the first private key of `pem`: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub fn read(pem: &[u8]) -> Result<Self, PemError> {
        let key = PrivateKeyDer::pem_slice_iter(pem).next().ok_or(PemError::NoKey)?.map_err(|_| PemError::BadKey)?;
        ring::sign::any_supported_type(&key).map_err(|_| PemError::BadKey)?;
        Ok(Self(Arc::new(key)))
    }
}

/// Why a chain and a key are not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityError {
    /// The first certificate cannot be read.
    BadCertificate,
    /// It has another key.
    OtherKey,
}

impl TlsIdentity {
    /// Checks that they belong together.
    pub fn new(chain: &CertificateChain, key: &PrivateKey) -> Result<Self, IdentityError> {
        let identity = Self { chain: chain.clone(), key: key.clone() };
        match identity.certified() {
            Ok(_) => Ok(identity),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(IdentityError::OtherKey),
            Err(_) => Err(IdentityError::BadCertificate),
        }
    }
}

impl Authorities {
    /// Reads the certificates of `pem`, which are the only trusted ones.
    pub fn read(pem: &[u8]) -> Result<Self, PemError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateChain::read(pem)?.0 {
            roots.add(certificate).map_err(|_| PemError::BadCertificate)?;
        }
        Ok(Self(Arc::new(roots)))
    }

    /// The authorities of the operating system; `None` if it has none.
    pub fn of_system() -> Option<Self> {
        let found = rustls_native_certs::load_native_certs().certs;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found);
        (usable > 0).then(|| Self(Arc::new(roots)))
    }

    /// These and others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let mut roots = RootCertStore::clone(&self.0);
        roots.extend(others.0.roots.iter().cloned());
        Self(Arc::new(roots))
    }
}

impl TlsClient {
    /// The configuration for the TLS library; `protocol` is the only protocol for ALPN (RFC 7301), if any.
    pub fn config(&self, protocol: Option<&[u8]>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions of TLS that are on by default")
            .with_root_certificates(Arc::clone(&self.authorities.0));
        let mut config = match &self.identity {
            Some(identity) => {
                let certified = identity.certified().expect("it was made of the two that fit");
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        Arc::new(config)
    }
}

impl TlsIdentity {
    /// The configuration of a TLS server; `protocols` are the protocols for ALPN, in order of preference. There is no
    /// early data, because a request in it could be replayed by an attacker.
    pub fn server(&self, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let certified = self.certified().expect("it was made of the two that fit");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions of TLS that are on by default")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    fn certified(&self) -> Result<CertifiedKey, Error> {
        CertifiedKey::from_der(self.chain.0.clone(), self.key.0.clone_key(), &provider())
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.secret_der() == other.0.secret_der()
    }
}

impl Eq for PrivateKey {}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots == other.0.roots
    }
}

impl Eq for Authorities {}

/// The name that a server's certificate must have: a domain name, or an IP address (as in a URL, an IPv6 one in brackets).
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned()).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl fmt::Debug for CertificateChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateChain({})", self.0.len())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(…)")
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn made() -> (String, String) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["backend.test".to_owned()]).expect("a certificate");
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_key_must_belong_to_its_certificate() {
        let ((one, key), (other, _)) = (made(), made());
        let key = PrivateKey::read(key.as_bytes()).expect("a key");
        let identity =
            |cert: &str| TlsIdentity::new(&CertificateChain::read(cert.as_bytes()).expect("certificates"), &key);
        assert!(identity(&one).is_ok());
        assert_eq!(identity(&other).err(), Some(IdentityError::OtherKey));
    }

    #[test]
    fn what_is_not_there_or_damaged_is_told_apart() {
        let (cert, key) = made();
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(CertificateChain::read(key.as_bytes()).err(), Some(PemError::NoCertificate));
        assert_eq!(PrivateKey::read(cert.as_bytes()).err(), Some(PemError::NoKey));
        assert_eq!(Authorities::read(b"").err(), Some(PemError::NoCertificate));
        assert_eq!(Authorities::read(damaged.as_bytes()).err(), Some(PemError::BadCertificate));
        assert_eq!(
            CertificateChain::read(b"-----BEGIN CERTIFICATE-----\nAAAA\n").err(),
            Some(PemError::BadCertificate)
        );
        let bad = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::read(bad.as_bytes()).err(), Some(PemError::BadKey));
        assert!(Authorities::read(cert.as_bytes()).is_ok());
    }
}
