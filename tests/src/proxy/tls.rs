//! Ends TLS between two nodes with their own certificates, so that each takes the proxy for the other.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Time for the handshake.
const WITHIN: Duration = Duration::from_secs(10);

/// Certificate and key of a node, and the authority of its cluster: PEM files.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The name in the certificate, as diallers ask for it.
    pub server_name: String,
    /// The authority.
    pub authority: PathBuf,
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

fn failed(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

impl Bundle {
    fn chain(&self) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|e| failed(&self.certificate, e))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| failed(&self.key, e))?;
        Ok((chain, key))
    }

    fn roots(&self) -> io::Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(&self.authority)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| failed(&self.authority, e))?;
        for certificate in certificates {
            roots.add(certificate).map_err(|e| failed(&self.authority, e))?;
        }
        Ok(Arc::new(roots))
    }

    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<server::TlsStream<TcpStream>> {
        let (chain, key) = self.chain()?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots()?, Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|e| failed(&self.authority, e))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_client_cert_verifier(verifier).with_single_cert(chain, key))
            .map_err(|e| failed(&self.certificate, e))?;
        tokio::time::timeout(WITHIN, TlsAcceptor::from(Arc::new(config)).accept(stream)).await?
    }

    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        to: &Self,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let (chain, key) = self.chain()?;
        let roots = self.roots()?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .map_err(|e| failed(&self.certificate, e))?;
        let name = ServerName::try_from(to.server_name.clone()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        tokio::time::timeout(WITHIN, connector.connect(name, stream)).await?
    }
}

/// Connects to a node as another one.
///
/// # Errors
/// Of the connection, or of a file.
pub async fn connect_tls(
    address: SocketAddr,
    own: &Bundle,
    to: &Bundle,
) -> io::Result<client::TlsStream<TcpStream>> {
    own.connect(TcpStream::connect(address).await?, to).await
}
