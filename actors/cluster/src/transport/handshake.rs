//! The node's side of the handshake.

use super::hex;
use super::listener::Context;
use super::peers;
use crate::session::{Identity, Place};
use ed25519_dalek::{Signature, VerifyingKey};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use weald_link::Halves;
use weald_link::hello::{DialError, random, read_message, write_message};
use weald_link::pki::Identity as NodeIdentity;
use weald_proto::hello::{
    Answer, Challenge, Hello, HelloError, MAGIC, Proof, Refused, Role, VERSION, Verdict, decode,
    transcript,
};
use weald_proto::limits::HELLO_TIMEOUT_MS;

/// A key that nobody holds the other half of: an unknown name costs as much time as a wrong signature.
const NOBODY: [u8; 32] = {
    let mut key = [0x66; 32]; // the base point
    key[0] = 0x58;
    key
};

/// A peer that is who it says.
pub(super) enum Greeted {
    /// A client.
    Client(Admitted),
    /// Another node.
    Node(peers::Accepted),
}

/// A client that is who it says.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) place: Place,
    pub(super) identity: Identity,
    pub(super) cookie: String,
}

/// Why a peer was not admitted.
#[derive(Debug, Error)]
pub(super) enum Rejected {
    /// It broke off, or does not speak the protocol.
    #[error(transparent)]
    Peer(#[from] DialError),
    /// It was told no.
    #[error("{refused} ({who} {name:?})")]
    Refused { refused: Refused, who: &'static str, name: String },
    /// It took too long.
    #[error("no handshake within {HELLO_TIMEOUT_MS} ms")]
    Timeout,
}

impl From<std::io::Error> for Rejected {
    fn from(e: std::io::Error) -> Self {
        Self::Peer(e.into())
    }
}

impl From<HelloError> for Rejected {
    fn from(e: HelloError) -> Self {
        Self::Peer(e.into())
    }
}

/// Time for everything before a session.
pub(super) const TIMEOUT: Duration = Duration::from_millis(HELLO_TIMEOUT_MS);

/// Speaks the handshake; a peer that is refused has been told when this returns. `proved`: the node in its certificate.
pub(super) async fn greet(
    halves: &mut Halves,
    proved: Option<NodeIdentity>,
    peer: SocketAddr,
    ctx: &Context,
) -> Result<Greeted, Rejected> {
    let mut magic = [0; MAGIC.len()];
    halves.read.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(HelloError::Magic(magic).into());
    }
    let hello_bytes = read_message(&mut halves.read).await?;
    let hello: Hello = decode(&hello_bytes)?;
    match hello.role {
        Role::Node => Ok(Greeted::Node(peers::greet(halves, proved, &ctx.shared).await?)),
        Role::Client => {
            Ok(Greeted::Client(greet_client(halves, &hello_bytes, hello, peer, ctx).await?))
        }
    }
}

async fn greet_client(
    halves: &mut Halves,
    hello_bytes: &[u8],
    hello: Hello,
    peer: SocketAddr,
    ctx: &Context,
) -> Result<Admitted, Rejected> {
    let rejected =
        |refused: Refused, name: String| Rejected::Refused { refused, who: "client", name };
    if let Err(refused) = acceptable(&hello, ctx) {
        write_message(&mut halves.write, &Answer::Refused(refused.clone())).await?;
        return Err(rejected(refused, hello.name));
    }
    let config = &ctx.shared.config;
    let challenge = Challenge {
        node: config.node_name.clone(),
        uuid: config.node_uuid,
        incarnation: ctx.shared.incarnation(),
        nonce: random().map_err(DialError::Random)?,
    };
    let answer = Answer::Challenge(challenge);
    write_message(&mut halves.write, &answer).await?;
    // What is signed are the bytes as they were sent.
    let answer_bytes = weald_proto::hello::encode(&answer)?;
    let signed = transcript(hello_bytes, answer_bytes.get(2..).unwrap_or_default());
    let proof: Proof = decode(&read_message(&mut halves.read).await?)?;
    let cookie = hex(&random::<32>().map_err(DialError::Random)?);
    match admit(&hello.name, &signed, &proof, peer, ctx) {
        Ok((place, identity)) => {
            let accepted = Verdict::Accepted { session: place.id(), cookie: cookie.clone() };
            write_message(&mut halves.write, &accepted).await?;
            Ok(Admitted { place, identity, cookie })
        }
        Err(refused) => {
            write_message(&mut halves.write, &Verdict::Refused(refused.clone())).await?;
            Err(rejected(refused, hello.name))
        }
    }
}

fn acceptable(hello: &Hello, ctx: &Context) -> Result<(), Refused> {
    if hello.version != VERSION {
        return Err(Refused::Version { ours: VERSION, theirs: hello.version });
    }
    match (&hello.cluster, &ctx.shared.config.cluster) {
        (Some(theirs), Some(ours)) if theirs != ours => Err(Refused::Cluster),
        _ => Ok(()),
    }
}

fn admit(
    name: &str,
    signed: &[u8],
    proof: &Proof,
    peer: SocketAddr,
    ctx: &Context,
) -> Result<(Place, Identity), Refused> {
    let known = ctx.credentials.lookup(name);
    let key = known.map_or(NOBODY, |(key, _)| key);
    let verified = verify(&key, signed, &proof.signature);
    let Some((key, role)) = known.filter(|_| verified) else {
        return Err(Refused::Credentials);
    };
    let identity = Identity { name: name.to_owned(), role, peer: peer.to_string() };
    let place = ctx
        .sessions
        .admit(identity.clone(), Some(key), ctx.shared.config.clients_max)
        .ok_or(Refused::Busy)?;
    Ok((place, identity))
}

fn verify(key: &[u8; 32], signed: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(key) else {
        return false;
    };
    let Ok(signature) = Signature::from_slice(signature) else {
        return false;
    };
    key.verify_strict(signed, &signature).is_ok()
}
