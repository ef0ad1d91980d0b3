//! TLS with a private CA: driver and executors both have a certificate of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, RootCertStore, ServerConfig, WantsVerifier,
};
use tokio_rustls::rustls::{crypto, version};

/// Files in PEM format. Each side shows its certificate and asks for one of the same CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of those who are trusted to sign others.
    pub ca: PathBuf,
    /// This side's certificate, followed by those between it and the CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A driver's side of TLS, ready for use.
#[derive(Clone)]
pub struct ServerTls(pub(crate) Arc<ServerConfig>);

/// A dialer's side of TLS, ready for use.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    /// The name that the driver's certificate must have; `None`: the host that is dialled.
    pub(crate) server_name: Option<String>,
}

/// Certificates or a key that cannot be used.
#[derive(Debug, Error)]
#[error("TLS: {path}: {reason}", path = path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(..)")
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

impl TlsFiles {
    /// Reads them for a driver.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn server(&self) -> Result<ServerTls, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let verifier = verifier.build().map_err(|error| fault(&self.ca, error))?;
        let builder = tls13(ServerConfig::builder_with_provider(provider), &self.ca)?;
        let (chain, key) = self.identity()?;
        let config = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| fault(&self.certificate, error))?;
        Ok(ServerTls(Arc::new(config)))
    }

    /// Reads them for an executor or client. `server_name`: the name that the driver's certificate
    /// must have; `None`: the host that is dialled.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn client(&self, server_name: Option<String>) -> Result<ClientTls, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = tls13(ClientConfig::builder_with_provider(provider), &self.ca)?;
        let (chain, key) = self.identity()?;
        let config = builder
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(|error| fault(&self.certificate, error))?;
        Ok(ClientTls { config: Arc::new(config), server_name })
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| fault(&self.ca, error))?;
        }
        Ok(roots)
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|it| fault(&self.key, it))?;
        Ok((certificates(&self.certificate)?, key))
    }
}

fn tls13<S: ConfigSide>(
    builder: ConfigBuilder<S, tokio_rustls::rustls::WantsVersions>,
    path: &Path,
) -> Result<ConfigBuilder<S, WantsVerifier>, TlsError> {
    builder.with_protocol_versions(&[&version::TLS13]).map_err(|error| fault(path, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| fault(path, error))?;
    if found.is_empty() { Err(fault(path, "it has no certificate")) } else { Ok(found) }
}

fn fault(path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError { path: path.to_owned(), reason: reason.to_string() }
}
