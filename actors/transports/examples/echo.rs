//! A server that sends every message back: how a listener, its connections and their outboxes are used.
//!
//! What it is for: trying a client's transport, and measuring what a connection costs. It prints its address and serves
//! RawSocket and WebSocket (at `/ws`) there until it is killed.
#![allow(clippy::print_stdout, reason = "the address is its output")]

use std::sync::Arc;
use std::time::Duration;
use weald_transports::{
    Bind, Class, Close, Connection, Egress, EgressConfig, Endpoint, Flushes, Listener, NoSite,
    Origins, Protocols, Read, Settings, Web,
};

async fn echo(mut connection: Connection) {
    let mut inbox = Vec::new();
    let outbox = connection.outbox().clone();
    while connection.read(&mut inbox, None).await == Read::Messages {
        let mut flushes = Flushes::new();
        for message in inbox.drain(..) {
            let framed =
                outbox.framing().frame_sized(message.len(), |out| out.extend_from_slice(&message));
            // Whoever does not read his echo loses his connection.
            let _outcome = flushes.push(&outbox, framed, Class::Reply);
        }
        // An idle client keeps no memory of a burst.
        inbox.shrink_to(64);
    }
    connection.close(Close::Normal, Duration::from_secs(1)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let web = Web {
        path: "/ws".to_owned(),
        origins: Origins::new(&["*".to_owned()])?,
        site: Arc::new(NoSite),
    };
    let settings = Settings {
        message_bytes_max: 16 << 20,
        ping_interval: Some(Duration::from_secs(30)),
        raw_pings: true,
        ping_timeout: Duration::from_secs(10),
        egress: Egress::new(EgressConfig::default()),
    };
    let bind = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let endpoint = Endpoint::new(Bind::Ip(bind.parse()?), Protocols::Both(web));
    let serve = |connection: Connection| drop(tokio::spawn(echo(connection)));
    let listener = Listener::start(endpoint, settings, Arc::new(serve))?;
    println!("{}", listener.address());
    std::future::pending().await
}
