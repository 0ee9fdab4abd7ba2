//! Certificates of a cluster: its authority, the nodes' bundles, and who a certificate says a node is.
//!
//! # Shape
//! A node's certificate carries the URI `weald://<cluster>/<node>`, the DNS name `<node>.<cluster>.weald.internal` where that
//! is a DNS name, and the hosts at which clients reach it. It serves both ends of a connection.
//!
//! What it guarantees: a bundle that was issued verifies against the authority it was issued with; an identity is read from
//! one URI only, a certificate with two is nobody's.
//!
//! What it refuses: revocation (an evicted node is refused by the membership), files (callers read and write them).

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use std::fmt;
use std::net::IpAddr;
use thiserror::Error;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;

/// Longest name of a cluster or a node, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most hosts in one certificate.
const HOSTS_MAX: usize = 32; // guess
/// First and last year in which a certificate is valid. A cluster must not end with a date that nobody watches; keys are
/// changed by issuing new bundles, which nodes take up without a restart. // guess
const YEARS: (i32, i32) = (2020, 2099);

/// The authority of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate, which every node and client trusts.
    pub cert_pem: String,
    /// Its private key: whoever has it can make nodes of this cluster.
    pub key_pem: String,
}

/// Certificate and private key of a node.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The certificate.
    pub cert_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").finish_non_exhaustive()
    }
}

/// Why there is no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A name that cannot be in a certificate.
    #[error("{what} {name:?}: 1 to {NAME_BYTES_MAX} letters, digits or any of - _ .")]
    Name {
        /// Which name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A host that is neither an address nor a DNS name.
    #[error("host {0:?} is neither an IP address nor a DNS name")]
    Host(String),
    /// Too many hosts.
    #[error("{0} hosts in one certificate, at most {HOSTS_MAX}")]
    Hosts(usize),
    /// The authority's key does not belong to the authority's certificate, or both to another cluster.
    #[error("this is not the authority of cluster {cluster:?}: {why}")]
    Authority {
        /// The cluster.
        cluster: String,
        /// What does not fit.
        why: String,
    },
    /// The certificate could not be made.
    #[error("certificate not made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Who a certificate says a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: String,
    /// Its name.
    pub node: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weald://{}/{}", self.cluster, self.node)
    }
}

impl Identity {
    /// Reads it from a certificate; none when there is not exactly one.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut uris = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix("weald://"));
        let (cluster, node) = uris.next()?.split_once('/')?;
        let is_whole = uris.next().is_none() && is_name(cluster) && is_name(node);
        is_whole.then(|| Self { cluster: cluster.to_owned(), node: node.to_owned() })
    }
}

/// Whether this may be the name of a cluster or a node.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Makes the authority of a new cluster.
///
/// # Errors
/// [`PkiError::Name`] and [`PkiError::Make`].
pub fn make_authority(cluster: &str) -> Result<Authority, PkiError> {
    check_name("cluster", cluster)?;
    let key = KeyPair::generate()?;
    let certificate = authority_params(cluster).self_signed(&key)?;
    Ok(Authority { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Issues a node's certificate. `hosts` are names and addresses at which clients reach it, loopback is always among them.
///
/// # Errors
/// Any [`PkiError`].
pub fn issue(
    authority: &Authority,
    cluster: &str,
    node: &str,
    hosts: &[String],
) -> Result<Bundle, PkiError> {
    check_name("cluster", cluster)?;
    check_name("node", node)?;
    if hosts.len() > HOSTS_MAX {
        return Err(PkiError::Hosts(hosts.len()));
    }
    let foreign = |why: String| PkiError::Authority { cluster: cluster.to_owned(), why };
    let issuer_key = KeyPair::from_pem(&authority.key_pem).map_err(|e| foreign(e.to_string()))?;
    let issuer = Issuer::new(authority_params(cluster), issuer_key);
    let key = KeyPair::generate()?;
    let certificate = node_params(cluster, node, hosts)?.signed_by(&key, &issuer)?;
    verify(certificate.der(), &[], &roots(authority.cert_pem.as_bytes()).map_err(foreign)?)
        .map_err(|why| PkiError::Authority { cluster: cluster.to_owned(), why })?;
    Ok(Bundle { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// The authorities in a PEM text.
///
/// # Errors
/// A text: there is none, or one that is no certificate.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(roots)
}

/// Whether one of the authorities has signed a certificate, and it is valid now. The name in it is not looked at.
///
/// # Errors
/// A text that says what is wrong.
pub fn verify(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
) -> Result<(), String> {
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(certificate).map_err(|e| e.to_string())?;
    let now = UnixTime::now();
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
        .map_err(|e| e.to_string())
}

fn check_name(what: &'static str, name: &str) -> Result<(), PkiError> {
    if is_name(name) { Ok(()) } else { Err(PkiError::Name { what, name: name.to_owned() }) }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(YEARS.0, 1, 1);
    params.not_after = date_time_ymd(YEARS.1, 12, 31);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// The authority is found again by these alone: its name follows from the cluster's.
fn authority_params(cluster: &str) -> CertificateParams {
    let mut params = params(&format!("Weald cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn node_params(cluster: &str, node: &str, hosts: &[String]) -> Result<CertificateParams, PkiError> {
    let mut params = params(node);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let identity = Identity { cluster: cluster.to_owned(), node: node.to_owned() };
    params.subject_alt_names.push(SanType::URI(identity.to_string().try_into()?));
    let internal = format!("{node}.{cluster}.weald.internal").to_ascii_lowercase();
    if is_dns_name(&internal) {
        params.subject_alt_names.push(SanType::DnsName(internal.try_into()?));
    }
    let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    for host in loopback.iter().chain(hosts) {
        let san = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_not_an_address) if is_dns_name(host) => {
                SanType::DnsName(host.as_str().try_into()?)
            }
            Err(_not_an_address) => return Err(PkiError::Host(host.clone())),
        };
        if !params.subject_alt_names.contains(&san) {
            params.subject_alt_names.push(san);
        }
    }
    Ok(params)
}

fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::rustls::client::verify_server_name;
    use tokio_rustls::rustls::pki_types::ServerName;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn issued_certificate_names_the_node_and_its_hosts() {
        let authority = make_authority("blue").unwrap();
        let hosts = ["db.example".to_owned(), "10.0.0.7".to_owned(), "localhost".to_owned()];
        let bundle = issue(&authority, "blue", "Node_1.a", &hosts).unwrap();
        let certificate = der(&bundle.cert_pem);
        let identity = Identity::of(&certificate).unwrap();
        assert_eq!(identity.to_string(), "weald://blue/Node_1.a");
        let parsed = ParsedCertificate::try_from(&certificate).unwrap();
        for host in ["db.example", "10.0.0.7", "127.0.0.1", "::1", "localhost"] {
            verify_server_name(&parsed, &ServerName::try_from(host).unwrap()).unwrap();
        }
        let other = ServerName::try_from("elsewhere.example").unwrap();
        assert!(verify_server_name(&parsed, &other).is_err());
        assert!(issue(&authority, "blue", "n1", &["a b".to_owned()]).is_err());
        assert!(issue(&authority, "blue", "n/1", &[]).is_err());
        assert_eq!(Identity::of(&der(&authority.cert_pem)), None);
    }

    #[test]
    fn authority_of_another_cluster_is_noticed_when_issuing() {
        let authority = make_authority("blue").unwrap();
        assert!(matches!(issue(&authority, "red", "n1", &[]), Err(PkiError::Authority { .. })));
        let mixed = Authority { key_pem: make_authority("blue").unwrap().key_pem, ..authority };
        assert!(matches!(issue(&mixed, "blue", "n1", &[]), Err(PkiError::Authority { .. })));
    }
}
