//! Service records of DNS (RFC 2782), asked of the servers in `/etc/resolv.conf`.
//!
//! What it is: one question, one answer, over UDP and, if that was cut short, over TCP. The system's resolver cannot ask for
//! service records, and a resolver library would weigh more than this whole crate.
//!
//! What it refuses: search domains, caching, recursion of its own, following names (that is left to whoever dials).
//! What comes back is parsed within bounds; anything odd is an error.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use weald_storage::NodeId;

/// Largest answer over UDP that is asked for. // RFC 9715: 1232 is never fragmented
const UDP_BYTES_MAX: u16 = 1_232;
/// Largest answer over TCP that is read. // guess: several hundred records
const TCP_BYTES_MAX: usize = 32 << 10;
/// Most records of one answer. // guess
const RECORDS_MAX: u16 = 512;
/// Most pointers followed in one name. // guess: a name has at most 127 labels
const JUMPS_MAX: usize = 32;
/// Longest name. // RFC 1035 2.3.4
const NAME_BYTES_MAX: usize = 255;
/// Wait for one server. // resolv.conf(5): 5 s; shorter, since all are to have a turn
const SERVER_TIME: Duration = Duration::from_millis(1_500);
/// Servers that are asked. // resolv.conf(5)
const SERVERS_MAX: usize = 3;
const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SrvError {
    /// The name cannot be asked for.
    #[error("not a domain name")]
    Name,
    /// No server is configured.
    #[error("no name server is configured")]
    NoServer,
    /// The network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No server answered in time.
    #[error("no name server answered in time")]
    Timeout,
    /// The server refused; the code of RFC 1035 (3: no such name).
    #[error("the name server answered with code {0}")]
    Code(u8),
    /// The answer is no answer to this question.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Lower is asked first.
    pub priority: u16,
    /// Share among equals.
    pub weight: u16,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The targets of a name, by priority.
///
/// # Errors
/// [`SrvError`].
pub async fn resolve(name: &str) -> Result<Vec<Target>, SrvError> {
    let servers = tokio::task::spawn_blocking(|| servers(Path::new("/etc/resolv.conf")));
    let servers = servers.await.map_err(io::Error::other)??;
    resolve_at(name, &servers).await
}

/// As [`resolve`], with these servers.
///
/// # Errors
/// [`SrvError`] of the last server that was asked.
pub async fn resolve_at(name: &str, servers: &[SocketAddr]) -> Result<Vec<Target>, SrvError> {
    let mut last = SrvError::NoServer;
    for server in servers {
        match tokio::time::timeout(SERVER_TIME, ask(name, *server)).await {
            Ok(Ok(targets)) => return Ok(targets),
            // The name is as wrong elsewhere.
            Ok(Err(error @ (SrvError::Code(3) | SrvError::Name))) => return Err(error),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = SrvError::Timeout,
        }
    }
    Err(last)
}

async fn ask(name: &str, server: SocketAddr) -> Result<Vec<Target>, SrvError> {
    let random = NodeId::random()?.0;
    let id = u16::from_be_bytes([random[0], random[1]]);
    let question = question(id, name)?;
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; usize::from(UDP_BYTES_MAX)];
    let answer = loop {
        let len = socket.recv(&mut buffer).await?;
        // A late answer to another question is not ours.
        if buffer[..len].starts_with(&id.to_be_bytes()) {
            break &buffer[..len];
        }
    };
    match answers(id, answer)? {
        Some(targets) => Ok(targets),
        None => ask_tcp(id, &question, server).await,
    }
}

async fn ask_tcp(id: u16, question: &[u8], server: SocketAddr) -> Result<Vec<Target>, SrvError> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(question.len()).map_err(|_long| SrvError::Name)?;
    stream.write_all(&[&len.to_be_bytes(), question].concat()).await?;
    let len = usize::from(stream.read_u16().await?);
    if len > TCP_BYTES_MAX {
        return Err(SrvError::Malformed("too long"));
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer).await?;
    answers(id, &answer)?.ok_or(SrvError::Malformed("cut short over TCP"))
}

/// The servers of a `resolv.conf`.
fn servers(path: &Path) -> io::Result<Vec<SocketAddr>> {
    let text = std::fs::read_to_string(path)?;
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let named = words.filter_map(|words| match words.as_slice() {
        ["nameserver", address, ..] => address.parse::<IpAddr>().ok(),
        _ => None,
    });
    Ok(named.take(SERVERS_MAX).map(|ip| SocketAddr::new(ip, 53)).collect())
}

/// The question for the service records of a name, with room for a larger answer (RFC 6891).
///
/// # Errors
/// [`SrvError::Name`].
pub fn question(id: u16, name: &str) -> Result<Vec<u8>, SrvError> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired; one question, one additional record.
    bytes.extend_from_slice(&[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() >= NAME_BYTES_MAX - 1 {
        return Err(SrvError::Name);
    }
    for label in name.split('.') {
        let len = u8::try_from(label.len()).map_err(|_long| SrvError::Name)?;
        if len == 0 || len > 63 || !label.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SrvError::Name);
        }
        bytes.push(len);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&TYPE_SRV.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 41]);
    bytes.extend_from_slice(&UDP_BYTES_MAX.to_be_bytes());
    bytes.extend_from_slice(&[0; 6]);
    Ok(bytes)
}

/// Reads an answer; `None` when it was cut short and is to be asked for over TCP.
///
/// # Errors
/// [`SrvError`].
pub fn answers(id: u16, bytes: &[u8]) -> Result<Option<Vec<Target>>, SrvError> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.u16()? != id {
        return Err(SrvError::Malformed("answers another question"));
    }
    let flags = reader.u16()?.to_be_bytes();
    if flags[0] & 0x80 == 0 {
        return Err(SrvError::Malformed("no answer"));
    }
    if flags[0] & 0x02 != 0 {
        return Ok(None);
    }
    match flags[1] & 0x0f {
        0 => {}
        code => return Err(SrvError::Code(code)),
    }
    let (questions, records) = (reader.u16()?, reader.u16()?);
    if records > RECORDS_MAX || questions > 1 {
        return Err(SrvError::Malformed("too many records"));
    }
    reader.at = 12;
    for _ in 0..questions {
        reader.name()?;
        reader.skip(4)?;
    }
    let mut targets = Vec::new();
    for _ in 0..records {
        reader.name()?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        reader.skip(4)?;
        let len = usize::from(reader.u16()?);
        let end = reader.at + len;
        if kind == TYPE_SRV && class == CLASS_IN {
            let (priority, weight, port) = (reader.u16()?, reader.u16()?, reader.u16()?);
            let host = reader.name()?;
            // RFC 2782: the root says that there is no such service.
            if !host.is_empty() {
                targets.push(Target { priority, weight, host, port });
            }
        }
        if end > bytes.len() || reader.at > end {
            return Err(SrvError::Malformed("record ends early"));
        }
        reader.at = end;
    }
    targets.sort();
    Ok(Some(targets))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u8(&mut self) -> Result<u8, SrvError> {
        let byte = self.bytes.get(self.at).ok_or(SrvError::Malformed("ends early"))?;
        self.at += 1;
        Ok(*byte)
    }

    fn u16(&mut self) -> Result<u16, SrvError> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), SrvError> {
        self.at += bytes;
        if self.at > self.bytes.len() {
            return Err(SrvError::Malformed("ends early"));
        }
        Ok(())
    }

    /// A name, following pointers a bounded number of times; afterwards behind it.
    fn name(&mut self) -> Result<String, SrvError> {
        let mut name = String::new();
        let (mut jumps, mut behind) = (0, None);
        loop {
            let len = self.u8()?;
            match len & 0xc0 {
                0 if len == 0 => break,
                0 => {
                    let end = self.at + usize::from(len);
                    let label = self.bytes.get(self.at..end);
                    let label = label.ok_or(SrvError::Malformed("name ends early"))?;
                    if !label.iter().all(u8::is_ascii_graphic) {
                        return Err(SrvError::Malformed("name is not text"));
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&String::from_utf8_lossy(label));
                    self.at = end;
                }
                0xc0 => {
                    let to = usize::from(u16::from_be_bytes([len & 0x3f, self.u8()?]));
                    behind.get_or_insert(self.at);
                    jumps += 1;
                    if jumps > JUMPS_MAX {
                        return Err(SrvError::Malformed("name runs in circles"));
                    }
                    self.at = to;
                }
                _ => return Err(SrvError::Malformed("unknown label")),
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(SrvError::Malformed("name is too long"));
            }
        }
        if let Some(behind) = behind {
            self.at = behind;
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The answer of a server for two targets, the second name compressed.
    fn sample(id: u16, flags: [u8; 2]) -> Vec<u8> {
        let asked = question(id, "_weald._tcp.example.org.").unwrap();
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&flags);
        bytes.extend_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0]);
        bytes.extend_from_slice(&asked[12..asked.len() - 11]);
        for (priority, host) in [(20_u16, "b"), (10, "a")] {
            bytes.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 10]);
            bytes.extend_from_slice(&priority.to_be_bytes());
            bytes.extend_from_slice(&[0, 5, 0x46, 0xa6, 1, host.as_bytes()[0], 0xc0, 24]);
        }
        bytes
    }

    #[test]
    fn answer_is_read_in_order_of_priority() {
        let targets = answers(7, &sample(7, [0x81, 0x80])).unwrap().unwrap();
        let texts: Vec<String> = targets.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["a.example.org:18086", "b.example.org:18086"]);
        assert_eq!((targets[0].priority, targets[0].weight), (10, 5));
    }

    #[test]
    fn odd_answers_are_refused() {
        assert!(answers(7, &sample(7, [0x83, 0x80])).unwrap().is_none(), "cut short");
        assert!(matches!(answers(7, &sample(7, [0x81, 0x83])), Err(SrvError::Code(3))));
        assert!(answers(8, &sample(7, [0x81, 0x80])).is_err(), "another id");
        assert!(answers(7, &sample(7, [0x01, 0x80])).is_err(), "a question");
        let whole = sample(7, [0x81, 0x80]);
        for len in 0..whole.len() {
            assert!(answers(7, &whole[..len]).is_err(), "cut at {len}");
        }
        let mut circle = whole;
        let at = circle.len() - 1;
        circle[at] = u8::try_from(at - 1).unwrap();
        assert!(matches!(answers(7, &circle), Err(SrvError::Malformed(_))));
        for name in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(200), "a b"] {
            assert!(matches!(question(1, name), Err(SrvError::Name)), "{name}");
        }
    }

    #[tokio::test]
    async fn server_is_asked_over_udp_then_over_tcp() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = udp.local_addr().unwrap();
        let tcp = tokio::net::TcpListener::bind(at).await.unwrap();
        let server = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (_, from) = udp.recv_from(&mut buffer).await.unwrap();
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            udp.send_to(&sample(id, [0x83, 0x80]), from).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            let asked = stream.read_u16().await.unwrap();
            stream.read_exact(&mut buffer[..usize::from(asked)]).await.unwrap();
            let answer = sample(id, [0x81, 0x80]);
            stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        });
        let targets = resolve_at("_weald._tcp.example.org", &[at]).await.unwrap();
        assert_eq!(targets.len(), 2);
        server.await.unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            // Past the header half of the time.
            if bytes.len() > 12 && bytes[11] & 1 == 0 {
                bytes[..12].copy_from_slice(&[0, 7, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
            }
            drop(answers(7, &bytes));
        }
    }
}
