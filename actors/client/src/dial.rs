//! Keeps a connection to one of the nodes: dials, waits for its end, dials again.

use crate::credential::Credential;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::tls;
use crate::wire::Wire;
use ractor::Actor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use weald_link::filter::Side;
use weald_link::hello::{self, DialError};
use weald_link::{Connection, Halves, Limits, Outbound, Plain, Receive, Setup};

/// First and longest pause between two rounds over all addresses.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A connection that held for so long starts the pauses anew.
const HELD: Duration = Duration::from_secs(5);
/// Time for one TCP connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to go, and as whom.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Unix(PathBuf),
    Tcp {
        addresses: Vec<String>,
        credential: Box<Credential>,
        cluster: Option<String>,
        tls: Option<tls::Connector>,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { addresses, .. } => f.write_str(&addresses.join(", ")),
        }
    }
}

/// The connection as callers see it.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// Not there; with what the last try said, if there was one.
    Down(Option<Error>),
    Up(Arc<Wire>),
}

/// A connection; ended when this is dropped.
struct Held(Arc<Wire>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.end("the client is gone");
    }
}

/// Runs until it is dropped.
pub(crate) async fn keep(
    target: Target,
    limits: Limits,
    inbox: Arc<Inbox>,
    line: watch::Sender<Line>,
) {
    let mut pause = PAUSE.0;
    let mut next = 0;
    loop {
        let result = match &target {
            Target::Unix(path) => unix(path, &limits, &inbox).await,
            Target::Tcp { addresses, credential, cluster, tls } => {
                let address = addresses.get(next % addresses.len().max(1));
                let dial = Dial { credential, cluster: cluster.as_deref(), tls: tls.as_ref() };
                match address {
                    Some(address) => dial.tcp(address, &limits, &inbox).await,
                    None => Err(unreachable(&target, "no address was given")),
                }
            }
        };
        match result {
            Ok(held) => {
                let since = tokio::time::Instant::now();
                line.send_replace(Line::Up(Arc::clone(&held.0)));
                let why = held.0.over().await;
                drop(held);
                tracing::info!(event = "connection_lost", node = %target, reason = %why, "connection to the node lost");
                line.send_replace(Line::Down(Some(unreachable(&target, &why.to_string()))));
                if since.elapsed() >= HELD {
                    pause = PAUSE.0;
                }
            }
            Err(error) => {
                tracing::debug!(event = "connect_failed", node = %target, error = %error, "no connection to the node");
                line.send_replace(Line::Down(Some(error)));
                next = next.wrapping_add(1);
            }
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Between half of it and all of it, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let byte = hello::random::<1>().map_or(255, |[byte]| byte);
    pause / 2 + (pause / 2).mul_f64(f64::from(byte) / 255.0)
}

fn unreachable(node: &dyn std::fmt::Display, reason: &str) -> Error {
    Error::Unreachable { node: node.to_string(), reason: reason.to_owned() }
}

async fn unix(path: &PathBuf, limits: &Limits, inbox: &Arc<Inbox>) -> Result<Held, Error> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|e| unreachable(&path.display(), &e.to_string()))?;
    let (read, write) = stream.into_split();
    let outbound = Arc::new(Outbound::new(limits));
    let wire = Wire::new(Arc::clone(&outbound), Arc::clone(inbox));
    let plain = Plain::new(Halves::new(Box::new(read), Box::new(write)), outbound, limits.clone());
    let handle = plain.handle();
    wire.ends_by(move |why| handle.close(why));
    let receive: Arc<dyn Receive> = Arc::<Wire>::clone(&wire);
    let held = Held(wire);
    tokio::spawn(plain.run(receive));
    held.0.up().await.map_err(|why| unreachable(&path.display(), &why.to_string()))?;
    Ok(held)
}

struct Dial<'a> {
    credential: &'a Credential,
    cluster: Option<&'a str>,
    tls: Option<&'a tls::Connector>,
}

impl Dial<'_> {
    async fn tcp(&self, address: &str, limits: &Limits, inbox: &Arc<Inbox>) -> Result<Held, Error> {
        let failed = |reason: String| unreachable(&address, &reason);
        let connect = async {
            let stream = TcpStream::connect(address).await.map_err(|e| failed(e.to_string()))?;
            stream.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
            match self.tls {
                Some(tls) => {
                    tls.connect(address, stream).await.map_err(|e| failed(format!("TLS: {e}")))
                }
                None => Ok(Halves::tcp(stream)),
            }
        };
        let mut halves = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_elapsed| failed(format!("no connection within {CONNECT_TIMEOUT:?}")))??;
        let Credential { name, key } = self.credential;
        let accepted = hello::dial(&mut halves.read, &mut halves.write, name, key, self.cluster)
            .await
            .map_err(|e| match e {
                DialError::Refused(refused) => Error::Refused(refused),
                e => failed(e.to_string()),
            })?;
        let outbound = Arc::new(Outbound::new(limits));
        let wire = Wire::new(Arc::clone(&outbound), Arc::clone(inbox));
        let receive: Arc<dyn Receive> = Arc::<Wire>::clone(&wire);
        let label = format!("{} at {address}", accepted.node.node);
        let setup = Setup::new(
            halves,
            Side::Client,
            accepted.cookie,
            label,
            outbound,
            receive,
            limits.clone(),
        );
        let handle = setup.handle();
        wire.ends_by(move |why| handle.close(why));
        let held = Held(wire);
        Actor::spawn(None, Connection, Some(setup)).await.map_err(|e| failed(e.to_string()))?;
        held.0.up().await.map_err(|why| failed(why.to_string()))?;
        Ok(held)
    }
}
