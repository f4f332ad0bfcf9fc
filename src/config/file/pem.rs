//! Certificates and keys: PEM text (from the environment, for example), or the path of a PEM file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::item::{Item, Text};
use super::report::FileReport;
use super::setting::Setting;
use crate::tls::{Authorities, CertificateChain, IdentityError, PemError, PrivateKey, TlsIdentity};

/// A larger file is something else.
const LARGEST: u64 = 1 << 20;

/// A certificate and its intermediate certificates.
pub(super) fn chain(item: &Item<'_>) -> Option<CertificateChain> {
    read(item, CertificateChain::read)
}

/// A private key.
pub(super) fn key(item: &Item<'_>) -> Option<PrivateKey> {
    read(item, PrivateKey::read)
}

/// The trusted authorities.
pub(super) fn authorities(item: &Item<'_>) -> Option<Authorities> {
    read(item, Authorities::read)
}

/// A certificate and its key, of which both or none must be given. `names` are their two keys.
pub(super) fn identity(
    chain: &Setting<CertificateChain>,
    key: &Setting<PrivateKey>,
    names: [&str; 2],
    report: &FileReport<'_>,
) -> Option<TlsIdentity> {
    let [chain_name, key_name] = names;
    match (chain, key) {
        (Setting::Given(chain, chain_span), Setting::Given(key, key_span)) => {
            let fault = match TlsIdentity::new(chain, key) {
                Ok(identity) => return Some(identity),
                Err(fault) => fault,
            };
            match fault {
                IdentityError::OtherKey => report.add(
                    Some(key_span.clone()),
                    format!("{key_name} is not the key of {chain_name} (line {})", report.line(chain_span)),
                    format!(
                        "name the key that {chain_name} was made with; its own certificate comes first in the file"
                    ),
                ),
                IdentityError::BadCertificate => report.add(
                    Some(chain_span.clone()),
                    format!("the first certificate of {chain_name} cannot be read"),
                    "a certificate in X.509, version 3, is right",
                ),
            }
        }
        (Setting::Given(_, span), Setting::Absent | Setting::Preset(_) | Setting::Default(_)) => report.add(
            Some(span.clone()),
            format!("{chain_name} comes without its key"),
            format!("name the file with the private key: {key_name} = \"key.pem\""),
        ),
        (Setting::Absent | Setting::Preset(_) | Setting::Default(_), Setting::Given(_, span)) => report.add(
            Some(span.clone()),
            format!("{key_name} comes without its certificate"),
            format!("name the file with the certificate: {chain_name} = \"cert.pem\""),
        ),
        (Setting::Wrong(_), _) | (_, Setting::Wrong(_)) => {}
        (
            Setting::Absent | Setting::Preset(_) | Setting::Default(_),
            Setting::Absent | Setting::Preset(_) | Setting::Default(_),
        ) => {}
    }
    None
}

/// The text of a file, or the value itself where it is PEM or JSON and not a path.
pub(super) fn text(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.value.contains("-----BEGIN") || text.value.trim_start().starts_with('{') {
        return Some(text.value);
    }
    let bytes = file(item, &text)?;
    match String::from_utf8(bytes) {
        Ok(read) => Some(read),
        Err(_) => item.refuse(format!("{} names a file that is no text", item.name()), "name one in PEM or JSON"),
    }
}

fn read<T>(item: &Item<'_>, parse: impl FnOnce(&[u8]) -> Result<T, PemError>) -> Option<T> {
    let text = item.text()?;
    let pem = if text.value.contains("-----BEGIN") { text.value.clone().into_bytes() } else { file(item, &text)? };
    match parse(&pem) {
        Ok(read) => Some(read),
        Err(fault) => {
            let (message, advice) = said(fault);
            item.refuse(format!("{} {message}", item.name()), advice)
        }
    }
}

fn file(item: &Item<'_>, text: &Text) -> Option<Vec<u8>> {
    let advice = "name a file in PEM that onlyonce may read, or give the PEM text itself: \"env:NAME\"";
    let path = item.path(&text.value);
    item.reads(&path);
    let reason = match bytes(&path) {
        Ok(bytes) if bytes.len() as u64 <= LARGEST => return Some(bytes),
        Ok(_) => "it is too large for that".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(folder) if text.is_literal() && Path::new(&text.value) != path => {
                format!("there is no such file in {}", folder.display())
            }
            Some(_) | None => "there is no such file".to_owned(),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => "it may not be read".to_owned(),
        Err(error) => error.to_string(),
    };
    item.refuse(format!("{} cannot be {text}: {reason}", item.name()), advice)
}

/// The kind of text in the file.
pub(super) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn said(fault: PemError) -> (&'static str, &'static str) {
    match fault {
        PemError::NoCertificate => {
            ("holds no certificate", "what is right begins with a line -----BEGIN CERTIFICATE-----")
        }
        PemError::BadCertificate => {
            ("holds a certificate that cannot be read", "look at it: openssl x509 -noout -text -in FILE")
        }
        PemError::NoKey => (
            "holds no private key without a password",
            "what is right begins with a line -----BEGIN PRIVATE KEY-----; take a password off with \
             openssl pkey -in KEY -out PLAIN",
        ),
        PemError::BadKey => (
            "holds a private key that cannot be used",
            "keys of ECDSA (P-256, P-384), Ed25519 and RSA (2048 bits or more) are right",
        ),
    }
}
