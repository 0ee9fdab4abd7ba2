//! The configuration of a node: defaults, then a TOML file, then environment variables, then flags.
//!
//! Guarantees: all problems are found and listed at once, each with the place it came from; every value knows where it came
//! from; a configuration that was loaded without problems is within every documented limit. Refuses: unknown keys (with a
//! suggestion), numbers without a unit where a unit matters, and changing after it was loaded.

pub(crate) mod aae;
pub(crate) mod clients;
pub(crate) mod cluster;
pub(crate) mod keys;
pub(crate) mod listeners;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod node;
pub(crate) mod realm;
pub(crate) mod render;
pub(crate) mod storage;
pub(crate) mod supervision;
pub(crate) mod value;

pub(crate) use load::{Flags, Loaded, load};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Config {
    pub(crate) node: node::Node,
    pub(crate) log: log::Log,
    pub(crate) storage: storage::Storage,
    pub(crate) cluster: cluster::Cluster,
    pub(crate) listeners: listeners::Listeners,
    pub(crate) clients: clients::Clients,
    pub(crate) realm: realm::Realm,
    pub(crate) aae: aae::Aae,
    pub(crate) supervision: supervision::Supervision,
}

/// A condition between keys.
struct Rule {
    /// The keys it is about.
    keys: &'static [&'static str],
    /// What is wrong, if something is.
    check: fn(&Config) -> Option<String>,
}

const RULES: &[Rule] = &[
    Rule {
        keys: &["storage.map_size", "storage.map_size_max"],
        check: |c| {
            let (first, most) = (c.storage.map_size, c.storage.map_size_max);
            let text = || {
                let (first, most) = (value::show_bytes(first), value::show_bytes(most));
                format!("storage.map_size {first} is over storage.map_size_max {most}")
            };
            (first > most).then(text)
        },
    },
    Rule {
        keys: &["cluster.tls_certificate", "cluster.tls_key"],
        check: |c| {
            (c.cluster.tls_certificate.is_some() != c.cluster.tls_key.is_some()).then(|| {
                "cluster.tls_certificate and cluster.tls_key go together: one is missing".to_owned()
            })
        },
    },
    Rule {
        keys: &["cluster.listen"],
        check: |c| {
            let exposed = !c.cluster.listen.ip().is_loopback()
                && c.cluster.tls_certificate.is_none()
                && !c.cluster.allow_plaintext;
            exposed.then(|| {
                "cluster.listen is not a loopback address: set cluster.tls_certificate and \
                 cluster.tls_key, or cluster.allow_plaintext = true on a network that is secured \
                 otherwise"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["cluster.tls_ca"],
        check: |c| {
            (c.cluster.tls_ca.is_some() && c.cluster.tls_certificate.is_none()).then(|| {
                "cluster.tls_ca is of no use without cluster.tls_certificate and cluster.tls_key"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["cluster.discovery", "cluster.dns_names"],
        check: |c| {
            let dns = c.cluster.discovery == cluster::Discovery::Dns;
            (dns && c.cluster.dns_names.is_empty()).then(|| {
                "cluster.discovery is \"dns\", but cluster.dns_names has no name to ask for"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["cluster.listen", "cluster.advertise"],
        check: |c| {
            let cluster = &c.cluster;
            let joins = !cluster.seeds.is_empty() || cluster.discovery == cluster::Discovery::Dns;
            let hidden = cluster.listen.ip().is_unspecified() && cluster.advertise.is_empty();
            (joins && hidden).then(|| {
                format!(
                    "cluster.listen {} is no address that other nodes can dial: say with \
                     cluster.advertise where they reach this one",
                    cluster.listen
                )
            })
        },
    },
    Rule {
        keys: &["listeners.https", "listeners.rawsocket_tls"],
        check: |c| {
            let l = &c.listeners;
            let has_both = l.tls_certificate.is_some() && l.tls_key.is_some();
            (l.has_tls_port() && !has_both).then(|| {
                "listeners.https and listeners.rawsocket_tls need listeners.tls_certificate and \
                 listeners.tls_key"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["listeners.tls_certificate", "listeners.tls_key", "listeners.tls_client_ca"],
        check: |c| {
            let l = &c.listeners;
            let files = [&l.tls_certificate, &l.tls_key, &l.tls_client_ca];
            (!l.has_tls_port() && files.into_iter().any(Option::is_some)).then(|| {
                "listeners.tls_certificate, tls_key and tls_client_ca are of no use without \
                 listeners.https or listeners.rawsocket_tls"
                    .to_owned()
            })
        },
    },
    Rule {
        keys: &["aae.hashtree_ttl", "aae.hashtree_timer"],
        check: |c| {
            (c.aae.hashtree_ttl < c.aae.hashtree_timer)
                .then(|| "aae.hashtree_ttl is shorter than aae.hashtree_timer".to_owned())
        },
    },
];
