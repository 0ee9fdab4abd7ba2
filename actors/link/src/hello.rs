//! The handshake, as the dialler speaks it, and the reading and writing of its messages.
//!
//! What it guarantees: never more than [`HELLO_BYTES_MAX`] bytes are held, no byte after the handshake is consumed, and
//! [`dial`] ends within [`HELLO_TIMEOUT_MS`].
//!
//! What it refuses: deciding whom to accept (the node's side lives with its listener), and going on after any error.

use ed25519_dalek::{Signer, SigningKey};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use weald_proto::hello::{
    Answer, Challenge, Hello, HelloError, MAGIC, Proof, Refused, Role, VERSION, Verdict, decode,
    encode, transcript,
};
use weald_proto::limits::{HELLO_BYTES_MAX, HELLO_TIMEOUT_MS};

/// Why there was no handshake.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The connection failed.
    #[error("connection lost in the handshake: {0}")]
    Io(#[from] io::Error),
    /// The other side said no.
    #[error("{0}")]
    Refused(Refused),
    /// The other side does not speak this protocol.
    #[error("{0}")]
    Protocol(#[from] HelloError),
    /// It took too long.
    #[error("no handshake within {HELLO_TIMEOUT_MS} ms")]
    Timeout,
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

/// What a handshake led to.
#[derive(Clone)]
pub struct Accepted {
    /// Number of the session at the node.
    pub session: u64,
    /// The cookie for `ractor_cluster`.
    pub cookie: String,
    /// The node as it introduced itself.
    pub node: Challenge,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted")
            .field("session", &self.session)
            .field("node", &self.node.node)
            .finish_non_exhaustive()
    }
}

/// Fresh random bytes.
///
/// # Errors
/// A text when the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Opens a connection as a client, and proves to hold the key.
///
/// # Errors
/// Any [`DialError`]; the connection is of no use then.
pub async fn dial<R, W>(
    read: &mut R,
    write: &mut W,
    name: &str,
    key: &SigningKey,
    cluster: Option<&str>,
) -> Result<Accepted, DialError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hello = Hello {
        version: VERSION,
        role: Role::Client,
        cluster: cluster.map(str::to_owned),
        name: name.to_owned(),
        nonce: random().map_err(DialError::Random)?,
    };
    let exchange = async {
        let hello = encode(&hello)?;
        let mut opening = MAGIC.to_vec();
        opening.extend_from_slice(&hello);
        write.write_all(&opening).await?;
        write.flush().await?;
        let challenge_bytes = read_message(read).await?;
        let node = match decode::<Answer>(&challenge_bytes)? {
            Answer::Challenge(challenge) => challenge,
            Answer::Refused(refused) => return Err(DialError::Refused(refused)),
        };
        let signed = transcript(hello.get(2..).unwrap_or_default(), &challenge_bytes);
        let proof = Proof { signature: key.sign(&signed).to_bytes().to_vec() };
        write_message(write, &proof).await?;
        match decode::<Verdict>(&read_message(read).await?)? {
            Verdict::Accepted { session, cookie } => Ok(Accepted { session, cookie, node }),
            Verdict::Refused(refused) => Err(DialError::Refused(refused)),
        }
    };
    match tokio::time::timeout(Duration::from_millis(HELLO_TIMEOUT_MS), exchange).await {
        Ok(result) => result,
        Err(_elapsed) => Err(DialError::Timeout),
    }
}

/// Reads the body of one message; its length is checked before anything is allocated.
///
/// # Errors
/// [`DialError::Io`] and [`DialError::Protocol`].
pub async fn read_message<R: AsyncRead + Unpin>(read: &mut R) -> Result<Vec<u8>, DialError> {
    read_message_within(read, HELLO_BYTES_MAX).await
}

/// As [`read_message`], with another bound.
///
/// # Errors
/// As [`read_message`].
pub async fn read_message_within<R: AsyncRead + Unpin>(
    read: &mut R,
    max: usize,
) -> Result<Vec<u8>, DialError> {
    let len = usize::from(read.read_u16().await?);
    if len > max {
        return Err(HelloError::TooLarge(len).into());
    }
    let mut body = vec![0; len];
    read.read_exact(&mut body).await?;
    Ok(body)
}

/// Writes one message.
///
/// # Errors
/// [`DialError::Io`] and [`DialError::Protocol`].
pub async fn write_message<W, T>(write: &mut W, message: &T) -> Result<(), DialError>
where
    W: AsyncWrite + Unpin,
    T: Serialize + Sync,
{
    write.write_all(&encode(message)?).await?;
    write.flush().await?;
    Ok(())
}

/// Reads and decodes one message.
///
/// # Errors
/// [`DialError::Io`] and [`DialError::Protocol`].
pub async fn read_decoded<R, T>(read: &mut R) -> Result<T, DialError>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    Ok(decode(&read_message(read).await?)?)
}
