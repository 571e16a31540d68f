//! TLS to Postgres: rustls with the platform's roots and the operator's own.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::target::{SslMode, TargetError};

/// A connector for the given mode. `ca_cert` is a PEM text or the path of a PEM file.
pub(super) fn connector(mode: SslMode, ca_cert: Option<&str>) -> Result<MakeRustlsConnect, TargetError> {
    let roots = Arc::new(roots(ca_cert)?);
    let verifier = Verifier {
        strictness: match (mode, ca_cert) {
            (SslMode::VerifyFull, _) => Strictness::Full,
            (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => Strictness::ChainOnly,
            (SslMode::Require | SslMode::Disable, _) => Strictness::Nothing,
        },
        web_pki: WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| TargetError(format!("no trusted certificates: {error}")))?,
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TargetError(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(ca_cert: Option<&str>) -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(text) = ca_cert {
        let bad = |reason: String| TargetError(format!("DATABASE_CA_CERT {reason}"));
        let pem = if text.contains("-----BEGIN") {
            text.as_bytes().to_vec()
        } else {
            std::fs::read(text).map_err(|error| bad(format!("cannot be read: {error}")))?
        };
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| bad(format!("is not PEM: {error}")))?;
            roots.add(certificate).map_err(|error| bad(format!("holds no CA certificate: {error}")))?;
        }
        if roots.len() == before {
            return Err(bad("holds no certificate".into()));
        }
    }
    Ok(roots)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strictness {
    Nothing,
    ChainOnly,
    Full,
}

/// libpq's levels of verification over the usual verifier. Signatures of the handshake are always checked.
#[derive(Debug)]
struct Verifier {
    strictness: Strictness,
    web_pki: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.strictness == Strictness::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let verdict =
            self.web_pki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.strictness == Strictness::ChainOnly => Ok(ServerCertVerified::assertion()),
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Err(Error::General(
                "the server's certificate is of an unknown issuer; set DATABASE_CA_CERT to its root (on Supabase: \
                 Database Settings \u{2192} SSL Configuration), or write sslmode=require to encrypt without verifying"
                    .into(),
            )),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web_pki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web_pki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web_pki.supported_verify_schemes()
    }
}
