//! Replicas that write, merge, sweep, fall back and lose messages: they converge, keep what was
//! acknowledged, and forget what was deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use weald_storage::{
    Actor, Bucket, Clock, Context, Delta, Dot, Evidence, Key, NodeId, Object, Others, Replica,
    Replicated, Stable, TableName, TreeNode, TreePath, VersionVector, WriteError, WriteOp,
};

const MIN_AGE_MS: u64 = 50;
const KEYS: u64 = 6;

pub(crate) fn table() -> TableName {
    TableName::parse("t").unwrap()
}

pub(crate) fn key(n: u64) -> Key {
    Key::new(format!("k{n}").as_bytes()).unwrap()
}

pub(crate) fn actor(node: u8, incarnation: u32) -> Actor {
    Actor { node: NodeId([node; 16]), incarnation }
}

pub(crate) fn merge_op(delta: &Delta, evidence: Evidence) -> WriteOp {
    let Delta { table, key, object, dots } = delta.clone();
    WriteOp::Merge { table, key, object, dots, evidence }
}

pub(crate) fn put_op(n: u64, value: &[u8], context: Option<Context>) -> WriteOp {
    WriteOp::Put { table: table(), key: key(n), value: value.to_vec(), context, ttl: None }
}

pub(crate) fn live(replica: &Replica, n: u64) -> BTreeSet<Dot> {
    let object = replica.object(&table(), &key(n)).unwrap().unwrap_or_default();
    object.live_dots().collect()
}

/// All that `from` has for `to`, in pages.
pub(crate) fn missing(from: &Replica, to: &Replica, bytes_max: usize) -> (Vec<Delta>, bool) {
    let clock = to.clock().unwrap();
    let (mut deltas, mut after, mut needs_walk) = (Vec::new(), None, false);
    loop {
        let page = from.missing(&clock, after, bytes_max).unwrap();
        needs_walk |= page.needs_walk;
        assert!(page.found.deltas.len() <= 1 || bytes_max > 1, "pages are bounded");
        assert!(page.found.more || page.found.deltas.len() < 1000);
        deltas.extend(page.found.deltas);
        if !page.found.more {
            return (deltas, needs_walk);
        }
        assert!(after < page.found.last);
        after = page.found.last;
    }
}

/// A key with its live values.
type Live = (Key, Vec<(Dot, Vec<u8>)>);

struct World {
    replicas: Vec<Replica>,
    /// Older states of each replica.
    snapshots: Vec<Replica>,
    /// Messages that may arrive late, twice or never.
    flying: Vec<(usize, WriteOp)>,
    incarnation: u32,
    now_ms: u64,
    /// Values by the dot that names them.
    named: BTreeMap<Dot, Vec<u8>>,
    /// Acknowledged writes: the dot, its key, and what it replaced.
    writes: BTreeMap<Dot, (u64, VersionVector)>,
    count: u64,
}

impl World {
    fn new(replicas: u8) -> Self {
        let replicas: Vec<Replica> = (1..=replicas).map(|n| Replica::new(actor(n, 2))).collect();
        Self {
            snapshots: replicas.clone(),
            replicas,
            flying: Vec::new(),
            incarnation: 2,
            now_ms: 1_000,
            named: BTreeMap::new(),
            writes: BTreeMap::new(),
            count: 0,
        }
    }

    /// Applies a merge; a replica that was set back takes a new incarnation first.
    fn merge(&mut self, to: usize, op: &WriteOp) -> bool {
        for _ in 0..2 {
            match self.replicas[to].apply(std::slice::from_ref(op), self.now_ms).remove(0) {
                Ok(written) => return written.fresh,
                Err(WriteError::OwnEventUnknown { .. }) => self.renew(to),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("a new incarnation did not help");
    }

    fn renew(&mut self, to: usize) {
        self.incarnation += 2;
        self.replicas[to].renew(self.incarnation);
    }

    fn write(&mut self, at: usize, n: u64, delete: bool, context: Option<Context>) {
        self.count += 1;
        let covered = match &context {
            Some(context) => context.vector().clone(),
            None => {
                let object = self.replicas[at].object(&table(), &key(n)).unwrap();
                object.unwrap_or_default().join()
            }
        };
        let value = self.count.to_be_bytes().to_vec();
        let op = if delete {
            WriteOp::Delete { table: table(), key: key(n), context }
        } else {
            put_op(n, &value, context)
        };
        let written = match self.replicas[at].apply(&[op], self.now_ms).remove(0) {
            Ok(written) => written,
            // The context was read before this replica was set back.
            Err(WriteError::ForgedContext { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        assert!(written.fresh);
        let dot = written.dot.unwrap();
        self.writes.insert(dot, (n, covered));
        if !delete {
            self.named.insert(dot, value);
        }
    }

    /// Counters that every replica has processed.
    fn stable(&self) -> Stable {
        let clocks: Vec<Clock> = self.replicas.iter().map(|r| r.clock().unwrap()).collect();
        let current = self.replicas.iter().map(Replica::actor).collect();
        weald_storage::stable(&clocks.iter().collect::<Vec<_>>(), &current, Others::Nobody)
    }

    /// The objects of both sides, each with the other's clock as evidence, as a walk of sound trees
    /// exchanges them; then each adopts the other's clock.
    fn walk(&mut self, x: usize, y: usize) {
        // Own events that are not known here are found out first, as a handshake does.
        for (one, other) in [(x, y), (y, x)] {
            let own = self.replicas[one].actor();
            let known = self.replicas[one].clock().unwrap().highest(&own);
            if self.replicas[other].clock().unwrap().highest(&own) > known {
                self.renew(one);
            }
        }
        let before = [self.replicas[x].clone(), self.replicas[y].clone()];
        let clocks = before.each_ref().map(|replica| replica.clock().unwrap());
        let keys: BTreeSet<Key> = before
            .iter()
            .flat_map(|replica| {
                Bucket::all().flat_map(|bucket| {
                    let content = replica.bucket(bucket).unwrap();
                    assert!(content.sound);
                    content.entries
                })
            })
            .map(|entry| entry.key)
            .collect();
        for (to, from) in [(x, 1), (y, 0)] {
            for key in &keys {
                let object = before[from].object(&table(), key).unwrap().unwrap_or_default();
                let object = if object.is_deleted() { Object::new() } else { object };
                let op = WriteOp::Merge {
                    table: table(),
                    key: key.clone(),
                    object,
                    dots: Vec::new(),
                    evidence: Evidence::Both(Arc::new(clocks[from].clone())),
                };
                self.merge(to, &op);
            }
            let swept = before[from].swept().unwrap();
            self.replicas[to].adopt(&clocks[from], &swept, None).unwrap();
        }
    }

    /// One exchange in both directions; whether anything was new.
    fn exchange(&mut self, x: usize, y: usize, bytes_max: usize) -> bool {
        let (mut fresh, mut walk) = (false, false);
        for (from, to) in [(x, y), (y, x)] {
            let (deltas, needs_walk) = missing(&self.replicas[from], &self.replicas[to], bytes_max);
            walk |= needs_walk;
            for delta in deltas {
                fresh |= self.merge(to, &merge_op(&delta, Evidence::Own));
            }
        }
        let root = |at: usize| self.replicas[at].tree_root().unwrap();
        let clock = |at: usize| self.replicas[at].clock().unwrap();
        walk |= clock(x) == clock(y) && root(x) != root(y);
        if walk {
            self.walk(x, y);
        }
        fresh || walk
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 12, "it does not come to rest");
            let mut fresh = false;
            for x in 0..self.replicas.len() {
                for y in 0..x {
                    fresh |= self.exchange(x, y, 1 + 200 * (round % 3));
                }
            }
            if !fresh {
                return;
            }
        }
    }

    fn sweep_all(&mut self) {
        self.now_ms += MIN_AGE_MS;
        let stable = self.stable();
        for replica in &mut self.replicas {
            while replica.sweep(&stable, self.now_ms, MIN_AGE_MS, 3).more {}
        }
    }

    fn check_tree(&self) {
        for replica in &self.replicas {
            let root = replica.tree_root().unwrap();
            let branches = replica.tree_children(TreePath::Root).unwrap();
            assert_eq!(TreeNode::sum(branches), root);
            let contents = Bucket::all().map(|bucket| replica.bucket(bucket).unwrap());
            let counts = contents.map(|content| {
                assert!(content.sound);
                content.entries.len() as u64
            });
            assert_eq!(counts.sum::<u64>(), root.count);
        }
    }

    fn check_converged(&self) {
        self.check_tree();
        let objects = |replica: &Replica| -> Vec<Live> {
            let all = replica.objects().filter(|(_, _, object)| !object.is_deleted());
            all.map(|(_, key, object)| {
                let live = object.live().map(|(dot, value)| {
                    let payload = value.payload.clone().unwrap_or_default();
                    assert!(payload.is_empty() || self.named.get(&dot) == Some(&payload));
                    (dot, payload)
                });
                (key.clone(), live.collect())
            })
            .collect()
        };
        let first = &self.replicas[0];
        for other in &self.replicas[1..] {
            assert_eq!(other.clock().unwrap(), first.clock().unwrap());
            assert_eq!(other.clock().unwrap().digest(), first.clock().unwrap().digest());
            assert_eq!(objects(other), objects(first));
            assert_eq!(other.tree_root().unwrap(), first.tree_root().unwrap());
        }
    }

    /// Who has processed a write holds nothing that the write had covered, whatever it has missed or forgotten since.
    fn check_nothing_is_back(&self) {
        for replica in &self.replicas {
            let clock = replica.clock().unwrap();
            for (by, (n, covered)) in self.writes.iter().filter(|(by, _)| clock.contains(by)) {
                let held = live(replica, *n);
                let back = held.iter().find(|dot| *dot != by && covered.covers(dot));
                assert_eq!(back, None, "{} has processed {by} and holds", replica.actor());
            }
        }
    }

    /// An acknowledged write is live unless another acknowledged write replaced it.
    fn check_nothing_lost(&self) {
        for (dot, (n, _)) in &self.writes {
            let replaced = self
                .writes
                .iter()
                .any(|(by, (other, covered))| by != dot && other == n && covered.covers(dot));
            let is_live = live(&self.replicas[0], *n).contains(dot);
            // A tombstone may go as soon as everybody has it.
            let is_value = self.named.contains_key(dot);
            assert!(is_live || replaced || !is_value, "{dot} of {n} is lost");
            assert!(!(is_live && replaced), "{dot} of {n} came back");
        }
    }
}

/// What may happen.
#[derive(Debug, Clone)]
enum Step {
    Put {
        at: usize,
        n: u64,
        blind: bool,
    },
    Delete {
        at: usize,
        n: u64,
    },
    /// A write with a context that was read at another replica.
    PutElsewhere {
        read: usize,
        at: usize,
        n: u64,
    },
    Send {
        from: usize,
        to: usize,
    },
    Deliver {
        pick: usize,
        keep: bool,
    },
    Exchange {
        x: usize,
        y: usize,
    },
    Sweep {
        at: usize,
        events_max: usize,
    },
    Snapshot {
        at: usize,
    },
    Restore {
        at: usize,
        exchange: bool,
    },
}

fn steps(restores: bool) -> impl Strategy<Value = Vec<Step>> {
    let at = || 0..3_usize;
    let n = || 0..KEYS;
    let step = prop_oneof![
        5 => (at(), n(), any::<bool>()).prop_map(|(at, n, blind)| Step::Put { at, n, blind }),
        3 => (at(), n()).prop_map(|(at, n)| Step::Delete { at, n }),
        2 => (at(), at(), n()).prop_map(|(read, at, n)| Step::PutElsewhere { read, at, n }),
        4 => (at(), at()).prop_map(|(from, to)| Step::Send { from, to }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(pick, keep)| Step::Deliver { pick, keep }),
        2 => (at(), at()).prop_map(|(x, y)| Step::Exchange { x, y }),
        4 => (at(), 1..9_usize).prop_map(|(at, events_max)| Step::Sweep { at, events_max }),
        1 => at().prop_map(|at| Step::Snapshot { at }),
        u32::from(restores) => (at(), any::<bool>())
            .prop_map(|(at, exchange)| Step::Restore { at, exchange }),
    ];
    prop::collection::vec(step, 1..70)
}

fn play(world: &mut World, step: &Step) {
    world.now_ms += 10;
    match *step {
        Step::Put { at, n, blind } => {
            let nothing = Context::new(&table(), &key(n), VersionVector::new());
            world.write(at, n, false, blind.then_some(nothing));
        }
        Step::Delete { at, n } => world.write(at, n, true, None),
        Step::PutElsewhere { read, at, n } => {
            let object = world.replicas[read].object(&table(), &key(n)).unwrap();
            let context = Context::of(&table(), &key(n), &object.unwrap_or_default());
            world.write(at, n, false, Some(context));
        }
        Step::Send { from, to } => {
            let own = world.replicas[from].actor();
            let deltas = world.replicas[from].deltas_after(&own, 0, usize::MAX).unwrap().deltas;
            let ops = deltas.iter().map(|delta| (to, merge_op(delta, Evidence::Own)));
            world.flying.extend(ops);
        }
        Step::Deliver { pick, keep } => {
            if world.flying.is_empty() {
                return;
            }
            let at = pick % world.flying.len();
            let (to, op) =
                if keep { world.flying[at].clone() } else { world.flying.swap_remove(at) };
            world.merge(to, &op);
            assert!(!world.merge(to, &op), "a duplicate brings nothing");
        }
        Step::Exchange { x, y } if x != y => drop(world.exchange(x, y, 300)),
        Step::Exchange { .. } => {}
        Step::Sweep { at, events_max } => {
            let (stable, now_ms) = (world.stable(), world.now_ms);
            let before = world.replicas[at].tree_root().unwrap();
            world.replicas[at].sweep(&stable, now_ms, MIN_AGE_MS, events_max);
            assert_eq!(world.replicas[at].tree_root().unwrap(), before);
        }
        Step::Snapshot { at } => world.snapshots[at] = world.replicas[at].clone(),
        Step::Restore { at, exchange } => {
            world.replicas[at] = world.snapshots[at].clone();
            world.renew(at);
            world.snapshots[at] = world.replicas[at].clone();
            if exchange {
                world.exchange(at, (at + 1) % 3, usize::MAX);
            }
        }
    }
}

fn run(steps: &[Step], restores: bool) {
    let mut world = World::new(3);
    for step in steps {
        play(&mut world, step);
        world.check_nothing_is_back();
    }
    world.settle();
    world.check_nothing_is_back();
    world.check_converged();
    if !restores {
        world.check_nothing_lost();
    }
    // What flew around meanwhile arrives at last: nothing comes back.
    let roots = world.replicas[0].tree_root().unwrap();
    world.sweep_all();
    for (to, op) in std::mem::take(&mut world.flying) {
        if !restores {
            assert!(!world.merge(to, &op), "all of it was processed");
        }
    }
    assert_eq!(world.replicas[0].tree_root().unwrap(), roots);
    // Equal bytes, also of the contexts, since all are swept.
    let all = |replica: &Replica| -> Vec<(Key, Object)> {
        replica.objects().map(|(_, key, object)| (key.clone(), object.clone())).collect()
    };
    for replica in &world.replicas {
        assert_eq!(replica.events_len(), 0);
        assert_eq!(all(replica), all(&world.replicas[0]));
    }
    for n in 0..KEYS {
        world.write(0, n, true, None);
    }
    world.settle();
    world.check_converged();
    world.sweep_all();
    for replica in &world.replicas {
        assert_eq!((replica.objects().count(), replica.events_len()), (0, 0));
        assert_eq!(replica.tree_root().unwrap(), TreeNode::default());
    }
    // A backup from the time before comes back and brings nothing with it.
    for at in 0..3 {
        world.replicas[at] = world.snapshots[at].clone();
        world.renew(at);
        for other in (0..3).filter(|other| *other != at) {
            world.exchange(at, other, usize::MAX);
        }
        world.settle();
        world.check_converged();
        if !restores {
            assert_eq!(world.replicas[0].tree_root().unwrap(), TreeNode::default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn replicas_converge_keep_and_forget(steps in steps(false)) {
        run(&steps, false);
    }

    #[test]
    fn replicas_that_fall_back_converge(steps in steps(true)) {
        run(&steps, true);
    }
}
