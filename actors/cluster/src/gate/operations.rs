//! What operators ask: the supervision tree and log, drills, the log level.

use super::{Deps, invalid};
use crate::service::Caller;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use weald_proto::limits::WAIT_MS_MAX;
use weald_proto::{ErrorCode, Reply, WireError, request};
use weald_supervision::{Filter, TreeNode};

/// Records in one reply.
const RECORDS_MAX: usize = 1000;

pub(super) fn tree(deps: &Deps, r: &request::Tree) -> Reply<String> {
    let whole = deps.scope.tree();
    let found = if r.path.is_empty() { Some(&whole) } else { find(&whole, &r.path) };
    let Some(found) = found else {
        return Err(no_such_path(&r.path));
    };
    serde_json::to_string(found).map_err(|e| WireError::new(ErrorCode::Internal, e.to_string()))
}

fn find<'a>(node: &'a TreeNode, path: &str) -> Option<&'a TreeNode> {
    if node.path == path {
        return Some(node);
    }
    node.children.iter().find_map(|child| find(child, path))
}

fn no_such_path(path: &str) -> WireError {
    let text = format!("nothing runs under the path {path:?}; `weald supervision tree` lists them");
    WireError::new(ErrorCode::NotFound, text)
}

pub(super) async fn log(deps: Arc<Deps>, r: request::Log) -> Reply<request::LogPage> {
    let Some(log) = deps.scope.log().cloned() else {
        return Err(WireError::new(ErrorCode::NotFound, "this node keeps no supervision log"));
    };
    let mut events = Vec::with_capacity(r.events.len());
    for name in &r.events {
        events.push(name.parse().map_err(|e| invalid(format!("event {name:?}: {e}")))?);
    }
    let limit = (r.limit as usize).clamp(1, RECORDS_MAX);
    // Who pages forward gets the oldest records after its position, who asks for the end of the log the newest.
    let forward = r.after_seq.is_some();
    let filter = Filter {
        path: r.path,
        events,
        since_ms: r.since_ms,
        after_seq: r.after_seq,
        limit: (!forward).then_some(limit),
    };
    let deadline = Instant::now() + Duration::from_millis(r.wait_ms.min(WAIT_MS_MAX));
    let mut news = log.subscribe();
    loop {
        news.mark_unchanged();
        let (reader, wanted) = (log.clone(), filter.clone());
        // The position is taken first: a record written during the query is found again, never missed.
        let last_seq = log.last_seq();
        let mut records = super::data::blocking(move || {
            let found = reader.query(&wanted);
            found.map_err(|e| WireError::new(ErrorCode::Internal, e.to_string()))
        })
        .await?;
        if !records.is_empty() || r.wait_ms == 0 || Instant::now() >= deadline {
            let cut = records.len() > limit;
            records.truncate(limit);
            let newest = records.last().map_or(0, |r| r.seq);
            let last_seq = if cut { newest } else { newest.max(last_seq) };
            let records = records.iter().filter_map(|r| serde_json::to_string(r).ok()).collect();
            return Ok(request::LogPage { records, last_seq });
        }
        if let Ok(Err(_)) | Err(_) = timeout_at(deadline, news.changed()).await {
            return Ok(request::LogPage { records: Vec::new(), last_seq });
        }
    }
}

pub(super) fn kill(deps: &Deps, caller: &Caller, r: &request::Kill) -> Reply<()> {
    tracing::warn!(event = "drill_kill", path = %r.path, client = %caller.name, "killing an actor");
    deps.scope.kill(&r.path).map_err(|_gone| no_such_path(&r.path))
}

pub(super) fn set_log_level(deps: &Deps, r: &request::SetLogLevel) -> Reply<()> {
    (deps.log_level)(&r.directives).map_err(invalid)
}
