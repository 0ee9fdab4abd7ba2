//! From the configuration to the settings of each part, and from errors to exit codes.

use crate::config::{Config, storage};
use crate::exit::Exit;
use weald_cluster::transport::{self, TlsFiles};
use weald_storage::{Durability, OnDamage, OpenError, Store, StoreConfig};

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
    transport::Config {
        listen: vec![cluster.listen],
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
            .map(|(cert, key)| TlsFiles { cert, key, ca: None }),
        allow_plaintext: cluster.allow_plaintext,
        partitions: store.partitions(),
        ..transport::Config::default()
    }
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
