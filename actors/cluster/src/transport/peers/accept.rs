//! The handshake with a node that has dialled this one.

use super::super::handshake::Rejected;
use super::link::Reserved;
use super::{Shared, hex};
use std::sync::Arc;
use weald_link::Halves;
use weald_link::filter::Side;
use weald_link::hello::{DialError, random, read_message_within};
use weald_link::pki::Identity;
use weald_proto::hello::node::{NodeAnswer, NodeHello, agree, versions_of};
use weald_proto::hello::{Refused, decode, encode_within};
use weald_proto::limits::NODE_HELLO_BYTES_MAX;
use weald_supervision::StartError;

/// A node that may connect, with its place in the table.
pub(in super::super) struct Accepted {
    reserved: Reserved,
    name: String,
    cookie: String,
}

impl Accepted {
    /// Starts the connection's actor.
    pub(in super::super) async fn start(self, halves: Halves) -> Result<(), StartError> {
        self.reserved.start(halves, Side::Server, self.cookie, &self.name).await
    }
}

/// Speaks the handshake, after the first hello; a node that is refused has been told when this returns. `proved`: who it is
/// by its certificate.
pub(in super::super) async fn greet(
    halves: &mut Halves,
    proved: Option<Identity>,
    shared: &Arc<Shared>,
) -> Result<Accepted, Rejected> {
    let name = proved.as_ref().map_or_else(String::new, |proved| proved.node.clone());
    let judged = match proved.ok_or_else(|| stranger(shared)) {
        Ok(proved) => {
            let body = read_message_within(&mut halves.read, NODE_HELLO_BYTES_MAX).await?;
            judge(&body, &proved, shared)
        }
        Err(refused) => Err(refused),
    };
    match judged {
        Ok((hello, reserved)) => {
            let cookie = hex(&random::<32>().map_err(DialError::Random)?);
            let ours = shared.hello(reserved.lane()).map_err(DialError::Random)?;
            write(halves, &NodeAnswer::Welcome { hello: ours, cookie: cookie.clone() }).await?;
            Ok(Accepted { reserved, name: hello.name, cookie })
        }
        Err(refused) => {
            write(halves, &NodeAnswer::Refused(refused.clone())).await?;
            Err(Rejected::Refused { refused, who: "node", name })
        }
    }
}

/// What is told to a node that shows no certificate.
fn stranger(shared: &Shared) -> Refused {
    if shared.tls.identity().is_none() {
        return Refused::Role;
    }
    let why = "a node needs one of the cluster's authority that names it, over TLS";
    Refused::Certificate(why.to_owned())
}

fn judge(
    body: &[u8],
    proved: &Identity,
    shared: &Arc<Shared>,
) -> Result<(NodeHello, Reserved), Refused> {
    let malformed = |e: weald_proto::hello::HelloError| Refused::Malformed(e.to_string());
    agree(shared.config.versions, versions_of(body).map_err(malformed)?)?;
    let hello: NodeHello = decode(body).map_err(malformed)?;
    shared.judge(&hello, proved, false)?;
    let reserved = shared.reserve(&hello, false)?;
    Ok((hello, reserved))
}

async fn write(halves: &mut Halves, answer: &NodeAnswer) -> Result<(), Rejected> {
    use tokio::io::AsyncWriteExt;
    halves.write.write_all(&encode_within(answer, NODE_HELLO_BYTES_MAX)?).await?;
    halves.write.flush().await?;
    Ok(())
}
