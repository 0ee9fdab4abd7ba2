//! The ports for WAMP clients.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use weald_supervision::{ChildSpec, Shutdown};
use weald_transports::{Accepted, Address, Egress, Origin, Settings, Stream, accept_raw};

use crate::router::Router;
use crate::session::serve;

/// The address a port is bound to, once it is.
#[derive(Debug, Clone, Default)]
pub struct Bound(Arc<Mutex<Option<SocketAddr>>>);

impl Bound {
    /// The address, if the port is open.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }
}

/// The RawSocket port.
#[must_use]
pub fn raw_child_spec(
    address: SocketAddr,
    bound: Bound,
    router: Arc<Router>,
    egress: Arc<Egress>,
) -> ChildSpec {
    ChildSpec::task("rawsocket", move |context| {
        let (bound, router, egress) = (bound.clone(), Arc::clone(&router), Arc::clone(&egress));
        async move {
            tokio::select! {
                biased;
                () = context.cancelled() => Ok(()),
                ended = accept(address, bound, router, egress) => Ok(ended?),
            }
        }
    })
    .shutdown(Shutdown::Timeout(Duration::from_secs(5)))
}

async fn accept(
    address: SocketAddr,
    bound: Bound,
    router: Arc<Router>,
    egress: Arc<Egress>,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    bound.set(local);
    tracing::info!(event = "rawsocket_listening", address = %local, "RawSocket port open");
    let mut sessions = JoinSet::new();
    loop {
        while sessions.try_join_next().is_some() {}
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let origin =
            Origin { peer: Address::Ip(peer), local: Address::Ip(local), proxy: None, tls: None };
        let accepted = Accepted { stream: Stream::Tcp(stream), origin, place: None };
        let settings = Settings {
            message_bytes_max: weald_transports::RAW_BYTES_MAX,
            ping_interval: None,
            ping_timeout: Duration::from_secs(10),
            egress: Arc::clone(&egress),
        };
        let router = Arc::clone(&router);
        sessions.spawn(async move {
            match accept_raw(accepted, &settings).await {
                Ok(connection) => serve(router, connection).await,
                Err(error) => {
                    tracing::debug!(event = "client_rejected", %error, "a client was rejected");
                }
            }
        });
    }
}
