//! Talks from one node to an actor at another. With `weald dev --nodes 2 --data-dir duo` in another terminal:
//! `cargo run -p weald-client --example two_nodes -- duo/node1/weald.sock duo/node2/weald.sock`
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use weald_client::{Client, Delivery, NamedActor};

type Anything = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[allow(dead_code, reason = "the tests call `run`")]
async fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let (Some(one), Some(other)) = (args.next(), args.next()) else {
        return Err("usage: two_nodes <socket of a node> <socket of another>".into());
    };
    run(one, other).await
}

/// The example itself.
pub(crate) async fn run(one: PathBuf, other: PathBuf) -> Result<(), Anything> {
    // An actor of a program that is connected to the one node ...
    let here = Client::unix(one).await?;
    let (orders, mut received) = mpsc::channel(16);
    let reader = here.clone();
    let _pump = here
        .serve("pump", move |order: String| {
            let (orders, reader) = (orders.clone(), reader.clone());
            async move {
                // What the sender had written before a causal message is here.
                let limit = reader.get("limits", "pump").await.map(|got| got.values.concat());
                orders.send((order, limit.unwrap_or_default())).await.ok();
                "taken".to_owned()
            }
        })
        .await?;

    // ... is reached by programs that are connected to any other, as soon as that has heard of it.
    let there = Client::unix(other).await?;
    while there.whereis("pump").await?.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{:?}", there.whereis("pump").await?);
    let pump: NamedActor<String, String> = there.actor("pump");
    println!("{}", pump.call(&"start".to_owned(), Duration::from_secs(5)).await?);

    // Sent again over links that break, until the actor has it or the time is over; never delivered twice.
    pump.send(&"faster".to_owned()).delivery(Delivery::Acknowledged).await?;
    // While its node is out of reach, the newest of these takes the place of the others.
    for rpm in [1000, 1100, 1200] {
        pump.send(&format!("{rpm} rpm")).delivery(Delivery::monotonic("rpm")).await?;
    }
    // After the data that its sender has written.
    let session = there.session();
    session.put("limits", "pump", "1500 rpm").await?;
    pump.send(&"mind the limit".to_owned()).delivery(Delivery::causal(&session)).await?;

    while let Some((order, limit)) = received.recv().await {
        println!("{order} (limit: {:?})", String::from_utf8_lossy(&limit));
        if order == "mind the limit" {
            assert_eq!(limit, b"1500 rpm", "the actor sees what its sender had written");
            break;
        }
    }
    Ok(())
}
