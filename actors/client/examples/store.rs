//! Writes, reads and lists keys: `cargo run --example store -- 127.0.0.1:18086 weald-data/client.key`
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;
use weald_client::{Client, Credential, Error};

type Anything = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[allow(dead_code, reason = "the tests call `run`")]
async fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(key_file)) = (args.next(), args.next()) else {
        return Err("usage: store <address> <key file>".into());
    };
    run(address, key_file).await
}

/// The example itself.
pub(crate) async fn run(address: String, key_file: String) -> Result<(), Anything> {
    let client = Client::connect(address, Credential::read(key_file)?).await?;

    // Every write gives the context of what is stored now. Handing it to the next write says: I have seen this.
    let seen = client.put("colours", "sky", "blue").await?;
    let seen = client.put("colours", "sky", "grey").context(&seen).await?;
    println!("sky: {:?}", client.get("colours", "sky").await?.value().map(String::from_utf8_lossy));

    // Compare-and-set: somebody else was faster, and the error says what is there.
    client.put("colours", "sky", "red").context(&seen).await?;
    match client.put_if("colours", "sky", "black", Some(&seen)).await {
        Err(Error::Conflict { current, .. }) => {
            println!("not black: {} is there", current.values.len())
        }
        other => println!("unexpected: {other:?}"),
    }

    // A key that goes by itself, and a range.
    client.put("colours", "flash", "white").ttl(Duration::from_secs(60)).await?;
    let mut scan = client.scan("colours").page_size(100);
    while let Some(item) = scan.next().await {
        let item = item?;
        println!("{}: {} value(s)", String::from_utf8_lossy(&item.key), item.values.len());
    }
    client.delete("colours", "sky").await?;
    Ok(())
}
