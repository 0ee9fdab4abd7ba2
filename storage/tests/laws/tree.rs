//! The hash tree: kept by addition, it is the tree computed afresh.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weald_storage::{
    Actor, Bucket, Dot, Dvvset, EntryDigest, Hlc, Key, KeyHash, NodeDelta, NodeId, Object,
    RecordView, TableName, TreeDelta, TreeNode, TreePath, Value, VersionVector, encode_record,
    row_key,
};

use crate::history::{World, object_of};

fn table() -> TableName {
    TableName::parse("users").unwrap()
}

fn key(n: u16) -> Key {
    Key::new(&n.to_be_bytes()).unwrap()
}

fn digest(n: u16, object: Option<&Object>) -> Option<EntryDigest> {
    EntryDigest::of(&table(), &key(n), object?)
}

/// All nodes of the tree over these objects, computed afresh.
fn tree_of(objects: &BTreeMap<u16, Object>) -> BTreeMap<TreePath, TreeNode> {
    let mut leaves: BTreeMap<Bucket, Vec<TreeNode>> = BTreeMap::new();
    for (n, object) in objects {
        let Some(EntryDigest(digest)) = EntryDigest::of(&table(), &key(*n), object) else {
            continue;
        };
        leaves
            .entry(Bucket::of(&table(), &key(*n)))
            .or_default()
            .push(TreeNode { count: 1, digest });
    }
    let leaf = |path| match path {
        TreePath::Leaf(bucket) => TreeNode::sum(leaves.get(&bucket).into_iter().flatten().copied()),
        TreePath::Root | TreePath::Branch(_) => unreachable!("not a leaf"),
    };
    let mut nodes = BTreeMap::new();
    for branch in TreePath::Root.children() {
        nodes.extend(branch.children().map(|path| (path, leaf(path))));
        nodes.insert(branch, TreeNode::sum(branch.children().map(leaf)));
    }
    nodes.insert(TreePath::Root, TreeNode::sum(TreePath::Root.children().map(|b| nodes[&b])));
    nodes.retain(|_, node| *node != TreeNode::default());
    nodes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Batches of changes to a few keys: new, replaced and vanished objects.
    #[test]
    fn tree_kept_by_addition_is_the_tree_computed_afresh(
        words in prop::collection::vec(any::<u64>(), 20..40),
        batches in prop::collection::vec(
            prop::collection::vec((0..40_u16, any::<Option<prop::sample::Index>>()), 1..12),
            1..6,
        ),
    ) {
        let world = World::play(&words);
        let states = &world.states[0];
        let mut objects: BTreeMap<u16, Object> = BTreeMap::new();
        let mut nodes: BTreeMap<TreePath, TreeNode> = BTreeMap::new();
        for batch in batches {
            let mut delta = TreeDelta::new();
            for (n, pick) in batch {
                let new = pick.map(|pick| object_of(pick.get(states).set.clone()));
                let old = objects.remove(&n);
                let bucket = Bucket::of(&table(), &key(n));
                delta.record(bucket, digest(n, old.as_ref()), digest(n, new.as_ref()));
                objects.extend(new.map(|new| (n, new)));
            }
            for (path, change) in delta.nodes() {
                let node = nodes.entry(path).or_default();
                *node = node.apply(change).unwrap();
            }
            nodes.retain(|_, node| *node != TreeNode::default());
            prop_assert_eq!(&nodes, &tree_of(&objects));
            prop_assert_eq!(delta.is_empty(), delta.nodes().is_empty());
        }
    }

    #[test]
    fn digest_of_a_view_is_the_digest_of_its_object(words in prop::collection::vec(any::<u64>(), 40)) {
        let row = row_key(&table(), &key(1));
        for state in &World::play(&words).states[0] {
            let object = object_of(state.set.clone());
            let mut bytes = Vec::new();
            encode_record(&row, &key(1), &object, &mut bytes);
            let view = RecordView::open(&row, &bytes).unwrap();
            let of_view = EntryDigest::of_view(&table(), &key(1), &view);
            prop_assert_eq!(of_view, EntryDigest::of(&table(), &key(1), &object));
        }
    }
}

#[test]
fn digest_and_bucket_are_frozen() {
    let actor = |n| Actor { node: NodeId([n; 16]), incarnation: 7 };
    let dot = |n, counter| Dot { actor: actor(n), counter };
    let mut set = Dvvset::new();
    let nothing = VersionVector::new();
    set.write(&nothing, dot(0xcc, 300), ());
    set.write(&set.join(), dot(0xaa, 2), ());
    set.write(&nothing, dot(0xaa, 200), ());
    set.write(&nothing, dot(0xbb, 1), ());
    let key = Key::new(b"k").unwrap();
    // Computed by a second implementation of the written shape.
    let expected = 0x449e_4353_a98f_1062_dfe9_e2fb_4218_5b8f;
    assert_eq!(EntryDigest::of_dots(&table(), &key, set.live_dots()), EntryDigest(expected));
    assert_eq!(KeyHash::of(&table(), &key).prefix(), [0xce, 0x96, 0x7e, 0xad]);
    assert_eq!(Bucket::of(&table(), &key).number(), 0xce9);
    assert_eq!(TreePath::Leaf(Bucket::new(0xce9).unwrap()).parent(), Some(TreePath::Branch(0xce)));
}

#[test]
fn digest_depends_on_table_key_and_live_dots_only() {
    let value = |stamp, payload: Option<&[u8]>| Value {
        stamp: Hlc::new(stamp, 0),
        expires_ms: None,
        payload: payload.map(<[u8]>::to_vec),
    };
    let dot =
        |node, counter| Dot { actor: Actor { node: NodeId([node; 16]), incarnation: 1 }, counter };
    let object = |dot, stamp| {
        let mut object = Object::new();
        object.write(&VersionVector::new(), dot, value(stamp, Some(b"v")));
        object
    };
    let of = |t: &str, k: &[u8], object: &Object| {
        EntryDigest::of(&TableName::parse(t).unwrap(), &Key::new(k).unwrap(), object)
    };
    let base = of("t", b"k", &object(dot(1, 5), 1));
    assert!(base.is_some());
    assert_eq!(base, of("t", b"k", &object(dot(1, 5), 2)));
    let mut with_context = object(dot(1, 5), 1);
    with_context.discard(&[(dot(2, 1).actor, 9)].into_iter().collect());
    assert_eq!(base, of("t", b"k", &with_context));
    let mut replaced = object(dot(1, 5), 1);
    replaced.discard(&replaced.join());
    let mut deleted = object(dot(1, 5), 1);
    deleted.write(&deleted.join(), dot(1, 6), value(1, None));
    assert_eq!([of("t", b"k", &replaced), of("t", b"k", &deleted)], [None, None]);
    let mut more = object(dot(1, 5), 1);
    more.write(&VersionVector::new(), dot(1, 6), value(1, Some(b"v")));
    let mut half_deleted = object(dot(1, 5), 1);
    half_deleted.write(&VersionVector::new(), dot(1, 7), value(1, None));
    let others = [
        of("u", b"k", &object(dot(1, 5), 1)),
        of("t", b"kk", &object(dot(1, 5), 1)),
        of("t", b"k", &object(dot(1, 6), 1)),
        of("t", b"k", &object(dot(2, 5), 1)),
        of("t", b"k", &more),
        of("t", b"k", &half_deleted),
    ];
    for (i, other) in others.iter().enumerate() {
        assert_ne!(*other, base, "case {i}");
        assert!(!others[..i].contains(other), "case {i}");
    }
}

#[test]
fn tree_shape_is_256_by_16() {
    let branches: Vec<_> = TreePath::Root.children().collect();
    let leaves: Vec<_> = branches.iter().flat_map(|branch| branch.children()).collect();
    assert_eq!((branches.len(), leaves.len()), (256, 4096));
    assert!(leaves.iter().copied().eq(Bucket::all().map(TreePath::Leaf)));
    assert_eq!(leaves[0].children().count(), 0);
    let all: Vec<_> = [TreePath::Root].into_iter().chain(branches).chain(leaves).collect();
    for (i, path) in all.iter().enumerate() {
        assert_eq!(TreePath::from_bytes(&path.to_bytes()), Some(*path));
        assert!(i == 0 || all[i - 1].to_bytes() < path.to_bytes());
        match path.parent() {
            Some(parent) => assert!(parent.children().any(|child| child == *path)),
            None => assert_eq!(*path, TreePath::Root),
        }
    }
    for bytes in [&[][..], &[0, 0], &[0, 0, 1], &[1, 1, 0], &[2, 0x10, 0], &[3, 0, 0], &[0; 4]] {
        assert_eq!(TreePath::from_bytes(bytes), None, "{bytes:?}");
    }
    assert_eq!(Bucket::new(4096), None);
}

#[test]
fn tree_node_bytes_are_frozen_and_damage_is_noticed() {
    let node = TreeNode { count: 2, digest: 0x0102 };
    let mut bytes = [0; 24];
    bytes[7] = 2;
    bytes[22..].copy_from_slice(&[1, 2]);
    assert_eq!(node.to_bytes(), bytes);
    assert_eq!(TreeNode::from_bytes(&bytes), Some(node));
    assert_eq!(TreeNode::from_bytes(&bytes[1..]), None);
    assert_eq!(TreeNode::from_bytes(&[0; 25]), None);
    let change = |count, digest| node.apply(NodeDelta { count, digest });
    assert_eq!(change(-2, 0x0102_u128.wrapping_neg()), Ok(TreeNode::default()));
    assert!(change(-3, 0).is_err(), "more taken than there is");
    assert!(change(-2, 0).is_err(), "the last object left a digest behind");
}

#[test]
fn every_bucket_is_used() {
    let used: std::collections::BTreeSet<Bucket> =
        (0..u16::MAX).map(|n| Bucket::of(&table(), &key(n))).collect();
    assert_eq!(used.len(), 4096);
}
