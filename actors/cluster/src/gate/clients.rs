//! Client credentials: rows of the system table `weald.clients`, public keys only.
//!
//! # Shape
//! Key: the client's name. Value: JSON `{"public_key": "<64 hex digits>", "role": "reader|writer|operator"}`.

use super::{Deps, REQUEST_TIME_MAX, invalid};
use crate::service::Credentials;
use crate::store::StoreHandle;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use weald_proto::request::{self, ClientInfo, ClientRole, Credential};
use weald_proto::{ErrorCode, Reply, WireError};
use weald_storage::{DeclareError, Key, Scan, TableName, TableSpec, WriteOp};

/// The table of credentials.
pub const TABLE: &str = "weald.clients";
/// The client that a new node makes for programs on its own machine.
pub const LOCAL_CLIENT: &str = "local-program";
/// Row of a node's own client that was taken away; no credential.
const REMOVED: &[u8] = b"{}";
/// Longest name of a client, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most clients listed.
const CLIENTS_MAX: usize = 10_000;

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    public_key: String,
    role: ClientRole,
}

/// The credentials of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    store: StoreHandle,
    changes: watch::Sender<u64>,
}

impl Clients {
    /// The credentials in this store. Writes the declaration of their table if it is new, so call it where blocking is fine.
    ///
    /// # Errors
    /// The declaration cannot be written.
    pub fn open(store: StoreHandle) -> Result<Self, DeclareError> {
        if let Ok(table) = TableName::parse(TABLE) {
            store.store().declare_system_table(&table, TableSpec::UNDECLARED)?;
        }
        Ok(Self { store, changes: watch::Sender::new(0) })
    }

    /// Creates a client, or gives an existing one a new key. The returned secret is the only copy.
    ///
    /// # Errors
    /// A malformed name, or a failed write.
    pub async fn add(&self, name: &str, role: ClientRole) -> Result<Credential, WireError> {
        let well_formed = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
        if !well_formed {
            return Err(invalid(format!(
                "client name {name:?}: 1 to {NAME_BYTES_MAX} letters, digits or any of - _ . @"
            )));
        }
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| WireError::new(ErrorCode::Internal, format!("no randomness: {e}")))?;
        let public = SigningKey::from_bytes(&seed).verifying_key();
        let row = Row { public_key: hex(public.as_bytes()), role };
        let value = serde_json::to_vec(&row).map_err(|e| invalid(e.to_string()))?;
        let (table, key) = address(name)?;
        let op = WriteOp::Put { table, key, value, context: None, ttl: None };
        self.write(op).await?;
        Ok(Credential { name: name.into(), secret: seed.to_vec() })
    }

    /// Whether there was a client of this name that somebody took away.
    #[must_use]
    pub fn was_removed(&self, name: &str) -> bool {
        let Ok((table, key)) = address(name) else { return false };
        let got = self.store.get(&table, &key);
        got.is_ok_and(|got| match got.values.first() {
            Some(value) => value.as_slice() == REMOVED,
            None => !got.context.vector().is_empty(),
        })
    }

    /// Credentials were changed by another node.
    pub fn changed_elsewhere(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    async fn write(&self, op: WriteOp) -> Result<(), WireError> {
        let done = self.store.write(op, Instant::now() + REQUEST_TIME_MAX).await;
        done.map_err(|e| {
            WireError::new(ErrorCode::Internal, format!("credential not stored: {e}"))
        })?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn row(&self, name: &str) -> Option<Row> {
        let (table, key) = address(name).ok()?;
        let got = self.store.get(&table, &key).ok()?;
        serde_json::from_slice(got.values.first()?).ok()
    }
}

impl Credentials for Clients {
    fn lookup(&self, name: &str) -> Option<([u8; 32], ClientRole)> {
        let row = self.row(name)?;
        Some((unhex(&row.public_key)?, row.role))
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

pub(super) async fn add(deps: Arc<Deps>, r: request::AddClient) -> Reply<Credential> {
    deps.clients.add(&r.name, r.role).await
}

pub(super) async fn remove(deps: Arc<Deps>, r: request::RemoveClient) -> Reply<()> {
    if deps.clients.row(&r.name).is_none() {
        let text = format!("there is no client {:?}; `weald client list` lists them", r.name);
        return Err(WireError::new(ErrorCode::NotFound, text));
    }
    let (table, key) = address(&r.name)?;
    deps.clients
        .write(if r.name.starts_with(LOCAL_CLIENT) {
            // A tombstone goes away once every member has it, and then the node would make its credential anew.
            WriteOp::Put { table, key, value: REMOVED.to_vec(), context: None, ttl: None }
        } else {
            WriteOp::Delete { table, key, context: None }
        })
        .await
}

pub(super) async fn list(deps: Arc<Deps>) -> Reply<Vec<ClientInfo>> {
    let registry = deps.registry.clone();
    let table = TableName::parse(TABLE).map_err(|e| invalid(e.to_string()))?;
    let scan = Scan { limit_items: CLIENTS_MAX, limit_bytes: usize::MAX, ..Scan::new(table) };
    let page = super::data::blocking(move || {
        let page = deps.store.store().scan(&scan, deps.store.wall_ms());
        page.map_err(|e| super::data::read_error(&e))
    })
    .await?;
    let clients = page.items.into_iter().filter_map(|item| {
        let row: Row = serde_json::from_slice(item.values.first()?).ok()?;
        let name = String::from_utf8(item.key.into()).ok()?;
        let connections = registry.sessions().connections(&name);
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        Some(ClientInfo { name, role: row.role, connections })
    });
    Ok(clients.collect())
}

fn address(name: &str) -> Result<(TableName, Key), WireError> {
    let table = TableName::parse(TABLE).map_err(|e| invalid(e.to_string()))?;
    let key = Key::new(name.as_bytes()).map_err(|e| invalid(format!("client name: {e}")))?;
    Ok((table, key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != out.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}
