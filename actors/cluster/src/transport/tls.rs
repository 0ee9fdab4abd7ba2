//! TLS on the cluster port.

use super::handshake::Rejected;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weald_link::Halves;

/// The node's certificate chain and its private key, PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, the node's own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Makes TLS streams of TCP streams.
#[derive(Clone)]
pub(super) struct Acceptor(TlsAcceptor);

/// Reads the files.
pub(super) fn acceptor(files: &TlsFiles) -> Result<Acceptor, String> {
    let failed = |what: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", what.display());
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed(&files.cert, &e))?;
    if chain.is_empty() {
        return Err(failed(&files.cert, &"holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| failed(&files.key, &e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| failed(&files.cert, &e))?;
    Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
}

impl Acceptor {
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<Halves, Rejected> {
        let (read, write) = tokio::io::split(self.0.accept(stream).await?);
        Ok(Halves::new(Box::new(read), Box::new(write)))
    }
}
