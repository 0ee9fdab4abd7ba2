//! Identity: which starts go on with the incarnation, and which take a new one.

use std::fs;
use std::path::Path;

use weald_storage::{BootEvent, NewLife, NodeId, OpenError, Resolvers, Space, Store, WallClock};

use crate::support::{
    Clock, Short, assert_tree_is_sound, config, fast_dir, key, open, open_with, table,
};

fn events_of(dir: &Path, partitions: u16) -> (Store, Vec<BootEvent>) {
    let (store, events) = open_with(dir, config(partitions), Resolvers::default());
    (store.unwrap(), events)
}

fn new_life(events: &[BootEvent]) -> Option<NewLife> {
    events.iter().find_map(|event| match event {
        BootEvent::NewIncarnation { why, .. } => Some(*why),
        _ => None,
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn clean_stop_keeps_the_incarnation_and_anything_else_takes_a_new_one() {
    let dir = fast_dir();
    let (store, events) = events_of(dir.path(), 3);
    assert!(matches!(events[0], BootEvent::NewNode { .. }));
    assert_eq!(new_life(&events), Some(NewLife::FreshDirectory));
    let (t, k) = (table("t"), key("k"));
    let first = store.put(&t, &k, b"1").dot.unwrap();
    let memory = store.actor(Space::Memory);
    store.close().unwrap();
    assert!(dir.path().join("clean").is_file());

    let (store, events) = events_of(dir.path(), 3);
    assert!(!dir.path().join("clean").is_file(), "the marker is gone before anything is written");
    assert_eq!(events, [BootEvent::CleanStart { incarnation: first.actor.incarnation }]);
    let second = store.put(&t, &k, b"2").dot.unwrap();
    assert_eq!((second.actor, second.counter), (first.actor, first.counter + 1));
    assert!(store.actor(Space::Memory) > memory, "memory tables have a new life at each boot");
    drop(store);

    let (store, events) = events_of(dir.path(), 3);
    assert!(events.contains(&BootEvent::UncleanStop));
    assert_eq!(events.iter().filter(|e| matches!(e, BootEvent::Checked { .. })).count(), 3);
    assert_eq!(new_life(&events), Some(NewLife::UncleanStop));
    let third = store.put(&t, &k, b"3").dot.unwrap();
    assert_eq!(third.actor.node, first.actor.node);
    assert!(third.actor.incarnation > second.actor.incarnation);
    assert_eq!(third.counter, 1);
    let index = store.partition_of(&t, &k);
    let clock = store.partition(index).clock(Space::Durable).unwrap();
    assert!(clock.contains(&first) && clock.contains(&second) && clock.contains(&third));
    assert_eq!(store.value(&t, &k).unwrap(), b"3");
    assert_tree_is_sound(&store);
}

#[test]
fn copies_and_backups_take_a_new_incarnation() {
    let dir = fast_dir();
    let (there, away) = (dir.path().join("there"), dir.path().join("away"));
    let (store, _) = events_of(&there, 2);
    let (t, k) = (table("t"), key("k"));
    store.put(&t, &k, b"1");
    let before = store.actor(Space::Durable);
    store.close().unwrap();
    copy(&there, &away);
    // The copy is another life of the same node.
    let (store, events) = events_of(&away, 2);
    assert_eq!(new_life(&events), Some(NewLife::Restored));
    assert_eq!(store.node_id(), before.node);
    assert!(store.incarnation() > before.incarnation);
    store.close().unwrap();
    // Moving is not copying.
    let moved = dir.path().join("moved");
    fs::rename(&there, &moved).unwrap();
    let (store, events) = events_of(&moved, 2);
    assert_eq!(new_life(&events), None);
    store.close().unwrap();
    // There and back again.
    fs::remove_dir_all(&away).unwrap();
    copy(&moved, &away);
    fs::remove_dir_all(&moved).unwrap();
    copy(&away, &moved);
    let (store, events) = events_of(&moved, 2);
    assert_eq!(new_life(&events), Some(NewLife::Restored));
    assert_eq!(store.value(&t, &k).unwrap(), b"1");
    let restored = store.incarnation();
    store.close().unwrap();
    // One partition put back from the backup, the rest as it was.
    fs::copy(away.join("partition-1/data.mdb"), moved.join("partition-1/data.mdb")).unwrap();
    let (store, events) = events_of(&moved, 2);
    assert!(events.contains(&BootEvent::Restored { partitions: vec![1] }));
    assert!(store.incarnation() > restored);
    store.close().unwrap();
    // A wiped directory is another node.
    fs::remove_dir_all(&moved).unwrap();
    let (store, events) = events_of(&moved, 2);
    assert!(matches!(events[0], BootEvent::NewNode { id } if id != before.node));
    assert_eq!(store.value(&t, &k), None);
}

#[test]
fn incarnation_rises_although_the_clock_stands_or_goes_back() {
    let dir = fast_dir();
    let clock = Clock::new();
    let mut last = 0;
    for now_ms in [clock.now(), clock.now(), 5_000, 0] {
        let wall = WallClock::new(move || now_ms);
        let config = weald_storage::StoreConfig { clock: wall, ..config(1) };
        let store = open(dir.path(), config);
        assert!(store.incarnation() > last);
        last = store.incarnation();
        store.put(&table("t"), &key("k"), b"v");
    }
}

#[test]
fn stamps_rise_although_the_clock_goes_back() {
    let dir = fast_dir();
    let (t, k) = (table("t"), key("k"));
    for (now_ms, value) in [(9_000_000, b"1"), (5_000_000, b"2"), (4_000_000, b"3")] {
        let clock = WallClock::new(move || now_ms);
        let store = open(dir.path(), weald_storage::StoreConfig { clock, ..config(1) });
        // Blind to what is there: a sibling, which wins by its stamp alone.
        let context = weald_storage::Context::new(&t, &k, weald_storage::VersionVector::new());
        store.put_ctx(&t, &k, value, &context).unwrap();
        assert_eq!(store.value(&t, &k).unwrap(), value);
        store.close().unwrap();
    }
}

#[test]
fn damaged_marker_is_no_marker() {
    let dir = fast_dir();
    for bad in [&b"{"[..], b"", b"{\"format\":9,\"incarnation\":1,\"files\":[]}"] {
        let (store, _) = events_of(dir.path(), 1);
        store.close().unwrap();
        fs::write(dir.path().join("clean"), bad).unwrap();
        let (store, events) = events_of(dir.path(), 1);
        assert!(events.contains(&BootEvent::UncleanStop));
        store.close().unwrap();
    }
}

#[test]
fn another_shape_or_another_node_is_refused() {
    let dir = fast_dir();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for path in [&ours, &theirs] {
        events_of(path, 2).0.close().unwrap();
    }
    let refused = open_with(&ours, config(4), Resolvers::default()).0;
    assert!(matches!(refused, Err(OpenError::PartitionsDiffer { stored: 2, configured: 4 })));
    fs::rename(theirs.join("partition-1"), dir.path().join("stolen")).unwrap();
    fs::rename(ours.join("partition-1"), dir.path().join("own")).unwrap();
    fs::rename(dir.path().join("stolen"), ours.join("partition-1")).unwrap();
    let refused = open_with(&ours, config(2), Resolvers::default()).0;
    assert!(matches!(refused, Err(OpenError::Foreign { partition: 1, .. })), "{refused:?}");
    // Two partitions of one node in each other's place.
    fs::remove_dir_all(ours.join("partition-1")).unwrap();
    fs::rename(ours.join("partition-0"), ours.join("partition-1")).unwrap();
    fs::rename(dir.path().join("own"), ours.join("partition-0")).unwrap();
    let refused = open_with(&ours, config(2), Resolvers::default()).0;
    assert!(matches!(refused, Err(OpenError::Foreign { partition: 0, .. })), "{refused:?}");
    let bad = open_with(&ours, config(0), Resolvers::default()).0;
    assert!(matches!(bad, Err(OpenError::Config { setting: "partitions", .. })));
}

#[test]
fn first_boot_that_died_half_way_is_finished_by_the_next() {
    let dir = fast_dir();
    let (store, _) = events_of(dir.path(), 3);
    let node: NodeId = store.node_id();
    drop(store);
    // As if it had died before the last partition and the store file were made.
    fs::remove_file(dir.path().join("store.json")).unwrap();
    fs::remove_dir_all(dir.path().join("partition-2")).unwrap();
    let (store, events) = events_of(dir.path(), 3);
    assert_eq!(store.node_id(), node);
    assert_eq!(new_life(&events), Some(NewLife::UncleanStop));
    store.put(&table("t"), &key("k"), b"v");
    assert_tree_is_sound(&store);
}

#[test]
fn first_boot_torn_by_a_power_cut_begins_again() {
    let dir = fast_dir();
    // As a cut leaves it: the note is on disk, of the first environment only some pages are.
    fs::write(dir.path().join("first-boot"), b"x").unwrap();
    fs::create_dir(dir.path().join("partition-0")).unwrap();
    fs::write(dir.path().join("partition-0/data.mdb"), [0; 4096]).unwrap();
    let (store, _) = events_of(dir.path(), 2);
    store.put(&table("t"), &key("k"), b"v");
    assert_tree_is_sound(&store);
    assert!(!dir.path().join("first-boot").try_exists().unwrap());
    drop(store);
    // Without the note nobody may say that there was nothing.
    fs::remove_file(dir.path().join("store.json")).unwrap();
    fs::write(dir.path().join("partition-0/data.mdb"), [0; 4096]).unwrap();
    let opened = open_with(dir.path(), config(2), Resolvers::default()).0;
    assert!(matches!(opened, Err(OpenError::Damaged { partition: 0, .. })));
}

#[test]
fn closed_store_answers_closed_and_can_be_opened_again() {
    let dir = fast_dir();
    let (store, _) = events_of(dir.path(), 1);
    let (t, k) = (table("t"), key("k"));
    store.put(&t, &k, b"v");
    let clone = store.clone();
    store.close().unwrap();
    clone.close().unwrap();
    assert!(matches!(clone.get(&t, &k, 0), Err(weald_storage::ReadError::Closed)));
    let outcomes = clone.batch(0, vec![crate::support::put_op(&t, &k, b"w")]);
    assert!(matches!(outcomes[0], Err(weald_storage::WriteError::Closed)));
    let again = open(dir.path(), config(1));
    assert_eq!(again.value(&t, &k).unwrap(), b"v");
}
