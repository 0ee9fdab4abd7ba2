//! One connection of the Unix socket.

use crate::service::Service;
use crate::session::{Identity, Place, Session};
use std::sync::Arc;
use tokio::net::UnixStream;
use weald_link::{Halves, Limits, Outbound, Plain};
use weald_proto::request::ClientRole;

/// The process at the other end, as far as the system tells.
pub(super) fn identity(stream: &UnixStream) -> Identity {
    let peer = match stream.peer_cred().map(|cred| cred.pid()) {
        Ok(Some(pid)) => format!("unix pid {pid}"),
        Ok(None) | Err(_) => "unix".to_owned(),
    };
    Identity { name: "local".to_owned(), role: ClientRole::Operator, peer }
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    stream: UnixStream,
    place: Place,
    identity: Identity,
    service: Arc<dyn Service>,
    limits: Limits,
) {
    let (read, write) = stream.into_split();
    let outbound = Arc::new(Outbound::new(&limits));
    let session = Session::open(place, identity, service, Arc::clone(&outbound));
    let plain = Plain::new(Halves::new(Box::new(read), Box::new(write)), outbound, limits);
    let handle = plain.handle();
    session.ends_by(move |why| handle.close(why));
    plain.run(session).await;
}
