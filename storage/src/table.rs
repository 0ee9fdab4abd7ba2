//! Tables: what kind they are, how they resolve siblings, how long their values live.
//!
//! A declaration is an object of the system table `weald.tables`, so it is replicated like any
//! other data; a snapshot of all of them is kept in memory for readers and writers. A table that
//! was never declared is durable and `lww`, and exists from its first write.
//!
//! Refuses to change the kind of a table: the data of one kind is not where the other looks for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::key::TableName;
use crate::resolve::Resolver;

/// Table that holds the declarations.
pub const TABLES_TABLE: &str = "weald.tables";
/// Names with this prefix belong to the system.
pub const SYSTEM_PREFIX: &str = "weald.";

/// Where the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// In LMDB: survives restarts.
    Durable,
    /// In memory only: empty after each start, filled by peers.
    Memory,
}

/// A declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// Where its rows are.
    pub kind: TableKind,
    /// How siblings are resolved.
    pub resolver: Resolver,
    /// How long a value lives when its write does not say; `None` is for ever. Milliseconds count.
    pub ttl_default: Option<Duration>,
}

impl TableSpec {
    /// What an undeclared table is: durable, `lww`, values live for ever.
    pub const UNDECLARED: Self =
        Self { kind: TableKind::Durable, resolver: Resolver::Lww, ttl_default: None };
}

/// A table as [`crate::Store::tables`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// Its declaration, or [`TableSpec::UNDECLARED`].
    pub spec: TableSpec,
    /// Whether it was declared.
    pub declared: bool,
}

/// Whether `table` belongs to the system.
pub(crate) fn is_system(table: &TableName) -> bool {
    table.as_str().starts_with(SYSTEM_PREFIX)
}

/// [`TableSpec::UNDECLARED`] at a place of its own, so that it can be borrowed for ever.
static UNDECLARED: TableSpec = TableSpec::UNDECLARED;

/// The declaration of `table` among `known`.
#[inline]
pub(crate) fn spec_in<'k>(
    known: &'k BTreeMap<TableName, Known>,
    table: &TableName,
) -> &'k TableSpec {
    known.get(table).map_or(&UNDECLARED, |known| &known.spec)
}

#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) spec: TableSpec,
    pub(crate) declared: bool,
}

/// The tables known to this node: lock-free to read, one writer at a time.
#[derive(Debug)]
pub(crate) struct Tables {
    known: ArcSwap<BTreeMap<TableName, Known>>,
    writing: Mutex<()>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self { known: ArcSwap::default(), writing: Mutex::new(()) }
    }

    /// All tables, as they are now.
    #[inline]
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<BTreeMap<TableName, Known>>> {
        self.known.load()
    }

    /// Calls `with` with what `table` is.
    #[inline]
    pub(crate) fn with<T>(&self, table: &TableName, with: impl FnOnce(Option<&Known>) -> T) -> T {
        with(self.known.load().get(table))
    }

    pub(crate) fn kind(&self, table: &TableName) -> TableKind {
        self.with(table, |known| known.map_or(TableKind::Durable, |known| known.spec.kind))
    }

    pub(crate) fn snapshot(&self) -> Arc<BTreeMap<TableName, Known>> {
        self.known.load_full()
    }

    /// Held while a declaration is checked and written.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a declaration. A table that is in use keeps its kind.
    pub(crate) fn declared(&self, table: &TableName, mut spec: TableSpec) {
        self.known.rcu(|known| {
            let mut next = BTreeMap::clone(known);
            if let Some(before) = known.get(table)
                && before.spec.kind != spec.kind
            {
                tracing::error!(
                    event = "table_kind_conflict",
                    %table,
                    kept = ?before.spec.kind,
                    declared = ?spec.kind,
                    "a peer declared a table with another kind; the kind here is kept"
                );
                spec.kind = before.spec.kind;
            }
            next.insert(table.clone(), Known { spec: spec.clone(), declared: true });
            next
        });
    }

    /// Takes note of a table that was written without having been declared.
    pub(crate) fn seen(&self, table: &TableName) {
        if self.with(table, |known| known.is_some()) {
            return;
        }
        self.known.rcu(|known| {
            let mut next = BTreeMap::clone(known);
            next.entry(table.clone())
                .or_insert_with(|| Known { spec: TableSpec::UNDECLARED, declared: false });
            next
        });
    }
}
