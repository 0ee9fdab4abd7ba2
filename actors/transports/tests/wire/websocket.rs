//! WebSocket: the opening handshake, subprotocols, limits, and what WAMP adds.

use crate::common::{
    GRACE, PATIENCE, echo, exactly, head, request, rest, settings, tcp_pair, web, websocket_pair,
    within,
};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use weald_transports::{Class, Close, CloseReason, Pushed, Read, Violation, accept_web};
use weald_wamp::Serializer;
use weald_wamp::batch::BatchError;

/// The answer to a request.
async fn answer(request: String) -> String {
    let (accepted, mut client) = tcp_pair().await;
    let server = tokio::spawn(async move {
        let accepted = accept_web(accepted, &web(), &settings(), PATIENCE).await;
        drop(accepted);
    });
    client.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut client).await;
    drop(client);
    within(server).await.unwrap();
    head
}

fn has(head: &str, header: &str) -> bool {
    head.lines().any(|line| line.eq_ignore_ascii_case(header))
}

const JSON: &str = "Sec-WebSocket-Protocol: wamp.2.json\r\n";

#[tokio::test]
async fn opening_is_answered_as_the_protocol_says() {
    let head = answer(request(JSON)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(has(&head, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert!(has(&head, "sec-websocket-protocol: wamp.2.json"), "{head}");
    assert!(has(&head, "upgrade: websocket") && has(&head, "connection: upgrade"), "{head}");
    assert!(!head.to_lowercase().contains("sec-websocket-extensions"), "{head}");
}

#[tokio::test]
async fn first_known_subprotocol_of_the_offer_is_taken() {
    for (offer, taken) in [
        ("wamp.2.cbor, wamp.2.json", "wamp.2.cbor"),
        ("wamp.2.ubjson,wamp.2.msgpack.batched,wamp.2.json", "wamp.2.msgpack.batched"),
        ("x\r\nSec-WebSocket-Protocol: wamp.2.json.batched", "wamp.2.json.batched"),
    ] {
        let head = answer(request(&format!("Sec-WebSocket-Protocol: {offer}\r\n"))).await;
        assert!(has(&head, &format!("sec-websocket-protocol: {taken}")), "{offer}: {head}");
    }
}

#[tokio::test]
async fn bad_openings_are_refused_with_their_status() {
    let good = request(JSON);
    for (request, status) in [
        (request(""), 400),
        (request("Sec-WebSocket-Protocol: mqtt, WAMP.2.json\r\n"), 400),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("GET", "POST"), 400),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        (good.replace("Upgrade: WebSocket", "Upgrade: h2c"), 426),
        (good.replace("/ws", "/other"), 404),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400),
    ] {
        let head = answer(request.clone()).await;
        assert!(head[8..].starts_with(&format!(" {status} ")), "{request}: {head}");
    }
    let head = answer(good.replace("Version: 13", "Version: 8")).await;
    assert!(has(&head, "sec-websocket-version: 13"), "{head}");
}

#[tokio::test]
async fn browsers_get_in_from_listed_origins_only() {
    for (origin, status) in
        [("https://good.example", 101), ("https://evil.example", 403), ("null", 403)]
    {
        let head = answer(request(&format!("{JSON}Origin: {origin}\r\n"))).await;
        assert!(head[8..].starts_with(&format!(" {status} ")), "{origin}: {head}");
    }
}

#[tokio::test]
async fn endless_head_is_refused() {
    let (accepted, mut client) = tcp_pair().await;
    let server = tokio::spawn(async move {
        accept_web(accepted, &web(), &settings(), PATIENCE).await.map(|_| ())
    });
    let header = format!("X-Long: {}\r\n", "x".repeat(1_000));
    client.write_all(b"GET /ws HTTP/1.1\r\n").await.unwrap();
    for _ in 0..100 {
        if client.write_all(header.as_bytes()).await.is_err() {
            break;
        }
    }
    assert!(within(server).await.unwrap().is_err());
}

#[tokio::test]
async fn slow_head_is_given_up() {
    let (accepted, mut client) = tcp_pair().await;
    let server = tokio::spawn(async move {
        let patience = Duration::from_millis(100);
        accept_web(accepted, &web(), &settings(), patience).await.map(|_| ())
    });
    client.write_all(b"GET /ws HTTP/1.1\r\nHost:").await.unwrap();
    assert!(within(server).await.unwrap().is_err());
    rest(&mut client).await;
}

#[tokio::test]
async fn frames_glued_to_the_request_are_read() {
    let (accepted, mut client) = tcp_pair().await;
    let mut bytes = request(JSON).into_bytes();
    bytes.extend(b"\x81\x83\0\0\0\0[1]\x81\x83\0\0\0\0[");
    client.write_all(&bytes).await.unwrap();
    let accepted = within(accept_web(accepted, &web(), &settings(), PATIENCE)).await;
    let connection = accepted.unwrap().unwrap();
    assert_eq!(connection.info().serializer, Serializer::Json);
    assert_eq!(connection.info().http.as_ref().unwrap().target, "/ws");
    let server = tokio::spawn(echo(connection));
    head(&mut client).await;
    assert_eq!(exactly(&mut client, 5).await, b"\x81\x03[1]");
    client.write_all(b"2]").await.unwrap();
    assert_eq!(exactly(&mut client, 5).await, b"\x81\x03[2]");
    drop(client);
    assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::Peer));
}

/// What the server reads last and the client last gets.
async fn fails(protocol: &str, bytes: &[u8]) -> (Read, Vec<u8>) {
    let mut settings = settings();
    settings.message_bytes_max = 1_000;
    let (connection, mut client) = websocket_pair(protocol, &settings).await;
    let server = tokio::spawn(echo(connection));
    client.write_all(bytes).await.unwrap();
    let got = rest(&mut client).await;
    drop(client);
    (within(server).await.unwrap(), got)
}

#[tokio::test]
async fn violations_close_with_their_code() {
    let masked = |first: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
    };
    for (protocol, bytes, violation, code) in [
        ("wamp.2.json", masked(0x82, b"x"), Violation::Type, 1003_u16),
        ("wamp.2.cbor", masked(0x81, b"x"), Violation::Type, 1003),
        ("wamp.2.json.batched", masked(0x81, b""), Violation::Batch(BatchError::Empty), 1002),
        (
            "wamp.2.json.batched",
            masked(0x81, b"[1]"),
            Violation::Batch(BatchError::Truncated),
            1002,
        ),
        (
            "wamp.2.cbor.batched",
            masked(0x82, b"\0\0\0\x05x"),
            Violation::Batch(BatchError::Truncated),
            1002,
        ),
        ("wamp.2.json", b"\x81\x03[1]".to_vec(), Violation::Protocol("frame is not masked"), 1002),
        (
            "wamp.2.json",
            b"\x81\xfe\0\x03\0\0\0\0[1]".to_vec(),
            Violation::Protocol("length is not in its shortest form"),
            1002,
        ),
        (
            "wamp.2.json",
            b"\x81\xfe\x03\xe9\0\0\0\0".to_vec(),
            Violation::TooLong { max: 1_000 },
            1009,
        ),
        (
            "wamp.2.json",
            b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
            Violation::TooLong { max: 1_000 },
            1009,
        ),
        (
            "wamp.2.json",
            [b"\x01\xfe\x03\xe8\0\0\0\0", &[b'x'; 1_000][..], b"\x80\x81\0\0\0\0x"].concat(),
            Violation::TooLong { max: 1_000 },
            1009,
        ),
    ] {
        let (read, got) = fails(protocol, &bytes).await;
        assert_eq!(read, Read::Closed(CloseReason::WebSocket(violation)), "{bytes:x?}");
        assert_eq!(got, [&[0x88, 2], &code.to_be_bytes()[..]].concat(), "{violation}");
    }
}

#[tokio::test]
async fn batches_are_taken_apart_and_sent_as_batches_of_one() {
    for (protocol, sent, got) in [
        (
            "wamp.2.json.batched",
            &b"\x81\x88\0\0\0\0[1]\x1e[2]\x18"[..],
            &b"\x81\x04[1]\x1e\x81\x04[2]\x1e"[..],
        ),
        (
            "wamp.2.cbor.batched",
            b"\x82\x8b\0\0\0\0\0\0\0\x01a\0\0\0\x02bc",
            b"\x82\x05\0\0\0\x01a\x82\x06\0\0\0\x02bc",
        ),
    ] {
        let (connection, mut client) = websocket_pair(protocol, &settings()).await;
        assert!(connection.info().batched);
        let server = tokio::spawn(echo(connection));
        client.write_all(sent).await.unwrap();
        assert_eq!(exactly(&mut client, got.len()).await, got);
        client.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
        assert_eq!(rest(&mut client).await, b"\x88\0");
        drop(client);
        assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::WebSocketClosed(None)));
    }
}

#[tokio::test]
async fn server_closes_and_waits_for_the_answer() {
    let (connection, mut client) = websocket_pair("wamp.2.json", &settings()).await;
    let outbox = connection.outbox().clone();
    let framed = outbox.framing().frame(|out| out.extend_from_slice(b"[6]"));
    assert_eq!(outbox.push(framed, Class::Reply), Pushed::First);
    let closing = tokio::spawn(connection.close(Close::GoingAway, PATIENCE));
    assert_eq!(exactly(&mut client, 9).await, b"\x81\x03[6]\x88\x02\x03\xe9");
    client.write_all(b"\x81\x81\0\0\0\0x\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
    drop(client);
    within(closing).await.unwrap();
}

#[tokio::test]
async fn peer_that_does_not_answer_the_close_is_left() {
    let (connection, mut client) = websocket_pair("wamp.2.json", &settings()).await;
    let closing = tokio::spawn(connection.close(Close::Normal, Duration::from_millis(200)));
    assert_eq!(rest(&mut client).await, b"\x88\x02\x03\xe8");
    within(closing).await.unwrap();
}

#[tokio::test]
async fn silent_peer_is_pinged_and_then_given_up() {
    let mut settings = settings();
    settings.ping_interval = Some(Duration::from_millis(50));
    settings.ping_timeout = Duration::from_secs(3);
    let (connection, mut client) = websocket_pair("wamp.2.msgpack", &settings).await;
    let server = tokio::spawn(echo(connection));
    assert_eq!(exactly(&mut client, 2).await, [0x89, 0]);
    client.write_all(b"\x8a\x80\0\0\0\0").await.unwrap();
    assert_eq!(exactly(&mut client, 2).await, [0x89, 0]);
    assert_eq!(rest(&mut client).await, [0x88, 2, 0x03, 0xe8]);
    drop(client);
    assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::Silent));
    assert!(GRACE < PATIENCE);
}
