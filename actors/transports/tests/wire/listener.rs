//! Listeners: every protocol on every kind of socket, proxies, TLS, bounds, and stopping.

use crate::common::{
    PATIENCE, echo, exactly, head, request, rest, settings, settings_with, web, within,
};
use ipnet::IpNet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use weald_transports::{
    Address, Bind, Connection, ConnectionInfo, EgressConfig, Endpoint, Kick, Kind, Listener,
    Protocols, Read, Tls, TlsFiles, TlsVersion,
};

const LOOPBACK: Bind = Bind::Ip(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
const RAW: &[u8] = &[0x7f, 0xf1, 0, 0];

/// A listener whose connections echo, and what is known of each of them.
fn start(endpoint: Endpoint) -> (Listener, mpsc::Receiver<Arc<ConnectionInfo>>) {
    let (seen, infos) = mpsc::channel(1_000);
    let serve = move |connection: Connection| {
        seen.try_send(Arc::clone(connection.info())).unwrap();
        tokio::spawn(echo(connection));
    };
    (Listener::start(endpoint, settings(), Arc::new(serve)).unwrap(), infos)
}

fn port(listener: &Listener) -> SocketAddr {
    match listener.address() {
        Address::Ip(address) => *address,
        Address::Unix(path) => panic!("{path:?}"),
    }
}

async fn connect(listener: &Listener) -> TcpStream {
    TcpStream::connect(port(listener)).await.unwrap()
}

/// Speaks RawSocket on a new socket: handshake and one echo.
async fn speak_raw(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    client.write_all(RAW).await.unwrap();
    assert_eq!(exactly(client, 4).await, RAW);
    client.write_all(b"\0\0\0\x03[1]").await.unwrap();
    assert_eq!(exactly(client, 7).await, b"\0\0\0\x03[1]");
}

/// Speaks WebSocket on a new socket: opening and one echo.
async fn speak_websocket(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let request = request("Sec-WebSocket-Protocol: wamp.2.json\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(head(client).await.starts_with("HTTP/1.1 101 "));
    client.write_all(b"\x81\x83\0\0\0\0[1]").await.unwrap();
    assert_eq!(exactly(client, 5).await, b"\x81\x03[1]");
}

#[tokio::test]
async fn one_port_speaks_rawsocket_websocket_and_http() {
    let (listener, mut infos) = start(Endpoint::new(LOOPBACK, Protocols::Both(web())));
    speak_raw(&mut connect(&listener).await).await;
    assert_eq!(within(infos.recv()).await.unwrap().kind, Kind::RawSocket);
    speak_websocket(&mut connect(&listener).await).await;
    assert_eq!(within(infos.recv()).await.unwrap().kind, Kind::WebSocket);
    let mut client = connect(&listener).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 404 "));
    // The connection lives on, and may still become a WebSocket.
    exactly(&mut client, b"not found\n".len()).await;
    speak_websocket(&mut client).await;
}

#[tokio::test]
async fn ipv6_is_spoken() {
    let bind = Bind::Ip("[::1]:0".parse().unwrap());
    let endpoint = Endpoint::new(bind, Protocols::RawSocket);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("SKIPPED: this machine has no IPv6");
    }
    let (listener, mut infos) = start(endpoint);
    let mut client = connect(&listener).await;
    speak_raw(&mut client).await;
    let info = within(infos.recv()).await.unwrap();
    assert_eq!(info.peer, Address::Ip(client.local_addr().unwrap()));
    assert_eq!(info.local, Address::Ip(client.peer_addr().unwrap()));
}

#[tokio::test]
async fn unix_socket_is_replaced_when_left_behind_and_removed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weald.sock");
    // As a process leaves it that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let endpoint = || Endpoint::new(Bind::Unix(path.clone()), Protocols::Both(web()));
    let (listener, mut infos) = start(endpoint());
    speak_raw(&mut UnixStream::connect(&path).await.unwrap()).await;
    assert_eq!(within(infos.recv()).await.unwrap().local, Address::Unix(Some(path.clone())));
    speak_websocket(&mut UnixStream::connect(&path).await.unwrap()).await;
    let taken = Listener::start(endpoint(), settings(), Arc::new(|_: Connection| ()));
    assert_eq!(taken.unwrap_err().source.kind(), std::io::ErrorKind::AddrInUse);
    within(listener.stop()).await;
    assert!(!path.try_exists().unwrap());
    std::fs::write(&path, "precious").unwrap();
    Listener::start(endpoint(), settings(), Arc::new(|_: Connection| ())).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

/// Writes a certificate of its own for localhost.
fn certify(dir: &Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem"), client_ca: None };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// A TLS client that trusts what is in the file.
async fn connect_tls(listener: &Listener, cert: &PathBuf) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, connect(listener).await)).await
}

#[tokio::test]
async fn tls_carries_both_protocols_and_certificates_are_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let files = certify(dir.path());
    let tls = Arc::new(Tls::load(files.clone(), TlsVersion::default()).unwrap());
    let mut endpoint = Endpoint::new(LOOPBACK, Protocols::Both(web()));
    endpoint.tls = Some(Arc::clone(&tls));
    let (listener, mut infos) = start(endpoint);
    let mut client = connect_tls(&listener, &files.cert).await.unwrap();
    speak_raw(&mut client).await;
    let info = within(infos.recv()).await.unwrap();
    let seen = info.tls.as_ref().unwrap();
    assert_eq!(
        (seen.version.as_str(), seen.server_name.as_deref()),
        ("TLSv1.3", Some("localhost"))
    );
    let label = b"EXPORTER-Channel-Binding";
    let exporter = client.get_ref().1.export_keying_material([0; 32], label, Some(&[])).unwrap();
    assert_eq!(seen.exporter, Some(exporter));
    speak_websocket(&mut connect_tls(&listener, &files.cert).await.unwrap()).await;

    assert!(!tls.reload().unwrap());
    let other = tempfile::tempdir().unwrap();
    let newer = certify(other.path());
    std::fs::write(&files.cert, "nonsense").unwrap();
    tls.reload().unwrap_err();
    connect_tls(&listener, &newer.cert).await.unwrap_err();
    std::fs::copy(&newer.cert, &files.cert).unwrap();
    std::fs::copy(&newer.key, &files.key).unwrap();
    assert!(tls.reload().unwrap());
    speak_raw(&mut connect_tls(&listener, &newer.cert).await.unwrap()).await;
    // Those from before go on.
    client.write_all(b"\0\0\0\x03[2]").await.unwrap();
    assert_eq!(exactly(&mut client, 7).await, b"\0\0\0\x03[2]");
}

#[tokio::test]
async fn tls_carries_long_messages_both_ways_to_a_slow_reader() {
    let dir = tempfile::tempdir().unwrap();
    let files = certify(dir.path());
    let mut endpoint = Endpoint::new(LOOPBACK, Protocols::RawSocket);
    endpoint.tls = Some(Arc::new(Tls::load(files.clone(), TlsVersion::default()).unwrap()));
    let (listener, _infos) = start(endpoint);
    let mut client = connect_tls(&listener, &files.cert).await.unwrap();
    speak_raw(&mut client).await;
    let message = [&[0, 0x3f, 0xff, 0xff][..], &vec![b'x'; 0x3f_ffff]].concat();
    client.write_all(&message).await.unwrap();
    client.write_all(b"\0\0\0\x03end").await.unwrap();
    client.flush().await.unwrap();
    for part in message.chunks(300_000) {
        assert!(exactly(&mut client, part.len()).await == part);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(exactly(&mut client, 7).await, b"\0\0\0\x03end");
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
}

#[tokio::test]
async fn tls_client_that_does_not_read_is_disconnected() {
    let dir = tempfile::tempdir().unwrap();
    let files = certify(dir.path());
    let mut endpoint = Endpoint::new(LOOPBACK, Protocols::RawSocket);
    endpoint.tls = Some(Arc::new(Tls::load(files.clone(), TlsVersion::default()).unwrap()));
    let config = EgressConfig { queue_bytes_max: 200_000, ..EgressConfig::default() };
    let settings = settings_with(config);
    let (ended, mut end) = mpsc::channel(1);
    let serve = move |connection: Connection| {
        let ended = ended.clone();
        drop(tokio::spawn(async move { ended.send(echo(connection).await).await }));
    };
    let listener = Listener::start(endpoint, settings.clone(), Arc::new(serve)).unwrap();
    let mut client = connect_tls(&listener, &files.cert).await.unwrap();
    speak_raw(&mut client).await;
    let message = [&[0, 0, 0x40, 0][..], &[b'x'; 0x4000]].concat();
    let flood = async {
        // Until the server is gone.
        while client.write_all(&message).await.is_ok() {}
        end.recv().await.unwrap()
    };
    assert_eq!(within(flood).await, Read::Kicked(Kick::QueueFull));
    let counts = settings.egress.counts();
    assert_eq!((counts.queue_full, counts.stuck_bytes, counts.stuck_connections), (1, 0, 0));
}

fn behind_proxy(proxies: &str) -> Endpoint {
    let mut endpoint = Endpoint::new(LOOPBACK, Protocols::Both(web()));
    endpoint.proxies = vec![proxies.parse::<IpNet>().unwrap()];
    endpoint
}

/// Version 2 with a command, a family and what follows.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, rest].concat()
}

#[tokio::test]
async fn proxy_tells_who_the_client_is() {
    let (listener, mut infos) = start(behind_proxy("127.0.0.0/8"));
    let v4 = [&[192, 0, 2, 7, 192, 0, 2, 8][..], &[0x12, 0x34, 0, 80]].concat();
    let extended = [&v4[..], &[0x04, 0, 2, 0, 0]].concat();
    let v6: Vec<u8> = [
        &[0x20, 1, 0xd, 0xb8][..],
        &[0; 11],
        &[1],
        &[0x20, 1, 0xd, 0xb8],
        &[0; 11],
        &[2],
        &[0x12, 0x34, 0, 80],
    ]
    .concat();
    for (header, peer) in [
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 4660 80\r\n".to_vec(), Some("192.0.2.7:4660")),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4660 80\r\n".to_vec(), Some("[2001:db8::1]:4660")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN some words\r\n".to_vec(), None),
        (version_2(1, 0x11, &v4), Some("192.0.2.7:4660")),
        (version_2(1, 0x11, &extended), Some("192.0.2.7:4660")),
        (version_2(1, 0x21, &v6), Some("[2001:db8::1]:4660")),
        (version_2(0, 0, &[]), None),
    ] {
        let mut client = connect(&listener).await;
        let own = client.local_addr().unwrap();
        for piece in header.chunks(7) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        speak_raw(&mut client).await;
        let info = within(infos.recv()).await.unwrap();
        let expected = peer.map_or(own, |peer| peer.parse().unwrap());
        assert_eq!((&info.peer, info.proxy), (&Address::Ip(expected), Some(own)), "{header:x?}");
    }
    let mut client = connect(&listener).await;
    client.write_all(b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n").await.unwrap();
    speak_websocket(&mut client).await;
    let info = within(infos.recv()).await.unwrap();
    assert_eq!(info.peer, Address::Ip("192.0.2.9:1".parse().unwrap()));
    assert_eq!(info.local, Address::Ip("192.0.2.8:2".parse().unwrap()));
}

#[tokio::test]
async fn bad_proxy_headers_and_headers_of_others_are_refused() {
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 4660 80\r\n".to_vec();
    let long = [b"PROXY UNKNOWN ", &[b'x'; 100][..], b"\r\n"].concat();
    for (proxies, bytes) in [
        ("127.0.0.0/8", RAW.repeat(8)),
        ("127.0.0.0/8", b"PROXY TCP4 192.0.2.7 192.0.2.8 4660\r\n".to_vec()),
        ("127.0.0.0/8", b"PROXY TCP4 192.0.2.777 192.0.2.8 4660 80\r\n".to_vec()),
        ("127.0.0.0/8", long),
        ("127.0.0.0/8", version_2(1, 0x11, &[1, 2, 3])),
        ("127.0.0.0/8", version_2(1, 0x12, &[0; 12])),
        ("127.0.0.0/8", version_2(1, 0x11, &[0; 4_000])),
        ("192.0.2.0/24", [header.clone(), RAW.to_vec()].concat()),
        ("192.0.2.0/24", [version_2(0, 0, &[]), RAW.to_vec()].concat()),
    ] {
        let (listener, mut infos) = start(behind_proxy(proxies));
        let mut client = connect(&listener).await;
        client.write_all(&bytes).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
            "{bytes:x?}: {answer:x?}"
        );
        within(listener.stop()).await;
        assert!(infos.recv().await.is_none());
    }
}

#[tokio::test]
async fn too_many_connections_are_told_so_and_room_is_made_by_those_that_end() {
    let mut endpoint = Endpoint::new(LOOPBACK, Protocols::Both(web()));
    endpoint.connections_max = 2;
    let (listener, _infos) = start(endpoint);
    let (mut one, mut two) = (connect(&listener).await, connect(&listener).await);
    speak_raw(&mut one).await;
    speak_websocket(&mut two).await;
    assert_eq!(listener.connections(), 2);
    let mut three = connect(&listener).await;
    three.write_all(RAW).await.unwrap();
    assert_eq!(rest(&mut three).await, [0x7f, 0x40, 0, 0]);
    let mut three = connect(&listener).await;
    three.write_all(request("").as_bytes()).await.unwrap();
    assert!(head(&mut three).await.starts_with("HTTP/1.1 503 "));
    drop((one, three));
    let freed = async {
        while listener.connections() > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(freed).await;
    speak_raw(&mut connect(&listener).await).await;
}

#[tokio::test]
async fn oldest_handshake_goes_when_there_are_too_many() {
    let mut endpoint = Endpoint::new(LOOPBACK, Protocols::RawSocket);
    endpoint.handshakes_max = 3;
    endpoint.handshake_timeout = PATIENCE;
    let (listener, _infos) = start(endpoint);
    let mut oldest = connect(&listener).await;
    oldest.write_all(&RAW[..2]).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(connect(&listener).await);
    }
    speak_raw(&mut connect(&listener).await).await;
    assert_eq!(rest(&mut oldest).await, b"");
    for other in &mut others {
        speak_raw(other).await;
    }
}

#[tokio::test]
async fn slow_handshakes_are_given_up() {
    for protocols in [Protocols::RawSocket, Protocols::Web(web()), Protocols::Both(web())] {
        let mut endpoint = Endpoint::new(LOOPBACK, protocols);
        endpoint.handshake_timeout = Duration::from_millis(100);
        let (listener, _infos) = start(endpoint);
        for begin in [&b""[..], b"\x7f", b"GET"] {
            let mut client = connect(&listener).await;
            client.write_all(begin).await.unwrap();
            rest(&mut client).await;
        }
    }
}

#[tokio::test]
async fn idle_http_connection_is_given_up() {
    let mut endpoint = Endpoint::new(LOOPBACK, Protocols::Web(web()));
    endpoint.handshake_timeout = Duration::from_millis(300);
    let (listener, _infos) = start(endpoint);
    let mut client = connect(&listener).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 404 "));
    assert!(rest(&mut client).await.starts_with(b"not found\n"));
}

/// Goal: a listener without descriptors goes on when there are some again. Method: the test runs itself in a process that
/// may have few, and takes them all.
#[tokio::test]
async fn listener_survives_that_descriptors_run_out() {
    const INNER: &str = "WEALD_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(INNER).is_none() {
        let mut again = tokio::process::Command::new("sh");
        again
            .args(["-c", "ulimit -n 60 && exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap());
        again.args(["--exact", "listener::listener_survives_that_descriptors_run_out"]);
        let output = within(again.env(INNER, "1").output()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        return assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    let (listener, mut infos) = start(Endpoint::new(LOOPBACK, Protocols::RawSocket));
    let mut clients = Vec::new();
    let error = loop {
        match TcpStream::connect(port(&listener)).await {
            Ok(mut client) => {
                client.write_all(RAW).await.unwrap();
                clients.push(client);
            }
            Err(e) => break e,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    // Too many open files: for the server, too, who accepts from the same ones.
    assert_eq!(error.raw_os_error(), Some(24), "{error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut accepted = 0;
    while infos.try_recv().is_ok() {
        accepted += 1;
    }
    assert!(accepted > 0 && accepted <= clients.len(), "{accepted} of {}", clients.len());
    drop(clients);
    let mut client = within(async {
        loop {
            if let Ok(client) = TcpStream::connect(port(&listener)).await {
                break client;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    speak_raw(&mut client).await;
}

#[tokio::test]
async fn stopped_listener_frees_its_port_and_leaves_connections_alone() {
    let (listener, mut infos) = start(Endpoint::new(LOOPBACK, Protocols::Both(web())));
    let address = port(&listener);
    let mut client = connect(&listener).await;
    speak_raw(&mut client).await;
    let mut late = connect(&listener).await;
    late.write_all(&RAW[..2]).await.unwrap();
    let mut page = connect(&listener).await;
    page.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(head(&mut page).await.starts_with("HTTP/1.1 404 "));
    exactly(&mut page, b"not found\n".len()).await;
    let stopped = within(listener.stop()).await;
    let again = std::net::TcpListener::bind(address).unwrap();
    drop(again);
    assert_eq!(rest(&mut late).await, b"");
    // One that may still ask for pages gets no session any more.
    let ask = request("Sec-WebSocket-Protocol: wamp.2.json\r\n");
    page.write_all(ask.as_bytes()).await.unwrap();
    within(stopped.wait(Duration::from_millis(200))).await;
    client.write_all(b"\0\0\0\x03[2]").await.unwrap();
    assert_eq!(exactly(&mut client, 7).await, b"\0\0\0\x03[2]");
    assert_eq!(within(infos.recv()).await.unwrap().kind, Kind::RawSocket);
    assert!(within(infos.recv()).await.is_none());
}

#[tokio::test]
async fn taken_port_is_an_error_that_names_it() {
    let (listener, _infos) = start(Endpoint::new(LOOPBACK, Protocols::RawSocket));
    let bind = Bind::Ip(port(&listener));
    let endpoint = Endpoint::new(bind, Protocols::RawSocket);
    let error = Listener::start(endpoint, settings(), Arc::new(|_: Connection| ())).unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {}", listener.address()));
}
