//! `watch`: changes as they happen.
//!
//! Guarantees: no change is lost over a restart of the node, as long as it still has them; when it has not, the user is told.

use super::kv::values_json;
use crate::api::{self, Api};
use crate::args::Watch;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out};
use crate::text;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;
use weald_proto::limits::{CHANGES_MAX, WAIT_MS_MAX};
use weald_proto::request::{self, Change};

#[derive(Serialize)]
struct Shown<'a> {
    table: &'a str,
    key: Box<RawValue>,
    values: Vec<Box<RawValue>>,
    context: String,
    partition: u16,
    seq: u64,
    /// Hand this to `--position`; only the last change of a reply has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
}

pub(crate) async fn run<A: Api>(
    api: &A,
    args: Watch,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let given = args.position.as_deref().map(text::unhex).transpose();
    let mut position = given.map_err(|e| Failure::new(Exit::Usage, format!("position {e}")))?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut began = position.is_some();
    while left > 0 {
        let call = request::Watch {
            table: args.table.clone(),
            prefix: args.prefix.clone().into_bytes(),
            position: position.clone(),
            limit: u32::try_from(left.min(CHANGES_MAX as u64)).unwrap_or(u32::MAX),
            // The first answer gives the position to watch from; only then may somebody rely on seeing a change.
            wait_ms: if position.is_some() { WAIT_MS_MAX } else { 0 },
        };
        let time = deadline + Duration::from_millis(call.wait_ms);
        let changes = api::request_again(api, call, time, args.retry_for).await?;
        if !began {
            began = true;
            out::note(&format!("watching {}", args.table.as_deref().unwrap_or("all tables")));
        }
        if changes.lagged {
            if out.is_json() {
                out.json(&json!({ "lagged": true }))?;
            }
            out::note("some changes were missed: scan the table to see its state");
        }
        let next = text::hex(&changes.position);
        let count = changes.events.len();
        for (i, change) in changes.events.iter().enumerate() {
            let position = (i + 1 == count).then(|| next.clone());
            print(change, position, out)?;
        }
        out.flush()?;
        left = left.saturating_sub(count as u64);
        position = Some(changes.position);
    }
    Ok(Exit::Ok)
}

fn print(change: &Change, position: Option<String>, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&Shown {
            table: &change.table,
            key: text::key_json(&change.key),
            values: values_json(&change.now.values),
            context: text::hex(&change.now.context),
            partition: change.partition,
            seq: change.seq,
            position,
        });
    }
    let head = format!("{}\t{}", change.table, text::show_key(&change.key));
    if change.now.values.is_empty() {
        return out.line(&head);
    }
    for value in &change.now.values {
        out.line(&format!("{head}\t{}", text::show_value(value)))?;
    }
    Ok(())
}
