//! What a person is told by `weald dev`; with `--json`, one line for each event.

use super::MEMBERS_EVERY;
use super::children::Ended;
use super::layout::{CLUSTER, DevNode, PKI};
use crate::api::Api;
use crate::bundle::CA_CERTIFICATE;
use crate::cmd::remote::{Remote, Target};
use crate::exit::Failure;
use crate::out::{Out, columns};
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weald_proto::cluster::Members;
use weald_proto::request;

/// All nodes are ready.
pub(super) fn up(
    out: &mut Out,
    dir: &Path,
    nodes: &[(&DevNode, Option<u32>)],
) -> Result<(), Failure> {
    if !out.is_json() {
        return out.bytes(human(&program(), dir, nodes).as_bytes());
    }
    let nodes = nodes.iter().map(|(node, pid)| {
        json!({
            "name": node.name,
            "address": node.listen.to_string(),
            "wamp": node.wamp_url(),
            "pid": pid,
            "data_dir": node.dir,
            "config": node.config(),
            "log": node.log(),
            "key": node.dir.join("client.key"),
        })
    });
    out.json(&json!({
        "event": "up",
        "cluster": CLUSTER,
        "directory": dir,
        "authority": dir.join(PKI).join(CA_CERTIFICATE),
        "nodes": nodes.collect::<Vec<_>>(),
    }))
}

fn human(program: &str, dir: &Path, nodes: &[(&DevNode, Option<u32>)]) -> String {
    let mut rows = vec![
        ["  NODE", "ADDRESS", "WAMP CLIENTS", "PROCESS", "DIRECTORY"].map(String::from).to_vec(),
    ];
    rows.extend(nodes.iter().map(|(node, pid)| {
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let name = format!("  {}", node.name);
        let wamp = node.wamp_url().unwrap_or_else(|| "-".to_owned());
        vec![name, node.listen.to_string(), wamp, pid, node.dir.display().to_string()]
    }));
    let count = nodes.len();
    let first = &nodes[0].0.dir;
    let second = &nodes[1.min(count - 1)].0.dir;
    let last = &nodes[count - 1].0.dir;
    let quoted = |path: PathBuf| quote(&path);
    let (one, two, three) = (quote(first), quote(second), quote(last));
    format!(
        "\
weald dev: {count} nodes of cluster {CLUSTER}

{}
  Rust clients: credential {}, authority {}
  Each node logs to node.log in its directory.

  Next, in another terminal:
    {program} --data-dir {one} status
    {program} --data-dir {one} cluster members
    {program} --data-dir {one} import packages.jsonl
    {program} --data-dir {two} export --output two.jsonl
    {program} --data-dir {two} aae status

  Lose {}, wipe its disk, bring it back:
    kill -9 $(cat {})
    find {three} -mindepth 1 ! -name weald.toml -delete
    {program} start --config {}

  Ctrl-C ends all of them.
",
        columns(&rows),
        quoted(first.join("client.key")),
        quoted(dir.join(PKI).join(CA_CERTIFICATE)),
        nodes[count - 1].0.name,
        quoted(last.join("weald.pid")),
        quoted(nodes[count - 1].0.config()),
    )
}

/// How this program was called, for commands to type in another directory.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if called.components().count() < 2 {
        return "weald".to_owned();
    }
    std::env::current_exe().map_or_else(|_| "weald".to_owned(), |path| quote(&path))
}

/// A path as a shell takes it.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Waits until one of the nodes sees all of them as members that answer.
pub(super) async fn complete(dir: PathBuf, count: usize) {
    let api = Remote::new(Target::Local(dir));
    loop {
        tokio::time::sleep(MEMBERS_EVERY).await;
        let Ok(text) = api.request(request::Members {}, Duration::from_secs(2)).await else {
            continue;
        };
        let members = serde_json::from_str::<Members>(&text).unwrap_or_default().members;
        let is_up = |m: &&weald_proto::cluster::Member| m.status == "joined" && m.liveness == "up";
        if members.iter().filter(is_up).count() >= count {
            return;
        }
    }
}

/// The nodes have found each other.
pub(super) fn is_complete(out: &mut Out, count: usize) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&json!({ "event": "complete", "members": count }));
    }
    out.line(&format!("all {count} nodes are members of one cluster"))
}

/// A node has ended.
pub(super) fn ended(out: &mut Out, ended: &Ended) -> Result<(), Failure> {
    let Ended { node, pid, status } = ended;
    if out.is_json() {
        return out.json(&json!({
            "event": "ended",
            "name": node.name,
            "pid": pid,
            "code": status.code(),
            "signal": status.signal(),
        }));
    }
    out.line(&format!(
        "{}; it stays down until:\n    {} start --config {}",
        how_it_ended(ended),
        program(),
        quote(&node.config())
    ))
}

/// In words.
pub(super) fn how_it_ended(ended: &Ended) -> String {
    let Ended { node, pid, status } = ended;
    let how = match (status.code(), status.signal()) {
        (Some(0), _) => "has stopped in order".to_owned(),
        (Some(code), _) => format!("has ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "has ended".to_owned(),
    };
    format!("{} (process {pid}) {how}", node.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_when_a_shell_would_split_them() {
        assert_eq!(quote(Path::new("/tmp/a-b_c.d")), "/tmp/a-b_c.d");
        assert_eq!(quote(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
