//! `get`, `put`, `delete` and `scan`.

use super::session::{self, Session};
use crate::api::Api;
use crate::args::{Delete, Get, Put, Scan, Writing};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out};
use crate::text;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use weald_proto::limits::{PAGE_ITEMS_MAX, VALUE_BYTES_MAX};
use weald_proto::request::{self, Item, Op};

/// Values with the context they were read under, as JSON.
pub(super) fn values_json(values: &[Vec<u8>]) -> Vec<Box<RawValue>> {
    values.iter().map(|value| text::display_json(value)).collect()
}

#[derive(serde::Serialize)]
struct Shown<'a> {
    table: &'a str,
    key: Box<RawValue>,
    values: Vec<Box<RawValue>>,
    context: String,
}

pub(crate) async fn get<A: Api>(api: &A, args: Get, deadline: Duration, out: &mut Out) -> Outcome {
    let at = args.at;
    let (table, key) = (at.table.clone(), at.key.clone().into_bytes());
    let found = match Session::of(&args.session)? {
        None => api.request(request::Get { table, key }, deadline).await?,
        Some(session) => session.get(api, table, key, deadline).await?,
    };
    if out.is_json() {
        out.json(&Shown {
            table: &at.table,
            key: text::key_json(at.key.as_bytes()),
            values: values_json(&found.values),
            context: text::hex(&found.context),
        })?;
    }
    let exit = match found.values.as_slice() {
        [] => Exit::Unhealthy,
        _ if out.is_json() => Exit::Ok,
        [value] => {
            out.bytes(value)?;
            // What goes into a file or another program is the value and nothing else.
            if out.is_terminal() {
                out.bytes(b"\n")?;
            }
            Exit::Ok
        }
        values => {
            out::note(&format!("{} siblings, one per line:", values.len()));
            for value in values {
                out.bytes(value)?;
                out.bytes(b"\n")?;
            }
            Exit::Ok
        }
    };
    out.flush()?;
    if exit == Exit::Unhealthy && !out.is_json() {
        return Err(Failure::new(exit, format!("{} has no key {}", at.table, at.key)));
    }
    Ok(exit)
}

pub(crate) async fn put<A: Api>(api: &A, args: Put, deadline: Duration, out: &mut Out) -> Outcome {
    let value = match args.value.as_str() {
        "-" => read_stdin()?,
        _ => args.value.into_bytes(),
    };
    let (table, key) = (args.at.table, args.at.key.into_bytes());
    let ttl_ms = args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    if args.if_absent || args.if_context.is_some() {
        let expected = args.if_context.as_deref().map(context).transpose()?;
        let op = Op::PutIf(request::PutIf { table, key, value, expected, ttl_ms });
        written(api, op, &args.writing, deadline, out).await
    } else {
        let context = args.context.as_deref().map(context).transpose()?;
        let op = Op::Put(request::Put { table, key, value, context, ttl_ms });
        written(api, op, &args.writing, deadline, out).await
    }
}

pub(crate) async fn delete<A: Api>(
    api: &A,
    args: Delete,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let context = args.context.as_deref().map(context).transpose()?;
    let (table, key) = (args.at.table, args.at.key.into_bytes());
    let op = Op::Delete(request::Delete { table, key, context });
    written(api, op, &args.writing, deadline, out).await
}

async fn written<A: Api>(
    api: &A,
    op: Op,
    writing: &Writing,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let session = Session::of(&writing.session)?;
    let plain = session.is_none() && writing.acked_by == 0;
    let (context, unmet) = match op {
        Op::Put(put) if plain => (api.request(put, deadline).await?.context, None),
        Op::PutIf(put) if plain => (api.request(put, deadline).await?.context, None),
        Op::Delete(delete) if plain => (api.request(delete, deadline).await?.context, None),
        op => session::write(api, op, session, writing.acked_by, deadline).await?,
    };
    if out.is_json() {
        out.json(&json!({ "context": text::hex(&context) }))?;
    }
    out.flush()?;
    unmet.map_or(Ok(Exit::Ok), Err)
}

fn context(hex: &str) -> Result<Vec<u8>, Failure> {
    text::unhex(hex).map_err(|why| Failure::new(Exit::Usage, format!("context {why}")))
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    // One byte over the limit is enough to know.
    let read = std::io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value);
    read.map_err(|e| Failure::new(Exit::Io, format!("cannot read stdin: {e}")))?;
    if value.len() > VALUE_BYTES_MAX {
        let text = format!("the value on stdin is over the limit of {VALUE_BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(value)
}

pub(crate) async fn scan<A: Api>(
    api: &A,
    args: Scan,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut token = None;
    let mut corrupt = 0;
    while left > 0 {
        let limit = u32::try_from(left.min(PAGE_ITEMS_MAX as u64)).unwrap_or(u32::MAX);
        let call = request::Scan {
            table: args.table.clone(),
            prefix: args.prefix.clone().into_bytes(),
            from: args.from.clone().map(String::into_bytes),
            to: args.to.clone().map(String::into_bytes),
            token,
            limit,
            keys_only: args.keys_only,
        };
        let page = api.request(call, deadline).await?;
        left = left.saturating_sub(page.items.len() as u64);
        corrupt += page.corrupt;
        for item in &page.items {
            print_item(item, &args, out)?;
        }
        out.flush()?;
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    if corrupt > 0 {
        let text = format!("{corrupt} damaged records in this range are not shown");
        return Err(Failure::new(Exit::NodeFault, text));
    }
    Ok(Exit::Ok)
}

fn print_item(item: &Item, args: &Scan, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        if args.keys_only {
            let key: Value =
                serde_json::from_str(text::key_json(&item.key).get()).unwrap_or(Value::Null);
            return out.json(&json!({ "table": args.table, "key": key }));
        }
        return out.json(&Shown {
            table: &args.table,
            key: text::key_json(&item.key),
            values: values_json(&item.values),
            context: text::hex(&item.context),
        });
    }
    let key = text::show_key(&item.key);
    if args.keys_only {
        return out.line(&key);
    }
    for value in &item.values {
        out.line(&format!("{key}\t{}", text::show_value(value)))?;
    }
    Ok(())
}
