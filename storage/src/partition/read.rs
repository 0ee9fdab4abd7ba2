//! Reading one key.
//!
//! A read opens a snapshot, verifies the record's checksum, picks or resolves the values and copies
//! only what it returns. It takes no lock but the reader's side of the one that guards the map.

use crate::codec::RecordView;
use crate::context::Context;
use crate::error::ReadError;
use crate::key::{Key, TableName, row_key};
use crate::object::{Object, ValueRef};
use crate::partition::{Partition, Space};
use crate::resolve::{MergeFailure, Resolver, Resolvers, lww};
use crate::table::{TABLES_TABLE, TableKind, TableSpec};

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// The values: none when the key is absent, deleted or expired; several only for siblings.
    pub values: Vec<Vec<u8>>,
    /// What was read; hand it to the next write of the key.
    pub context: Context,
    /// Whether there are siblings that `WriteOp::Repair` would resolve.
    pub needs_repair: bool,
    /// Why the table's merge function gave nothing; `values` are then the siblings.
    pub merge_failure: Option<MergeFailure>,
}

/// What a reader sees of some live values.
pub(crate) struct Seen {
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) needs_repair: bool,
    pub(crate) failure: Option<MergeFailure>,
}

/// Resolves `values` as `spec` says.
#[inline]
pub(crate) fn see<'v>(
    resolvers: &Resolvers,
    spec: &TableSpec,
    table: &TableName,
    key: &Key,
    values: impl Iterator<Item = ValueRef<'v>>,
    now_ms: u64,
) -> Seen {
    if spec.resolver == Resolver::Lww {
        let found = lww(values);
        let value = found.winner.and_then(|winner| winner.visible(now_ms));
        return Seen {
            values: value.map(<[u8]>::to_vec).into_iter().collect(),
            needs_repair: found.needs_repair,
            failure: None,
        };
    }
    let resolved = resolvers.resolve_refs(&spec.resolver, table, key, values, now_ms);
    Seen {
        needs_repair: resolved.needs_repair(),
        values: resolved.values.into_iter().filter_map(|value| value.payload).collect(),
        failure: resolved.failure,
    }
}

fn corrupt(error: crate::codec::RecordError, table: &TableName, key: &Key) -> ReadError {
    ReadError::Corrupt(format!("{table} {key:?}: {error}").into())
}

impl Partition {
    /// Reads a key of this partition.
    pub(crate) fn get(
        &self,
        spec: &TableSpec,
        table: &TableName,
        key: &Key,
        now_ms: u64,
    ) -> Result<Got, ReadError> {
        let resolvers = &self.shared.resolvers;
        if spec.kind == TableKind::Memory {
            let memory = self.memory();
            let empty = Object::new();
            let object = memory.get(table, key).map_or(&empty, |object| object);
            let seen = see(resolvers, spec, table, key, object.refs(), now_ms);
            return Ok(got(seen, Context::of(table, key, object)));
        }
        self.with_snapshot(|lmdb, txn| {
            let row = row_key(table, key);
            let Some(record) = lmdb.dbs.objects.get(txn, &row)? else {
                let nothing = Seen { values: Vec::new(), needs_repair: false, failure: None };
                return Ok(got(nothing, Context::new(table, key, Default::default())));
            };
            let view =
                RecordView::open(&row, record).map_err(|error| corrupt(error, table, key))?;
            if view.key().is_some_and(|stored| stored != key.as_bytes()) {
                return Err(ReadError::Corrupt("the row holds another key".into()));
            }
            let seen = see(resolvers, spec, table, key, view.values(), now_ms);
            Ok(got(seen, Context::new(table, key, view.join())))
        })
    }

    pub(crate) fn read_object(
        &self,
        space: Space,
        table: &TableName,
        key: &Key,
    ) -> Result<Option<Object>, ReadError> {
        if space == Space::Memory {
            return Ok(self.memory().get(table, key).map(|object| Object::clone(object)));
        }
        self.with_snapshot(|lmdb, txn| {
            let row = row_key(table, key);
            let Some(record) = lmdb.dbs.objects.get(txn, &row)? else { return Ok(None) };
            let view =
                RecordView::open(&row, record).map_err(|error| corrupt(error, table, key))?;
            Ok(Some(view.to_object()))
        })
    }

    /// Takes the declaration stored under `name` in the table of tables into the list.
    pub(crate) fn load_declaration(&self, name: &Key) {
        let parsed = std::str::from_utf8(name.as_bytes()).ok().map(TableName::parse);
        let (Some(Ok(declared)), Ok(tables)) = (parsed, TableName::parse(TABLES_TABLE)) else {
            tracing::error!(event = "bad_declaration", ?name, "not a table name");
            return;
        };
        let got = self.get(&TableSpec::UNDECLARED, &tables, name, 0);
        match got.map(|got| got.values.first().map(|value| serde_json::from_slice(value))) {
            Ok(Some(Ok(spec))) => self.shared.tables.declared(&declared, spec),
            Ok(None) => {}
            Ok(Some(Err(error))) => {
                tracing::error!(event = "bad_declaration", table = %declared, %error);
            }
            Err(error) => tracing::error!(event = "bad_declaration", table = %declared, %error),
        }
    }
}

fn got(seen: Seen, context: Context) -> Got {
    Got {
        values: seen.values,
        context,
        needs_repair: seen.needs_repair,
        merge_failure: seen.failure,
    }
}
