//! Where objects of peers enter the store.
//!
//! What it guarantees: they go through the partition's store actor like every write, and so share its bound and its
//! batches; an object that belongs to another partition, or to another kind of table than its stream, is refused and its
//! events stay unprocessed, so that an exchange brings it again; what peers changed in the node's own tables is taken note
//! of once it is committed.

use crate::gate::clients::{self, Clients};
use crate::store::{StoreHandle, WriteFailure};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use weald_exchange::core::MergeFailure;
use weald_storage::{
    Delta, Evidence, Space, TABLES_TABLE, TableKind, WriteError, WriteOp, partition_of,
};

/// How long a merge may wait for its partition. A peer sends it again after that.
const MERGE_TIME: Duration = Duration::from_secs(20); // guess: a restart and a slow disk

/// The store as peers write to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreSink {
    store: StoreHandle,
    clients: Clients,
}

impl StoreSink {
    /// A way into this store; changes of credentials are told to `clients`.
    #[must_use]
    pub fn new(store: StoreHandle, clients: Clients) -> Self {
        Self { store, clients }
    }

    /// Merges objects; for each, in their order, whether it brought events that were not processed here. They are handed
    /// to the partition before this returns, if there is room, so that calls take effect in their order.
    pub fn take(
        &self,
        partition: u16,
        space: Space,
        deltas: Vec<(Delta, Evidence)>,
    ) -> impl Future<Output = Vec<Result<bool, MergeFailure>>> + Send + use<> {
        let mut outcomes: Vec<Option<Result<bool, MergeFailure>>> =
            Vec::with_capacity(deltas.len());
        let mut ops = Vec::with_capacity(deltas.len());
        let mut own_tables = OwnTables::default();
        for (delta, evidence) in deltas {
            if let Err(refused) = self.belongs(partition, space, &delta) {
                outcomes.push(Some(Err(refused)));
                continue;
            }
            own_tables.note(&delta);
            let Delta { table, key, object, dots } = delta;
            ops.push(WriteOp::Merge { table, key, object, dots, evidence });
            outcomes.push(None);
        }
        let writing = self.store.write_many(ops, Instant::now() + MERGE_TIME);
        let this = self.clone();
        async move {
            let mut written = writing.await.into_iter().map(|outcome| match outcome {
                Ok(written) => Ok(written.fresh),
                Err(failure) => Err(failed(&failure)),
            });
            let lost = || Err(MergeFailure::Unavailable);
            let outcomes: Vec<_> = outcomes
                .into_iter()
                .map(|outcome| outcome.or_else(|| written.next()).unwrap_or_else(lost))
                .collect();
            this.learn(&own_tables).await;
            outcomes
        }
    }

    fn belongs(&self, partition: u16, space: Space, delta: &Delta) -> Result<(), MergeFailure> {
        let store = self.store.store();
        let home = partition_of(&delta.table, &delta.key, store.partitions());
        if home != partition {
            let text = format!("a key of partition {home} came for partition {partition}");
            return Err(MergeFailure::Other(text));
        }
        let kind = match store.table(&delta.table).kind {
            TableKind::Durable => Space::Durable,
            TableKind::Memory => Space::Memory,
        };
        // The declaration of a table may be on its way still: what comes before it comes again.
        if kind == space { Ok(()) } else { Err(MergeFailure::Unavailable) }
    }

    async fn learn(&self, own: &OwnTables) {
        if !own.declarations.is_empty() {
            let (store, names) = (self.store.store().clone(), own.declarations.clone());
            let learning = tokio::task::spawn_blocking(move || {
                names.iter().for_each(|name| store.learn_table(name));
            });
            if let Err(e) = learning.await {
                tracing::error!(event = "tables_not_learned", error = %e, "declarations of tables were not read");
            }
        }
        if own.has_clients {
            self.clients.changed_elsewhere();
        }
    }
}

/// What a batch changes in the node's own tables.
#[derive(Debug, Default)]
struct OwnTables {
    declarations: Vec<weald_storage::Key>,
    has_clients: bool,
}

impl OwnTables {
    fn note(&mut self, delta: &Delta) {
        match delta.table.as_str() {
            TABLES_TABLE => self.declarations.push(delta.key.clone()),
            clients::TABLE => self.has_clients = true,
            _ => {}
        }
    }
}

fn failed(failure: &WriteFailure) -> MergeFailure {
    match failure {
        WriteFailure::Write(WriteError::OwnEventUnknown { actor, .. }) => {
            MergeFailure::OwnEventUnknown { highest: actor.incarnation }
        }
        WriteFailure::Write(WriteError::StorageFull { .. }) => MergeFailure::StorageFull,
        WriteFailure::Write(
            WriteError::Stopped(_) | WriteError::Aborted(_) | WriteError::Closed,
        )
        | WriteFailure::Overloaded
        | WriteFailure::Down
        | WriteFailure::Unknown => MergeFailure::Unavailable,
        WriteFailure::Write(other) => MergeFailure::Other(other.to_string()),
    }
}
