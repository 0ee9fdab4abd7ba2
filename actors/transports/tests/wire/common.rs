//! Connections on loopback for tests.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weald_transports::{
    Accepted, Address, Class, Close, Connection, Egress, EgressConfig, Flushes, NoSite, Origin,
    Origins, Read, Settings, Stream, Web, accept_raw, accept_web,
};

/// How long anything may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must happen to say that nothing happens.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

pub(crate) fn settings() -> Settings {
    settings_with(EgressConfig::default())
}

pub(crate) fn settings_with(config: EgressConfig) -> Settings {
    Settings {
        message_bytes_max: 16 << 20,
        ping_interval: None,
        raw_pings: true,
        ping_timeout: Duration::from_secs(10),
        egress: Egress::new(config),
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Two ends of a TCP connection: the server's, accepted, and the client's.
pub(crate) async fn tcp_pair() -> (Accepted, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (server, peer) = accepted.unwrap();
    server.set_nodelay(true).unwrap();
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    let origin =
        Origin { peer: Address::Ip(peer), local: Address::Ip(address), proxy: None, tls: None };
    (Accepted { stream: Stream::Tcp(server), origin, place: None, is_full: false }, client)
}

/// A RawSocket connection with MessagePack whose client takes messages of any length.
pub(crate) async fn raw_pair(settings: &Settings) -> (Connection, TcpStream) {
    let (accepted, mut client) = tcp_pair().await;
    client.write_all(&[0x7f, 0xf2, 0, 0]).await.unwrap();
    let connection = within(accept_raw(accepted, settings)).await.unwrap();
    assert_eq!(exactly(&mut client, 4).await, [0x7f, 0xf2, 0, 0]);
    (connection, client)
}

pub(crate) async fn exactly(
    client: &mut (impl tokio::io::AsyncRead + Unpin),
    bytes: usize,
) -> Vec<u8> {
    let mut out = vec![0; bytes];
    within(client.read_exact(&mut out)).await.unwrap();
    out
}

pub(crate) async fn rest(client: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut out = Vec::new();
    match within(client.read_to_end(&mut out)).await {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{e}"),
    }
    out
}

/// What a server makes of requests, with the site of no pages.
pub(crate) fn web() -> Web {
    let origins = Origins::new(&["https://good.example".to_owned()]).unwrap();
    Web { path: "/ws".to_owned(), origins, site: Arc::new(NoSite) }
}

/// A request for a WebSocket, with further headers, each ended by CR LF.
pub(crate) fn request(headers: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The head of an answer.
pub(crate) async fn head(client: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(exactly(client, 1).await);
    }
    String::from_utf8(head).unwrap()
}

/// A WebSocket connection after its opening.
pub(crate) async fn websocket_pair(
    subprotocol: &str,
    settings: &Settings,
) -> (Connection, TcpStream) {
    let (accepted, mut client) = tcp_pair().await;
    let settings = settings.clone();
    let server = tokio::spawn(async move {
        accept_web(accepted, &web(), &settings, PATIENCE).await.unwrap().unwrap()
    });
    let request = request(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
    client.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (within(server).await.unwrap(), client)
}

/// Sends every message back until the connection ends; why it has.
pub(crate) async fn echo(mut connection: Connection) -> Read {
    let mut inbox: Vec<Bytes> = Vec::new();
    let mut flushes = Flushes::new();
    let outbox = connection.outbox().clone();
    loop {
        let read = connection.read(&mut inbox, None).await;
        for message in inbox.drain(..) {
            let framed = outbox.framing().frame(|out| out.extend_from_slice(&message));
            let _outcome = flushes.push(&outbox, framed, Class::Reply);
        }
        flushes.flush();
        if read != Read::Messages {
            connection.close(Close::Normal, GRACE).await;
            return read;
        }
    }
}
