//! TLS clients: curl, with a trusted test authority.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::curl::{body, curl};
use super::peer::printed;
use super::support::{Backend, Setup, Sidecar};

/// A test authority and its certificates.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate");
        write("ca.pem", authority.pem());
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["api.test".to_owned()]).expect("a name");
        // Without its own name, it looks self-signed.
        params.distinguished_name.push(DnType::CommonName, "api.test");
        let certificate = params.signed_by(&own, &issuer).expect("a certificate");
        write("cert.pem", certificate.pem() + &authority.pem());
        write("key.pem", own.serialize_pem());
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn sidecar(&self, backend: &Backend) -> Sidecar {
        let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", self.path("cert.pem"), self.path("key.pem"));
        Setup::new(&backend.url()).with("server", &tls).start().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_agrees_upon_a_version_and_believes_the_certificate() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let sidecar = authority.sidecar(&backend).await;
    let port = sidecar.address.port();
    let (url, to) = (format!("https://api.test:{port}/orders"), format!("api.test:{port}:127.0.0.1"));
    let ca = authority.path("ca.pem");
    let order = |version, newest| {
        let tls = ["--tls-max", newest, "--cacert", &ca, "--resolve", &to];
        curl(&[&[version][..], &tls, &["-H", "Idempotency-Key: 17", "-d", "item=book", &url]].concat())
    };
    let first = printed(order("--http2", "1.3")).await;
    assert!(first.starts_with("HTTP/2 201"), "{first}");
    for (version, newest, begins) in [("--http1.1", "1.3", "HTTP/1.1 201"), ("--http2", "1.2", "HTTP/2 201")] {
        let repeat = printed(order(version, newest)).await;
        assert!(repeat.starts_with(begins) && repeat.contains("idempotent-replayed: true"), "{repeat}");
        assert_eq!(body(&repeat), body(&first));
    }
    let seen = backend.only();
    assert_eq!(seen.value("host"), Some(&*format!("api.test:{port}")), "{seen:?}");
}
