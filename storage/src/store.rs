//! The store: all partitions of a node, its tables, its identity.
//!
//! Opened once at boot; actors come and go, the store outlives them. It is shared by cloning and is
//! `Send + Sync`. Reads and scans may be called from any thread that may block for some
//! microseconds; writes go to the partition of their key.
//!
//! Guarantees: those of each [`Partition`]; and after [`Store::close`] the directory may be opened
//! again, by this or another process.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use crate::boot::{BootEvent, Booted, boot, write_store_file};
use crate::check::CheckVerdict;
use crate::error::{CloseError, DeclareError, OpenError, ReadError, WriteError};
use crate::identity::{CleanMarker, EnvIdentity, next_incarnation};
use crate::ids::{Actor, NodeId};
use crate::key::{Key, TableName, partition_of};
use crate::partition::ops::WriteOp;
use crate::partition::ops::Written;
use crate::partition::read::Got;
use crate::partition::scan::{Page, Scan, scan};
use crate::partition::space::PartitionStats;
use crate::partition::{CommitHook, Partition, Shared, Space};
use crate::resolve::{Resolver, Resolvers};
use crate::table::{TABLES_TABLE, Table, TableSpec, Tables, is_system, spec_in};

/// Smallest map, in bytes: room for the empty databases and some transactions.
const MAP_SIZE_MIN: u64 = 1024 * 1024;

/// When an acknowledged write is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Before it is acknowledged.
    #[default]
    Full,
    /// Soon after: a power cut may lose the last commit of each partition. The files stay
    /// consistent, and the node takes a new incarnation, so no dot is used twice.
    Relaxed,
}

/// What to do with a damaged partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// Refuse to open until an operator has decided.
    #[default]
    Stop,
    /// Begin it afresh; peers fill it.
    Continue,
}

/// The wall clock, which tests replace.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl WallClock {
    /// The clock of the system.
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// A clock that asks `now_ms`.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Number of partitions, 1 to 1,024; fixed at the first boot and equal on all nodes.
    pub partitions: u16,
    /// When a write is on disk.
    pub durability: Durability,
    /// First size of each partition's memory map, in bytes.
    pub map_size: u64,
    /// Largest size of each partition's memory map, in bytes. Address space, not memory or disk.
    pub map_size_max: u64,
    /// Changes kept in the log of each partition.
    pub changes_retained: u64,
    /// Threads that may read one partition at the same time, over its life.
    pub max_readers: u32,
    /// What to do with a damaged partition.
    pub on_damage: OnDamage,
    /// The clock that stamps writes.
    pub clock: WallClock,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            partitions: 8,
            durability: Durability::Full,
            map_size: 64 * 1024 * 1024,
            map_size_max: 256 * 1024 * 1024 * 1024, // guess: far beyond any node's data
            changes_retained: 1_000_000,
            max_readers: 1024, // more than the threads of a runtime with its blocking pool
            on_damage: OnDamage::Stop,
            clock: WallClock::system(),
        }
    }
}

impl StoreConfig {
    fn validate(&self) -> Result<(), OpenError> {
        let invalid = |setting, why| Err(OpenError::Config { setting, why });
        if !(1..=1024).contains(&self.partitions) {
            return invalid("partitions", "must be 1 to 1024");
        }
        if self.map_size < MAP_SIZE_MIN {
            return invalid("map_size", "must be at least 1 MiB");
        }
        if self.map_size_max < 4 * MAP_SIZE_MIN {
            return invalid("map_size_max", "must be at least 4 MiB");
        }
        if self.max_readers == 0 {
            return invalid("max_readers", "must be at least 1");
        }
        Ok(())
    }
}

/// Checks the partition in a directory, in a child process: runs `check::run_child` there and maps
/// the outcome with `check::verdict_of_child`.
pub type CheckFn = dyn Fn(&Path) -> io::Result<CheckVerdict>;

/// Figures of a store at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// The node.
    pub node: NodeId,
    /// Incarnation of the durable tables.
    pub incarnation: u32,
    /// Each partition.
    pub partitions: Vec<PartitionStats>,
}

struct Inner {
    dir: PathBuf,
    shared: Arc<Shared>,
    identity: EnvIdentity,
    partitions: Vec<Arc<Partition>>,
    /// Held while an incarnation is renewed; the incarnation in use.
    incarnation: Mutex<u32>,
    /// Whether partitions may have different incarnations, since a renewal failed half way.
    torn: AtomicBool,
    closed: Mutex<bool>,
}

/// See the module.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, creating it if need be. The caller holds the directory's lock
    /// ([`crate::DataDirLock`]). What happened is added to `events`, also when opening fails.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        dir: &Path,
        config: StoreConfig,
        resolvers: Resolvers,
        check: &CheckFn,
        events: &mut Vec<BootEvent>,
    ) -> Result<Self, OpenError> {
        config.validate()?;
        let booted = boot(dir, &config, check, events)?;
        let Some(identity) = booted.first().map(|first| first.identity) else {
            return Err(OpenError::Config { setting: "partitions", why: "must be 1 to 1024" });
        };
        let hook = ArcSwapOption::empty();
        let shared = Arc::new(Shared { config, tables: Tables::new(), resolvers, hook });
        declare_builtin(&shared.tables);
        let mut partitions: Vec<Arc<Partition>> = Vec::with_capacity(booted.len());
        for (index, booted) in (0_u16..).zip(booted) {
            let path = crate::identity::partition_dir(dir, index);
            let Booted { lmdb, committed, identity } = booted;
            match Partition::start(&path, lmdb, committed, identity, Arc::clone(&shared)) {
                Ok(partition) => partitions.push(partition),
                Err(source) => {
                    for started in &partitions {
                        // Why opening fails is what matters; nothing was written yet.
                        drop(Partition::close(started));
                    }
                    return Err(OpenError::Io { what: "start the writer of", path, source });
                }
            }
        }
        let inner = Arc::new(Inner {
            dir: dir.to_owned(),
            shared,
            identity,
            partitions,
            incarnation: Mutex::new(identity.incarnation),
            torn: AtomicBool::new(false),
            closed: Mutex::new(false),
        });
        let store = Self { inner };
        store.load_tables().map_err(OpenError::Tables)?;
        Ok(store)
    }

    /// Lets the writers finish what is queued, syncs and closes everything, and leaves the marker
    /// of a clean stop. Later calls on any clone answer `Closed`; a second close does nothing.
    ///
    /// # Errors
    /// The store is closed all the same, but the next boot will see an unclean stop.
    pub fn close(&self) -> Result<(), CloseError> {
        self.inner.close(true)
    }

    /// The node this data belongs to.
    pub fn node_id(&self) -> NodeId {
        self.inner.identity.node
    }

    /// Incarnation of the durable tables.
    pub fn incarnation(&self) -> u32 {
        *self.inner.incarnation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The actor that issues the dots of `space`.
    pub fn actor(&self, space: Space) -> Actor {
        self.inner.partitions[0].actor(space)
    }

    /// Whether all that this node issues from now on is above an incarnation of it that somebody knows.
    pub fn is_above(&self, incarnation: u32) -> bool {
        let memory = |partition: &Arc<Partition>| partition.actor(Space::Memory).incarnation;
        self.incarnation() > incarnation
            && self.inner.partitions.iter().all(|partition| memory(partition) > incarnation)
    }

    /// Takes new incarnations, of the durable and of the memory tables, because a peer knows events of
    /// this node that are not here ([`WriteError::OwnEventUnknown`]). When it returns, every later dot is
    /// of these. Gives the actor of the durable tables.
    ///
    /// # Errors
    /// A partition could not write it; call it again, or restart.
    pub fn renew_incarnation(&self, highest_known: u32) -> Result<Actor, WriteError> {
        let inner = &self.inner;
        let mut current = inner.incarnation.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = inner.shared.config.clock.now_ms();
        let incarnation =
            next_incarnation(Space::Durable, Some(highest_known.max(*current)), now_ms);
        // The highest of all partitions: an earlier call may have failed half-way.
        let memory = inner.partitions.iter().map(|p| p.actor(Space::Memory).incarnation).max();
        let memory_incarnation =
            next_incarnation(Space::Memory, memory.max(Some(highest_known)), now_ms);
        inner.torn.store(true, Ordering::Release);
        // Used up, whatever comes: a part of the partitions may have taken it.
        *current = incarnation;
        for partition in &inner.partitions {
            partition.renew(incarnation, memory_incarnation)?;
        }
        let identity = EnvIdentity { incarnation, memory_incarnation, ..inner.identity };
        if let Err(error) = write_store_file(&inner.dir, &identity) {
            return Err(WriteError::Storage(error.to_string().into()));
        }
        inner.torn.store(false, Ordering::Release);
        drop(current);
        Ok(self.actor(Space::Durable))
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u16 {
        self.inner.shared.config.partitions
    }

    /// A partition by its number.
    ///
    /// # Panics
    /// There is none of that number.
    pub fn partition(&self, index: u16) -> &Arc<Partition> {
        &self.inner.partitions[usize::from(index)]
    }

    /// The partition of a key.
    pub fn partition_of(&self, table: &TableName, key: &Key) -> u16 {
        partition_of(table, key, self.partitions())
    }

    /// Sets what is called after each commit, instead of what was set before.
    pub fn set_commit_hook(&self, hook: Box<CommitHook>) {
        self.inner.shared.hook.store(Some(Arc::new(hook)));
    }

    /// Reads a key.
    ///
    /// # Errors
    /// The record is damaged, LMDB gave an error, or the store is closed.
    pub fn get(&self, table: &TableName, key: &Key, now_ms: u64) -> Result<Got, ReadError> {
        let tables = self.inner.shared.tables.load();
        let partition = self.partition(self.partition_of(table, key));
        partition.get(spec_in(&tables, table), table, key, now_ms)
    }

    /// Reads a page of a table, ascending by key, over all partitions.
    ///
    /// # Errors
    /// The page token does not belong to the scan, LMDB gave an error, or the store is closed.
    pub fn scan(&self, request: &Scan, now_ms: u64) -> Result<Page, ReadError> {
        let tables = self.inner.shared.tables.load();
        scan(&self.inner.partitions, spec_in(&tables, &request.table), request, now_ms)
    }

    /// Hands one write to the partition of its key and waits for its outcome. For tests, tools and
    /// declarations; actors collect batches for [`Partition::submit`].
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&self, op: WriteOp) -> Result<Written, WriteError> {
        let (table, key) = op.target();
        self.partition(self.partition_of(table, key)).write(op)
    }

    /// Declares a table, or changes how it resolves or how long its values live.
    ///
    /// # Errors
    /// The name is reserved, the kind differs from what the table is, or the write failed.
    pub fn declare_table(&self, name: &TableName, spec: TableSpec) -> Result<(), DeclareError> {
        if is_system(name) {
            return Err(DeclareError::Reserved(name.clone()));
        }
        self.declare_system_table(name, spec)
    }

    /// Declares a table whose name may start with `weald.`; for the node itself.
    ///
    /// # Errors
    /// As [`Self::declare_table`].
    #[expect(clippy::needless_pass_by_value, reason = "as `declare_table`, which is given specs")]
    pub fn declare_system_table(
        &self,
        name: &TableName,
        spec: TableSpec,
    ) -> Result<(), DeclareError> {
        let shared = &self.inner.shared;
        let _one_at_a_time = shared.tables.lock();
        if let Resolver::Merge(merge) = &spec.resolver
            && !shared.resolvers.contains(merge)
        {
            return Err(DeclareError::UnknownMerge(merge.clone()));
        }
        let known = shared.tables.with(name, |known| known.cloned());
        if let Some(known) = known {
            if known.spec.kind != spec.kind {
                let existing = known.spec.kind;
                return Err(DeclareError::KindDiffers { table: name.clone(), existing });
            }
            if known.declared && known.spec == spec {
                return Ok(());
            }
        }
        let value = serde_json::to_vec(&spec)
            .map_err(|error| WriteError::Storage(error.to_string().into()))?;
        let (Ok(table), Ok(key)) =
            (TableName::parse(TABLES_TABLE), Key::new(name.as_str().as_bytes()))
        else {
            return Err(DeclareError::Reserved(name.clone()));
        };
        self.write(WriteOp::Put { table, key, value, context: None, ttl: None })?;
        Ok(())
    }

    /// All tables that were declared or written, by name.
    pub fn tables(&self) -> Vec<Table> {
        let known = self.inner.shared.tables.snapshot();
        let tables = known.iter().map(|(name, known)| Table {
            name: name.clone(),
            spec: known.spec.clone(),
            declared: known.declared,
        });
        tables.collect()
    }

    /// What `table` is, declared or not.
    pub fn table(&self, table: &TableName) -> TableSpec {
        spec_in(&self.inner.shared.tables.load(), table).clone()
    }

    /// Reads the declaration of the table of this name again, after a peer has changed it.
    pub fn learn_table(&self, name: &Key) {
        if let Ok(tables) = TableName::parse(TABLES_TABLE) {
            self.partition(self.partition_of(&tables, name)).load_declaration(name);
        }
    }

    /// Figures for metrics and the operator.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            node: self.node_id(),
            incarnation: self.incarnation(),
            partitions: self.inner.partitions.iter().map(|partition| partition.stats()).collect(),
        }
    }

    /// Reads the declarations, and finds the tables that were written without one.
    fn load_tables(&self) -> Result<(), ReadError> {
        let tables = TableName::parse(TABLES_TABLE).map_err(|_name| ReadError::Closed)?;
        let mut request = Scan { keys_only: true, ..Scan::new(tables.clone()) };
        loop {
            let page = self.scan(&request, 0)?;
            for item in &page.items {
                let index = self.partition_of(&tables, &item.key);
                self.partition(index).load_declaration(&item.key);
            }
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        for partition in &self.inner.partitions {
            partition.find_tables()?;
        }
        Ok(())
    }
}

/// The table of tables cannot declare itself.
fn declare_builtin(tables: &Tables) {
    if let Ok(name) = TableName::parse(TABLES_TABLE) {
        tables.declared(&name, TableSpec::UNDECLARED);
    }
}

impl Inner {
    fn close(&self, mark: bool) -> Result<(), CloseError> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *closed, true) {
            return Ok(());
        }
        let mut first_error = Ok(());
        for partition in &self.partitions {
            let closed = partition.close();
            first_error = first_error.and(closed);
        }
        first_error?;
        if !mark || self.torn.load(Ordering::Acquire) {
            return Ok(());
        }
        let incarnation = *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner);
        let marker = CleanMarker::of(&self.dir, self.identity.partitions, incarnation);
        marker.and_then(|marker| marker.write(&self.dir)).map_err(CloseError::Marker)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody asked for a clean stop, so none is claimed; but threads and files are given back.
        if let Err(error) = self.close(false) {
            tracing::error!(event = "store_close_failed", %error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableKind;

    fn open(dir: &Path) -> (Store, Vec<BootEvent>) {
        let mut events = Vec::new();
        let config = StoreConfig { partitions: 1, ..StoreConfig::default() };
        let check = |path: &Path| Ok(crate::check::check_env(path));
        let store = Store::open(dir, config, Resolvers::default(), &check, &mut events).unwrap();
        (store, events)
    }

    fn put(table: &TableName) -> WriteOp {
        let key = Key::new(b"k").unwrap();
        WriteOp::Put { table: table.clone(), key, value: b"v".to_vec(), context: None, ttl: None }
    }

    #[test]
    fn partition_that_stopped_writing_reads_on_and_the_next_start_is_unclean() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let (durable, memory) = (TableName::parse("d").unwrap(), TableName::parse("m").unwrap());
        let spec = TableSpec { kind: TableKind::Memory, ..TableSpec::UNDECLARED };
        store.declare_table(&memory, spec).unwrap();
        store.write(put(&durable)).unwrap();
        let before = store.incarnation();
        store.partition(0).gauges.stop("injected");
        assert!(matches!(store.write(put(&durable)), Err(WriteError::Stopped(_))));
        assert!(matches!(store.renew_incarnation(0), Err(WriteError::Stopped(_))));
        store.write(put(&memory)).unwrap();
        let key = Key::new(b"k").unwrap();
        assert_eq!(store.get(&durable, &key, 0).unwrap().values, [b"v"]);
        assert_eq!(store.stats().partitions[0].stopped.as_deref(), Some("injected"));
        assert!(matches!(store.close(), Err(CloseError::Stopped { partition: 0, .. })));
        let (store, events) = open(dir.path());
        assert!(events.contains(&BootEvent::UncleanStop));
        assert!(store.incarnation() > before);
        store.write(put(&durable)).unwrap();
    }

    #[test]
    fn store_dropped_by_its_own_writer_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let (tx, rx) = std::sync::mpsc::channel();
        let table = TableName::parse("d").unwrap();
        let last = store.clone();
        let reply = move |outcome: Result<Written, WriteError>| {
            // By now the test has let go of its own handle.
            rx.recv().unwrap();
            drop(last);
            outcome.unwrap();
        };
        let write = crate::Write { op: put(&table), reply: Box::new(reply) };
        let (done_tx, done) = std::sync::mpsc::channel();
        let completion = Box::new(move |_| done_tx.send(()).unwrap());
        store.partition(0).submit(vec![write], completion);
        drop(store);
        tx.send(()).unwrap();
        done.recv().unwrap();
    }
}
