//! Nodes in memory, and sessions between them.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use weald_exchange::core::{
    Compared, Input, Limits, MergeFailure, Mode, Outcome, Output, Resort, Session, Shard, Stores,
};
use weald_storage::{
    Actor, Bucket, BucketContent, Clock, Delta, Deltas, Dot, Era, Evidence, Key, Missing, NodeId,
    Object, ReadError, Replica, Replicated, Space, TableName, TreeNode, TreePath, VersionVector,
    Watch, WriteError, WriteOp,
};

pub(crate) const LIMITS: Limits = Limits { idle_ms: 60_000, total_ms: 3_600_000 };
pub(crate) const PARTITIONS: u16 = 2;
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// Of nodes that know of no third one.
fn resort() -> Arc<Resort> {
    Arc::new(Resort::only_peer())
}

pub(crate) fn table() -> TableName {
    TableName::parse("t").unwrap()
}

pub(crate) fn key(n: u64) -> Key {
    Key::new(format!("key-{n}").as_bytes()).unwrap()
}

/// A replica that may have lost its index of events.
#[derive(Clone)]
pub(crate) struct Face {
    replica: Replica,
    pub(crate) forgot: bool,
}

impl Deref for Face {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}

impl DerefMut for Face {
    fn deref_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }
}

impl Replicated for Face {
    fn actor(&self) -> Actor {
        self.replica.actor()
    }

    fn clock(&self) -> Result<Clock, ReadError> {
        self.replica.clock()
    }

    fn watch(&self, theirs: &Arc<Clock>) -> Result<Arc<Watch>, ReadError> {
        self.replica.watch(theirs)
    }

    fn era(&self) -> Era {
        self.replica.era()
    }

    fn swept(&self) -> Result<VersionVector, ReadError> {
        self.replica.swept()
    }

    fn deltas_after(&self, actor: &Actor, after: u64, max: usize) -> Result<Deltas, ReadError> {
        self.replica.deltas_after(actor, after, max)
    }

    fn deltas_of(&self, dots: &[Dot]) -> Result<(Vec<Delta>, Vec<Dot>), ReadError> {
        self.replica.deltas_of(dots)
    }

    fn missing(&self, of: &Clock, after: Option<Dot>, max: usize) -> Result<Missing, ReadError> {
        if self.forgot { Ok(Missing::default()) } else { self.replica.missing(of, after, max) }
    }

    fn tree_root(&self) -> Result<TreeNode, ReadError> {
        self.replica.tree_root()
    }

    fn tree_children(&self, path: TreePath) -> Result<Vec<TreeNode>, ReadError> {
        self.replica.tree_children(path)
    }

    fn bucket(&self, bucket: Bucket) -> Result<BucketContent, ReadError> {
        self.replica.bucket(bucket)
    }

    fn damaged(&self) -> Result<Vec<Bucket>, ReadError> {
        self.replica.damaged()
    }

    fn object(&self, table: &TableName, key: &Key) -> Result<Option<Object>, ReadError> {
        self.replica.object(table, key)
    }
}

/// All shards of a node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) replicas: Vec<Face>,
    incarnation: u32,
    /// A key that this node cannot merge.
    pub(crate) refuses: Option<u64>,
}

impl Stores for Node {
    fn partitions(&self) -> u16 {
        PARTITIONS
    }

    fn replica(&self, shard: Shard) -> &dyn Replicated {
        &self.replicas[usize::from(shard.number())]
    }
}

impl Node {
    pub(crate) fn new(n: u8) -> Self {
        let actor = Actor { node: NodeId([n; 16]), incarnation: 1 };
        let replicas =
            Shard::all(PARTITIONS).map(|_| Face { replica: Replica::new(actor), forgot: false });
        let replicas = replicas.collect();
        Self { replicas, incarnation: 1, refuses: None }
    }

    /// Keys are spread over the partitions; all of them durable.
    fn at(&mut self, n: u64) -> &mut Replica {
        let shard = Shard::new(u16::try_from(n % 2).unwrap(), Space::Durable);
        &mut self.replicas[usize::from(shard.number())]
    }

    pub(crate) fn put(&mut self, n: u64, value: &[u8], now_ms: u64) {
        let op = WriteOp::Put {
            table: table(),
            key: key(n),
            value: value.to_vec(),
            context: None,
            ttl: None,
        };
        self.at(n).apply(&[op], now_ms).remove(0).unwrap();
    }

    pub(crate) fn delete(&mut self, n: u64, now_ms: u64) {
        let op = WriteOp::Delete { table: table(), key: key(n), context: None };
        self.at(n).apply(&[op], now_ms).remove(0).unwrap();
    }

    pub(crate) fn lose(&mut self, n: u64) {
        self.at(n).damage_drop_row(&table(), &key(n));
    }

    pub(crate) fn repair_tree(&mut self, n: u64) {
        self.at(n).repair_tree(Bucket::of(&table(), &key(n)));
    }

    pub(crate) fn get(&mut self, n: u64) -> Option<Object> {
        self.at(n).object(&table(), &key(n)).unwrap().filter(|object| !object.is_deleted())
    }

    pub(crate) fn merge(
        &mut self,
        shard: Shard,
        items: Vec<(Delta, Evidence)>,
        now_ms: u64,
    ) -> Vec<Result<bool, MergeFailure>> {
        let refused = self.refuses.map(key);
        let is_refused = |(delta, _): &(Delta, _)| Some(&delta.key) == refused.as_ref();
        if items.iter().any(is_refused) {
            // Whatever stands beside it in the batch is merged all the same.
            return items
                .into_iter()
                .map(|item| {
                    if is_refused(&item) {
                        return Err(MergeFailure::Other("refused".to_owned()));
                    }
                    let mut others = self.clone();
                    others.refuses = None;
                    let result = others.merge(shard, vec![item], now_ms).remove(0);
                    *self = Self { refuses: self.refuses, ..others };
                    result
                })
                .collect();
        }
        let op = |(Delta { table, key, object, dots }, evidence)| WriteOp::Merge {
            table,
            key,
            object,
            dots,
            evidence,
        };
        let ops: Vec<WriteOp> = items.into_iter().map(op).collect();
        let failure = |error| match error {
            WriteError::OwnEventUnknown { actor, .. } => {
                MergeFailure::OwnEventUnknown { highest: actor.incarnation }
            }
            other => MergeFailure::Other(other.to_string()),
        };
        let written = self.replicas[usize::from(shard.number())].apply(&ops, now_ms);
        written.into_iter().map(|w| w.map(|w| w.fresh).map_err(failure)).collect()
    }

    pub(crate) fn renew(&mut self, highest: u32) {
        self.incarnation = self.incarnation.max(highest) + 1;
        for replica in &mut self.replicas {
            replica.renew(self.incarnation);
        }
    }

    /// Sweeps everything that these nodes have.
    pub(crate) fn sweep_all(nodes: &mut [Self], now_ms: u64) {
        for number in 0..nodes[0].replicas.len() {
            let bases: Vec<VersionVector> =
                nodes.iter().map(|n| n.replicas[number].clock().unwrap().bases()).collect();
            let least = |(actor, n): (Actor, u64)| {
                (actor, bases.iter().map(|bases| bases.get(&actor)).fold(n, u64::min))
            };
            let stable = bases[0].iter().map(least).collect::<VersionVector>().into();
            for node in nodes.iter_mut() {
                while node.replicas[number].sweep(&stable, now_ms, 0, 100).more {}
            }
        }
    }

    /// Live values by key, with their dots: what has to be equal everywhere.
    pub(crate) fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        for (number, replica) in self.replicas.iter().enumerate() {
            for (_, key, object) in replica.objects().filter(|(_, _, o)| !o.is_deleted()) {
                let live: Vec<_> = object.live().map(|(dot, v)| (dot, v.payload.clone())).collect();
                state.push(format!("{number} {key:?} {live:?}"));
            }
        }
        state
    }

    pub(crate) fn rows(&self) -> usize {
        self.replicas.iter().map(|replica| replica.objects().count()).sum()
    }
}

/// Whether two nodes are equal in every respect.
pub(crate) fn assert_equal(a: &Node, b: &Node) {
    assert_eq!(a.state(), b.state());
    for (x, y) in a.replicas.iter().zip(&b.replicas) {
        assert_eq!(x.tree_root().unwrap(), y.tree_root().unwrap());
        assert_eq!(x.clock().unwrap().digest(), y.clock().unwrap().digest());
    }
}

/// A session between two nodes, step by step.
pub(crate) struct Run {
    pub(crate) nodes: [Node; 2],
    sessions: [Session; 2],
    /// Outputs of each side that were not carried out yet.
    todo: [VecDeque<Output>; 2],
    pub(crate) ended: [Option<Outcome>; 2],
    pub(crate) now_ms: u64,
    pub(crate) steps: usize,
    pub(crate) messages: [usize; 2],
    /// Largest number of frames that were under way at once.
    pub(crate) flying_max: usize,
}

impl Run {
    pub(crate) fn new(nodes: [Node; 2], mode: Mode, now_ms: u64) -> Self {
        Self::with_resorts(nodes, [resort(), resort()], mode, now_ms)
    }

    pub(crate) fn with_resorts(
        nodes: [Node; 2],
        [ours, theirs]: [Arc<Resort>; 2],
        mode: Mode,
        now_ms: u64,
    ) -> Self {
        let (ours, outputs) = Session::initiate(mode, 0, LIMITS, ours, &nodes[A], now_ms);
        let theirs = Session::respond(LIMITS, theirs, now_ms);
        Self {
            nodes,
            sessions: [ours, theirs],
            todo: [outputs.into(), VecDeque::new()],
            ended: [None, None],
            now_ms,
            steps: 0,
            messages: [0, 0],
            flying_max: 0,
        }
    }

    /// Carries out one output, of the side that has more of them; false when there is none.
    pub(crate) fn step(&mut self) -> bool {
        let flying = |todo: &VecDeque<Output>| {
            todo.iter().filter(|output| matches!(output, Output::Send(_))).count()
        };
        self.flying_max = self.flying_max.max(self.todo.iter().map(flying).max().unwrap());
        let side = usize::from(self.todo[A].len() < self.todo[B].len());
        let Some(output) = self.todo[side].pop_front() else { return false };
        self.steps += 1;
        let (to, input) = match output {
            Output::Send(frame) => {
                self.messages[side] += 1;
                (1 - side, Input::Frame(frame))
            }
            Output::Merge { id, shard, items } => {
                let results = self.nodes[side].merge(shard, items, self.now_ms);
                (side, Input::Merged { id, results })
            }
            Output::Adopt { id, shard, clock, swept, watch } => {
                let replica = &mut self.nodes[side].replicas[usize::from(shard.number())];
                (
                    side,
                    Input::Adopted { id, ok: replica.adopt(&clock, &swept, Some(&watch)).is_ok() },
                )
            }
            Output::Renew { highest } => {
                self.nodes[side].renew(highest);
                return true;
            }
            Output::Finished(outcome) => {
                assert!(self.ended[side].replace(*outcome).is_none(), "it ends once");
                return true;
            }
        };
        self.input(to, input);
        true
    }

    pub(crate) fn input(&mut self, side: usize, input: Input) {
        let outputs = self.sessions[side].handle(&self.nodes[side], self.now_ms, input);
        self.todo[side].extend(outputs);
    }

    /// The side loses everything it was about to do; the other one waits.
    pub(crate) fn kill(&mut self, side: usize) {
        self.todo[side].clear();
        self.sessions[side] = Session::respond(LIMITS, resort(), self.now_ms);
        self.ended[side] = None;
    }

    pub(crate) fn next_deadline(&self, side: usize) -> Option<u64> {
        self.sessions[side].next_deadline()
    }

    /// What a side has compared.
    pub(crate) fn compared(&self, side: usize) -> &[Compared] {
        self.ended[side].as_ref().map_or(&[], |outcome| &outcome.compared)
    }

    pub(crate) fn finish(mut self) -> Self {
        while self.step() {
            assert!(self.steps < 1_000_000, "it ends");
        }
        self
    }
}

/// A whole session; both sides have to end well.
pub(crate) fn exchange(nodes: [Node; 2], now_ms: u64) -> Run {
    let mut run = Run::new(nodes, Mode::Exchange, now_ms).finish();
    for (node, ended) in run.nodes.iter_mut().zip(&run.ended) {
        let outcome = ended.as_ref().expect("both sides end");
        assert!(outcome.result.is_ok(), "{:?}", outcome.result);
        // There are no other members.
        for compared in &outcome.compared {
            let buckets: Vec<Bucket> = compared.buckets.iter().map(|(bucket, _)| *bucket).collect();
            node.replicas[usize::from(compared.shard.number())].compared(&buckets);
        }
    }
    run
}
