//! Configures TLS to Redis: trusted CAs and the client certificate. Files are read again for each connection, so
//! that rotated certificates need no restart.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use fred::types::config::TlsConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::RedisTls;

/// Returns an error if a file is invalid.
pub fn config(tls: &RedisTls) -> anyhow::Result<TlsConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = match &tls.ca_file {
        _ if tls.insecure => Roots::Anything,
        Some(file) => {
            roots_of(file).with_context(|| trouble("REDIS_TLS_CA_FILE", file))?;
            Roots::File(file.as_path().into())
        }
        None => Roots::Of(Arc::new(system_roots()?)),
    };
    let verifier = Verifier {
        provider: provider.clone(),
        roots,
        name: tls.server_name.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let identity = Identity {
                provider,
                cert: cert.as_path().into(),
                key: key.as_path().into(),
            };
            identity.read()?;
            builder.with_client_cert_resolver(Arc::new(identity))
        }
    };
    Ok(config.into())
}

fn trouble(variable: &str, file: &Path) -> String {
    format!("{variable} is \"{}\"", file.display())
}

#[derive(Debug)]
enum Roots {
    /// Accepts any certificate, if `REDIS_TLS_INSECURE_SKIP_VERIFY` is set.
    Anything,
    Of(Arc<RootCertStore>),
    File(Box<Path>),
}

fn system_roots() -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        bail!("this system has no CA certificates to verify Redis against: set REDIS_TLS_CA_FILE");
    }
    Ok(roots)
}

fn roots_of(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).context("it is not readable")? {
        roots.add(certificate.context("it is not a PEM file")?)?;
    }
    if roots.is_empty() {
        bail!("it contains no certificate");
    }
    Ok(roots)
}

/// Verifies the certificate of Redis against the configured CAs and the configured name.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Roots,
    name: Option<String>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = match &self.roots {
            Roots::Anything => return Ok(ServerCertVerified::assertion()),
            Roots::Of(roots) => roots.clone(),
            Roots::File(file) => Arc::new(roots_of(file).map_err(|error| {
                Error::General(format!("{}: {error:#}", trouble("REDIS_TLS_CA_FILE", file)))
            })?),
        };
        let provider = self.provider.clone();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let name = match &self.name {
            None => server_name.clone(),
            Some(name) => ServerName::try_from(name.as_str())
                .map_err(|error| Error::General(error.to_string()))?,
        };
        verifier.verify_server_cert(end_entity, intermediates, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The client certificate.
#[derive(Debug)]
struct Identity {
    provider: Arc<CryptoProvider>,
    cert: Box<Path>,
    key: Box<Path>,
}

impl Identity {
    fn read(&self) -> anyhow::Result<CertifiedKey> {
        let cert = || trouble("REDIS_TLS_CERT_FILE", &self.cert);
        let key = || trouble("REDIS_TLS_KEY_FILE", &self.key);
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .with_context(cert)?
            .collect::<Result<Vec<_>, _>>()
            .with_context(cert)?;
        if chain.is_empty() {
            bail!("{} and contains no certificate", cert());
        }
        let private = PrivateKeyDer::from_pem_file(&self.key).with_context(key)?;
        CertifiedKey::from_der(chain, private, &self.provider)
            .with_context(|| format!("{} and does not belong to REDIS_TLS_CERT_FILE", key()))
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match self.read() {
            Ok(identity) => Some(Arc::new(identity)),
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "cannot use the client certificate for Redis"
                );
                None
            }
        }
    }

    fn has_certs(&self) -> bool {
        true
    }
}
