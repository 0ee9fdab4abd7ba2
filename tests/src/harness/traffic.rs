//! Sessions on the nodes of a cluster, and the judgement of what they saw.
//!
//! What it is: on each node some sessions that add elements to a set (each key written once), and some that read, write and
//! delete a few keys that all of them share, in a table with siblings. Now and then somebody reads the whole set.
//!
//! What it finds: acknowledged elements that are missing, elements that nobody added; acknowledged values of the shared keys
//! that are neither there nor replaced; broken session guarantees of sessions that stay on one node.

use super::cluster::Cluster;
use crate::checkers::history::{self, Entry, Op, Outcome, Recorder};
use crate::checkers::sessions::{self, Violation};
use crate::checkers::set_full::{self, Quantiles, Report};
use crate::seed::Seeded;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use weald_client::{Client, Error, TableKind, table};

/// The table of the set.
pub const SET: &str = "set";
/// The table with siblings.
pub const SHARED: &str = "shared";
/// Time of one operation.
const WITHIN: Duration = Duration::from_secs(3);
/// Pause after an operation that failed: a node that is down answers at once.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Pause between two reads of the whole set.
const SCAN_EVERY: Duration = Duration::from_millis(700);
/// Operations of a session until it goes on to other keys, so that no key has more writes than a checker likes.
const EPOCH: u64 = 300;
/// Sessions of one node have numbers from `node * PER_NODE` on.
const PER_NODE: u64 = 1000;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On these nodes.
    pub nodes: Vec<usize>,
    /// Sessions on each that add elements.
    pub adders: u64,
    /// Sessions on each that use the shared keys.
    pub sharers: u64,
    /// Number of shared keys.
    pub keys: usize,
    /// Pause of a session between two operations.
    pub pause: Duration,
    /// First part of all keys, so that scenarios do not meet.
    pub prefix: String,
    /// The same seed, the same choices.
    pub seed: u64,
}

impl Plan {
    /// A little of everything on these nodes.
    #[must_use]
    pub fn new(prefix: &str, nodes: &[usize]) -> Self {
        Self {
            nodes: nodes.to_vec(),
            adders: 2,
            sharers: 2,
            keys: 8,
            pause: Duration::from_millis(20),
            prefix: format!("{prefix}/"),
            seed: 1,
        }
    }
}

/// Sessions at work.
#[derive(Debug)]
pub struct Traffic {
    plan: Plan,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

/// What was found: all is well, or there would be a panic.
#[derive(Debug)]
pub struct Verified {
    /// Of the set.
    pub set: Report,
    /// Everything that was done.
    pub history: Vec<Entry>,
    /// From the end of the traffic until all nodes were equal.
    pub converged: Duration,
    /// Acknowledged writes of both tables.
    pub acked: usize,
}

/// Declares the tables of the traffic, and waits until all running nodes have them.
///
/// # Panics
/// When that fails.
pub fn declare(cluster: &Cluster) {
    for node in cluster.running() {
        let client = cluster.client(node);
        let mut shared = table(SHARED);
        shared.kind = TableKind::Durable;
        "siblings".clone_into(&mut shared.resolver);
        for wanted in [table(SET), shared] {
            let name = wanted.name.clone();
            cluster.write(node, &format!("declaration of {name}"), || {
                client.declare_table(wanted.clone())
            });
        }
    }
}

struct Session {
    number: u64,
    client: Client,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    rng: Seeded,
    plan: Plan,
}

impl Traffic {
    /// Begins.
    #[must_use]
    pub fn start(cluster: &Cluster, plan: Plan) -> Self {
        let recorder = Recorder::new();
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for &node in &plan.nodes {
            for index in 0..plan.adders + plan.sharers {
                let number = node as u64 * PER_NODE + index;
                let session = Session {
                    number,
                    client: cluster.client(node),
                    recorder: recorder.clone(),
                    stop: Arc::clone(&stop),
                    acked: Arc::clone(&acked),
                    rng: Seeded::new(plan.seed ^ (number << 20)),
                    plan: plan.clone(),
                };
                let adds = index < plan.adders;
                tasks.push(cluster.runtime().spawn(async move {
                    if adds { session.add().await } else { session.share().await }
                }));
            }
        }
        let clients: Vec<_> = plan.nodes.iter().map(|&node| cluster.client(node)).collect();
        let (prefix, ended, log) = (plan.prefix.clone(), Arc::clone(&stop), recorder.clone());
        tasks.push(cluster.runtime().spawn(async move {
            for client in clients.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                scan(client, &prefix, &log).await;
                tokio::time::sleep(SCAN_EVERY).await;
            }
        }));
        Self { plan, recorder, stop, acked, tasks }
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Microseconds since the start, as in the history.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.recorder.now()
    }

    /// Ends the sessions, waits until all running nodes are equal, reads everything, and judges.
    ///
    /// # Panics
    /// When anything is wrong: with what, and the place of the history.
    #[must_use]
    pub fn verify(self, cluster: &Cluster, deadline: Duration) -> Verified {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            cluster.block(task).unwrap_or_else(|e| panic!("a session: {e}"));
        }
        let file =
            cluster.dir().join(format!("history-{}.jsonl", self.plan.prefix.replace('/', "")));
        let save = |entries: &[Entry]| {
            history::write(&file, entries)
                .unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
        };
        save(&self.recorder.entries());
        let tables = [SET, SHARED];
        let converged = cluster.wait_converged_below(&tables, &self.plan.prefix, deadline);
        let of_shared = |e: &Entry| (!is_of_set(e)).then(|| e.key.clone());
        let keys: BTreeSet<String> = self.recorder.entries().iter().filter_map(of_shared).collect();
        for node in cluster.running() {
            let client = cluster.client(node);
            cluster.block(scan(&client, &self.plan.prefix, &self.recorder));
            // A session of its own: what it reads must cover all, and need not follow anything.
            let number = node as u64 * PER_NODE + PER_NODE - 1;
            for key in &keys {
                cluster.block(read(&client, number, key, &self.recorder));
            }
        }
        let entries = self.recorder.entries();
        save(&entries);
        let (of_set, shared): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(is_of_set);
        let set = set_full::check(&of_set);
        let wrong =
            [("lost", &set.lost), ("phantom", &set.phantom), ("never read", &set.never_read)].map(
                |(what, keys)| format!("{} {what} {:?}", keys.len(), &keys[..keys.len().min(5)]),
            );
        assert!(set.is_good(), "of {}: {wrong:?}; see {}", set.acknowledged, file.display());
        let broken: Vec<Violation> = sessions::check(&shared);
        assert!(
            broken.is_empty(),
            "{} broken promises, as {:?}; see {}",
            broken.len(),
            &broken[..broken.len().min(3)],
            file.display()
        );
        let lost = sessions::lost(&shared);
        let some = &lost[..lost.len().min(5)];
        assert!(lost.is_empty(), "{} lost: {some:?}; see {}", lost.len(), file.display());
        let acked = entries.iter().filter(|e| e.is_write() && e.outcome == Outcome::Ok).count();
        Verified { set, history: entries, converged, acked }
    }
}

impl Verified {
    /// Times of acknowledged writes that began between these moments, microseconds of the history, on these nodes.
    #[must_use]
    pub fn latency(&self, nodes: &[usize], from: u64, to: u64) -> Quantiles {
        let within = |e: &&Entry| {
            e.is_write()
                && e.outcome == Outcome::Ok
                && (from..to).contains(&e.ts)
                && nodes.iter().any(|&node| e.session / PER_NODE == node as u64)
        };
        Quantiles::of(self.history.iter().filter(within).map(|e| e.took).collect())
    }
}

/// Additions and reads of the set have keys with a session in them.
fn is_of_set(entry: &Entry) -> bool {
    entry.op == Op::Scan || entry.key.contains("/add-")
}

fn outcome_of<T>(result: &Result<T, Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::Ok,
        Err(Error::TimedOut(_) | Error::Internal(_)) => Outcome::Info,
        // The client says that nothing was done.
        Err(_) => Outcome::Fail,
    }
}

fn texts(values: Vec<Vec<u8>>) -> Vec<String> {
    values.into_iter().map(|v| String::from_utf8_lossy(&v).into_owned()).collect()
}

async fn scan(client: &Client, prefix: &str, recorder: &Recorder) {
    let (ts, mut value, mut outcome) = (recorder.now(), Vec::new(), Outcome::Ok);
    let mut scan = client.scan(SET).prefix(format!("{prefix}add-")).page_size(1000);
    while let Some(item) = scan.next().await {
        match item {
            Ok(item) => {
                let key = String::from_utf8_lossy(&item.key).into_owned();
                value.extend(texts(item.values).into_iter().map(|v| format!("{key}={v}")));
            }
            Err(_) => {
                outcome = Outcome::Fail;
                break;
            }
        }
    }
    let (key, ctx, session) = (SET.to_owned(), None, u64::MAX);
    recorder.ended(Entry { ts, took: 0, session, op: Op::Scan, key, ctx, value, outcome });
}

/// Reads a shared key: the context, and the values.
async fn read(
    client: &Client,
    session: u64,
    key: &str,
    recorder: &Recorder,
) -> Option<(weald_client::Context, Vec<String>)> {
    let ts = recorder.now();
    let got = client.get(SHARED, key).await.ok()?;
    let (context, value, key) = (got.context.clone(), texts(got.values), key.to_owned());
    let (op, outcome) = (Op::Get, Outcome::Ok);
    recorder.ended(Entry {
        ts,
        took: 0,
        session,
        op,
        key,
        ctx: None,
        value: value.clone(),
        outcome,
    });
    Some((context, value))
}

impl Session {
    async fn pause(&self, outcome: Outcome) {
        let time = if outcome == Outcome::Ok { self.plan.pause } else { AFTER_FAILURE };
        tokio::time::sleep(time).await;
    }

    fn ended(&self, entry: Entry) {
        if entry.outcome == Outcome::Ok {
            self.acked.fetch_add(1, Ordering::Relaxed);
        }
        self.recorder.ended(entry);
    }

    async fn add(self) {
        for n in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("{}add-{}/{n}", self.plan.prefix, self.number);
            let ts = self.recorder.now();
            let result = self.client.put(SET, key.clone(), "1").deadline(WITHIN).await;
            let (outcome, session, value) = (outcome_of(&result), self.number, vec!["1".into()]);
            self.ended(Entry { ts, took: 0, session, op: Op::Put, key, ctx: None, value, outcome });
            self.pause(outcome).await;
        }
    }

    async fn share(mut self) {
        for n in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (epoch, number) = (n / EPOCH, self.rng.below(self.plan.keys));
            let key = format!("{}{epoch}-{number}", self.plan.prefix);
            let Some((context, seen)) = read(&self.client, self.number, &key, &self.recorder).await
            else {
                self.pause(Outcome::Fail).await;
                continue;
            };
            let ts = self.recorder.now();
            let (session, dice) = (self.number, self.rng.below(10));
            let entry = if dice < 2 && !seen.is_empty() {
                let delete = self.client.delete(SHARED, key.clone()).context(&context);
                let outcome = outcome_of(&delete.deadline(WITHIN).await);
                let (op, ctx) = (Op::Delete, Some(seen));
                Entry { ts, took: 0, session, op, key, ctx, value: Vec::new(), outcome }
            } else {
                let value = format!("{}-{n}", self.number);
                // Never without a context: that would replace what the node holds, which nobody here knows.
                let put = self.client.put(SHARED, key.clone(), value.clone()).context(&context);
                let outcome = outcome_of(&put.deadline(WITHIN).await);
                let (op, ctx) = (Op::Put, Some(seen));
                Entry { ts, took: 0, session, op, key, ctx, value: vec![value], outcome }
            };
            let outcome = entry.outcome;
            self.ended(entry);
            self.pause(outcome).await;
        }
    }
}
