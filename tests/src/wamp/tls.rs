//! Whom a client trusts, and what it shows of itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, version};

/// Name by which a client knows every server of tests.
pub const SERVER: &str = "localhost";

/// Whom a client trusts, and what it shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    authority: PathBuf,
    own: Option<(PathBuf, PathBuf)>,
    only_1_2: bool,
}

impl Trust {
    /// A client that trusts this authority, a PEM file.
    #[must_use]
    pub fn of(authority: &Path) -> Self {
        Self { authority: authority.to_owned(), own: None, only_1_2: false }
    }

    /// The same with a certificate and key of its own.
    #[must_use]
    pub fn with(self, certificate: &Path, key: &Path) -> Self {
        Self { own: Some((certificate.to_owned(), key.to_owned())), ..self }
    }

    /// The same, knowing TLS 1.2 only.
    #[must_use]
    pub fn old(self) -> Self {
        Self { only_1_2: true, ..self }
    }

    pub(super) fn connection(&self) -> io::Result<ClientConnection> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.authority)?).map_err(io::Error::other)?;
        let versions = if self.only_1_2 {
            &[&version::TLS12][..]
        } else {
            &[&version::TLS13, &version::TLS12]
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((own, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
                let chain = vec![certificate(own)?];
                builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
            }
        };
        let name = ServerName::try_from(SERVER).map_err(io::Error::other)?;
        ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
    }
}

fn certificate(path: &Path) -> io::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(path).map_err(io::Error::other)
}
