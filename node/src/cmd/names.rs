//! `names`: who holds which name, on all nodes.

use super::cluster::read;
use super::supervision::show_uptime;
use crate::api::Api;
use crate::exit::{Exit, Outcome};
use crate::out::{self, Out, columns};
use serde_json::json;
use std::time::Duration;
use weald_proto::cluster::Members;
use weald_proto::limits::PAGE_ITEMS_MAX;
use weald_proto::request::{self, Named};

pub(crate) async fn run<A: Api>(
    api: &A,
    prefix: String,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let names = api.request(request::Names { prefix }, deadline).await?;
    let members = api.request(request::Members {}, deadline).await?;
    let members: Members = read(&members)?;
    let state = |named: &Named| {
        let member = members.members.iter().find(|m| m.name == named.node && m.status != "evicted");
        member.map_or_else(|| "unknown".to_owned(), |member| member.liveness.clone())
    };
    if out.is_json() {
        for named in &names {
            out.json(&json!({
                "name": named.name,
                "node": named.node,
                "owner": named.owner,
                "since_ms": named.since_ms,
                "state": state(named),
            }))?;
        }
    } else {
        let now_ms = weald_cluster::node::wall_ms();
        let mut rows = vec![["NAME", "NODE", "STATE", "OWNER", "SINCE"].map(String::from).to_vec()];
        rows.extend(names.iter().map(|named| {
            let since = format!("{} ago", show_uptime(now_ms.saturating_sub(named.since_ms)));
            let Named { name, node, owner, .. } = named.clone();
            vec![name, node, state(named), owner, since]
        }));
        out.bytes(columns(&rows).as_bytes())?;
    }
    if names.len() >= PAGE_ITEMS_MAX {
        out::note("there may be more: give a longer prefix");
    }
    out.flush()?;
    Ok(Exit::Ok)
}
