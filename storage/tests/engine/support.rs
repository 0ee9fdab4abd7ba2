//! Stores in temporary directories, short names, children.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;

use weald_storage::check::verdict_of_child;
use weald_storage::{
    BootEvent, Context, Got, Key, OpenError, Resolvers, Scan, Store, StoreConfig, TableName,
    WallClock, Write, WriteError, WriteOp, Written,
};

/// Names what a child is to do; set only in children.
pub const CHILD: &str = "WEALD_ENGINE_CHILD";
/// What it is to do it to.
pub const CHILD_DIR: &str = "WEALD_ENGINE_CHILD_DIR";

/// A directory in memory if there is one: for tests that commit very often and are not about disks.
pub fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

pub fn table(name: &str) -> TableName {
    TableName::parse(name).unwrap()
}

pub fn key(bytes: impl AsRef<[u8]>) -> Key {
    Key::new(bytes.as_ref()).unwrap()
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub struct Clock(pub Arc<AtomicU64>);

pub const START_MS: u64 = 1_800_000_000_000;

impl Clock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START_MS)))
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn wall(&self) -> WallClock {
        let this = self.clone();
        WallClock::new(move || this.now())
    }
}

pub fn config(partitions: u16) -> StoreConfig {
    StoreConfig { partitions, map_size: 1024 * 1024, ..StoreConfig::default() }
}

/// Runs the check of a partition in a child process, as a node does.
pub fn check(dir: &Path) -> io::Result<weald_storage::CheckVerdict> {
    let out = child("check", dir).stderr(Stdio::null()).output()?;
    // The test runner prints around what the child prints.
    let text = String::from_utf8_lossy(&out.stdout);
    let json = text.lines().find_map(|line| line.find("{\"verdict\"").map(|at| &line[at..]));
    let json = json.map(|json| &json[..=json.rfind('}').unwrap()]);
    verdict_of_child(out.status, json.unwrap_or("").as_bytes())
}

/// This binary again, to do `what` to `dir`.
pub fn child(what: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child::entry", "--exact", "--nocapture", "--test-threads=1", "-q"])
        .env(CHILD, what)
        .env(CHILD_DIR, dir);
    command
}

pub fn open_with(
    dir: &Path,
    config: StoreConfig,
    resolvers: Resolvers,
) -> (Result<Store, OpenError>, Vec<BootEvent>) {
    let mut events = Vec::new();
    let store = Store::open(dir, config, resolvers, &check, &mut events);
    (store, events)
}

pub fn open(dir: &Path, config: StoreConfig) -> Store {
    open_with(dir, config, Resolvers::default()).0.unwrap()
}

/// Short forms of what tests do all the time.
pub trait Short {
    fn put(&self, table: &TableName, key: &Key, value: &[u8]) -> Written;
    fn put_ctx(
        &self,
        table: &TableName,
        key: &Key,
        value: &[u8],
        context: &Context,
    ) -> Result<Written, WriteError>;
    fn delete(&self, table: &TableName, key: &Key) -> Written;
    fn read(&self, table: &TableName, key: &Key) -> Got;
    fn value(&self, table: &TableName, key: &Key) -> Option<Vec<u8>>;
    fn all(&self, table: &TableName) -> Vec<(Vec<u8>, Vec<u8>)>;
    fn batch(&self, partition: u16, ops: Vec<WriteOp>) -> Vec<Result<Written, WriteError>>;
}

impl Short for Store {
    fn put(&self, table: &TableName, key: &Key, value: &[u8]) -> Written {
        self.write(WriteOp::Put {
            table: table.clone(),
            key: key.clone(),
            value: value.to_vec(),
            context: None,
            ttl: None,
        })
        .unwrap()
    }

    fn put_ctx(
        &self,
        table: &TableName,
        key: &Key,
        value: &[u8],
        context: &Context,
    ) -> Result<Written, WriteError> {
        self.write(WriteOp::Put {
            table: table.clone(),
            key: key.clone(),
            value: value.to_vec(),
            context: Some(context.clone()),
            ttl: None,
        })
    }

    fn delete(&self, table: &TableName, key: &Key) -> Written {
        let op = WriteOp::Delete { table: table.clone(), key: key.clone(), context: None };
        self.write(op).unwrap()
    }

    fn read(&self, table: &TableName, key: &Key) -> Got {
        self.get(table, key, START_MS).unwrap()
    }

    fn value(&self, table: &TableName, key: &Key) -> Option<Vec<u8>> {
        let got = self.read(table, key);
        assert!(got.values.len() < 2, "{got:?}");
        got.values.into_iter().next()
    }

    fn all(&self, table: &TableName) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut request = Scan::new(table.clone());
        let mut all = Vec::new();
        loop {
            let page = self.scan(&request, START_MS).unwrap();
            assert_eq!(page.corrupt, 0);
            let items = page.items.into_iter();
            all.extend(items.map(|item| (item.key.as_bytes().to_vec(), item.values[0].clone())));
            request.after = page.next;
            if request.after.is_none() {
                return all;
            }
        }
    }

    fn batch(&self, partition: u16, ops: Vec<WriteOp>) -> Vec<Result<Written, WriteError>> {
        let (tx, rx) = channel();
        let len = ops.len();
        let writes = ops.into_iter().enumerate().map(|(place, op)| {
            let tx = tx.clone();
            Write { op, reply: Box::new(move |outcome| tx.send((place, outcome)).unwrap()) }
        });
        let (done_tx, done_rx) = channel();
        self.partition(partition)
            .submit(writes.collect(), Box::new(move |report| done_tx.send(report).unwrap()));
        let report = done_rx.recv().unwrap();
        drop(tx);
        let mut outcomes: Vec<_> = rx.iter().collect();
        outcomes.sort_by_key(|(place, _)| *place);
        assert_eq!(outcomes.len(), len, "each write is answered once");
        assert_eq!(report.writes, len);
        assert_eq!(report.failed, outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count());
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

pub fn put_op(table: &TableName, key: &Key, value: &[u8]) -> WriteOp {
    WriteOp::Put {
        table: table.clone(),
        key: key.clone(),
        value: value.to_vec(),
        context: None,
        ttl: None,
    }
}

pub fn delete_op(table: &TableName, key: &Key) -> WriteOp {
    WriteOp::Delete { table: table.clone(), key: key.clone(), context: None }
}

/// Checks what must hold at any time: the tree is the sum of the objects, in both spaces.
pub fn assert_tree_is_sound(store: &Store) {
    use weald_storage::{Bucket, Space, TreeNode, TreePath};
    let (first, last) = (Bucket::new(0).unwrap(), Bucket::new(4095).unwrap());
    for index in 0..store.partitions() {
        let partition = store.partition(index);
        for space in [Space::Durable, Space::Memory] {
            let report = partition.scrub(space, first..=last).unwrap();
            assert_eq!(report.mismatches, [], "{space:?}");
            assert_eq!(report.corrupt, 0);
            let root = partition.tree_root(space).unwrap();
            assert_eq!(root.count, report.checked);
            let branches = partition.tree_children(space, TreePath::Root).unwrap();
            assert_eq!(branches.len(), 256);
            assert_eq!(TreeNode::sum(branches), root);
        }
    }
}
