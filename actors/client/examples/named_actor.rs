//! Gives an actor a name and talks to it: `cargo run --example named_actor -- 127.0.0.1:18086 weald-data/client.key`
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use serde::{Deserialize, Serialize};
use std::time::Duration;
use weald_client::ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use weald_client::{Client, Credential, NamedActor};

type Anything = Box<dyn std::error::Error + Send + Sync>;

/// What the actor is told; both sides know this type.
#[derive(Serialize, Deserialize)]
struct Measured {
    celsius: f64,
}

impl Message for Measured {}

struct Thermometer;

impl Actor for Thermometer {
    type Msg = Measured;
    type State = f64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Measured>, (): ()) -> Result<f64, ActorProcessingErr> {
        Ok(f64::MIN)
    }

    async fn handle(
        &self,
        _: ActorRef<Measured>,
        measured: Measured,
        highest: &mut f64,
    ) -> Result<(), ActorProcessingErr> {
        *highest = highest.max(measured.celsius);
        println!("{} °C, at most {} °C so far", measured.celsius, highest);
        Ok(())
    }
}

#[tokio::main]
#[allow(dead_code, reason = "the tests call `run`")]
async fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(key_file)) = (args.next(), args.next()) else {
        return Err("usage: named_actor <address> <key file>".into());
    };
    run(address, key_file).await
}

/// The example itself.
pub(crate) async fn run(address: String, key_file: String) -> Result<(), Anything> {
    let client = Client::connect(address, Credential::read(key_file)?).await?;

    // An actor of this process gets a name at the node: any client of the cluster can send to it.
    let (actor, _) = Actor::spawn(None, Thermometer, ()).await?;
    let _name = client.register("thermometer", actor).await?;
    println!("{:?}", client.whereis("thermometer").await?);
    let thermometer: NamedActor<Measured> = client.actor("thermometer");
    for celsius in [19.5, 21.0, 18.2] {
        thermometer.send(&Measured { celsius }).await?;
    }

    // A function that answers gets one the same way.
    let _served =
        client.serve("fahrenheit", |celsius: f64| async move { celsius * 1.8 + 32.0 }).await?;
    let fahrenheit: NamedActor<f64, f64> = client.actor("fahrenheit");
    println!("21 °C are {} °F", fahrenheit.call(&21.0, Duration::from_secs(1)).await?);
    Ok(())
}
