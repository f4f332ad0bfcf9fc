//! What is wrong with the certificate of a server that is a store, in the words of its keys.

use tokio_rustls::rustls::CertificateError;

/// Advice about a certificate that is not believed.
pub(super) fn certificate_fault(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => {
            "the server's certificate is signed by nobody that is believed here: name the file with its authority's \
             certificate in store.ca"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("{reason}: write the host in store.url as the certificate has it")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{reason}: renew the server's certificate, or set the clock of this machine right")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{reason}: set the clock of this machine right")
        }
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server shows the certificate of an authority (CA:TRUE) as its own: have that authority sign one for the \
             server, or make a self-signed one without CA:TRUE"
                .to_owned()
        }
        reason => format!("the server's certificate is not valid: {reason}"),
    }
}
