//! TLS to a node.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use weald_link::Halves;

/// Makes TLS streams of TCP streams; trusts the authorities it was given and no other.
#[derive(Clone)]
pub(crate) struct Connector(TlsConnector);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// Trusts the certificates in a PEM file.
    pub(crate) fn new(authorities: &Path) -> Result<Self, String> {
        let failed = |why: &dyn fmt::Display| format!("{}: {why}", authorities.display());
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(authorities).map_err(|e| failed(&e))?;
        for certificate in certificates {
            roots.add(certificate.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
        }
        if roots.is_empty() {
            return Err(failed(&"holds no certificate"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn connect(&self, address: &str, stream: TcpStream) -> io::Result<Halves> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let (read, write) = tokio::io::split(self.0.connect(name, stream).await?);
        Ok(Halves::new(Box::new(read), Box::new(write)))
    }
}
