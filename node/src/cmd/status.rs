//! `status`: the node as it says it is.

use super::supervision::show_uptime;
use crate::api::Api;
use crate::config::value::show_bytes;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{Out, columns};
use serde_json::Value;
use std::time::Duration;
use weald_proto::request::Status;

pub(crate) async fn run<A: Api>(api: &A, deadline: Duration, out: &mut Out) -> Outcome {
    let text = api.request(Status {}, deadline).await?;
    let status: Value = serde_json::from_str(&text).map_err(|e| {
        Failure::new(Exit::NodeFault, format!("cannot read the status of the node: {e}"))
    })?;
    if out.is_json() {
        out.line(&text)?;
    } else {
        out.bytes(human(&status).as_bytes())?;
    }
    out.flush()?;
    let healthy = status["healthy"].as_bool().unwrap_or(false);
    Ok(if healthy { Exit::Ok } else { Exit::Unhealthy })
}

fn human(status: &Value) -> String {
    let text = |path: &str| match status.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let mut rows = vec![
        ("node", format!("{} ({})", text("/node"), text("/node_id"))),
        ("state", text("/state")),
        ("version", text("/version")),
        ("uptime", format!("{}, process {}", show_uptime(number("/uptime_ms")), text("/pid"))),
        ("incarnation", text("/incarnation")),
        ("data", text("/data_dir")),
        ("cluster port", text("/listen/cluster")),
        ("client ports", client_ports(status)),
        (
            "storage",
            format!(
                "{} rows, {} in {} partitions",
                number("/storage/rows"),
                approximate(number("/storage/bytes")),
                number("/storage/partitions")
            ),
        ),
        ("clients", text("/clients")),
        ("restarts", text("/supervision/restarts")),
    ];
    for problem in status["problems"].as_array().into_iter().flatten() {
        rows.push(("problem", problem.as_str().unwrap_or_default().to_owned()));
    }
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    columns(&rows)
}

/// Where WAMP clients are let in, or why not yet.
fn client_ports(status: &Value) -> String {
    let ports = status["listen"].as_object().into_iter().flatten();
    let open: Vec<String> = ports
        .filter(|(name, _)| !["cluster", "socket"].contains(&name.as_str()))
        .filter_map(|(name, address)| Some(format!("{name} {}", address.as_str()?)))
        .collect();
    let waits = status["clients_let_in"] == false;
    match (open.is_empty(), waits) {
        (_, true) => "not open until the routes of other nodes are known".to_owned(),
        (true, false) => "-".to_owned(),
        (false, false) => open.join(", "),
    }
}

/// A size rounded to a whole number of a unit below which it has at most four digits.
fn approximate(bytes: u64) -> String {
    const UNITS: [u64; 4] = [1 << 40, 1 << 30, 1 << 20, 1 << 10];
    let unit = UNITS.into_iter().find(|unit| bytes >= unit * 10).unwrap_or(1);
    show_bytes(bytes / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_shown_with_its_problems() {
        let status = serde_json::json!({
            "node": "a", "node_id": "id", "state": "ready", "uptime_ms": 61_000, "pid": 7,
            "storage": { "rows": 3, "bytes": 20_000_000, "partitions": 8 },
            "problems": ["node/x is down"],
        });
        let text = human(&status);
        assert!(text.contains("node          a (id)\n"), "{text}");
        assert!(text.contains("3 rows, 19MiB in 8 partitions"), "{text}");
        assert!(text.contains("problem       node/x is down\n"), "{text}");
    }

    #[test]
    fn client_ports_are_shown_or_what_they_wait_for() {
        let shown = |is_open: bool| {
            let listen = serde_json::json!({
                "cluster": "127.0.0.1:1", "socket": "/x", "http": "127.0.0.1:2", "unix": "/y",
            });
            client_ports(&serde_json::json!({ "listen": listen, "clients_let_in": is_open }))
        };
        assert_eq!(shown(true), "http 127.0.0.1:2, unix /y");
        assert_eq!(shown(false), "not open until the routes of other nodes are known");
        assert_eq!(client_ports(&serde_json::json!({ "clients_let_in": true })), "-");
    }
}
