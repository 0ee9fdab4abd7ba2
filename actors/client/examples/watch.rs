//! Follows the changes of a table: `cargo run --example watch -- 127.0.0.1:18086 weald-data/client.key colours 10`
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use weald_client::{Client, Credential, WatchEvent};

type Anything = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[allow(dead_code, reason = "the tests call `run`")]
async fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(key_file), Some(table)) = (args.next(), args.next(), args.next())
    else {
        return Err("usage: watch <address> <key file> <table> [<events>]".into());
    };
    let events = args.next().map_or(Ok(usize::MAX), |events| events.parse())?;
    run(address, key_file, table, events).await
}

/// The example itself.
pub(crate) async fn run(
    address: String,
    key_file: String,
    table: String,
    events: usize,
) -> Result<(), Anything> {
    let client = Client::connect(address, Credential::read(key_file)?).await?;
    // In effect from here on. It goes on by itself where it was when the connection is lost and found again.
    let mut watch = client.watch(&table).await?;
    println!("watching {table}");
    for _ in 0..events {
        match watch.next().await? {
            WatchEvent::Change(change) => {
                let key = String::from_utf8_lossy(&change.key);
                match change.now.value() {
                    Some(value) => println!("{key} = {}", String::from_utf8_lossy(value)),
                    None => println!("{key} is gone"),
                }
            }
            WatchEvent::Lagged => println!("too slow: scan {table} to see it as it is"),
            other => println!("{other:?}"),
        }
    }
    // Keep this to go on later, in another process too: `client.watch(table).from(&position)`.
    println!("at {} bytes of position", watch.position().as_bytes().len());
    Ok(())
}
