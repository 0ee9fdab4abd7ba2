//! The ractor shell: the only writer of both tables of names, and of this node's rows.

use super::core::{Entry, NAMES_MAX, NameError, Names};
use super::directory::{Claim, Directory, presences};
use super::handle::Shared;
use super::row;
use crate::service::PushHandle;
use crate::store::WriteFailure;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use weald_proto::request::{Lost, request_frame};
use weald_storage::{Change, Context, NodeId, ReadError, Scan, Space, WriteOp};
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};

/// How often the rows of this node are compared with what it holds, and rows of others that are gone are looked for.
const REVIEW_PERIOD: Duration = Duration::from_secs(1);
/// Changes of the store that are read before other messages have their turn.
const CHANGES_STEP: usize = 256;
/// Rows that are written or removed in one review.
const WRITES_MAX: usize = 256;
/// Time for a row to be written; a review writes it again after that.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// Time of a client to hear that it has lost a name.
const LOST_TIME: Duration = Duration::from_secs(5);

/// How the holder of a name is reached.
#[derive(Clone)]
pub struct Holder(pub PushHandle);

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Holder")
    }
}

/// Messages of the registry actor.
#[derive(Debug)]
pub enum Msg {
    /// Register a name.
    Register {
        /// The name.
        name: String,
        /// Who asks.
        entry: Entry<Holder>,
        /// The answer.
        reply: RpcReplyPort<Result<Entry<Holder>, NameError>>,
    },
    /// Give a name back.
    Unregister {
        /// The name.
        name: String,
        /// Who asks.
        session: u64,
        /// The answer.
        reply: RpcReplyPort<Result<(), NameError>>,
    },
    /// A session has ended.
    Closed {
        /// Its number.
        session: u64,
    },
    /// Rows or members may have changed, or it is time for a review.
    Look,
}

impl Message for Msg {}

/// The actor. Restart type `Permanent`, under the root.
#[derive(Debug)]
pub struct RegistryActor;

/// The actor's state: its own copy of the tables, published after each change.
#[derive(Debug)]
pub struct State {
    names: Names<Holder>,
    directory: Directory,
    /// How far the changes of each partition were read.
    read: Vec<u64>,
    reviewed: Instant,
    shared: Arc<Shared>,
    waker: tokio::task::JoinHandle<()>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.waker.abort();
    }
}

impl Actor for RegistryActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        shared.is_looking.store(false, Ordering::Release);
        let waker = tokio::spawn(wake(Arc::clone(&shared), myself));
        let mut names = Names::clone(&shared.names.load());
        // News of sessions that ended while no registry was running are lost: ask the source.
        if names.retain(|session| shared.sessions.is_open(session)) > 0 {
            shared.names.store(Arc::new(names.clone()));
        }
        let own = shared.store.store().node_id();
        let directory = Directory::new(own);
        let reviewed = Instant::now();
        let mut state = State { names, directory, read: Vec::new(), reviewed, shared, waker };
        state.directory.set_nodes(presences(&state.shared.cluster.borrow().clone()));
        state.read_all()?;
        state.review();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Register { name, entry, reply } => match state.register(&name, entry) {
                Ok(entry) => {
                    let written = state.tell(&name);
                    tokio::spawn(async move {
                        // What was not written now is written by a review.
                        written.await;
                        drop(reply.send(Ok(entry)));
                    });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Msg::Unregister { name, session, reply } => {
                let result = state.names.unregister(session, &name);
                if result.is_ok() {
                    state.publish_names();
                    state.withdraw(&name);
                }
                drop(reply.send(result));
            }
            Msg::Closed { session } => {
                let freed = state.names.close(session);
                if !freed.is_empty() {
                    state.publish_names();
                }
                freed.iter().for_each(|name| state.withdraw(name));
            }
            Msg::Look => {
                state.shared.is_looking.store(false, Ordering::Release);
                if state.look()? {
                    // The rest after what else waits.
                    state.shared.is_looking.store(true, Ordering::Release);
                    drop(myself.cast(Msg::Look));
                }
            }
        }
        Ok(())
    }
}

/// Wakes the actor when there may be something to look at, at most once before it has looked.
async fn wake(shared: Arc<Shared>, actor: ActorRef<Msg>) {
    let (mut commits, mut cluster) = (shared.store.commits(), shared.cluster.clone());
    let partitions = 0..shared.store.store().partitions();
    let sum = |index: u16| shared.store.store().partition(index).last_seq(Space::Memory);
    let mut seen = Vec::new();
    loop {
        commits.mark_unchanged();
        let now: Vec<u64> = partitions.clone().map(sum).collect();
        let is_changed = now != seen;
        seen = now;
        if is_changed && !look(&shared, &actor) {
            return;
        }
        // Biased: members first, as commits may come all the time.
        tokio::select! {
            biased;
            changed = cluster.changed() => {
                if changed.is_err() {
                    // Nobody changes it any more, as in a node that stops.
                    return;
                }
                cluster.mark_unchanged();
                if !look(&shared, &actor) {
                    return;
                }
            }
            changed = commits.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(REVIEW_PERIOD) => {
                if !look(&shared, &actor) {
                    return;
                }
            }
        }
    }
}

/// Whether the actor is still there.
fn look(shared: &Shared, actor: &ActorRef<Msg>) -> bool {
    shared.is_looking.swap(true, Ordering::AcqRel) || actor.cast(Msg::Look).is_ok()
}

impl State {
    fn register(
        &mut self,
        name: &str,
        mut entry: Entry<Holder>,
    ) -> Result<Entry<Holder>, NameError> {
        if !self.shared.sessions.is_open(entry.session) {
            return Err(NameError::NotHeld(name.to_owned()));
        }
        if let Some(held) = self.directory.holder(name) {
            if held.is_up && self.names.whereis(name).is_none() {
                let (owner, node) = (held.claim.owner.clone(), Some(held.node_name.to_owned()));
                return Err(NameError::Taken { name: name.to_owned(), owner, node });
            }
            // Whatever the clocks say, that claim is older.
            entry.since_ms = entry.since_ms.max(held.claim.since_ms.saturating_add(1));
        }
        if self.directory.len() >= NAMES_MAX && self.directory.own(name).is_none() {
            return Err(NameError::Full);
        }
        let entry = self.names.register(name, entry)?;
        self.publish_names();
        Ok(entry)
    }

    /// Reads what has changed, and does what follows. Whether there is more.
    fn look(&mut self) -> Result<bool, ActorProcessingErr> {
        let (is_more, is_changed) = self.read_changes()?;
        let nodes = presences(&self.shared.cluster.borrow().clone());
        let has_members = self.directory.set_nodes(nodes);
        if is_changed || has_members {
            self.publish_directory();
            self.give_way();
        }
        if has_members || self.reviewed.elapsed() >= REVIEW_PERIOD {
            self.review();
        }
        Ok(is_more)
    }

    fn read_changes(&mut self) -> Result<(bool, bool), ActorProcessingErr> {
        let store = self.shared.store.clone();
        let (mut is_more, mut is_changed) = (false, false);
        for index in 0..store.store().partitions() {
            let partition = store.store().partition(index);
            let read = self.read[usize::from(index)];
            if partition.last_seq(Space::Memory) == read {
                continue;
            }
            let changes = partition.changes(Space::Memory, read, CHANGES_STEP)?;
            if changes.truncated() || changes.last_seq < read {
                self.read_all()?;
                return Ok((false, true));
            }
            is_more |= changes.events.len() == CHANGES_STEP;
            for change in changes.events {
                self.read[usize::from(index)] = change.seq;
                is_changed |= self.read_change(&change)?;
            }
        }
        Ok((is_more, is_changed))
    }

    fn read_change(&mut self, change: &Change) -> Result<bool, ReadError> {
        if change.table != self.shared.table {
            return Ok(false);
        }
        let Some((name, node)) = row::read_key(&change.key) else { return Ok(false) };
        let got = self.shared.store.get(&change.table, &change.key)?;
        let claim = got.values.first().and_then(|value| row::read_value(value));
        Ok(self.directory.set(name, node, claim))
    }

    /// Reads the whole table.
    fn read_all(&mut self) -> Result<(), ActorProcessingErr> {
        let store = self.shared.store.clone();
        let inner = store.store();
        // Before the rows, so that none is missed between the two.
        self.read = (0..inner.partitions())
            .map(|index| inner.partition(index).last_seq(Space::Memory))
            .collect();
        self.directory.clear();
        let mut scan = Scan::new(self.shared.table.clone());
        loop {
            let page = inner.scan(&scan, store.wall_ms())?;
            for item in page.items {
                let claim = item.values.first().and_then(|value| row::read_value(value));
                if let (Some((name, node)), Some(claim)) = (row::read_key(&item.key), claim) {
                    self.directory.set(name, node, Some(claim));
                }
            }
            match page.next {
                Some(next) => scan.after = Some(next),
                None => break,
            }
        }
        self.publish_directory();
        Ok(())
    }

    /// Gives up the names that another node has had for longer, and tells those who had them here.
    fn give_way(&mut self) {
        let lost: Vec<(String, Lost)> = self
            .names
            .names("")
            .filter_map(|(name, entry)| {
                let rival = self.directory.rival(name, entry.since_ms)?;
                let (node, owner) = (rival.node_name.to_owned(), rival.claim.owner.clone());
                let since_ms = rival.claim.since_ms;
                Some((name.clone(), Lost { name: name.clone(), node, owner, since_ms }))
            })
            .collect();
        for (name, lost) in lost {
            let Some(entry) = self.names.remove(&name) else { continue };
            tracing::warn!(event = "name_lost", name, client = %entry.owner, to_node = %lost.node, to_client = %lost.owner, "a name was held on two nodes, the older registration keeps it");
            let told = entry.holder.0.request(request_frame(0, &lost), LOST_TIME);
            // One that does not hear it finds out when it asks.
            tokio::spawn(async move { drop(told.await) });
            self.withdraw(&name);
            self.publish_names();
        }
    }

    /// Makes the rows of this node what it holds, and removes rows of nodes that are gone.
    fn review(&mut self) {
        self.reviewed = Instant::now();
        let missing: Vec<String> = self
            .names
            .names("")
            .filter(|(name, entry)| self.directory.own(name) != Some(&self.claim(entry)))
            .map(|(name, _)| name.clone())
            .take(WRITES_MAX)
            .collect();
        for name in &missing {
            tokio::spawn(self.tell(name));
        }
        let own = self.directory.all_own();
        let stale: Vec<String> = own
            .filter(|(name, _)| self.names.whereis(name).is_none())
            .map(|(name, _)| name.to_owned())
            .take(WRITES_MAX)
            .collect();
        stale.iter().for_each(|name| self.withdraw(name));
        for (name, node) in self.directory.to_remove(WRITES_MAX) {
            self.remove_row(&name, node);
        }
    }

    fn claim(&self, entry: &Entry<Holder>) -> Claim {
        let store = self.shared.store.store();
        Claim {
            incarnation: store.incarnation(),
            life: store.actor(Space::Memory).incarnation,
            owner: entry.owner.clone(),
            since_ms: entry.since_ms,
        }
    }

    /// Writes the row of a name that is held here. Handed on before this returns, so that rows are written in the order of the
    /// calls; the future is for waiting.
    fn tell(&self, name: &str) -> impl Future<Output = ()> + Send + use<> {
        let own = self.shared.store.store().node_id();
        let op = self.names.whereis(name).zip(row::key(name, own)).map(|(entry, key)| {
            let (table, value) = (self.shared.table.clone(), row::value(&self.claim(entry)));
            WriteOp::Put { table, key, value, context: None::<Context>, ttl: None }
        });
        let written = op.map(|op| self.write(op));
        async move {
            if let Some(written) = written {
                written.await;
            }
        }
    }

    /// Removes the row of a name that is not held here any more.
    fn withdraw(&self, name: &str) {
        self.remove_row(name, self.shared.store.store().node_id());
    }

    fn remove_row(&self, name: &str, node: NodeId) {
        let Some(key) = row::key(name, node) else { return };
        let op = WriteOp::Delete { table: self.shared.table.clone(), key, context: None };
        tokio::spawn(self.write(op));
    }

    fn write(&self, op: WriteOp) -> impl Future<Output = ()> + Send + use<> {
        let written = self.shared.store.write(op, Instant::now() + WRITE_TIME);
        let shared = Arc::clone(&self.shared);
        async move {
            if let Err(error) = written.await {
                shared.not_written(&error);
            }
        }
    }

    fn publish_names(&self) {
        self.shared.names.store(Arc::new(self.names.clone()));
    }

    fn publish_directory(&self) {
        self.shared.directory.store(Arc::new(self.directory.clone()));
    }
}

impl Shared {
    fn not_written(&self, error: &WriteFailure) {
        if let Some(suppressed) = self.logs.admit() {
            tracing::warn!(event = "name_not_written", %error, suppressed, "the row of a name was not written, it is tried again");
        }
    }
}
