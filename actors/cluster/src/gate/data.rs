//! Reads and writes of the store.

use super::consistency::{context_deadline, wait_for_context, write_after};
use super::{Deps, REQUEST_TIME_MAX, invalid};
use crate::store::WriteFailure;
use futures::future::{join, join_all};
use std::future::Future;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weald_proto::error::Current;
use weald_proto::limits::{BATCH_OPS_MAX, PAGE_BYTES_MAX, PAGE_ITEMS_MAX, VALUE_BYTES_MAX};
use weald_proto::{ErrorCode, Reply, WireError, request};
use weald_storage::{
    Context, Key, PageToken, ReadError, Resolver, Scan, TableKind, TableName, TableSpec,
    WriteError, WriteOp, Written,
};

/// Tables whose names start so belong to the node.
const SYSTEM_PREFIX: &str = "weald.";

pub(super) fn get(deps: &Deps, r: &request::Get) -> Reply<Current> {
    let (table, key) = address(&r.table, &r.key)?;
    let got = deps.store.get(&table, &key).map_err(|e| read_error(&e))?;
    Ok(Current { context: got.context.encode(), values: got.values })
}

type WriteReply = Reply<request::Written>;

pub(super) fn put(deps: &Deps, r: request::Put) -> impl Future<Output = WriteReply> + Send + use<> {
    run(deps, put_op(r))
}

pub(super) fn put_if(
    deps: &Deps,
    r: request::PutIf,
) -> impl Future<Output = WriteReply> + Send + use<> {
    run(deps, put_if_op(r))
}

pub(super) fn delete(
    deps: &Deps,
    r: &request::Delete,
) -> impl Future<Output = WriteReply> + Send + use<> {
    run(deps, delete_op(r))
}

fn run(
    deps: &Deps,
    op: Result<WriteOp, WireError>,
) -> impl Future<Output = WriteReply> + Send + use<> {
    let work = op.and_then(|op| {
        let waiting = wait_for_context(deps, &op, context_deadline())?;
        Ok(write_after(&deps.store, waiting, op))
    });
    async move { work?.await.map(|w| written(&w)) }
}

pub(super) fn batch(
    deps: &Deps,
    r: request::Batch,
) -> impl Future<Output = Reply<Vec<WriteReply>>> + Send + use<> {
    let work = if r.ops.len() > BATCH_OPS_MAX {
        Err(invalid(format!(
            "a batch holds at most {BATCH_OPS_MAX} operations, not {}",
            r.ops.len()
        )))
    } else {
        let mut results: Vec<Option<WriteReply>> = Vec::with_capacity(r.ops.len());
        let mut good = Vec::with_capacity(r.ops.len());
        let mut late = Vec::new();
        let deadline = context_deadline();
        for op in r.ops {
            let op = self::op(op);
            match op.and_then(|op| Ok((wait_for_context(deps, &op, deadline)?, op))) {
                Ok((None, op)) => {
                    good.push(op);
                    results.push(None);
                }
                Ok((waiting, op)) => {
                    let (place, writing) = (results.len(), write_after(&deps.store, waiting, op));
                    late.push(async move { (place, writing.await.map(|w| written(&w))) });
                    results.push(None);
                }
                Err(e) => results.push(Some(Err(e))),
            }
        }
        Ok((results, late, deps.store.write_many(good, Instant::now() + REQUEST_TIME_MAX)))
    };
    async move {
        let (mut results, late, work) = work?;
        let (work, late) = join(work, join_all(late)).await;
        for (place, result) in late {
            results[place] = Some(result);
        }
        let mut done = work.into_iter().map(|r| r.map(|w| written(&w)).map_err(write_failure));
        let lost = || Err(WireError::new(ErrorCode::Internal, "a result is missing"));
        Ok(results.into_iter().map(|r| r.or_else(|| done.next()).unwrap_or_else(lost)).collect())
    }
}

pub(super) async fn scan(deps: Arc<Deps>, r: request::Scan) -> Reply<request::Page> {
    let scan = Scan {
        table: table_name(&r.table)?,
        prefix: r.prefix,
        from: r.from.map_or(Bound::Unbounded, Bound::Included),
        to: r.to.map_or(Bound::Unbounded, Bound::Excluded),
        after: r.token.as_deref().map(PageToken::from_bytes),
        limit_items: (r.limit as usize).clamp(1, PAGE_ITEMS_MAX),
        limit_bytes: PAGE_BYTES_MAX,
        keys_only: r.keys_only,
    };
    let page = blocking(move || {
        deps.store.store().scan(&scan, deps.store.wall_ms()).map_err(|e| read_error(&e))
    })
    .await?;
    let items = page.items.into_iter().map(|item| request::Item {
        key: item.key.into(),
        values: item.values,
        context: item.context.encode(),
    });
    Ok(request::Page {
        items: items.collect(),
        next: page.next.map(|token| token.as_bytes().to_vec()),
        corrupt: page.corrupt,
    })
}

pub(super) async fn declare(deps: Arc<Deps>, r: request::Table) -> Reply<request::Table> {
    let name = user_table(&r.name)?;
    let kind = match r.kind {
        request::TableKind::Durable => TableKind::Durable,
        request::TableKind::Memory => TableKind::Memory,
    };
    let resolver: Resolver = r.resolver.parse().map_err(|e| invalid(format!("{e}")))?;
    let spec = TableSpec { kind, resolver, ttl_default: r.ttl_ms.map(Duration::from_millis) };
    blocking(move || {
        deps.store.store().declare_table(&name, spec).map_err(|e| invalid(e.to_string()))
    })
    .await?;
    Ok(r)
}

pub(super) fn tables(deps: &Deps) -> Vec<request::Table> {
    deps.store
        .store()
        .tables()
        .into_iter()
        .filter(|table| !table.name.as_str().starts_with(SYSTEM_PREFIX))
        .map(|table| request::Table {
            name: table.name.to_string(),
            kind: match table.spec.kind {
                TableKind::Durable => request::TableKind::Durable,
                TableKind::Memory => request::TableKind::Memory,
            },
            resolver: table.spec.resolver.to_string(),
            ttl_ms: table
                .spec
                .ttl_default
                .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        })
        .collect()
}

/// Runs a read that may touch many pages where it blocks nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Reply<T> + Send + 'static,
) -> Reply<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(WireError::new(ErrorCode::Internal, format!("read failed: {e}"))),
    }
}

/// The write that a request asks for.
pub(super) fn op(op: request::Op) -> Result<WriteOp, WireError> {
    match op {
        request::Op::Put(r) => put_op(r),
        request::Op::PutIf(r) => put_if_op(r),
        request::Op::Delete(r) => delete_op(&r),
    }
}

fn put_op(r: request::Put) -> Result<WriteOp, WireError> {
    let (table, key) = writable(&r.table, &r.key)?;
    let context = context(r.context.as_deref(), &table, &key)?;
    let value = value(r.value)?;
    Ok(WriteOp::Put { table, key, value, context, ttl: r.ttl_ms.map(Duration::from_millis) })
}

fn put_if_op(r: request::PutIf) -> Result<WriteOp, WireError> {
    let (table, key) = writable(&r.table, &r.key)?;
    let expected = context(r.expected.as_deref(), &table, &key)?;
    let value = value(r.value)?;
    Ok(WriteOp::PutIf { table, key, value, expected, ttl: r.ttl_ms.map(Duration::from_millis) })
}

fn delete_op(r: &request::Delete) -> Result<WriteOp, WireError> {
    let (table, key) = writable(&r.table, &r.key)?;
    let context = context(r.context.as_deref(), &table, &key)?;
    Ok(WriteOp::Delete { table, key, context })
}

pub(super) fn table_name(name: &str) -> Result<TableName, WireError> {
    TableName::parse(name).map_err(|e| invalid(e.to_string()))
}

fn user_table(name: &str) -> Result<TableName, WireError> {
    if name.starts_with(SYSTEM_PREFIX) {
        return Err(invalid(format!(
            "table {name:?}: names that start with {SYSTEM_PREFIX:?} belong to the node"
        )));
    }
    table_name(name)
}

pub(super) fn address(table: &str, key: &[u8]) -> Result<(TableName, Key), WireError> {
    let key = Key::new(key).map_err(|e| invalid(e.to_string()))?;
    Ok((table_name(table)?, key))
}

fn writable(table: &str, key: &[u8]) -> Result<(TableName, Key), WireError> {
    user_table(table)?;
    address(table, key)
}

fn context(
    bytes: Option<&[u8]>,
    table: &TableName,
    key: &Key,
) -> Result<Option<Context>, WireError> {
    bytes
        .map(|bytes| Context::decode(bytes, table, key))
        .transpose()
        .map_err(|e| invalid(format!("context: {e}")))
}

fn value(bytes: Vec<u8>) -> Result<Vec<u8>, WireError> {
    if bytes.len() > VALUE_BYTES_MAX {
        let len = bytes.len();
        return Err(invalid(format!(
            "value of {len} bytes is over the limit of {VALUE_BYTES_MAX}"
        )));
    }
    Ok(bytes)
}

fn written(written: &Written) -> request::Written {
    request::Written { context: written.context.encode() }
}

/// How a failed read travels.
pub(super) fn read_error(error: &ReadError) -> WireError {
    let code = match error {
        ReadError::Corrupt { .. } => ErrorCode::Corrupt,
        ReadError::BadPageToken => ErrorCode::Invalid,
        _ => ErrorCode::Internal,
    };
    WireError::new(code, error.to_string())
}

pub(super) fn write_failure(failure: WriteFailure) -> WireError {
    let text = failure.to_string();
    let code = match failure {
        WriteFailure::Overloaded => ErrorCode::Overloaded,
        WriteFailure::Down => ErrorCode::Unavailable,
        WriteFailure::Unknown => ErrorCode::TimedOut,
        WriteFailure::Write(WriteError::Conflict { values, context }) => {
            let current = Some(Current { values, context: context.encode() });
            return WireError { code: ErrorCode::Conflict, message: text, current };
        }
        WriteFailure::Write(error) => match error {
            WriteError::StorageFull { .. } => ErrorCode::StorageFull,
            WriteError::ForgedContext { .. }
            | WriteError::ForeignContext
            | WriteError::ValueTooLarge { .. }
            | WriteError::Merge(_) => ErrorCode::Invalid,
            WriteError::Corrupt(_) => ErrorCode::Corrupt,
            _ => ErrorCode::Internal,
        },
    };
    WireError::new(code, text)
}
