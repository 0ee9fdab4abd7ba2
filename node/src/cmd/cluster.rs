//! `cluster members`, `join`, `leave`, `forget`, `events` and `status`.

use super::supervision::show_uptime;
use crate::api::{self, Api};
use crate::args::Cluster;
use crate::config::value::show_bytes;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out, columns};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};
use weald_proto::cluster::{ClusterEvent, ClusterStatus, Member, Members, PeerStatus};
use weald_proto::limits::WAIT_MS_MAX;
use weald_proto::request::{self, Forget, Join, Leave};

/// Most events asked for at once.
const EVENTS_MAX: u64 = 1000;
/// Time for an answer beyond the wait that is asked for.
pub(super) const SLACK: Duration = Duration::from_secs(3);

pub(crate) async fn run<A: Api>(
    api: &A,
    args: Cluster,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let wait_ms = millis(deadline).min(WAIT_MS_MAX);
    match args {
        Cluster::Members => {
            let text = api.request(request::Members {}, deadline).await?;
            members(&text, out)
        }
        Cluster::Join { addresses } => {
            let text = api.request(Join { addresses, wait_ms }, deadline + SLACK).await?;
            members(&text, out)
        }
        Cluster::Leave => {
            let text = api.request(Leave { wait_ms }, deadline + SLACK).await?;
            members(&text, out)
        }
        Cluster::Forget { member, force } => {
            let text = api.request(Forget { member, force }, deadline).await?;
            members(&text, out)
        }
        Cluster::Events { count, retry_for } => events(api, count, retry_for, deadline, out).await,
        Cluster::Status => {
            let text = api.request(request::ClusterStatus {}, deadline).await?;
            status(&text, out)
        }
        Cluster::Init(_) => Err(Failure::new(Exit::Usage, "this command does not talk to a node")),
    }
}

/// Reads what a node says of itself.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|e| Failure::new(Exit::NodeFault, format!("cannot read the node's answer: {e}")))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn members(text: &str, out: &mut Out) -> Outcome {
    let members: Members = read(text)?;
    if out.is_json() {
        out.line(text)?;
    } else {
        out.bytes(members_table(&members, weald_cluster::node::wall_ms()).as_bytes())?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn members_table(members: &Members, now_ms: u64) -> String {
    let mut rows = vec![
        ["MEMBER", "STATUS", "LIVENESS", "SEEN", "ADDRESSES", "NODE"].map(String::from).to_vec(),
    ];
    let mut sorted: Vec<&Member> = members.members.iter().collect();
    sorted.sort_by_key(|member| (&member.name, &member.node));
    for member in sorted {
        let is_own = member.node == members.own;
        let seen = match now_ms.saturating_sub(member.seen_ms) {
            _ if is_own => "this node".to_owned(),
            _ if member.seen_ms == 0 => "never".to_owned(),
            age_ms => format!("{} ago", show_uptime(age_ms)),
        };
        rows.push(vec![
            member.name.clone(),
            member.status.clone(),
            member.liveness.clone(),
            seen,
            member.addresses.join(","),
            member.node.clone(),
        ]);
    }
    columns(&rows)
}

async fn events<A: Api>(
    api: &A,
    count: Option<u64>,
    retry_for: Duration,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let mut left = count.unwrap_or(u64::MAX);
    let mut position = None;
    while left > 0 {
        let call = request::ClusterEvents {
            limit: u32::try_from(left.min(EVENTS_MAX)).unwrap_or(u32::MAX),
            // The first answer gives the position; only then may somebody rely on seeing an event.
            wait_ms: if position.is_some() { WAIT_MS_MAX } else { 0 },
            position: position.clone(),
        };
        let time = deadline + Duration::from_millis(call.wait_ms);
        let page = api::request_again(api, call, time, retry_for).await?;
        if position.is_none() {
            out::note("following the membership");
        }
        if page.lagged {
            if out.is_json() {
                out.json(&json!({ "lagged": true }))?;
            }
            out::note("some events may have been missed: `weald cluster members` shows the state");
        }
        for text in &page.events {
            if out.is_json() {
                out.line(text)?;
            } else {
                out.line(&event_line(&read(text)?))?;
            }
        }
        out.flush()?;
        left = left.saturating_sub(page.events.len() as u64);
        position = Some(page.position);
    }
    Ok(Exit::Ok)
}

fn event_line(event: &ClusterEvent) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(event.ts_ms);
    let member = &event.member;
    format!(
        "{}  {}  {}  {}",
        humantime::format_rfc3339_millis(at),
        event.event,
        member.name,
        member.addresses.join(",")
    )
}

fn status(text: &str, out: &mut Out) -> Outcome {
    let status: ClusterStatus = read(text)?;
    if out.is_json() {
        out.line(text)?;
    } else {
        out.bytes(status_table(&status).as_bytes())?;
    }
    out.flush()?;
    let healthy = status.problems.is_empty() && status.up >= status.members;
    Ok(if healthy { Exit::Ok } else { Exit::Unhealthy })
}

fn status_table(status: &ClusterStatus) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("cluster", status.cluster.clone()),
        row("node", format!("{} ({})", status.name, status.node)),
        row("members", format!("{}, {} up", status.members, status.up)),
    ];
    if !status.strategy.is_empty() {
        rows.push(row("strategy", status.strategy.clone()));
    }
    rows.extend(status.problems.iter().map(|problem| row("problem", problem.clone())));
    let mut out = columns(&rows);
    if !status.peers.is_empty() {
        out.push('\n');
        out.push_str(&columns(&peers(&status.peers)));
    }
    out
}

fn peers(peers: &[PeerStatus]) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["PEER", "CONNECTED", "RTT", "IN", "OUT", "OVERFLOW", "RECONNECTS", "BEHIND"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            if peer.connected { "yes" } else { "no" }.to_owned(),
            peer.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1}ms")),
            show_bytes(peer.bytes_in),
            show_bytes(peer.bytes_out),
            peer.overflow.to_string(),
            peer.reconnects.to_string(),
            age(peer.convergence_age_ms),
        ]
    }));
    rows
}

/// For how long something may be missing.
pub(super) fn age(age_ms: Option<u64>) -> String {
    age_ms.map_or_else(|| "-".to_owned(), show_uptime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_shown_by_name_with_the_time_since_they_were_seen() {
        let json = r#"{"cluster":"c","own":"n1","members":[
            {"name":"b","node":"n2","status":"joined","liveness":"down","seen_ms":1000,"addresses":["h:1","h:2"]},
            {"name":"a","node":"n1","status":"joined","liveness":"up","seen_ms":62000},
            {"name":"c","node":"n3","status":"evicted","liveness":"down"}]}"#;
        let table = members_table(&serde_json::from_str(json).unwrap(), 62_000);
        let lines: Vec<String> =
            table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(lines[1].starts_with("a joined up this node"), "{table}");
        assert!(
            lines[2].starts_with("b joined down 1m") && lines[2].ends_with("h:1,h:2 n2"),
            "{table}"
        );
        assert!(lines[3].starts_with("c evicted down never"), "{table}");
    }

    #[test]
    fn event_is_a_line_with_its_time() {
        let json = r#"{"seq":1,"ts_ms":1500,"event":"member_down","name":"b","node":"n2",
            "addresses":["h:1"],"status":"joined","liveness":"down"}"#;
        let line = event_line(&serde_json::from_str(json).unwrap());
        assert_eq!(line, "1970-01-01T00:00:01.500Z  member_down  b  h:1");
    }

    #[test]
    fn status_is_shown_with_peers_and_problems() {
        let json = r#"{"cluster":"c","name":"a","node":"n1","strategy":"p2p","members":2,"up":1,
            "problems":["b is down"],"peers":[{"name":"b","node":"n2","rtt_ms":1.25,"bytes_in":2048}]}"#;
        let table = status_table(&serde_json::from_str(json).unwrap());
        assert!(table.contains("members   2, 1 up\n"), "{table}");
        assert!(table.contains("problem   b is down\n"), "{table}");
        assert!(table.contains("b     no         1.2ms  2KiB"), "{table}");
    }
}
