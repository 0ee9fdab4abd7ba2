//! TLS on the cluster port: for clients, and mutual between nodes.
//!
//! What it guarantees: one set of files serves new handshakes of both kinds, and a set that does not load leaves the one
//! before in place; a node's certificate is checked against its own configuration before it is used, so that a mistake is
//! said here and not by every peer; no session is resumed, so that every handshake is judged by the files of its time.
//!
//! What it refuses: node connections without an authority, and certificates that any other authority has signed.

use super::handshake::Rejected;
use arc_swap::ArcSwapOption;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weald_link::Halves;
use weald_link::pki::{self, Identity};

/// The node's certificate chain and its private key, PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, the node's own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The authority of the cluster; without it no other node is let in, and none is dialled.
    pub ca: Option<PathBuf>,
}

/// What was loaded from the files.
pub(super) struct Loaded {
    acceptor: TlsAcceptor,
    nodes: Option<Nodes>,
}

struct Nodes {
    connector: TlsConnector,
    identity: Identity,
}

/// What tells one version of the files from another.
type Stamp = Vec<(Option<SystemTime>, u64)>;

/// The TLS of a node: the files, and what they held when they last made sense.
pub(super) struct Tls {
    files: Option<TlsFiles>,
    node: String,
    cluster: Option<String>,
    loaded: ArcSwapOption<Loaded>,
    stamp: Mutex<Stamp>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn new(files: Option<TlsFiles>, node: &str, cluster: Option<&str>) -> Self {
        Self {
            files,
            node: node.to_owned(),
            cluster: cluster.map(str::to_owned),
            loaded: ArcSwapOption::empty(),
            stamp: Mutex::default(),
        }
    }

    /// Whether connections are TLS.
    pub(super) fn is_on(&self) -> bool {
        self.files.is_some()
    }

    /// What new handshakes use.
    pub(super) fn loaded(&self) -> Option<Arc<Loaded>> {
        self.loaded.load_full()
    }

    /// Who this node is by its certificate; none without an authority.
    pub(super) fn identity(&self) -> Option<Identity> {
        Some(self.loaded.load().as_ref()?.nodes.as_ref()?.identity.clone())
    }

    /// Reads the files. On an error what was loaded before stays. Blocks.
    pub(super) fn load(&self) -> Result<(), String> {
        let Some(files) = &self.files else { return Ok(()) };
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp(files);
        let loaded = load(files, &self.node, self.cluster.as_deref())?;
        self.loaded.store(Some(Arc::new(loaded)));
        Ok(())
    }

    /// Reads the files again if they have changed; whether they had. Blocks.
    pub(super) fn load_if_changed(&self) -> Result<bool, String> {
        let Some(files) = &self.files else { return Ok(false) };
        let before = self.stamp.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if before == stamp(files) {
            return Ok(false);
        }
        self.load().map(|()| true)
    }
}

impl Loaded {
    /// TLS as a server. With the halves comes the identity in the peer's certificate, if it showed one.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(Halves, Option<Identity>), Rejected> {
        let stream = self.acceptor.accept(stream).await?;
        let identity = identity_of(stream.get_ref().1.peer_certificates());
        let (read, write) = tokio::io::split(stream);
        Ok((Halves::new(Box::new(read), Box::new(write)), identity))
    }

    /// TLS to another node; none without an authority.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<Option<(Halves, Option<Identity>)>> {
        let Some(nodes) = &self.nodes else { return Ok(None) };
        // Who it is follows from its certificate; at which address it was found does not matter.
        let nobody = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let stream = nodes.connector.connect(nobody, stream).await?;
        let identity = identity_of(stream.get_ref().1.peer_certificates());
        let (read, write) = tokio::io::split(stream);
        Ok(Some((Halves::new(Box::new(read), Box::new(write)), identity)))
    }
}

fn identity_of(chain: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
    Identity::of(chain?.first()?)
}

fn stamp(files: &TlsFiles) -> Stamp {
    let stamp = |path: &PathBuf| {
        std::fs::metadata(path).map_or((None, 0), |meta| (meta.modified().ok(), meta.len()))
    };
    [&files.cert, &files.key].into_iter().chain(&files.ca).map(stamp).collect()
}

fn failed(what: &Path, why: &dyn Display) -> String {
    format!("{}: {why}", what.display())
}

fn load(files: &TlsFiles, node: &str, cluster: Option<&str>) -> Result<Loaded, String> {
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed(&files.cert, &e))?;
    if chain.is_empty() {
        return Err(failed(&files.cert, &"holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| failed(&files.key, &e))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&files.cert, &e))?;
    let (builder, nodes) = match &files.ca {
        None => (builder.with_no_client_auth(), None),
        Some(ca) => {
            let pem = std::fs::read(ca).map_err(|e| failed(ca, &e))?;
            let roots = Arc::new(pki::roots(&pem).map_err(|e| failed(ca, &e))?);
            let identity = own_identity(&chain, &roots, node, cluster)
                .map_err(|why| failed(&files.cert, &why))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(&roots),
                Arc::clone(&provider),
            )
            // Clients have no certificate; of nodes it is asked in the handshake that follows.
            .allow_unauthenticated()
            .build()
            .map_err(|e| failed(ca, &e))?;
            let connector = connector(&provider, roots, chain.clone(), key.clone_key())
                .map_err(|e| failed(&files.cert, &e))?;
            (builder.with_client_cert_verifier(verifier), Some(Nodes { connector, identity }))
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| failed(&files.cert, &e))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { acceptor: TlsAcceptor::from(Arc::new(config)), nodes })
}

/// Checks that the certificate is of this node and of this authority.
fn own_identity(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    node: &str,
    cluster: Option<&str>,
) -> Result<Identity, String> {
    let (own, rest) = chain.split_first().ok_or("holds no certificate")?;
    pki::verify(own, rest, roots)?;
    let identity = Identity::of(own).ok_or("names no node of a cluster (URI weald://...)")?;
    if identity.node != node {
        return Err(format!("is the certificate of {identity}, but this node is named {node:?}"));
    }
    match cluster {
        Some(cluster) if cluster != identity.cluster => {
            Err(format!("is the certificate of {identity}, but the cluster is named {cluster:?}"))
        }
        _ => Ok(identity),
    }
}

fn connector(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsConnector, Error> {
    let verifier = AnyNode { roots, provider: Arc::clone(provider) };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)?;
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any server with a certificate of the authority, by whatever address it was reached: the hello that follows must
/// give the name in the certificate. But for the name it does what `WebPkiServerVerifier` does.
#[derive(Debug)]
struct AnyNode {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
