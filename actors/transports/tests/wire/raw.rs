//! RawSocket over TCP, byte for byte.

use crate::common::{echo, exactly, raw_pair, rest, settings, tcp_pair, within};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use weald_transports::raw::{FrameError, HandshakeError};
use weald_transports::{Class, CloseReason, Framing, Kick, Pushed, Read, Rejected, accept_raw};
use weald_wamp::Serializer;

/// The handshake in the given pieces, and what comes of it.
async fn handshake(pieces: &[&[u8]]) -> (Result<Serializer, HandshakeError>, Vec<u8>) {
    let (accepted, mut client) = tcp_pair().await;
    let settings = settings();
    let server = tokio::spawn(async move {
        match accept_raw(accepted, &settings).await {
            Ok(connection) => Ok(connection.info().serializer),
            Err(Rejected::Raw(why)) => Err(why),
            Err(e) => panic!("{e}"),
        }
    });
    for piece in pieces {
        client.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (within(server).await.unwrap(), rest(&mut client).await)
}

#[tokio::test]
async fn handshake_of_each_serializer_is_echoed() {
    for (code, serializer) in
        [(1, Serializer::Json), (2, Serializer::MsgPack), (3, Serializer::Cbor)]
    {
        let (outcome, answer) = handshake(&[&[0x7f, 0x50 | code, 0, 0]]).await;
        assert_eq!(outcome, Ok(serializer));
        assert_eq!(answer, [0x7f, 0xf0 | code, 0, 0]);
    }
}

#[tokio::test]
async fn handshake_in_any_pieces_is_understood() {
    for at in 1..4 {
        let octets = [0x7f, 0xf2, 0, 0];
        let (outcome, _) = handshake(&[&octets[..at], &octets[at..]]).await;
        assert_eq!(outcome, Ok(Serializer::MsgPack));
    }
    let (outcome, _) = handshake(&[&[0x7f], &[0xf1], &[0], &[0]]).await;
    assert_eq!(outcome, Ok(Serializer::Json));
}

#[tokio::test]
async fn bad_handshakes_are_answered_with_their_code() {
    for (octets, why, answer) in [
        ([0x7f, 0xf0, 0, 0], HandshakeError::SerializerUnsupported(0), Some(1)),
        ([0x7f, 0xf4, 0, 0], HandshakeError::SerializerUnsupported(4), Some(1)),
        ([0x7f, 0xff, 0, 0], HandshakeError::SerializerUnsupported(15), Some(1)),
        ([0x7f, 0xf2, 1, 0], HandshakeError::ReservedBits, Some(3)),
        ([0x7f, 0xf2, 0, 1], HandshakeError::ReservedBits, Some(3)),
        (*b"GET ", HandshakeError::NotRawSocket(b'G'), None),
    ] {
        let (outcome, bytes) = handshake(&[&octets]).await;
        assert_eq!(outcome, Err(why));
        let expected: Vec<u8> = answer.map_or(Vec::new(), |code| vec![0x7f, code << 4, 0, 0]);
        assert_eq!(bytes, expected);
    }
}

#[tokio::test]
async fn frames_glued_to_the_handshake_are_read() {
    let (accepted, mut client) = tcp_pair().await;
    client.write_all(b"\x7f\xf2\0\0\0\0\0\x02hi\x01\0\0\x01p\0\0\0\x01x").await.unwrap();
    let connection = within(accept_raw(accepted, &settings())).await.unwrap();
    let server = tokio::spawn(echo(connection));
    assert_eq!(exactly(&mut client, 4).await, [0x7f, 0xf2, 0, 0]);
    // The pong comes at once, the messages after they have been looked at.
    assert_eq!(exactly(&mut client, 5).await, b"\x02\0\0\x01p");
    assert_eq!(exactly(&mut client, 11).await, b"\0\0\0\x02hi\0\0\0\x01x");
    drop(client);
    assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::Peer));
}

#[tokio::test]
async fn messages_of_any_length_come_back() {
    let (connection, mut client) = raw_pair(&settings()).await;
    let server = tokio::spawn(echo(connection));
    for bytes in [0, 1, 15, 16, 4_095, 65_531, 65_536, 70_000, 1 << 20, (1 << 24) - 1, 1 << 24] {
        let sent = Framing::RawSocket
            .frame(|out| out.extend((0..bytes).map(|at| u8::try_from(at % 251).unwrap())));
        let (read, mut write) = client.split();
        let mut read = read;
        let (echoed, ()) = tokio::join!(exactly(&mut read, sent.len()), async {
            write.write_all(&sent).await.unwrap();
        });
        assert!(echoed == sent, "{bytes}");
    }
    client.shutdown().await.unwrap();
    assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::Peer));
    assert_eq!(rest(&mut client).await, b"");
}

#[tokio::test]
async fn broken_frames_end_the_connection() {
    for (bytes, why) in [
        (b"\x10\0\0\0", FrameError::ReservedBits(0x10)),
        (b"\x80\0\0\0", FrameError::ReservedBits(0x80)),
        (b"\x08\0\0\x01", FrameError::ReservedBits(0x08)),
        (b"\x03\0\0\0", FrameError::ReservedType(3)),
        (b"\x07\0\0\0", FrameError::ReservedType(7)),
    ] {
        let (connection, mut client) = raw_pair(&settings()).await;
        let server = tokio::spawn(echo(connection));
        client.write_all(b"\0\0\0\x02hi").await.unwrap();
        client.write_all(bytes).await.unwrap();
        assert_eq!(exactly(&mut client, 6).await, b"\0\0\0\x02hi");
        assert_eq!(rest(&mut client).await, b"");
        drop(client);
        assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::Raw(why)));
    }
}

#[tokio::test]
async fn frame_over_the_limit_ends_the_connection_before_it_has_come() {
    let (accepted, mut client) = tcp_pair().await;
    let mut settings = settings();
    settings.message_bytes_max = 1_500;
    client.write_all(b"\x7f\xf2\0\0").await.unwrap();
    let connection = within(accept_raw(accepted, &settings)).await.unwrap();
    // 1,024 is what is announced.
    assert_eq!(exactly(&mut client, 4).await, [0x7f, 0x12, 0, 0]);
    let server = tokio::spawn(echo(connection));
    client.write_all(b"\0\0\x04\x01").await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
    drop(client);
    let why = FrameError::TooLong { bytes: 1_025, max: 1_024 };
    assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::Raw(why)));
}

#[tokio::test]
async fn end_within_a_message_is_an_end() {
    let (mut connection, mut client) = raw_pair(&settings()).await;
    client.write_all(b"\0\0\0\x09par").await.unwrap();
    drop(client);
    let mut inbox = Vec::new();
    let read = within(connection.read(&mut inbox, None)).await;
    assert_eq!((read, inbox.len()), (Read::Closed(CloseReason::Peer), 0));
}

#[tokio::test]
async fn deadline_passes_and_reading_goes_on() {
    let (mut connection, mut client) = raw_pair(&settings()).await;
    let mut inbox = Vec::new();
    let soon = Instant::now() + Duration::from_millis(30);
    assert_eq!(within(connection.read(&mut inbox, Some(soon))).await, Read::Deadline);
    assert!(Instant::now() >= soon);
    client.write_all(b"\0\0\0\x02hi").await.unwrap();
    let later = Instant::now() + crate::common::PATIENCE;
    assert_eq!(within(connection.read(&mut inbox, Some(later))).await, Read::Messages);
    assert_eq!(inbox, ["hi"]);
}

#[tokio::test]
async fn cancelled_read_loses_nothing() {
    let (mut connection, mut client) = raw_pair(&settings()).await;
    let mut inbox = Vec::new();
    let bytes = b"\0\0\0\x03one\0\0\0\x05three";
    for byte in bytes {
        client.write_all(&[*byte]).await.unwrap();
        let short = Duration::from_millis(2);
        let _cancelled = tokio::time::timeout(short, connection.read(&mut inbox, None)).await;
    }
    while inbox.len() < 2 {
        assert_eq!(within(connection.read(&mut inbox, None)).await, Read::Messages);
    }
    assert_eq!(inbox, ["one", "three"]);
}

#[tokio::test]
async fn silent_peer_is_pinged_and_then_given_up() {
    let mut settings = settings();
    settings.ping_interval = Some(Duration::from_millis(50));
    settings.ping_timeout = Duration::from_secs(3);
    let (connection, mut client) = raw_pair(&settings).await;
    let server = tokio::spawn(echo(connection));
    for _ in 0..3 {
        assert_eq!(exactly(&mut client, 4).await, [1, 0, 0, 0]);
        client.write_all(&[2, 0, 0, 0]).await.unwrap();
    }
    assert_eq!(exactly(&mut client, 4).await, [1, 0, 0, 0]);
    assert_eq!(rest(&mut client).await, b"");
    drop(client);
    assert_eq!(within(server).await.unwrap(), Read::Closed(CloseReason::Silent));
}

#[tokio::test]
async fn kick_is_heard_once_and_what_is_queued_is_sent() {
    let (mut connection, mut client) = raw_pair(&settings()).await;
    let outbox = connection.outbox().clone();
    let reader = tokio::spawn(async move {
        let mut inbox = Vec::new();
        let read = connection.read(&mut inbox, None).await;
        (connection, read)
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    outbox.kick(Kick::Asked);
    let (mut connection, read) = within(reader).await.unwrap();
    assert_eq!(read, Read::Kicked(Kick::Asked));
    let framed = outbox.framing().frame(|out| out.extend_from_slice(b"bye"));
    assert_eq!(outbox.push(framed, Class::Reply), Pushed::First);
    let soon = Instant::now() + Duration::from_millis(20);
    assert_eq!(within(connection.read(&mut Vec::new(), Some(soon))).await, Read::Deadline);
    let closing =
        tokio::spawn(connection.close(weald_transports::Close::Normal, crate::common::GRACE));
    assert_eq!(rest(&mut client).await, b"\0\0\0\x03bye");
    drop(client);
    within(closing).await.unwrap();
    let framed = outbox.framing().frame(|out| out.extend_from_slice(b"late"));
    let late = outbox.push(framed, Class::Reply);
    assert_eq!(late, Pushed::Refused);
}

#[tokio::test]
async fn last_words_of_a_client_that_is_gone_are_read() {
    let (mut connection, mut client) = raw_pair(&settings()).await;
    client.write_all(b"\0\0\0\x04last").await.unwrap();
    let outbox = connection.outbox().clone();
    // Makes the connection be reset when the client, who has not read it, closes.
    let framed = outbox.framing().frame(|out| out.extend_from_slice(b"unread"));
    assert_eq!(outbox.push(framed.clone(), Class::Reply), Pushed::First);
    outbox.flush();
    let mut inbox = Vec::new();
    assert_eq!(within(connection.read(&mut inbox, None)).await, Read::Messages);
    client.readable().await.unwrap();
    drop(client);
    let end = loop {
        // Written until the socket says that it is broken.
        if outbox.push(framed.clone(), Class::Reply) == Pushed::First {
            outbox.flush();
        }
        let soon = Instant::now() + Duration::from_millis(5);
        match within(connection.read(&mut inbox, Some(soon))).await {
            Read::Deadline => {}
            end => break end,
        }
    };
    assert!(matches!(end, Read::Closed(_) | Read::Kicked(Kick::Broken)), "{end:?}");
    assert_eq!(inbox, ["last"]);
}
