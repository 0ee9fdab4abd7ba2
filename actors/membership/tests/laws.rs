//! Laws of the view, of the messages and of the members file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;
use weald_membership::messages::{
    ASKED_MAX, Announcement, Body, Entry, HEADS_MAX, Head, MESSAGE_BYTES_MAX, Message, Overlay,
    Rumour,
};
use weald_membership::saved::{Saved, SavedError, SavedRow};
use weald_membership::view::{Merged, Moment, Record, View};
use weald_peers::{Liveness, Status};
use weald_storage::NodeId;

const AT: Moment = Moment { wall_ms: 1_000, run_ms: 500 };

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Joined),
        Just(Status::Fenced),
        Just(Status::Leaving),
        Just(Status::Left),
        Just(Status::Evicted),
    ]
}

fn liveness() -> impl Strategy<Value = Liveness> {
    prop_oneof![Just(Liveness::Up), Just(Liveness::Suspect), Just(Liveness::Down)]
}

/// Few values each, so that records meet.
fn record() -> impl Strategy<Value = Record> {
    let numbers = (0_u8..3, 0_u32..2, 0_u32..3, 0_u64..3);
    (numbers, status(), "[ab]", prop::collection::vec("[xy]:1", 0..2)).prop_map(
        |((node, epoch, incarnation, version), status, name, addresses)| Record {
            node: NodeId([node; 16]),
            name,
            epoch,
            incarnation,
            version,
            addresses,
            status,
            capabilities: vec![],
        },
    )
}

fn view_of<'a>(records: impl IntoIterator<Item = &'a Record>) -> View {
    let mut view = View::default();
    for record in records {
        view.merge(&Arc::new(record.clone()), AT, 0);
    }
    view
}

fn records_of(view: &View) -> Vec<Record> {
    view.rows().map(|(_, row)| Record::clone(&row.record)).collect()
}

fn entry() -> impl Strategy<Value = Entry> {
    (record(), any::<u64>(), any::<u32>(), liveness()).prop_map(
        |(record, gone_for_ms, refute, liveness)| Entry {
            record: Arc::new(record),
            gone_for_ms,
            refute,
            liveness,
        },
    )
}

fn root() -> impl Strategy<Value = Option<NodeId>> {
    prop::option::of(any::<[u8; 16]>().prop_map(NodeId))
}

fn body() -> impl Strategy<Value = Body> {
    let node = any::<[u8; 16]>().prop_map(NodeId);
    let nodes = prop::collection::vec(any::<[u8; 16]>().prop_map(NodeId), 0..8);
    prop_oneof![
        Just(Body::Gossip),
        Just(Body::SyncEqual),
        (any::<u64>(), any::<bool>())
            .prop_map(|(seq, is_neighbour)| Body::Ping { seq, is_neighbour }),
        (any::<u64>(), node.clone()).prop_map(|(seq, target)| Body::PingRequest { seq, target }),
        (any::<u64>(), entry(), any::<bool>()).prop_map(|(digest, own, is_stranger)| {
            Body::Sync { digest, own: own.head(), is_stranger }
        }),
        (prop::collection::vec(entry(), 0..4), any::<bool>()).prop_map(|(entries, is_last)| {
            Body::SyncHeads { heads: entries.iter().map(Entry::head).collect(), is_last }
        }),
        prop::collection::vec((root(), entry()), 0..4).prop_map(|items| {
            let items = items.into_iter().map(|(root, e)| Announcement { root, head: e.head() });
            Body::IHave { items: items.collect() }
        }),
        (root(), any::<bool>()).prop_map(|(root, is_answer)| Body::News { root, is_answer }),
        (root(), nodes.clone()).prop_map(|(root, nodes)| Body::Graft { root, nodes }),
        node.prop_map(|root| Body::Prune { root }),
        (any::<[u8; 16]>(), any::<u64>(), any::<u8>(), nodes).prop_map(|(node, id, ttl, nodes)| {
            Body::Overlay(Overlay::Shuffle { origin: NodeId(node), id, ttl, nodes })
        }),
    ]
}

proptest! {
    #[test]
    fn merge_is_the_same_in_any_order_and_any_number(
        records in prop::collection::vec(record(), 0..12),
        order in any::<u64>(),
    ) {
        let mut shuffled: Vec<Record> = [records.clone(), records.clone()].concat();
        weald_membership::rng::Rng::new(order).shuffle(&mut shuffled);
        let (one, other) = (view_of(&records), view_of(&shuffled));
        prop_assert_eq!(records_of(&one), records_of(&other));
        prop_assert_eq!(one.digest(), other.digest());
        // Merging views is merging their records, however they were grouped.
        let half = records.len() / 2;
        let (left, right) = (view_of(&records[..half]), view_of(&records[half..]));
        let grouped = view_of(records_of(&right).iter().chain(&records_of(&left)));
        prop_assert_eq!(records_of(&grouped), records_of(&one));
    }

    #[test]
    fn eviction_beats_all_that_its_subject_says_in_this_epoch(said in record(), evicted in record()) {
        let said = Record { node: evicted.node, epoch: evicted.epoch, ..said };
        let evicted = Record { status: Status::Evicted, ..evicted };
        let view = view_of([&said, &evicted]);
        prop_assert_eq!(view.record(evicted.node).unwrap().status, Status::Evicted);
        let back = Record { epoch: evicted.epoch + 1, status: Status::Joined, ..said };
        let view = view_of([&evicted, &back]);
        prop_assert_eq!(view.record(back.node).unwrap().status, Status::Joined);
    }

    #[test]
    fn messages_round_trip(
        records in prop::collection::vec(entry(), 0..5),
        rumours in prop::collection::vec((any::<u32>(), liveness()), 0..5),
        body in body(),
    ) {
        let rumours = rumours.into_iter().map(|(refute, liveness)| {
            Rumour { node: NodeId([7; 16]), refute, liveness }
        });
        let message = Message { records, rumours: rumours.collect(), body };
        prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        message in (prop::collection::vec(entry(), 0..3), body()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        drop(Message::decode(&bytes));
        let (records, body) = message;
        let mut bytes = Message { records, rumours: vec![], body }.encode();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert!(message.records.iter().all(|entry| entry.record.is_valid()));
        }
    }

    #[test]
    fn members_file_round_trips_and_a_damaged_one_is_noticed(
        rows in prop::collection::vec((record(), any::<u64>()), 0..5),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let rows = rows.into_iter().map(|(record, seen_ms)| {
            SavedRow { record, seen_ms, seen_run_ms: 1, gone_run_ms: 2 }
        });
        let saved = Saved { run_ms: 77, rows: rows.collect() };
        let mut bytes = saved.encode();
        prop_assert_eq!(Saved::decode(&bytes), Ok(saved));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Saved::decode(&bytes).is_err());
        prop_assert!(Saved::decode(&bytes[..at]).is_err());
    }
}

#[test]
fn messages_and_records_out_of_bounds_are_refused() {
    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert!(Message::decode(&long).is_err());
    let record = Record {
        node: NodeId([1; 16]),
        name: "x".repeat(256),
        epoch: 0,
        incarnation: 1,
        version: 1,
        addresses: vec![],
        status: Status::Joined,
        capabilities: vec![],
    };
    let entry = Entry {
        record: Arc::new(record.clone()),
        gone_for_ms: 0,
        refute: 0,
        liveness: Liveness::Up,
    };
    let message = Message { records: vec![entry], rumours: vec![], body: Body::Gossip };
    assert!(Message::decode(&message.encode()).is_err());
    assert_eq!(View::default().merge(&Arc::new(record.clone()), AT, 0), Merged::Refused);
    for record in [
        Record { name: String::new(), ..record.clone() },
        Record { name: "x".into(), addresses: vec!["a".into(); 9], ..record.clone() },
        Record { name: "x".into(), capabilities: vec!["a".into(); 33], ..record },
    ] {
        assert!(!record.is_valid());
    }
    let nodes = vec![NodeId([1; 16]); 65];
    let shuffle = Overlay::Shuffle { origin: NodeId([1; 16]), id: 1, ttl: 1, nodes };
    assert!(Message::decode(&Message::bare(Body::Overlay(shuffle)).encode()).is_err());
    let node = NodeId([0xff; 16]);
    let head = Head {
        node,
        epoch: u32::MAX,
        incarnation: u32::MAX,
        version: u64::MAX,
        status: Status::Evicted,
        texts: u32::MAX,
        gone_for_ms: u64::MAX,
        refute: u32::MAX,
        liveness: Liveness::Down,
    };
    let bodies = |extra: usize| {
        let item = Announcement { root: Some(node), head };
        [
            Body::IHave { items: vec![item; HEADS_MAX + extra] },
            Body::SyncHeads { heads: vec![head; HEADS_MAX + extra], is_last: true },
            Body::Graft { root: Some(node), nodes: vec![node; ASKED_MAX + extra] },
        ]
    };
    for (full, over) in bodies(0).into_iter().zip(bodies(1)) {
        assert!(Message::decode(&Message::bare(full).encode()).is_ok(), "a full one fits");
        assert!(Message::decode(&Message::bare(over).encode()).is_err());
    }
    let mut behind = Message::bare(Body::SyncEqual).encode();
    behind.push(0);
    assert!(Message::decode(&behind).is_err());
    assert_eq!(Saved::decode(b"WMEM\x02"), Err(SavedError::Foreign));
}

#[test]
fn members_file_is_replaced_as_a_whole_and_a_broken_one_is_set_aside() {
    use weald_membership::file::{Found, read, write};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("members");
    assert!(matches!(read(&path).unwrap(), Found::Nothing));
    write(&path, &Saved { run_ms: 5, rows: vec![] }.encode()).unwrap();
    assert!(matches!(read(&path).unwrap(), Found::Saved(Saved { run_ms: 5, .. })));
    write(&path, b"garbage").unwrap();
    assert!(matches!(read(&path).unwrap(), Found::SetAside(..)));
    assert!(matches!(read(&path).unwrap(), Found::Nothing));
}
