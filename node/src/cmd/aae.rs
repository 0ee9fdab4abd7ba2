//! `aae status`, `aae run` and `aae diff`: anti-entropy, as it runs and by hand.

use super::cluster::{SLACK, age, millis, read};
use super::supervision::show_uptime;
use crate::api::Api;
use crate::args::Aae;
use crate::config::value::show_bytes;
use crate::exit::{Exit, Outcome};
use crate::out::{Out, columns};
use crate::text;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use weald_proto::cluster::{AaeDiff, AaeReport, AaeStatus};
use weald_proto::limits::EXCHANGE_MS_MAX;
use weald_proto::request;

pub(crate) async fn run<A: Api>(api: &A, args: Aae, deadline: Duration, out: &mut Out) -> Outcome {
    let exit = match args {
        Aae::Status => {
            let json = api.request(request::AaeStatus {}, deadline).await?;
            let status: AaeStatus = read(&json)?;
            show(&json, || status_table(&status), out)?;
            Exit::Ok
        }
        Aae::Run { peer, timeout } => {
            let wait_ms = millis(timeout).min(EXCHANGE_MS_MAX);
            let call = request::AaeRun { peer, wait_ms };
            let json = api.request(call, timeout + SLACK).await?;
            let report: AaeReport = read(&json)?;
            show(&json, || report_line(&report), out)?;
            if is_converged(&report) { Exit::Ok } else { Exit::Unhealthy }
        }
        Aae::Diff { peer, timeout } => {
            let wait_ms = millis(timeout).min(EXCHANGE_MS_MAX);
            let call = request::AaeDiff { peer, wait_ms };
            let json = api.request(call, timeout + SLACK).await?;
            let diff: AaeDiff = read(&json)?;
            show(&json, || diff_table(&diff), out)?;
            // As diff(1): 1 says that there is a difference.
            if diff.equal { Exit::Ok } else { Exit::Unhealthy }
        }
    };
    out.flush()?;
    Ok(exit)
}

fn show(json: &str, human: impl Fn() -> String, out: &mut Out) -> Result<(), crate::exit::Failure> {
    if out.is_json() { out.line(json) } else { out.bytes(human().as_bytes()) }
}

fn status_table(status: &AaeStatus) -> String {
    if status.peers.is_empty() {
        return "this node has no peers: there is nothing to exchange\n".to_owned();
    }
    let mut rows = vec![
        ["PEER", "LAST EXCHANGE", "BEHIND", "RUNNING", "EXCHANGES", "FAILURES", "OBJECTS", "BYTES"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(status.peers.iter().map(|peer| {
        let last = peer.last_success_ms_ago;
        vec![
            peer.name.clone(),
            last.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", show_uptime(ago))),
            age(peer.convergence_age_ms),
            if peer.running { "yes" } else { "no" }.to_owned(),
            peer.exchanges.to_string(),
            peer.failures.to_string(),
            peer.objects.to_string(),
            show_bytes(peer.bytes),
        ]
    }));
    let mut out = columns(&rows);
    for peer in &status.peers {
        if let Some(error) = &peer.last_error {
            out.push_str(&format!("\nlast failure with {}: {error}\n", peer.name));
        }
    }
    if !status.enabled {
        out.push_str("\nexchanges do not run by themselves: aae.enabled is false\n");
    }
    out
}

fn report_line(report: &AaeReport) -> String {
    let mut line = format!(
        "exchanged with {} in {} ms: {} objects in, {} out, {} received, {} sent, {} partitions walked\n",
        report.peer,
        report.elapsed_ms,
        report.objects_in,
        report.objects_out,
        show_bytes(report.bytes_in),
        show_bytes(report.bytes_out),
        report.walked,
    );
    if !is_converged(report) {
        line.push_str(
            "not equal after it: something could not be merged, the logs of both nodes say what\n",
        );
    }
    line
}

/// Something that could not be merged is in the logs of both nodes.
fn is_converged(report: &AaeReport) -> bool {
    report.extra.get("converged").and_then(Value::as_bool).unwrap_or(true)
}

/// The sums over all partitions, and some of the keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sums {
    shards: u64,
    events_lacking_here: u64,
    events_lacking_there: u64,
    keys_lacking_here: u64,
    keys_lacking_there: u64,
    keys_differing: u64,
    first: Vec<DiffKey>,
}

#[derive(Debug, Deserialize)]
struct DiffKey {
    table: String,
    key: Vec<u8>,
    side: String,
}

fn sums_table(sums: &Sums) -> String {
    let row = |what: &str, here: u64, there: u64| {
        vec![what.to_owned(), here.to_string(), there.to_string()]
    };
    let mut rows = vec![
        ["", "MISSING HERE", "MISSING THERE"].map(String::from).to_vec(),
        row("events", sums.events_lacking_here, sums.events_lacking_there),
        row("keys", sums.keys_lacking_here, sums.keys_lacking_there),
    ];
    let mut out = columns(&rows);
    out.push_str(&format!(
        "{} keys are on both sides and differ; {} partitions differ in all\n",
        sums.keys_differing, sums.shards
    ));
    if !sums.first.is_empty() {
        rows = vec![["TABLE", "KEY", "WHERE"].map(String::from).to_vec()];
        rows.extend(sums.first.iter().map(|found| {
            let side = match found.side.as_str() {
                "here" => "here only",
                "there" => "there only",
                other => other,
            };
            vec![found.table.clone(), text::show_key(&found.key), side.to_owned()]
        }));
        out.push('\n');
        out.push_str(&columns(&rows));
    }
    out
}

fn diff_table(diff: &AaeDiff) -> String {
    if diff.equal {
        return format!("no difference to {}\n", diff.peer);
    }
    let sums = diff.extra.get("report").cloned().map(serde_json::from_value::<Sums>);
    if let Some(Ok(sums)) = sums {
        return sums_table(&sums);
    }
    let mut out = format!(
        "{} lacks {} events of this node, this node {} of it; keys: {} only here, {} only there, {} different\n",
        diff.peer,
        diff.missing_there,
        diff.missing_here,
        diff.keys_only_here,
        diff.keys_only_there,
        diff.keys_different,
    );
    if !diff.first.is_empty() {
        let mut rows = vec![["TABLE", "KEY", "HELD"].map(String::from).to_vec()];
        rows.extend(
            diff.first.iter().map(|k| vec![k.table.clone(), k.key.clone(), k.held.clone()]),
        );
        out.push_str(&columns(&rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_when_peers_were_equal_and_what_failed() {
        let json = r#"{"enabled":false,"peers":[
            {"name":"b","node":"n2","last_success_ms_ago":61000,"convergence_age_ms":2000,"bytes":1024,
             "exchanges":5,"failures":1,"last_error":"no answer"},
            {"name":"c","node":"n3"}]}"#;
        let text = status_table(&serde_json::from_str(json).unwrap());
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(lines[1].starts_with("b 1m"), "{text}");
        assert!(lines[1].ends_with("2s no 5 1 0 1KiB"), "{text}");
        assert!(lines[2].starts_with("c never - no 0 0"), "{text}");
        assert!(text.contains("last failure with b: no answer\n"), "{text}");
        assert!(text.contains("aae.enabled is false"), "{text}");
        assert!(status_table(&AaeStatus::default()).contains("no peers"));
    }

    #[test]
    fn exchange_that_did_not_make_nodes_equal_is_told() {
        let json = r#"{"peer":"b","elapsed_ms":3,"objects_in":7,"converged":false}"#;
        let report: AaeReport = serde_json::from_str(json).unwrap();
        assert!(!is_converged(&report) && report_line(&report).contains("not equal after it"));
        let json = r#"{"peer":"b","elapsed_ms":3}"#;
        assert!(is_converged(&serde_json::from_str(json).unwrap()));
    }

    #[test]
    fn differences_are_counted_and_the_first_are_named() {
        let json = r#"{"peer":"b","equal":false,"missing_here":7,"keys_only_there":2,
            "first":[{"table":"t","key":"k","held":"there"}]}"#;
        let text = diff_table(&serde_json::from_str(json).unwrap());
        assert!(text.contains("this node 7 of it"), "{text}");
        assert!(text.contains("t      k    there\n"), "{text}");
        let equal = AaeDiff { peer: "b".into(), equal: true, ..AaeDiff::default() };
        assert_eq!(diff_table(&equal), "no difference to b\n");
    }
}
