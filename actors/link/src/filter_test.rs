//! Frames as `ractor_cluster` 0.16.5 writes them, and what a hostile peer may make of them.

use super::*;
use proptest::prelude::*;

const LINK: u64 = 77;

fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    wire::put_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u64).to_be_bytes()[..], body].concat()
}

fn auth() -> Vec<u8> {
    frame(&field(AUTH, &field(0x0A, b"name")))
}

fn control(inner: u8, content: &[u8]) -> Vec<u8> {
    frame(&field(CONTROL, &field(inner, content)))
}

fn spawn(pid: u64) -> Vec<u8> {
    spawn_frame(pid)
}

fn ready() -> Vec<u8> {
    control(CONTROL_READY, b"")
}

fn cast_body(to: u64, what: &[u8]) -> Vec<u8> {
    let mut cast = Vec::new();
    if to != 0 {
        cast.push(0x08);
        wire::put_varint(to, &mut cast);
    }
    cast.extend(field(0x12, what));
    cast
}

fn cast(to: u64, what: &[u8]) -> Vec<u8> {
    frame(&field(NODE, &field(NODE_CAST, &cast_body(to, what))))
}

/// Runs bytes through the filter, `chunk` bytes at a time: what was released, and the violation if there was one.
fn run(inbound: &mut Inbound, bytes: &[u8], chunk: usize) -> (Vec<u8>, Result<(), Violation>) {
    let mut released = Vec::new();
    let mut passing = 0_usize;
    for mut part in bytes.chunks(chunk.max(1)) {
        while !part.is_empty() {
            if passing > 0 {
                let take = passing.min(part.len());
                released.extend_from_slice(&part[..take]);
                passing -= take;
                part = &part[take..];
                continue;
            }
            let (taken, step) = match inbound.push(part, 0) {
                Ok(result) => result,
                Err(violation) => return (released, Err(violation)),
            };
            assert!(inbound.head.bytes.len() <= LEN_BYTES + SMALL_BYTES_MAX);
            part = &part[taken..];
            match step {
                Step::More => assert!(part.is_empty()),
                Step::Frame => released.extend(inbound.release()),
                Step::Cast { left, .. } => {
                    released.extend(inbound.release());
                    passing = left;
                }
                Step::Drop { .. } => panic!("inbound frames are never dropped"),
            }
        }
    }
    (released, Ok(()))
}

fn opened() -> Inbound {
    let mut inbound = Inbound::new(Side::Server, LINK);
    let opening = [auth(), auth(), spawn(5), ready()].concat();
    assert_eq!(run(&mut inbound, &opening, 3), (opening, Ok(())));
    inbound
}

#[test]
fn a_lawful_peer_passes_unchanged() {
    for chunk in [1, 2, 7, 31, 4096] {
        let mut inbound = opened();
        let ping = control(CONTROL_PING, &field(0x0A, &[8, 1]));
        let large = vec![9; 100_000];
        let bytes = [cast(LINK, b"x"), ping.clone(), cast(LINK, &large), ping].concat();
        assert_eq!(run(&mut inbound, &bytes, chunk), (bytes, Ok(())), "chunk {chunk}");
    }
}

#[test]
fn everything_else_is_a_violation() {
    let many: Vec<u8> = (0..200_000_u64)
        .flat_map(|pid| field(0x0A, &field(0x08, &[1])[..1 + usize::from(pid > 9)]))
        .collect();
    let two = [field(0x0A, &[8, 5]), field(0x0A, &[8, 6])].concat();
    let named = field(0x0A, &[&[8, 5][..], &field(0x12, b"name")].concat());
    let node = |inner: u8, content: &[u8]| frame(&field(NODE, &field(inner, content)));
    let twice = [field(CONTROL, &field(CONTROL_PING, b"")), field(NODE, b"")].concat();
    let with_variant = [cast_body(LINK, b"x"), field(0x1A, b"Kill")].concat();
    let target_last = [field(0x12, b"x"), vec![0x08, 77]].concat();
    let cases: Vec<(&str, Vec<u8>, Violation)> = vec![
        ("200,000 actors", control(CONTROL_SPAWN, &many), Violation::TooLarge(0)),
        ("a second actor", spawn(6), Violation::Order("spawn")),
        ("two actors", control(CONTROL_SPAWN, &two), Violation::Order("spawn")),
        ("a named actor", control(CONTROL_SPAWN, &named), Violation::Order("spawn")),
        ("ready twice", ready(), Violation::Order("ready")),
        ("auth again", auth(), Violation::Order("auth")),
        ("terminate", control(CONTROL_TERMINATE, &[1, 5]), Violation::LinkEnded),
        (
            "pg_join",
            control(0x2A, &field(0x0A, b"group")),
            Violation::Kind { outer: CONTROL, inner: 0x2A },
        ),
        (
            "pg_leave",
            control(0x32, &field(0x0A, b"group")),
            Violation::Kind { outer: CONTROL, inner: 0x32 },
        ),
        ("enumerate", control(0x3A, b""), Violation::Kind { outer: CONTROL, inner: 0x3A }),
        ("sessions", control(0x42, b""), Violation::Kind { outer: CONTROL, inner: 0x42 }),
        ("cast elsewhere", cast(LINK + 1, b"x"), Violation::Target(LINK + 1)),
        ("cast to pid 0", cast(0, b"x"), Violation::Target(0)),
        ("call", node(0x12, &cast_body(LINK, b"x")), Violation::Kind { outer: NODE, inner: 0x12 }),
        ("reply", node(0x1A, b"x"), Violation::Kind { outer: NODE, inner: 0x1A }),
        ("variant", node(NODE_CAST, &with_variant), Violation::Malformed("cast")),
        ("target last", node(NODE_CAST, &target_last), Violation::Malformed("cast")),
        ("empty cast", cast(LINK, b""), Violation::Malformed("cast")),
        ("two messages", frame(&twice), Violation::Malformed("control")),
        ("empty frame", frame(b""), Violation::Malformed("empty")),
        ("unknown", frame(b"\x22\x00"), Violation::Kind { outer: 0x22, inner: 0 }),
        ("huge", u64::MAX.to_be_bytes().to_vec(), Violation::TooLarge(u64::MAX)),
        (
            "oversize cast",
            [&(1_u64 << 30).to_be_bytes()[..], &[NODE]].concat(),
            Violation::TooLarge(1 << 30),
        ),
    ];
    for (what, bytes, wanted) in cases {
        for chunk in [1, 5, 1 << 20] {
            let (released, result) = run(&mut opened(), &bytes, chunk);
            let found = result.expect_err(what);
            let same_size =
                matches!((&found, &wanted), (Violation::TooLarge(_), Violation::TooLarge(0)));
            assert!(same_size || found == wanted, "{what}: {found}");
            assert!(released.is_empty(), "{what}: released");
        }
    }
}

#[test]
fn nothing_but_auth_comes_first_and_casts_come_after_ready() {
    let fresh = || Inbound::new(Side::Client, LINK);
    for bytes in [spawn(5), ready(), cast(LINK, b"x"), control(CONTROL_PING, b"")] {
        let before = [auth(), auth(), bytes].concat();
        assert_eq!(run(&mut fresh(), &before, 9).1, Err(Violation::Order("first")));
    }
    let authenticated = [auth(), auth(), auth()].concat();
    for (bytes, wanted) in [
        (ready(), Violation::Order("ready")),
        (cast(LINK, b"x"), Violation::Order("cast")),
        (control(CONTROL_SPAWN, b""), Violation::Malformed("spawn")),
    ] {
        let bytes = [authenticated.clone(), bytes].concat();
        assert_eq!(run(&mut fresh(), &bytes, 9).1, Err(wanted));
    }
}

#[test]
fn pings_are_limited_by_time() {
    let ping = control(CONTROL_PING, b"");
    let mut inbound = opened();
    let mut pings = |now_ms: u64, count: usize| {
        (0..count)
            .filter(|_| {
                let ok = inbound.push(&ping, now_ms).is_ok();
                inbound.release();
                ok
            })
            .count()
    };
    assert_eq!(pings(0, 100), 64);
    assert_eq!(pings(1000, 100), 5);
    assert_eq!(pings(3_600_000, 100), 64);
    assert_eq!(pings(0, 1), 0, "a clock that goes back gives nothing");
}

/// What goes out, `chunk` bytes at a time.
fn run_outbound(bytes: &[u8], chunk: usize) -> Vec<u8> {
    let mut outbound = Outbound::new(LINK);
    let (mut written, mut left, mut drop) = (Vec::new(), 0_usize, false);
    for mut part in bytes.chunks(chunk.max(1)) {
        while !part.is_empty() {
            let take = left.min(part.len());
            if take > 0 {
                if !drop {
                    written.extend_from_slice(&part[..take]);
                }
                left -= take;
                part = &part[take..];
                continue;
            }
            let (taken, step) = outbound.push(part).unwrap();
            part = &part[taken..];
            match step {
                Step::More => assert!(part.is_empty()),
                Step::Frame => panic!("not used outbound"),
                Step::Cast { left: rest, .. } => {
                    written.extend(outbound.release());
                    (left, drop) = (rest, false);
                }
                Step::Drop { left: rest } => (left, drop) = (rest, true),
            }
        }
    }
    written
}

#[test]
fn a_peer_is_told_of_its_own_link_only() {
    let everyone: Vec<u8> =
        (0..5_000).flat_map(|_| field(0x0A, &field(0x12, b"secret-actor"))).collect();
    let pg = [field(0x0A, b"secret-group"), field(0x12, &[8, 5]), field(0x1A, b"scope")].concat();
    let call = frame(&field(NODE, &field(0x12, &cast_body(5, b"x"))));
    let large = vec![3; 70_000];
    let bytes = [
        auth(),
        control(CONTROL_SPAWN, &everyone),
        control(0x2A, &pg),
        ready(),
        cast(5, &large),
        control(CONTROL_SPAWN, b"x"),
        control(CONTROL_TERMINATE, &vec![1; 500]),
        control(0x32, &pg),
        control(0x42, &pg),
        call,
        control(CONTROL_PING, b""),
        cast(5, b"y"),
    ]
    .concat();
    let wanted =
        [auth(), spawn(LINK), ready(), cast(5, &large), control(CONTROL_PING, b""), cast(5, b"y")]
            .concat();
    for chunk in [1, 3, 64, 1 << 20] {
        assert_eq!(run_outbound(&bytes, chunk), wanted, "chunk {chunk}");
    }
}

#[test]
fn what_one_side_sends_the_other_lets_in() {
    let bytes = [auth(), auth(), ready(), cast(9, b"hello"), control(CONTROL_PONG, b"")].concat();
    let sent = run_outbound(&bytes, 5);
    let mut inbound = Inbound::new(Side::Server, 9);
    assert_eq!(run(&mut inbound, &sent, 4), (sent.clone(), Ok(())));
}

fn lawful() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(control(CONTROL_PING, b"")),
        proptest::collection::vec(any::<u8>(), 1..200).prop_map(|what| cast(LINK, &what)),
    ]
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), chunk in 1..40_usize) {
        run(&mut Inbound::new(Side::Server, LINK), &bytes, chunk).1.ok();
        run(&mut opened(), &bytes, chunk).1.ok();
    }

    #[test]
    fn damaged_frames_never_panic_and_never_pass_whole(
        frames in proptest::collection::vec(lawful(), 1..8),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        chunk in 1..40_usize,
    ) {
        let mut bytes = frames.concat();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let (released, _) = run(&mut opened(), &bytes, chunk);
        // Whatever is released is what came in, and every whole frame in it is one this filter lets pass.
        prop_assert!(bytes.starts_with(&released));
    }

    #[test]
    fn splitting_makes_no_difference(
        frames in proptest::collection::vec(lawful(), 1..8),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
        chunk in 1..40_usize,
    ) {
        let bytes = [frames.concat(), tail].concat();
        let whole = run(&mut opened(), &bytes, usize::MAX);
        let split = run(&mut opened(), &bytes, chunk);
        prop_assert_eq!(&whole.1.is_ok(), &split.1.is_ok());
        if whole.1.is_ok() {
            prop_assert_eq!(whole.0, split.0);
        }
    }
}
