//! `table declare` and `table list`.

use crate::api::Api;
use crate::args::Table;
use crate::config::value::show_duration;
use crate::exit::{Exit, Outcome};
use crate::out::{Out, columns};
use std::time::Duration;
use weald_proto::request::{self, TableKind};

pub(crate) async fn run<A: Api>(
    api: &A,
    args: Table,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let (tables, header) = match args {
        Table::Declare { name, kind, resolver, ttl } => {
            let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            let table = request::Table { name, kind, resolver, ttl_ms };
            let call = request::DeclareTable { table };
            (vec![api.request(call, deadline).await?], false)
        }
        Table::List => {
            let mut tables = api.request(request::Tables {}, deadline).await?;
            tables.sort_by(|a, b| a.name.cmp(&b.name));
            (tables, true)
        }
    };
    if out.is_json() {
        for table in &tables {
            out.json(table)?;
        }
    } else {
        let mut rows: Vec<Vec<String>> = Vec::new();
        if header {
            rows.push(["TABLE", "KIND", "RESOLVER", "TTL"].map(ToOwned::to_owned).to_vec());
        }
        rows.extend(tables.iter().map(row));
        out.bytes(columns(&rows).as_bytes())?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn row(table: &request::Table) -> Vec<String> {
    let kind = match table.kind {
        TableKind::Durable => "durable",
        TableKind::Memory => "memory",
    };
    let ttl = table.ttl_ms.map(|ms| show_duration(Duration::from_millis(ms)));
    vec![
        table.name.clone(),
        kind.to_owned(),
        table.resolver.clone(),
        ttl.unwrap_or_else(|| "-".to_owned()),
    ]
}
