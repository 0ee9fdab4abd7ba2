//! The cases of the Autobahn test suite for WebSocket servers, sections 1 to 7, against an echo server on a real socket.
//!
//! Method: each case is what a client writes, in pieces of a given size, and what it must read: echoes, pongs, the close
//! frame, and the end of the stream. A case that does not end in a failure is closed by the client with code 1000. Text
//! goes to a connection with a text subprotocol, octets to a binary one: that is all WAMP has.
//!
//! Where the suite takes several behaviours for right, the one of this server is asked for.

use crate::common::{echo, exactly, rest, settings, websocket_pair};
use tokio::io::AsyncWriteExt as _;
use weald_transports::Read;

const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// A frame as it is read: first octet and payload.
type Frame = (u8, Vec<u8>);

struct Case {
    name: String,
    protocol: &'static str,
    sent: Vec<u8>,
    /// Octets written at a time.
    chop: usize,
    expected: Vec<Frame>,
    /// The code of the server's close frame; none: one without a code.
    close: Option<u16>,
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(octet, key)| octet ^ key));
    out
}

fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_ref())
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(FIN | PING, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn is(kind: u8, payload: impl AsRef<[u8]>) -> Frame {
    (FIN | kind, payload.as_ref().to_vec())
}

/// A text message in fragments of one octet.
fn by_octets(payload: &[u8]) -> Vec<u8> {
    let last = payload.len() - 1;
    let fragment = |(at, octet): (usize, &u8)| {
        let first = if at == 0 { TEXT } else { CONTINUE } | if at == last { FIN } else { 0 };
        frame(first, &[*octet])
    };
    payload.iter().enumerate().flat_map(fragment).collect()
}

/// The cases, by the names the suite gives them.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: &str, sent: &[Vec<u8>], chop: usize, expected: Vec<Frame>, code: u16) {
        self.0.push(Case {
            name: name.to_owned(),
            protocol: "wamp.2.json",
            sent: sent.concat(),
            chop,
            expected,
            close: Some(code),
        });
    }

    /// Answered as expected, and closed by the client.
    fn good(&mut self, name: &str, sent: &[Vec<u8>], chop: usize, expected: Vec<Frame>) {
        let sent = [sent, &[close(1000, b"")]].concat();
        self.add(name, &sent, chop, expected, 1000);
    }

    /// Failed by the server.
    fn bad(&mut self, name: &str, sent: &[Vec<u8>], chop: usize, expected: Vec<Frame>) {
        self.add(name, sent, chop, expected, 1002);
    }

    fn binary(&mut self) {
        self.0.last_mut().unwrap().protocol = "wamp.2.msgpack";
    }
}

const ALL: usize = usize::MAX;

fn framing(cases: &mut Cases) {
    for (section, kind, octet) in [(1, TEXT, b'*'), (2, BINARY, 0xfe)] {
        for (number, bytes, chop) in [
            (1, 0, ALL),
            (2, 125, ALL),
            (3, 126, ALL),
            (4, 127, ALL),
            (5, 128, ALL),
            (6, 65_535, ALL),
            (7, 65_536, ALL),
            (8, 65_536, 997),
        ] {
            let payload = vec![octet; bytes];
            let sent = frame(FIN | kind, &payload);
            cases.good(&format!("1.{section}.{number}"), &[sent], chop, vec![is(kind, payload)]);
            if kind == BINARY {
                cases.binary();
            }
        }
    }
}

fn pings(cases: &mut Cases) {
    let long = [0xfe; 125];
    let octets = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    cases.good("2.1", &[ping(b"")], ALL, vec![is(PONG, "")]);
    cases.good("2.2", &[ping(b"Hello, world!")], ALL, vec![is(PONG, "Hello, world!")]);
    cases.good("2.3", &[ping(&octets)], ALL, vec![is(PONG, octets)]);
    cases.good("2.4", &[ping(&long)], ALL, vec![is(PONG, long)]);
    cases.bad("2.5", &[ping(&[0xfe; 126])], ALL, vec![]);
    cases.good("2.6", &[ping(&long)], 1, vec![is(PONG, long)]);
    cases.good("2.7", &[frame(FIN | PONG, b"")], ALL, vec![]);
    cases.good("2.8", &[frame(FIN | PONG, b"unsolicited")], ALL, vec![]);
    let both = [frame(FIN | PONG, b"unsolicited"), ping(b"ours")];
    cases.good("2.9", &both, ALL, vec![is(PONG, "ours")]);
    let ten: Vec<_> = (0..10).map(|n| format!("payload-{n}")).collect();
    let sent: Vec<_> = ten.iter().map(|payload| ping(payload.as_bytes())).collect();
    let pongs: Vec<_> = ten.iter().map(|payload| is(PONG, payload)).collect();
    cases.good("2.10", &sent, ALL, pongs.clone());
    cases.good("2.11", &sent, 1, pongs);
}

fn reserved(cases: &mut Cases) {
    let hello = || text("Hello, world!");
    let echo = || is(TEXT, "Hello, world!");
    cases.bad("3.1", &[frame(FIN | 0x10 | TEXT, b"Hello, world!")], ALL, vec![]);
    let broken = frame(FIN | 0x20 | TEXT, b"Hello, world!");
    cases.bad("3.2", &[hello(), broken, ping(b"")], ALL, vec![echo()]);
    let broken = frame(FIN | 0x30 | TEXT, b"Hello, world!");
    cases.bad("3.3", &[hello(), broken, ping(b"")], 19, vec![echo()]);
    let broken = frame(FIN | 0x40 | TEXT, b"Hello, world!");
    cases.bad("3.4", &[hello(), broken, ping(b"")], 1, vec![echo()]);
    cases.bad("3.5", &[frame(FIN | 0x50 | BINARY, &[0, 255, 254])], ALL, vec![]);
    cases.binary();
    cases.bad("3.6", &[frame(FIN | 0x60 | PING, b"Hello, world!")], ALL, vec![]);
    cases.bad("3.7", &[frame(FIN | 0x70 | CLOSE, b"")], ALL, vec![]);
    for (section, first) in [(1, 3), (2, 11)] {
        let bad = |number: u8, payload: &[u8]| frame(FIN | (first + number - 1), payload);
        cases.bad(&format!("4.{section}.1"), &[bad(1, b"")], ALL, vec![]);
        cases.bad(&format!("4.{section}.2"), &[bad(2, b"reserved opcode payload")], ALL, vec![]);
        for (number, payload, chop) in
            [(3, &b""[..], ALL), (4, b"reserved opcode payload", ALL), (5, b"", 1)]
        {
            let sent = [hello(), bad(number, payload), ping(b"")];
            cases.bad(&format!("4.{section}.{number}"), &sent, chop, vec![echo()]);
        }
    }
}

fn fragments(cases: &mut Cases) {
    let first = |payload: &str| frame(TEXT, payload.as_bytes());
    let middle = |payload: &str| frame(CONTINUE, payload.as_bytes());
    let last = |payload: &str| frame(FIN | CONTINUE, payload.as_bytes());
    let whole = || is(TEXT, "fragment1fragment2");
    let split = [frame(PING, b"fragment1"), last("fragment2")];
    cases.bad("5.1", &split, ALL, vec![]);
    let split = [frame(PONG, b"fragment1"), last("fragment2")];
    cases.bad("5.2", &split, ALL, vec![]);
    for (name, chop) in [("5.3", ALL), ("5.4", 15), ("5.5", 1)] {
        cases.good(name, &[first("fragment1"), last("fragment2")], chop, vec![whole()]);
    }
    for (name, chop) in [("5.6", ALL), ("5.7", 15), ("5.8", 1)] {
        let sent = [first("fragment1"), ping(b"ping payload"), last("fragment2")];
        cases.good(name, &sent, chop, vec![is(PONG, "ping payload"), whole()]);
    }
    for (name, nothing, chop) in [
        ("5.9", FIN, ALL),
        ("5.10", FIN, 31),
        ("5.11", FIN, 1),
        ("5.12", 0, ALL),
        ("5.13", 0, 31),
        ("5.14", 0, 1),
    ] {
        let sent = [frame(nothing | CONTINUE, b"non-continuation payload"), text("Hello, world!")];
        cases.bad(name, &sent, chop, vec![]);
    }
    let sent = [first("fragment1"), last("fragment2"), middle("fragment3"), text("fragment4")];
    cases.bad("5.15", &sent, ALL, vec![whole()]);
    for (name, nothing) in [("5.16", 0), ("5.17", FIN)] {
        let once = [frame(nothing | CONTINUE, b"fragment1"), first("fragment2"), last("fragment3")];
        cases.bad(name, &[once.concat(), once.concat()], ALL, vec![]);
    }
    cases.bad("5.18", &[first("fragment1"), text("fragment2")], ALL, vec![]);
    for (name, chop) in [("5.19", ALL), ("5.20", 7)] {
        let sent = [
            first("fragment1"),
            middle("fragment2"),
            ping(b"pongme 1!"),
            middle("fragment3"),
            ping(b"pongme 2!"),
            middle("fragment4"),
            last("fragment5"),
        ];
        let all = "fragment1fragment2fragment3fragment4fragment5";
        let expected = vec![is(PONG, "pongme 1!"), is(PONG, "pongme 2!"), is(TEXT, all)];
        cases.good(name, &sent, chop, expected);
    }
}

/// Texts of the suite, and whether they are UTF-8. Sections 6.5 to 6.23 name them one by one; the sequences are those
/// of the specification's edges: lengths, first and last code points, lone and missing octets, overlong forms, surrogates.
fn texts() -> Vec<(&'static str, Vec<Vec<u8>>, bool)> {
    let lone = |octets: &[u8]| octets.iter().map(|octet| vec![*octet]).collect::<Vec<_>>();
    let noncharacters = |planes: std::ops::RangeInclusive<u32>| {
        let points = planes.flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
        points.map(|point| char::from_u32(point).unwrap().to_string().into_bytes()).collect()
    };
    let starts = |range: std::ops::RangeInclusive<u8>| {
        vec![range.clone().collect(), range.flat_map(|octet| [octet, b' ']).collect()]
    };
    vec![
        ("6.5", vec![b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5".to_vec(), "$".into(), "\u{a2}".into(), "\u{20ac}".into(), "\u{24b62}".into()], true),
        ("6.6 cut", vec![b"\xce".to_vec(), b"\xce\xba\xe1".to_vec(), b"\xce\xba\xe1\xbd".to_vec(), b"\xce\xba\xe1\xbd\xb9\xcf".to_vec(), b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce".to_vec(), b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce".to_vec()], false),
        ("6.6 whole", vec![b"\xce\xba".to_vec(), b"\xce\xba\xe1\xbd\xb9".to_vec(), b"\xce\xba\xe1\xbd\xb9\xcf\x83".to_vec(), b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc".to_vec()], true),
        ("6.7", vec![vec![0], b"\xc2\x80".to_vec(), b"\xe0\xa0\x80".to_vec(), b"\xf0\x90\x80\x80".to_vec()], true),
        ("6.8", vec![b"\xf8\x88\x80\x80\x80".to_vec(), b"\xfc\x84\x80\x80\x80\x80".to_vec()], false),
        ("6.9", vec![b"\x7f".to_vec(), b"\xdf\xbf".to_vec(), b"\xef\xbf\xbf".to_vec(), b"\xf4\x8f\xbf\xbf".to_vec()], true),
        ("6.10", vec![b"\xf7\xbf\xbf\xbf".to_vec(), b"\xfb\xbf\xbf\xbf\xbf".to_vec(), b"\xfd\xbf\xbf\xbf\xbf\xbf".to_vec()], false),
        ("6.11", vec![b"\xed\x9f\xbf".to_vec(), b"\xee\x80\x80".to_vec(), b"\xef\xbf\xbd".to_vec(), b"\xf4\x8f\xbf\xbf".to_vec()], true),
        ("6.11.5", vec![b"\xf4\x90\x80\x80".to_vec()], false),
        ("6.12", vec![vec![0x80], vec![0xbf], b"\x80\xbf".to_vec(), b"\x80\xbf\x80".to_vec(), b"\x80\xbf\x80\xbf".to_vec(), b"\x80\xbf\x80\xbf\x80".to_vec(), b"\x80\xbf\x80\xbf\x80\xbf".to_vec(), (0x80..=0xbe).collect()], false),
        ("6.13", [starts(0xc0..=0xdf), starts(0xe0..=0xef), starts(0xf0..=0xf7), starts(0xf8..=0xfb), starts(0xfc..=0xfd)].concat(), false),
        ("6.14", vec![vec![0xc0], b"\xe0\x80".to_vec(), b"\xf0\x80\x80".to_vec(), b"\xf8\x80\x80\x80".to_vec(), b"\xfc\x80\x80\x80\x80".to_vec(), vec![0xdf], b"\xef\xbf".to_vec(), b"\xf7\xbf\xbf".to_vec(), b"\xfb\xbf\xbf\xbf".to_vec(), b"\xfd\xbf\xbf\xbf\xbf".to_vec()], false),
        ("6.15", vec![b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf\xfd\xbf\xbf\xbf\xbf".to_vec()], false),
        ("6.16", [lone(&[0xfe, 0xff]), vec![b"\xfe\xfe\xff\xff".to_vec()]].concat(), false),
        ("6.17", vec![b"\xc0\xaf".to_vec(), b"\xe0\x80\xaf".to_vec(), b"\xf0\x80\x80\xaf".to_vec(), b"\xf8\x80\x80\x80\xaf".to_vec(), b"\xfc\x80\x80\x80\x80\xaf".to_vec()], false),
        ("6.18", vec![b"\xc1\xbf".to_vec(), b"\xe0\x9f\xbf".to_vec(), b"\xf0\x8f\xbf\xbf".to_vec(), b"\xf8\x87\xbf\xbf\xbf".to_vec(), b"\xfc\x83\xbf\xbf\xbf\xbf".to_vec()], false),
        ("6.19", vec![b"\xc0\x80".to_vec(), b"\xe0\x80\x80".to_vec(), b"\xf0\x80\x80\x80".to_vec(), b"\xf8\x80\x80\x80\x80".to_vec(), b"\xfc\x80\x80\x80\x80\x80".to_vec()], false),
        ("6.20", vec![b"\xed\xa0\x80".to_vec(), b"\xed\xad\xbf".to_vec(), b"\xed\xae\x80".to_vec(), b"\xed\xaf\xbf".to_vec(), b"\xed\xb0\x80".to_vec(), b"\xed\xbe\x80".to_vec(), b"\xed\xbf\xbf".to_vec()], false),
        ("6.21", vec![b"\xed\xa0\x80\xed\xb0\x80".to_vec(), b"\xed\xa0\x80\xed\xbf\xbf".to_vec(), b"\xed\xad\xbf\xed\xb0\x80".to_vec(), b"\xed\xad\xbf\xed\xbf\xbf".to_vec(), b"\xed\xae\x80\xed\xb0\x80".to_vec(), b"\xed\xae\x80\xed\xbf\xbf".to_vec(), b"\xed\xaf\xbf\xed\xb0\x80".to_vec(), b"\xed\xaf\xbf\xed\xbf\xbf".to_vec()], false),
        ("6.22", noncharacters(0..=16), true),
        ("6.23", vec!["\u{fff9}".into(), "\u{fffa}".into(), "\u{fffb}".into(), "\u{fffc}".into(), "\u{fffd}".into(), "\u{fffe}".into(), "\u{ffff}".into()], true),
    ]
}

fn utf8(cases: &mut Cases) {
    const VALID: &str = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!";
    const INVALID: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    let (first, middle, last) = (TEXT, CONTINUE, FIN | CONTINUE);
    cases.good("6.1.1", &[text("")], ALL, vec![is(TEXT, "")]);
    let empty = [frame(first, b""), frame(middle, b""), frame(last, b"")];
    cases.good("6.1.2", &empty, ALL, vec![is(TEXT, "")]);
    let one = [frame(first, b""), frame(middle, b"middle frame payload"), frame(last, b"")];
    cases.good("6.1.3", &one, ALL, vec![is(TEXT, "middle frame payload")]);
    cases.good("6.2.1", &[text(VALID)], ALL, vec![is(TEXT, VALID)]);
    let (left, right) = VALID.split_at("Hello-\u{b5}@\u{df}\u{f6}\u{e4}".len());
    let split = [frame(first, left.as_bytes()), frame(last, right.as_bytes())];
    cases.good("6.2.2", &split, ALL, vec![is(TEXT, VALID)]);
    cases.good("6.2.3", &[by_octets(VALID.as_bytes())], ALL, vec![is(TEXT, VALID)]);
    let greek = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}";
    cases.good("6.2.4", &[by_octets(greek.as_bytes())], ALL, vec![is(TEXT, greek)]);
    cases.add("6.3.1", &[text(INVALID)], ALL, vec![], 1007);
    cases.add("6.3.2", &[by_octets(INVALID)], ALL, vec![], 1007);
    // The end of the message never comes: it is the fragment before that breaks it.
    let cut = |at: usize, end: usize| {
        vec![
            frame(first, &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80"[..at]),
            frame(
                middle,
                &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80"[at..end],
            ),
        ]
    };
    cases.add("6.4.1", &cut(11, 15), ALL, vec![], 1007);
    cases.add("6.4.2", &cut(12, 13), ALL, vec![], 1007);
    cases.add("6.4.3", &cut(11, 15), 1, vec![], 1007);
    cases.add("6.4.4", &cut(12, 13), 1, vec![], 1007);
    for (name, texts, valid) in texts() {
        for (number, payload) in texts.into_iter().enumerate() {
            for (how, sent) in [("", text(&payload)), (" in octets", by_octets(&payload))] {
                let name = format!("{name} no. {number}{how}");
                if valid {
                    cases.good(&name, &[sent], ALL, vec![is(TEXT, &payload)]);
                } else {
                    cases.add(&name, &[sent], ALL, vec![], 1007);
                }
            }
        }
    }
}

fn closing(cases: &mut Cases) {
    let hello = || text("Hello World!");
    let echo = || is(TEXT, "Hello World!");
    let end = || close(1000, b"");
    cases.add("7.1.1", &[hello(), end()], ALL, vec![echo()], 1000);
    cases.add("7.1.2", &[end(), end()], ALL, vec![], 1000);
    cases.add("7.1.3", &[end(), ping(b"")], ALL, vec![], 1000);
    cases.add("7.1.4", &[end(), hello()], ALL, vec![], 1000);
    let sent = [frame(TEXT, b"fragment1"), end(), frame(FIN | CONTINUE, b"fragment2")];
    cases.add("7.1.5", &sent, ALL, vec![], 1000);
    let long = "BAsd7&jh23".repeat(26_214);
    let sent = [text(&long), hello(), end(), ping(b"")];
    cases.add("7.1.6", &sent, ALL, vec![is(TEXT, &long), echo()], 1000);
    cases.add("7.3.1", &[frame(FIN | CLOSE, b"")], ALL, vec![], 0);
    cases.0.last_mut().unwrap().close = None;
    cases.bad("7.3.2", &[frame(FIN | CLOSE, b"a")], ALL, vec![]);
    cases.add("7.3.3", &[end()], ALL, vec![], 1000);
    cases.add("7.3.4", &[close(1000, b"Hello World!")], ALL, vec![], 1000);
    cases.add("7.3.5", &[close(1000, &[b'*'; 123])], ALL, vec![], 1000);
    cases.bad("7.3.6", &[close(1000, &[b'*'; 124])], ALL, vec![]);
    let reason = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    cases.add("7.5.1", &[close(1000, reason)], ALL, vec![], 1007);
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for code in good {
        cases.add(&format!("7.7 {code}"), &[close(code, b"")], ALL, vec![], code);
    }
    let bad = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in bad {
        cases.bad(&format!("7.9 {code}"), &[close(code, b"")], ALL, vec![]);
    }
}

/// Runs a case; what is wrong.
async fn run(case: &Case) -> Result<(), String> {
    let (connection, client) = websocket_pair(case.protocol, &settings()).await;
    let server = tokio::spawn(echo(connection));
    let (mut read, mut write) = client.into_split();
    let (sent, chop) = (case.sent.clone(), case.chop);
    let writer = tokio::spawn(async move {
        for piece in sent.chunks(chop.min(sent.len())) {
            // A server that fails the connection stops reading.
            if write.write_all(piece).await.is_err() {
                break;
            }
            if chop != ALL {
                tokio::task::yield_now().await;
            }
        }
        write
    });
    let mut expected = case.expected.clone();
    let code = case.close.map(|code| code.to_be_bytes().to_vec());
    expected.push((FIN | CLOSE, code.unwrap_or_default()));
    for frame in expected {
        let got = next_frame(&mut read).await;
        if got != frame {
            let (got, frame) = ((got.0, got.1.len()), (frame.0, frame.1.len()));
            return Err(format!("{}: {got:x?} instead of {frame:x?}", case.name));
        }
    }
    let more = rest(&mut read).await;
    drop(writer.await);
    drop(read);
    let ended = server.await.map_err(|e| e.to_string())?;
    assert!(matches!(ended, Read::Closed(_)), "{ended:?}");
    if more.is_empty() { Ok(()) } else { Err(format!("{}: more follows: {more:x?}", case.name)) }
}

async fn next_frame(read: &mut (impl tokio::io::AsyncRead + Unpin)) -> Frame {
    let head = exactly(read, 2).await;
    assert!(head[1] & 0x80 == 0, "a server's frame is not masked");
    let bytes = match head[1] {
        126 => exactly(read, 2).await.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)),
        127 => exactly(read, 8).await.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)),
        length => usize::from(length),
    };
    (head[0], exactly(read, bytes).await)
}

/// Runs all and fails with all that is wrong.
async fn all(fill: fn(&mut Cases), least: usize) {
    let mut cases = Cases::default();
    fill(&mut cases);
    assert!(cases.0.len() >= least, "{} cases", cases.0.len());
    let mut failed = Vec::new();
    for case in &cases.0 {
        failed.extend(run(case).await.err());
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.0.len(), failed.join("\n"));
}

#[tokio::test]
async fn section_1_framing() {
    all(framing, 16).await;
}

#[tokio::test]
async fn section_2_pings_and_pongs() {
    all(pings, 11).await;
}

#[tokio::test]
async fn sections_3_and_4_reserved_bits_and_opcodes() {
    all(reserved, 17).await;
}

#[tokio::test]
async fn section_5_fragmentation() {
    all(fragments, 20).await;
}

#[tokio::test]
async fn section_6_utf8() {
    all(utf8, 200).await;
}

#[tokio::test]
async fn section_7_close_handling() {
    all(closing, 37).await;
}
