//! What a run is told as.

use super::args::{Shape, Wamp};
use super::measure::Measured;
use crate::out::columns;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Share of one core from which on the driver may be what limits a rate.
const DRIVER_BUSY: f64 = 0.9;

/// What is told of one shape beside what was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extra {
    /// `lost` events, with this window.
    Pubsub { lost: u64, window: u64 },
    /// Nothing.
    Rpc,
    /// The time to open the sessions, and memory before that.
    Idle { opened_in: Duration, rss_before: Option<u64> },
}

/// The result as JSON.
pub(crate) fn machine(args: &Wamp, measured: &Measured, extra: Extra) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("url", json!(args.url.to_string()));
    put("to", json!(args.to().to_string()));
    put("serializer", json!(weald_wamp::Serializer::from(args.serializer).name()));
    put("payload_bytes", json!(args.payload));
    put("seconds", json!(measured.seconds));
    put("driver_cpu_seconds", json!(measured.driver_cpu_seconds));
    let counted = match (&args.shape, extra) {
        (Shape::Pubsub { publishers, subscribers, .. }, _) => {
            put("shape", json!("pubsub"));
            put("publishers", json!(publishers));
            put("subscribers", json!(subscribers));
            "events"
        }
        (Shape::Rpc { depth, callers, callees }, _) => {
            put("shape", json!("rpc"));
            put("depth", json!(depth));
            put("callers", json!(callers));
            put("callees", json!(callees));
            "calls"
        }
        (Shape::Idle { .. }, _) => {
            put("shape", json!("idle"));
            "sessions"
        }
    };
    put(counted, json!(measured.count));
    match extra {
        Extra::Pubsub { lost, window } => {
            put("lost", json!(lost));
            put("window", json!(window));
        }
        Extra::Rpc => {}
        Extra::Idle { opened_in, rss_before } => {
            put("opened_in_seconds", json!(opened_in.as_secs_f64()));
            put("rss_before_bytes", json!(rss_before));
            put("rss_per_session_bytes", json!(per_session(measured, rss_before)));
        }
    }
    if !matches!(extra, Extra::Idle { .. }) {
        put("per_second", json!(per_second(measured)));
        put("p50_us", json!(at_us(measured, 500)));
        put("p99_us", json!(at_us(measured, 990)));
        put("max_us", json!(measured.latencies_ns.max().map(us)));
        put("cpu_seconds_per_million", json!(cpu_per_million(measured)));
    }
    if let Some(server) = measured.server {
        put("cpu_seconds", json!(server.cpu_seconds));
        put("rss_bytes", json!(server.rss_bytes));
    }
    Value::Object(out)
}

/// The result for people.
pub(crate) fn human(args: &Wamp, measured: &Measured, extra: Extra) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let counted = match args.shape {
        Shape::Pubsub { .. } => "events",
        Shape::Rpc { .. } => "calls",
        Shape::Idle { .. } => "sessions",
    };
    match extra {
        Extra::Pubsub { .. } | Extra::Rpc => {
            let rate = format!(
                "{:.0}/s ({} in {:.1} s)",
                per_second(measured),
                measured.count,
                measured.seconds
            );
            rows.push((counted, rate));
            let shown = |value: Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |us| format!("{us:.0} us"))
            };
            let max = measured.latencies_ns.max().map(us);
            let latencies = [at_us(measured, 500), at_us(measured, 990), max].map(shown);
            rows.push((
                "latency",
                format!("p50 {}, p99 {}, max {}", latencies[0], latencies[1], latencies[2]),
            ));
        }
        Extra::Idle { opened_in, .. } => {
            let rate = measured.count as f64 / opened_in.as_secs_f64();
            rows.push((counted, format!("{} (opened {rate:.0}/s)", measured.count)));
        }
    }
    match extra {
        Extra::Pubsub { lost: 0, .. } | Extra::Rpc => {}
        Extra::Pubsub { lost, .. } => rows.push(("LOST", format!("{lost} events"))),
        Extra::Idle { rss_before, .. } => {
            if let Some(bytes) = per_session(measured, rss_before) {
                rows.push(("memory", format!("{:.1} KiB a session", bytes as f64 / 1024.0)));
            }
        }
    }
    if let Some(server) = measured.server {
        let million = cpu_per_million(measured).filter(|_| counted != "sessions");
        let million =
            million.map_or(String::new(), |each| format!(", {each:.2} s per million {counted}"));
        rows.push(("processor", format!("{:.2} s{million}", server.cpu_seconds)));
        rows.push(("resident", format!("{:.1} MiB", server.rss_bytes as f64 / f64::from(1 << 20))));
    }
    let share = measured.driver_cpu_seconds / measured.seconds.max(f64::MIN_POSITIVE);
    let busy = if share > DRIVER_BUSY { ": the rate may be limited by it" } else { "" };
    rows.push(("driver", format!("{:.0} % of a core{busy}", share * 100.0)));
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    columns(&rows)
}

fn per_second(measured: &Measured) -> f64 {
    if measured.seconds > 0.0 { measured.count as f64 / measured.seconds } else { 0.0 }
}

fn cpu_per_million(measured: &Measured) -> Option<f64> {
    let server = measured.server?;
    (measured.count > 0).then(|| server.cpu_seconds * 1e6 / measured.count as f64)
}

/// None, too, where the memory of the processes shrank meanwhile.
fn per_session(measured: &Measured, rss_before: Option<u64>) -> Option<u64> {
    let grown = measured.server?.rss_bytes.checked_sub(rss_before?)?;
    grown.checked_div(measured.count)
}

fn at_us(measured: &Measured, thousandths: u64) -> Option<f64> {
    measured.latencies_ns.at(thousandths).map(us)
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}
