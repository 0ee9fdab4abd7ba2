//! Shows the supervision tree and its log: `cargo run --example supervision -- 127.0.0.1:18086 weald-data/client.key`
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use weald_client::{Client, Credential, LogFilter, TreeNode};

type Anything = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[allow(dead_code, reason = "the tests call `run`")]
async fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(key_file)) = (args.next(), args.next()) else {
        return Err("usage: supervision <address> <key file>".into());
    };
    run(address, key_file).await
}

fn show(node: &TreeNode, depth: usize) {
    println!("{:depth$}{} {} ({} restarts)", "", node.id, node.status, node.restarts);
    for child in &node.children {
        show(child, depth + 2);
    }
}

/// The example itself.
pub(crate) async fn run(address: String, key_file: String) -> Result<(), Anything> {
    let client = Client::connect(address, Credential::read(key_file)?).await?;
    show(&client.supervision_tree().await?, 0);
    let newest = LogFilter { limit: 10, ..LogFilter::default() };
    for record in client.supervision_log(&newest).await? {
        println!(
            "{} {} {} {}",
            record.seq,
            record.path,
            record.event,
            record.reason.unwrap_or_default()
        );
    }
    Ok(())
}
