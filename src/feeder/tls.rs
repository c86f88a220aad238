//! TLS to the database, with the meaning that libpq gives to `sslmode`.
//!
//! With `prefer`, the default, and `require`, the connection is encrypted and the server's certificate not checked:
//! most servers have one that they made themselves. With `verify-full`, it is checked against the system's
//! certificates, or the certificates of SSL_CERT_FILE, and so is the server's name.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// `checks` is whether the server's certificate counts.
pub(crate) fn connector(checks: bool) -> MakeRustlsConnect {
    let config = if checks {
        let mut roots = RootCertStore::empty();
        // A root that cannot be read is left out: a server whose certificate needs it is refused.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    } else {
        let verifier = Arc::new(Unchecked(Arc::new(ring::default_provider())));
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    MakeRustlsConnect::new(config)
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
