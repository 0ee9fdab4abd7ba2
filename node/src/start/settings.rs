//! From the configuration to the settings of each part, and from errors to exit codes.

use crate::config::cluster::{Discovery, Strategy};
use crate::config::{Config, clients, realm, storage};
use crate::exit::Exit;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use weald_cluster::replication;
use weald_cluster::transport::{self, TlsFiles};
use weald_router::broker::{history, retained};
use weald_router::dealer::call;
use weald_router::router;
use weald_storage::{Durability, OnDamage, OpenError, Store, StoreConfig};
use weald_transports::{Egress, EgressConfig};

/// How to open the store.
pub(super) fn store_config(config: &storage::Storage) -> StoreConfig {
    StoreConfig {
        partitions: config.partitions,
        durability: match config.durability {
            storage::Durability::Full => Durability::Full,
            storage::Durability::Relaxed => Durability::Relaxed,
        },
        map_size: config.map_size,
        map_size_max: config.map_size_max,
        changes_retained: config.changes_retained,
        on_damage: match config.on_damage {
            storage::OnDamage::Stop => OnDamage::Stop,
            storage::OnDamage::Continue => OnDamage::Continue,
        },
        ..StoreConfig::default()
    }
}

/// How to listen.
pub(super) fn transport_config(config: &Config, name: &str, store: &Store) -> transport::Config {
    let cluster = &config.cluster;
    let listen = settled(cluster.listen);
    transport::Config {
        listen: vec![listen],
        advertise: advertised(&cluster.advertise, listen),
        node_name: name.to_owned(),
        node_uuid: store.node_id().0,
        incarnation: store.incarnation(),
        cluster: Some(cluster.name.clone()),
        clients_max: usize::try_from(cluster.max_clients).unwrap_or(usize::MAX),
        idle_timeout: cluster.idle_timeout,
        tls: cluster
            .tls_certificate
            .clone()
            .zip(cluster.tls_key.clone())
            .map(|(cert, key)| TlsFiles { cert, key, ca: cluster.tls_ca.clone() }),
        allow_plaintext: cluster.allow_plaintext,
        partitions: store.partitions(),
        far: match cluster.strategy {
            Strategy::FullMesh => None,
            Strategy::P2p => Some(transport::Far::default()),
        },
        ..transport::Config::default()
    }
}

/// The address with a port: other nodes are told of it before it is bound. With port 0 the system chooses one now.
fn settled(listen: SocketAddr) -> SocketAddr {
    if listen.port() != 0 {
        return listen;
    }
    // Where none is to be had binding will fail, too, and say why.
    TcpListener::bind(listen).and_then(|socket| socket.local_addr()).unwrap_or(listen)
}

/// Where other nodes reach this one.
fn advertised(configured: &[String], listen: SocketAddr) -> Vec<String> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    if listen.ip().is_unspecified() {
        let host = rustix::system::uname();
        return vec![format!("{}:{}", host.nodename().to_string_lossy(), listen.port())];
    }
    vec![listen.to_string()]
}

/// How to be a member.
pub(super) fn replication_config(
    config: &Config,
    name: &str,
    members_file: PathBuf,
    addresses: Vec<String>,
) -> replication::Config {
    let (cluster, aae) = (&config.cluster, &config.aae);
    let names = match cluster.discovery {
        Discovery::Static => Vec::new(),
        Discovery::Dns => cluster.dns_names.clone(),
    };
    let broadcast = weald_broadcast::Config {
        lazy_tick_ms: millis(cluster.lazy_tick_period),
        ..weald_broadcast::Config::default()
    };
    replication::Config {
        cluster: cluster.name.clone(),
        membership: weald_membership::config::Config {
            strategy: match cluster.strategy {
                Strategy::FullMesh => weald_membership::config::Strategy::FullMesh,
                Strategy::P2p => weald_membership::config::Strategy::P2p,
            },
            max_absence_ms: millis(cluster.max_absence),
            hyparview: weald_membership::config::HyParView {
                active_max: usize::try_from(cluster.active_view).unwrap_or(usize::MAX),
                ..weald_membership::config::HyParView::default()
            },
            ..weald_membership::config::Config::default()
        },
        broadcast,
        exchange: weald_exchange::Config {
            enabled: aae.enabled,
            data_exchange_timeout: aae.data_exchange_timeout,
            // Both ask for an exchange with some peer every so often.
            exchange_timer: aae.exchange_timer.min(cluster.exchange_tick_period),
            concurrency: usize::try_from(aae.concurrency).unwrap_or(usize::MAX),
            min_age: aae.tombstone_min_age,
            ..weald_exchange::Config::default()
        },
        discovery: weald_membership::discovery::Config {
            addresses: cluster.seeds.clone(),
            dns: names,
            period: cluster.poll_interval,
        },
        members_file,
        addresses,
        name: name.to_owned(),
    }
}

/// How the router treats all clients.
pub(super) fn router_settings(config: &Config) -> router::Settings {
    let clients = &config.clients;
    router::Settings {
        handshake_timeout: clients.handshake_timeout,
        // Clients that do not answer must not make the stop an unclean one.
        goodbye_timeout: clients.goodbye_timeout.min(config.node.shutdown_timeout / 2),
        limits: weald_wamp::Limits {
            message_bytes: bytes(clients.message_size),
            depth: clients.message_depth,
            elements: clients.message_values,
        },
    }
}

/// How a realm behaves.
pub(super) fn realm_settings(config: &realm::Realm) -> weald_router::realm::Settings {
    let topic = |topic: &realm::HistoryTopic| history::Topic {
        uri: topic.uri.as_str().into(),
        policy: topic.policy,
        events_max: config.history_events,
        bytes_max: bytes(config.history_size),
        age_max: some(config.history_age),
    };
    weald_router::realm::Settings {
        uri_rules: config.uri_rules,
        strict_request_ids: config.strict_request_ids,
        history: config.history.iter().map(topic).collect(),
        retention: retained::Bounds {
            topics_max: config.retained_topics,
            event_bytes_max: bytes(config.retained_event_size),
            age_max: some(config.retained_age),
        },
        calls: call::Times {
            default: some(config.call_timeout),
            max: some(config.call_timeout_max),
        },
        session: config.session,
    }
}

/// Bounds of what waits to be sent to clients.
pub(super) fn egress(config: &clients::Clients) -> EgressConfig {
    EgressConfig {
        queue_bytes_max: bytes(config.queue_size),
        stuck_max: config.queue_timeout,
        budget_bytes: bytes(config.queues_size),
        policy: config.slow,
    }
}

/// What connections of clients have in common.
pub(super) fn connections(
    config: &clients::Clients,
    egress: &Arc<Egress>,
) -> weald_transports::Settings {
    weald_transports::Settings {
        message_bytes_max: bytes(config.message_size),
        ping_interval: some(config.ping_interval),
        raw_pings: config.rawsocket_pings,
        ping_timeout: config.ping_timeout,
        egress: Arc::clone(egress),
    }
}

/// A duration of which 0 stands for none.
fn some(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What it means for the process that the store did not open.
pub(super) fn open_exit(error: &OpenError) -> Exit {
    match error {
        OpenError::Config { .. } | OpenError::PartitionsDiffer { .. } => Exit::Config,
        OpenError::Format { .. }
        | OpenError::Foreign { .. }
        | OpenError::Damaged { .. }
        | OpenError::Tables(_) => Exit::Damaged,
        _ => Exit::Io,
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_configuration_are_those_of_the_parts() {
        let config = replication_config(&Config::default(), "n", PathBuf::new(), Vec::new());
        assert_eq!(config.exchange, weald_exchange::Config::default());
        assert_eq!(config.membership, weald_membership::config::Config::default());
        let config = Config::default();
        let settings = realm_settings(&config.realm);
        assert_eq!(settings, weald_router::realm::Settings::default());
        assert_eq!(egress(&config.clients), EgressConfig::default());
        let router = router_settings(&config);
        assert_eq!(router.limits, weald_wamp::Limits::default());
    }
}
