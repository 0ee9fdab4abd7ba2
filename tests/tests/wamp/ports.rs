//! Keys of `[listeners]`: the ports of a node, and how they are secured.

use crate::net::{A, B, Net, REALM, none};
use crate::nodes::{Own, ways};
use crate::run::Run;
use serde_json::json;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;
use weald_link::pki::{self, Authority};
use weald_tests::harness::wait::wait_until;
use weald_tests::wamp::{
    At, PATIENCE, Peer, SERVER, Serializer, Stream, Transport, Trust, details, upgrade,
};

pub(crate) fn add(run: &mut Run) {
    run.alone(tls_ports_carry_sessions_and_renew_their_certificates);
    run.alone(clients_without_a_certificate_of_the_authority_are_refused);
    run.alone(unix_socket_alone_carries_sessions);
    run.alone(proxies_tell_who_their_clients_are);
    run.alone(ports_speak_ipv6_at_the_path_and_to_the_pages_they_are_told);
}

/// Calls, events and answers between the two sides of a net: what a port is for.
fn works(net: &Net) {
    let (mut caller, mut callee) = net.pair();
    let (procedure, topic) = (net.uri("procedure"), net.uri("topic"));
    let registration = callee.register(&procedure, &none());
    let subscription = callee.subscribe(&topic, &none());
    let args = json!(["x".repeat(100_000), "\u{0}AQI="]);
    let request = caller.call(&procedure, &none(), &args);
    let call = callee.invoked(registration);
    callee.yields(call.request, &none(), &call.args);
    caller.result(request, &args);
    caller.publish(&topic, &none(), &args);
    callee.event(subscription, &args);
    caller.goodbye();
}

/// What others see of how a session is connected.
fn seen(peer: &mut Peer) -> serde_json::Value {
    let session = peer.session;
    peer.ask("wamp.session.get", &json!([session]), &none())[0]["transport"].clone()
}

/// Writes files that a server or a client shows; certificate and key.
fn issue(own: &Own, authority: &Authority, name: &str) -> (PathBuf, PathBuf) {
    let bundle = pki::issue(authority, "clients", name, &[SERVER.to_owned()]).unwrap();
    let files = (own.file(&format!("{name}.pem")), own.file(&format!("{name}.key")));
    // Key first, as a careful renewal does not: between the two they do not fit, which is no harm.
    fs::write(&files.1, bundle.key_pem).unwrap();
    fs::write(&files.0, bundle.cert_pem).unwrap();
    files
}

fn authority(own: &Own, name: &str) -> (Authority, PathBuf) {
    let authority = pki::make_authority("clients").unwrap();
    let file = own.file(&format!("{name}.pem"));
    fs::write(&file, &authority.cert_pem).unwrap();
    (authority, file)
}

const TLS_PORTS: [(&str, &str); 4] = [
    ("listeners.https", "\"127.0.0.1:0\""),
    ("listeners.rawsocket_tls", "\"127.0.0.1:0\""),
    // Beside the file of the configuration.
    ("listeners.tls_certificate", "\"web.pem\""),
    ("listeners.tls_key", "\"web.key\""),
];

fn secure(own: &Own, transport: Transport, trust: &Trust) -> At {
    let port = match transport {
        Transport::RawSocket => "rawsocket_tls",
        Transport::WebSocket => "https",
    };
    At::Tls(own.at(port), trust.clone())
}

/// Whether a client gets as far as a session. A refused TLS 1.3 client may hear of it only when it reads.
fn gets_in(at: &At) -> bool {
    let Ok(mut stream) = Stream::connect(at) else { return false };
    if stream.write_all(&[0x7f, 0xf2, 0, 0]).is_err() {
        return false;
    }
    let mut answer = [0; 4];
    matches!(stream.read(&mut answer, Instant::now() + PATIENCE), Ok(Some(4)))
}

fn tls_ports_carry_sessions_and_renew_their_certificates(_: &Run) -> String {
    let mut own = Own::prepare("tls");
    let (first, trusted) = authority(&own, "first");
    let (second, newer) = authority(&own, "second");
    issue(&own, &first, "web");
    own.run_with(&TLS_PORTS);
    let trust = Trust::of(&trusted);
    for way in ways() {
        let [raw, web] = [Transport::RawSocket, Transport::WebSocket]
            .map(|transport| secure(&own, transport, &trust));
        works(&own.net_at(way, raw.clone(), web.clone()));
        let old = [Transport::RawSocket, Transport::WebSocket]
            .map(|transport| secure(&own, transport, &trust.clone().old()));
        works(&own.net_at(way, old[0].clone(), old[1].clone()));
        let mut peer = own.net_at(way, raw, web).peer("secure", A);
        assert_eq!(seen(&mut peer)["is_secure"], true);
        // Beside them the ports without TLS go on.
        let mut plain = own.net(way).peer("plain", B);
        assert_eq!(seen(&mut plain)["is_secure"], false);
    }
    let raw = |trust: &Trust| secure(&own, Transport::RawSocket, trust);
    assert!(!gets_in(&raw(&Trust::of(&newer))), "an authority that did not sign is believed");
    let net = own.net_at((Transport::RawSocket, Serializer::Json), raw(&trust), raw(&trust));
    let mut standing = net.peer("standing", A);

    // Nonsense is said in the log, and not used.
    fs::write(own.file("web.pem"), "nonsense").unwrap();
    let mut own = own;
    wait_until(PATIENCE, "word of bad files", || {
        let log = own.cluster.node(0).log();
        if log.contains("client_certificates_bad") { Ok(()) } else { Err("none") }
    });
    let raw = |trust: &Trust| secure(&own, Transport::RawSocket, trust);
    assert!(gets_in(&raw(&trust)), "files that make no sense are in use");
    issue(&own, &second, "web");
    wait_until(PATIENCE, "the new certificate", || {
        if gets_in(&raw(&Trust::of(&newer))) { Ok(()) } else { Err("the old one") }
    });
    assert!(!gets_in(&raw(&trust)), "the old certificate is still shown");
    standing.subscribe(&net.uri("topic"), &none());
    drop(standing);
    own.finish();
    "12 ways, one renewal".to_owned()
}

fn clients_without_a_certificate_of_the_authority_are_refused(_: &Run) -> String {
    let mut own = Own::prepare("mtls");
    let (servers, trusted) = authority(&own, "servers");
    let (clients, _) = authority(&own, "clients");
    let (others, _) = authority(&own, "others");
    issue(&own, &servers, "web");
    let (certificate, key) = issue(&own, &clients, "client");
    let (foreign, foreign_key) = issue(&own, &others, "foreign");
    let keys =
        [("listeners.tls_client_ca", "\"clients.pem\""), ("listeners.tls_version_min", "\"1.3\"")];
    own.run_with(&[&TLS_PORTS[..], &keys].concat());
    let anybody = Trust::of(&trusted);
    let known = anybody.clone().with(&certificate, &key);
    for way in ways() {
        let at = secure(&own, way.0, &known);
        works(&own.net_at(way, at.clone(), at));
    }
    for (trust, is_let_in) in [
        (known.clone(), true),
        (anybody.clone(), false),
        (anybody.with(&foreign, &foreign_key), false),
        (known.old(), false),
    ] {
        let at = secure(&own, Transport::RawSocket, &trust);
        assert_eq!(gets_in(&at), is_let_in, "{trust:?}");
    }
    // Wrong files are told before anything runs.
    own.cluster.stop(0);
    fs::write(own.file("web.key"), "nonsense").unwrap();
    let refused = own.cluster.site(0).start_or_end();
    let Err((status, said)) = refused else { panic!("a node started without a key") };
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("listeners.tls_certificate") && said.contains("web.key"), "{said}");
    own.finish();
    "6 ways, 3 refusals".to_owned()
}

fn unix_socket_alone_carries_sessions(_: &Run) -> String {
    let mut own = Own::start(
        "unix",
        &[
            ("listeners.http", "\"\""),
            ("listeners.rawsocket", "\"\""),
            ("listeners.unix", "\"wamp.sock\""),
        ],
    );
    let status = own.cluster.block(own.cluster.client(0).status()).unwrap();
    let listen = &status["listen"];
    assert!(listen["http"].is_null() && listen["rawsocket"].is_null(), "{listen}");
    let path = own.cluster.site(0).data().join("wamp.sock");
    assert_eq!(listen["unix"], path.to_string_lossy().as_ref());
    let at = At::Unix(path.clone());
    for way in ways() {
        let net = own.net_at(way, at.clone(), at.clone());
        works(&net);
        let mut peer = net.peer("unix", A);
        assert!(seen(&mut peer)["peer"].as_str().is_some_and(|p| p.starts_with("unix")));
    }
    own.cluster.stop(0);
    assert!(matches!(path.try_exists(), Ok(false)), "the socket is left behind");
    own.cluster.set_config(0, &[("listeners.unix", "\"/nonexistent/wamp.sock\"")]);
    let Err((status, said)) = own.cluster.site(0).start_or_end() else { panic!("no such folder") };
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("listeners.unix: /nonexistent/wamp.sock"), "{said}");
    own.finish();
    "6 ways".to_owned()
}

/// What a proxy says of a client, in the second version of the protocol.
fn second_version(client: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    let IpAddr::V4(address) = client.ip() else { panic!("{client}") };
    header.extend(address.octets());
    header.extend([127, 0, 0, 1]);
    header.extend(client.port().to_be_bytes());
    header.extend([0x46, 0x92]);
    header
}

fn first_version(client: SocketAddr) -> Vec<u8> {
    format!("PROXY TCP4 {} 127.0.0.1 {} 18082\r\n", client.ip(), client.port()).into_bytes()
}

fn proxies_tell_who_their_clients_are(_: &Run) -> String {
    let mut own = Own::start(
        "proxies",
        &[("listeners.proxies", "[\"127.0.0.0/8\"]"), ("clients.handshake_timeout", "\"3s\"")],
    );
    let near: SocketAddr = "127.9.9.9:4711".parse().unwrap();
    let far: SocketAddr = "192.0.2.7:4711".parse().unwrap();
    let behind = |own: &Own, header: Vec<u8>| {
        ["rawsocket", "http"].map(|port| At::Behind(own.at(port), header.clone()))
    };
    for way in ways() {
        for header in [first_version(near), second_version(near)] {
            let [raw, web] = behind(&own, header);
            let net = own.net_at(way, raw, web);
            works(&net);
            assert_eq!(seen(&mut net.peer("behind", A))["peer"], "127.9.9.9:4711");
        }
        // The realm is open to this machine: where that is, the proxy says.
        let [raw, web] = behind(&own, first_version(far));
        let mut peer = own.net_at(way, raw, web).connect("far", A);
        peer.send(&json!([1, REALM, details()]));
        peer.expect(&json!([3, {}, "wamp.error.authentication_required"]));
        peer.expect_closed();
    }
    // A proxy must say something.
    assert!(!gets_in(&At::Tcp(own.at("rawsocket"))), "a proxy that says nothing is believed");

    // Nobody else is believed; and anybody may be let in.
    own.run_with(&[
        ("listeners.proxies", "[\"10.0.0.0/8\", \"::1\"]"),
        ("realm.anonymous", "\"anywhere\""),
    ]);
    assert!(
        !gets_in(&At::Behind(own.at("rawsocket"), first_version(near))),
        "a stranger is believed"
    );
    works(&own.plain());
    own.run_with(&[("listeners.proxies", "[\"127.0.0.1\"]"), ("realm.anonymous", "\"anywhere\"")]);
    for way in ways() {
        let [raw, web] = behind(&own, second_version(far));
        let mut peer = own.net_at(way, raw, web).peer("far", A);
        assert_eq!(seen(&mut peer)["peer"], "192.0.2.7:4711");
    }
    own.finish();
    "6 ways, both versions".to_owned()
}

/// The status of a request for a WebSocket from a page.
fn asked_from(at: SocketAddr, path: &str, page: &str) -> u16 {
    let mut stream = Stream::connect(&At::Tcp(at)).unwrap();
    let origin = if page.is_empty() { String::new() } else { format!("Origin: {page}\r\n") };
    let end = Instant::now() + PATIENCE;
    upgrade(&mut stream, path, "wamp.2.json", &origin, end).unwrap().0
}

fn ports_speak_ipv6_at_the_path_and_to_the_pages_they_are_told(_: &Run) -> String {
    let loopback =
        if std::net::TcpListener::bind("[::1]:0").is_ok() { "[::1]:0" } else { "127.0.0.1:0" };
    let own = Own::start(
        "paths",
        &[
            ("listeners.http", loopback),
            ("listeners.rawsocket", loopback),
            ("listeners.websocket_path", "\"/router\""),
            ("listeners.origins", "[\"https://example.com\"]"),
        ],
    );
    let (raw, web) = (own.at("rawsocket"), own.at("http"));
    for serializer in Serializer::ALL {
        let net = own.net_at((Transport::RawSocket, serializer), At::Tcp(raw), At::Tcp(web));
        works(&net);
        let peer = seen(&mut net.peer("a", A));
        let family = if loopback.starts_with('[') { "[::1]:" } else { "127.0.0.1:" };
        assert!(peer["peer"].as_str().is_some_and(|at| at.starts_with(family)), "{peer}");
    }
    for (path, page, status) in [
        ("/router", "", 101),
        ("/router", "https://example.com", 101),
        ("/router", "https://example.net", 403),
        ("/ws", "", 404),
    ] {
        assert_eq!(asked_from(web, path, page), status, "{path} from {page:?}");
    }
    own.finish();
    loopback.to_owned()
}
