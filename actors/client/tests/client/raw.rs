//! A client written from the wire up, which can say what the real one never says.

use crate::support::SECOND;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weald_client::Credential;
use weald_client_testing::FakeNode;
use weald_proto::frame::Frame;
use weald_proto::hello::{
    Answer, Hello, MAGIC, Proof, Role, VERSION, Verdict, decode, encode, transcript,
};

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// The node's link actor for this connection.
    pub(crate) link: u64,
    /// All that the node has sent since the handshake.
    pub(crate) heard: Vec<u8>,
}

/// A length-delimited protobuf field.
pub(crate) fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag][..], &Raw::varint(content.len() as u64), content].concat()
}

/// A frame of `ractor_cluster`.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u64).to_be_bytes()[..], body].concat()
}

/// A control frame.
pub(crate) fn control(tag: u8, content: &[u8]) -> Vec<u8> {
    frame(&field(0x1A, &field(tag, content)))
}

fn read_varint(bytes: &[u8]) -> (u64, &[u8]) {
    let (mut value, mut index) = (0, 0);
    loop {
        value |= u64::from(bytes[index] & 0x7F) << (7 * index);
        index += 1;
        if bytes[index - 1] & 0x80 == 0 {
            return (value, &bytes[index..]);
        }
    }
}

/// The content of the field at the start, and its tag.
fn read_field(bytes: &[u8]) -> (u8, &[u8]) {
    let (len, rest) = read_varint(&bytes[1..]);
    (bytes[0], &rest[..usize::try_from(len).unwrap()])
}

impl Raw {
    pub(crate) fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    pub(crate) fn cast(to: u64, what: &[u8]) -> Vec<u8> {
        let to = if to == 0 { vec![] } else { [vec![8], Self::varint(to)].concat() };
        frame(&field(0x12, &field(0x0A, &[to, field(0x12, what)].concat())))
    }

    /// Connects up to the point where both sides are ready.
    pub(crate) async fn open(node: &FakeNode, credential: &Credential) -> Self {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        let hello = encode(&Hello {
            version: VERSION,
            role: Role::Client,
            cluster: None,
            name: credential.name().to_owned(),
            nonce: [3; 32],
        });
        let hello = hello.unwrap();
        stream.write_all(&[&MAGIC[..], &hello].concat()).await.unwrap();
        let challenge = Self::message(&mut stream).await;
        assert!(matches!(decode(&challenge), Ok(Answer::Challenge(_))));
        let signature = credential.sign(&transcript(&hello[2..], &challenge)).to_vec();
        stream.write_all(&encode(&Proof { signature }).unwrap()).await.unwrap();
        let Ok(Verdict::Accepted { cookie, .. }) = decode(&Self::message(&mut stream).await) else {
            panic!("refused");
        };
        let mut raw = Self { stream, link: 0, heard: Vec::new() };
        raw.authenticate(&cookie).await;
        raw
    }

    async fn message(stream: &mut TcpStream) -> Vec<u8> {
        let len = stream.read_u16().await.unwrap();
        let mut body = vec![0; usize::from(len)];
        stream.read_exact(&mut body).await.unwrap();
        body
    }

    async fn authenticate(&mut self, cookie: &str) {
        let name = [field(0x0A, b"evil"), field(0x1A, b"evil"), vec![0x20, 1]].concat();
        self.stream.write_all(&frame(&field(0x0A, &field(0x0A, &name)))).await.unwrap();
        self.read_frame().await;
        let challenge = self.read_frame().await;
        let (_, challenge) = read_field(read_field(&challenge).1);
        // name, then the challenge as a varint with tag 18
        let at = read_field(challenge).1.len() + 2;
        let (number, _) = read_varint(&challenge[at + 1..]);
        let number = u32::try_from(number).unwrap();
        let digest = Sha256::digest([&number.to_be_bytes()[..], cookie.as_bytes()].concat());
        let reply = [vec![8, 7], field(0x12, &digest)].concat();
        self.stream.write_all(&frame(&field(0x0A, &field(0x2A, &reply)))).await.unwrap();
        self.read_frame().await;
        let mine = [control(0x0A, &field(0x0A, &[8, 5])), control(0x4A, b"")].concat();
        self.stream.write_all(&mine).await.unwrap();
        loop {
            let body = self.read_frame().await;
            let (tag, content) = read_field(read_field(&body).1);
            match tag {
                0x0A => {
                    let actor = read_field(content).1;
                    self.link = if actor.is_empty() { 0 } else { read_varint(&actor[1..]).0 };
                }
                0x4A => return,
                _ => {}
            }
        }
    }

    /// The body of the next frame.
    pub(crate) async fn read_frame(&mut self) -> Vec<u8> {
        let read = async {
            let len = self.stream.read_u64().await.unwrap();
            let mut body = vec![0; usize::try_from(len).unwrap()];
            self.stream.read_exact(&mut body).await.unwrap();
            body
        };
        let body = timeout(5 * SECOND, read).await.expect("the node says nothing");
        self.heard.extend(frame(&body));
        body
    }

    /// So many frames out of the batches that come next.
    pub(crate) async fn frames(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < count {
            let body = self.read_frame().await;
            if body[0] == 0x12 {
                let cast = read_field(read_field(&body).1).1;
                // the target, then the batch
                let batch = &cast[cast.iter().position(|byte| *byte == 0x12).unwrap()..];
                frames.extend(Frame::decode_batch(read_field(batch).1).unwrap());
            }
        }
        frames
    }

    /// Whether the node ends the connection in time; what it says until then is kept.
    pub(crate) async fn is_cut(&mut self, within: Duration) -> bool {
        let Self { stream, heard, .. } = self;
        timeout(within, stream.read_to_end(heard)).await.is_ok()
    }

    /// Whether everything heard was authentication, one nameless actor, ready, pings, and casts to this client's link.
    pub(crate) fn told_of_own_link_only(&self) -> bool {
        let mut rest = &*self.heard;
        let mut spawns = 0;
        while let Some((len, tail)) = rest.split_first_chunk::<8>() {
            let len = usize::try_from(u64::from_be_bytes(*len)).unwrap();
            let Some((body, tail)) = tail.split_at_checked(len) else { break };
            rest = tail;
            let (outer, content) = read_field(body);
            let (inner, content) = read_field(content);
            spawns += usize::from((outer, inner) == (0x1A, 0x0A));
            let lawful = match (outer, inner) {
                (0x0A, _) | (0x1A, 0x1A | 0x22 | 0x4A) => true,
                (0x1A, 0x0A) => {
                    content.len() <= 13 && read_field(content).1.len() + 2 == content.len()
                }
                (0x12, 0x0A) => content.starts_with(&[8, 5]),
                _ => false,
            };
            if !lawful {
                return false;
            }
        }
        let secret = |window: &[u8]| window == b"secret";
        spawns == 1 && !self.heard.windows(6).any(secret)
    }
}
