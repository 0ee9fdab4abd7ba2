//! TLS for clients, from certificates that may be exchanged while it runs.
//!
//! What it guarantees: a new handshake uses what was loaded last; files that make no sense leave what is in use in place.
//!
//! Where an authority of clients is given, nobody gets in without a certificate of it.
//!
//! What it refuses: to resume sessions (each handshake is judged by the certificates of its time), versions before 1.2, and
//! lists of revoked certificates.

use crate::info::TlsInfo;
use arc_swap::ArcSwap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{
    self, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};
use tokio_rustls::server::TlsStream;

/// A certificate chain, the server's own first, and its private key: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// Certificates of the authorities whose clients are let in; none: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

static SINCE_1_2: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
static SINCE_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

impl TlsVersion {
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::V1_2 => SINCE_1_2,
            Self::V1_3 => SINCE_1_3,
        }
    }
}

/// Why files cannot be used. What was loaded before stays in use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// No certificate is in the file.
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    /// Certificate and key do not fit, or are of no use.
    #[error("certificate {} with its key", path.display())]
    Unfit {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No client could be checked with the authorities.
    #[error("authorities {}", path.display())]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

type Stamp = Vec<Option<(SystemTime, u64)>>;

/// What handshakes of a listener use.
pub struct Tls {
    files: TlsFiles,
    oldest: TlsVersion,
    config: ArcSwap<ServerConfig>,
    /// What the files looked like when they were read.
    stamp: Mutex<Stamp>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// They are of no use.
    pub fn load(files: TlsFiles, oldest: TlsVersion) -> Result<Self, TlsError> {
        let stamp = stamp(&files);
        let config = ArcSwap::from_pointee(read(&files, oldest)?);
        Ok(Self { files, oldest, config, stamp: Mutex::new(stamp) })
    }

    /// Reads the files again, if they have changed since; whether they have. Blocks.
    ///
    /// # Errors
    /// They are of no use. They are not read again until they change once more.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let now = stamp(&self.files);
        let before = {
            let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *stamp, now.clone())
        };
        if before == now {
            return Ok(false);
        }
        self.config.store(Arc::new(read(&self.files, self.oldest)?));
        Ok(true)
    }

    /// The server's side of a handshake.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<(Box<TlsStream<TcpStream>>, TlsInfo)> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let stream = Box::new(acceptor.accept(stream).await?);
        let info = info(&stream);
        Ok((stream, info))
    }
}

fn info(stream: &TlsStream<TcpStream>) -> TlsInfo {
    let connection = stream.get_ref().1;
    let version = connection.protocol_version();
    // Before TLS 1.3 the value is bound to the connection only with an extension that the client chooses (RFC 9266, 3).
    let exporter = (version == Some(ProtocolVersion::TLSv1_3))
        .then(|| {
            let label = b"EXPORTER-Channel-Binding";
            connection.export_keying_material([0; 32], label, Some(&[])).ok()
        })
        .flatten();
    TlsInfo {
        version: match version {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
            other => format!("{other:?}"),
        },
        server_name: connection.server_name().map(str::to_owned),
        exporter,
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    [&files.cert, &files.key].into_iter().chain(&files.client_ca).map(of).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })?;
    if all.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(all) }
}

fn read(files: &TlsFiles, oldest: TlsVersion) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| TlsError::File { path: files.key.clone(), source })?;
    let unfit = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unfit { path, source }
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(oldest.and_newer())
        .map_err(unfit(&files.cert))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(unfit(path))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|source| TlsError::Authorities { path: path.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unfit(&files.cert))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
