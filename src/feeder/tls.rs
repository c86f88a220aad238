//! TLS to the database, with the meaning that libpq gives to `sslmode`.
//!
//! With `prefer`, the default, and `require`, the connection is encrypted and the server's certificate not checked:
//! most servers have one that they made themselves. With `verify-full`, it is checked against the system's
//! certificates, or the certificates of SSL_CERT_FILE, and so is the server's name.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// There is no certificate to check the server's by, and perhaps why.
#[derive(Debug, thiserror::Error)]
#[error("no certificate was found to check the database's by{}; SSL_CERT_FILE names a file of them", .0.as_ref().map_or(String::new(), |why| format!(": {why}")))]
pub struct NoTrusted(Option<String>);

/// `checks` is whether the server's certificate counts.
pub(crate) fn connector(checks: bool) -> Result<MakeRustlsConnect, NoTrusted> {
    let verifier: Arc<dyn ServerCertVerifier> = if checks {
        Arc::new(Checked::of_the_system()?)
    } else {
        Arc::new(Unchecked(Arc::new(ring::default_provider())))
    };
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

/// Takes certificates of trusted authorities, and those that are trusted themselves.
#[derive(Debug)]
struct Checked {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl Checked {
    fn of_the_system() -> Result<Checked, NoTrusted> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A root that cannot be read is left out: a server whose certificate needs it is refused.
        roots.add_parsable_certificates(found.certs.iter().cloned());
        let provider = Arc::new(ring::default_provider());
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let why = || found.errors.first().map(ToString::to_string);
        Ok(Checked { usual: usual.map_err(|_| NoTrusted(why()))?, trusted: found.certs.clone() })
    }
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(certificate, others, name, stapled, now) {
            // `openssl req -x509` makes a certificate that is an authority too, and libpq takes it where it is trusted.
            // Its dates were looked at before.
            Err(error) if is_of_an_authority(&error) && self.trusted.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether a server's certificate was refused for being one of an authority.
fn is_of_an_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
