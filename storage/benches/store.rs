//! What the store costs over raw LMDB: same keys, same values, same number of environments, same
//! batch size, in the same run on the same disk.
//!
//! `cargo bench -p weald-storage` prints a table and, as its last line, JSON. Settings by
//! environment: `WEALD_BENCH_DIR` (where), `WEALD_BENCH_SECONDS` (per measure),
//! `WEALD_BENCH_PARTITIONS`, `WEALD_BENCH_KEYS`, `WEALD_BENCH_PUTS=0` (reads only).
//!
//! Writers are closed loops: each sends its next write when the last one was acknowledged. Per
//! partition a collector keeps one batch in flight and gathers the next meanwhile, as the store
//! actor does. Raw LMDB then writes the same records in batches of the size the store reached,
//! without any channel between: it is the upper bound.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a bench")]
#![allow(clippy::disallowed_methods, reason = "there is no runtime to block")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env};
use weald_storage::{
    Bucket, CheckVerdict, Completion, EntryDigest, Key, KeyHash, Resolvers, Scan, Space, Store,
    StoreConfig, TableName, Write, WriteOp,
};

const VALUE_BYTES: usize = 100;
const BATCH_MAX: usize = 1024;

struct Settings {
    dir: PathBuf,
    measure: Duration,
    partitions: u16,
    keys: u64,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A key of 16 bytes.
fn key_bytes(n: u64) -> [u8; 16] {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed.to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self) -> Vec<u8> {
        (0..VALUE_BYTES / 4).flat_map(|_| (self.next() as u32).to_be_bytes()).collect()
    }
}

fn open_store(settings: &Settings) -> Store {
    let config = StoreConfig { partitions: settings.partitions, ..StoreConfig::default() };
    let check = |_: &Path| Ok(CheckVerdict::Sound { rows: 0, ms: 0 });
    let dir = settings.dir.join("weald");
    Store::open(&dir, config, Resolvers::default(), &check, &mut Vec::new()).unwrap()
}

fn table() -> TableName {
    TableName::parse("bench").unwrap()
}

fn put(n: u64, value: Vec<u8>) -> WriteOp {
    let key = Key::new(&key_bytes(n)).unwrap();
    WriteOp::Put { table: table(), key, value, context: None, ttl: None }
}

fn nobody() -> Completion {
    Box::new(|_| {})
}

fn load_store(store: &Store, settings: &Settings) {
    let mut random = Random(1);
    let mut batches: BTreeMap<u16, Vec<Write>> = BTreeMap::new();
    for n in 0..settings.keys {
        let op = put(n, random.value());
        let (table, key) = op.target();
        let index = store.partition_of(table, key);
        let batch = batches.entry(index).or_default();
        batch.push(Write { op, reply: Box::new(|outcome| drop(outcome.unwrap())) });
        if batch.len() == BATCH_MAX {
            store.partition(index).submit(std::mem::take(batch), nobody());
        }
    }
    for (index, batch) in batches {
        let (tx, rx) = channel();
        store.partition(index).submit(batch, Box::new(move |_| tx.send(()).unwrap()));
        rx.recv().unwrap();
    }
}

/// One write in the closed loop of a writer.
struct Request {
    op: WriteOp,
    random: Random,
}

/// What the writers share.
struct Loop {
    store: Store,
    to: Vec<Sender<Request>>,
    stop: AtomicBool,
    done: AtomicU64,
    keys: u64,
}

impl Loop {
    fn send_next(&self, mut random: Random) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let op = put(random.next() % self.keys, random.value());
        let (table, key) = op.target();
        let index = self.store.partition_of(table, key);
        drop(self.to[usize::from(index)].send(Request { op, random }));
    }
}

/// Collects requests and keeps one batch in flight; gives the number of batches.
fn collect(shared: &Arc<Loop>, index: u16, requests: &Receiver<Request>) -> u64 {
    let mut batches = 0;
    while let Ok(first) = requests.recv_timeout(Duration::from_millis(200)) {
        let mut batch = vec![first];
        batch.extend(requests.try_iter().take(BATCH_MAX - 1));
        let writes = batch.into_iter().map(|request| {
            let shared = Arc::clone(shared);
            let reply = move |outcome: Result<_, _>| {
                drop(outcome.unwrap());
                shared.done.fetch_add(1, Ordering::Relaxed);
                shared.send_next(request.random);
            };
            Write { op: request.op, reply: Box::new(reply) }
        });
        let (tx, rx) = channel();
        let done = Box::new(move |_| tx.send(()).unwrap());
        shared.store.partition(index).submit(writes.collect(), done);
        rx.recv().unwrap();
        batches += 1;
    }
    batches
}

/// Puts per second, and writes per batch.
fn store_puts(store: &Store, settings: &Settings, writers: u64) -> (f64, f64) {
    let (to, requests): (Vec<_>, Vec<_>) = (0..settings.partitions).map(|_| channel()).unzip();
    let shared = Arc::new(Loop {
        store: store.clone(),
        to,
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        keys: settings.keys,
    });
    let collectors: Vec<_> = (0..)
        .zip(requests)
        .map(|(index, requests)| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || collect(&shared, index, &requests))
        })
        .collect();
    let started = Instant::now();
    for writer in 0..writers {
        shared.send_next(Random(writer + 77));
    }
    std::thread::sleep(settings.measure);
    let puts = shared.done.load(Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    shared.stop.store(true, Ordering::Relaxed);
    let batches: u64 = collectors.into_iter().map(|collector| collector.join().unwrap()).sum();
    let all = shared.done.load(Ordering::Relaxed);
    (puts as f64 / seconds, all as f64 / batches as f64)
}

type Raw = (Env, Database<'static, Bytes, Bytes>, Database<'static, Bytes, Bytes>);

fn open_raw(settings: &Settings) -> Vec<Raw> {
    (0..settings.partitions)
        .map(|index| {
            let dir = settings.dir.join(format!("raw-{index}"));
            std::fs::create_dir_all(&dir).unwrap();
            let env = weald_storage::open_raw(&dir, 1 << 30, 4).unwrap();
            let txn = env.write_txn().unwrap();
            let databases = env
                .create_databases_and_commit(txn, |opener, txn| {
                    let rows = opener.create_database(txn, Some("rows"))?;
                    let tree = opener.create_database(txn, Some("tree"))?;
                    heed::Result::Ok(CommitOrAbort::<_, ()>::Commit((rows, tree)))
                })
                .unwrap();
            let (rows, tree) = databases.commit().unwrap();
            (env, rows, tree)
        })
        .collect()
}

fn raw_index(raw: &[Raw], key: &[u8; 16]) -> usize {
    usize::from(key[0]) * raw.len() / 256
}

fn load_raw(raw: &[Raw], settings: &Settings) {
    let mut random = Random(1);
    let mut batches = vec![Vec::new(); raw.len()];
    for n in 0..settings.keys {
        let key = key_bytes(n);
        batches[raw_index(raw, &key)].push((key, random.value()));
    }
    for ((env, rows, _), batch) in raw.iter().zip(batches) {
        for chunk in batch.chunks(BATCH_MAX) {
            let mut txn = env.write_txn().unwrap();
            for (key, value) in chunk {
                rows.put(&mut txn, key, value).unwrap();
            }
            txn.commit().unwrap();
        }
    }
}

/// The hash tree alone, on top of a raw put: digests and the row of the branch.
fn raw_tree(raw: &Raw, txn: &mut heed::RwTxn<'_>, key: &[u8; 16]) {
    let (table, key) = (table(), Key::new(key).unwrap());
    let bucket = Bucket::of_hash(&KeyHash::of(&table, &key));
    let nothing = std::iter::empty();
    let old = EntryDigest::of_dots(&table, &key, nothing.clone());
    let new = EntryDigest::of_dots(&table, &key, nothing);
    let mut leaves = raw.2.get(txn, &[bucket.branch()]).unwrap().unwrap_or(&[0; 384]).to_vec();
    leaves[usize::from(bucket.number() % 16) * 24] ^= (old.0 ^ new.0) as u8 ^ 1;
    raw.2.put(txn, &[bucket.branch()], &leaves).unwrap();
}

/// Puts per second of plain LMDB, one thread per environment, `batch` puts a commit.
fn raw_puts(raw: &[Raw], settings: &Settings, batch: usize, threads: usize, tree: Tree) -> f64 {
    let started = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = Random(thread as u64 + 5);
                    let mut done = 0;
                    let envs = raw.len();
                    let mut at = thread;
                    while started.elapsed() < settings.measure {
                        // With fewer writers than environments each write goes to a random one.
                        if threads < envs {
                            at = random.next() as usize % envs;
                        }
                        let (env, rows, _) = &raw[at];
                        let mut keys: Vec<_> =
                            std::iter::repeat_with(|| key_bytes(random.next() % settings.keys))
                                .filter(|key| raw_index(raw, key) == at)
                                .take(batch)
                                .collect();
                        keys.sort_unstable();
                        let mut txn = env.write_txn().unwrap();
                        for key in keys {
                            rows.put(&mut txn, &key, &random.value()).unwrap();
                            if tree == Tree::With {
                                raw_tree(&raw[at], &mut txn, &key);
                            }
                        }
                        txn.commit().unwrap();
                        done += batch as u64;
                    }
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    done as f64 / started.elapsed().as_secs_f64()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    With,
    Without,
}

fn per_second(settings: &Settings, mut step: impl FnMut() -> u64) -> f64 {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < settings.measure / 2 {
        done += step();
    }
    done as f64 / started.elapsed().as_secs_f64()
}

fn store_gets(store: &Store, settings: &Settings) -> f64 {
    let (table, mut random) = (table(), Random(3));
    per_second(settings, || {
        for _ in 0..1_000 {
            let key = Key::new(&key_bytes(random.next() % settings.keys)).unwrap();
            let got = store.get(&table, &key, 0).unwrap();
            assert_eq!(got.values[0].len(), VALUE_BYTES);
        }
        1_000
    })
}

fn raw_gets(raw: &[Raw], settings: &Settings) -> f64 {
    let mut random = Random(3);
    per_second(settings, || {
        for _ in 0..1_000 {
            let key = key_bytes(random.next() % settings.keys);
            let (env, rows, _) = &raw[raw_index(raw, &key)];
            let txn = env.read_txn().unwrap();
            let value = rows.get(&txn, &key).unwrap().unwrap().to_vec();
            assert_eq!(value.len(), VALUE_BYTES);
        }
        1_000
    })
}

fn store_scan(store: &Store, settings: &Settings) -> f64 {
    per_second(settings, || {
        let mut scan = Scan { limit_items: 1_000, ..Scan::new(table()) };
        let mut items = 0;
        loop {
            let page = store.scan(&scan, 0).unwrap();
            items += page.items.len() as u64;
            scan.after = page.next;
            if scan.after.is_none() {
                return items;
            }
        }
    })
}

fn raw_scan(raw: &[Raw], settings: &Settings) -> f64 {
    per_second(settings, || {
        let mut items = 0;
        for (env, rows, _) in raw {
            let txn = env.read_txn().unwrap();
            for row in rows.iter(&txn).unwrap() {
                let (key, value) = row.unwrap();
                items += u64::from(!key.to_vec().is_empty() && !value.to_vec().is_empty());
            }
        }
        items
    })
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let digits = line.map(|line| line.chars().filter(char::is_ascii_digit).collect::<String>());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test --benches` asks for a trial only.
    let trial = !std::env::args().any(|arg| arg == "--bench");
    let parent = std::env::var_os("WEALD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let measure = if trial { 50 } else { 1_000 * number("WEALD_BENCH_SECONDS", 3) };
    let settings = Settings {
        dir: dir.path().to_owned(),
        measure: Duration::from_millis(measure),
        partitions: u16::try_from(number("WEALD_BENCH_PARTITIONS", 8)).unwrap(),
        keys: if trial { 1_000 } else { number("WEALD_BENCH_KEYS", 200_000) },
    };
    let before_kib = anonymous_kib();
    let store = open_store(&settings);
    load_store(&store, &settings);
    let loaded_kib = anonymous_kib();
    let raw = open_raw(&settings);
    load_raw(&raw, &settings);
    let partitions = usize::from(settings.partitions);
    println!("{} keys of 16 B, values of {VALUE_BYTES} B, {partitions} partitions", settings.keys);
    let mut figures = BTreeMap::new();
    let rounds = if trial { 1 } else { 3 };
    let counts: &[u64] = if number("WEALD_BENCH_PUTS", 1) == 0 { &[] } else { &[1, 16, 256] };
    for &writers in counts {
        let (mut ours, mut theirs, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (puts, batch) = store_puts(&store, &settings, writers);
            let threads = partitions.min(writers as usize);
            let size = batch.round().max(1.0) as usize;
            ours.push(puts);
            batches.push(batch);
            theirs.push(raw_puts(&raw, &settings, size, threads, Tree::Without));
        }
        let (ours, theirs, batch) = (median(ours), median(theirs), median(batches));
        println!(
            "put, {writers:>3} writers   weald {ours:>9.0}/s   raw {theirs:>9.0}/s   ratio {:.2}   batch {batch:.1}",
            ours / theirs
        );
        figures.insert(format!("put_{writers}_weald"), ours);
        figures.insert(format!("put_{writers}_raw"), theirs);
        figures.insert(format!("put_{writers}_batch"), batch);
    }
    let size = figures.get("put_256_batch").map_or(32, |size| size.round().max(1.0) as usize);
    for (name, tree) in [("without", Tree::Without), ("with", Tree::With)] {
        let puts = raw_puts(&raw, &settings, size, partitions, tree);
        println!("raw put {name:>7} hash tree, batch {size}: {puts:>9.0}/s");
        figures.insert(format!("raw_put_{name}_tree"), puts);
    }
    let gets = (0..rounds).map(|_| (store_gets(&store, &settings), raw_gets(&raw, &settings)));
    let (ours, theirs): (Vec<_>, Vec<_>) = gets.unzip();
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "get               weald {ours:>9.0}/s   raw {theirs:>9.0}/s   ratio {:.2}",
        ours / theirs
    );
    figures.insert("get_weald".to_owned(), ours);
    figures.insert("get_raw".to_owned(), theirs);
    let (ours, theirs) = (store_scan(&store, &settings), raw_scan(&raw, &settings));
    println!(
        "scan              weald {ours:>9.0}/s   raw {theirs:>9.0}/s   ratio {:.2}",
        ours / theirs
    );
    figures.insert("scan_weald".to_owned(), ours);
    figures.insert("scan_raw".to_owned(), theirs);
    let used: u64 = store.stats().partitions.iter().map(|partition| partition.used_bytes).sum();
    println!(
        "memory {} KiB after the load (before: {before_kib}); {} bytes on disk per key",
        loaded_kib,
        used / settings.keys
    );
    figures.insert("memory_kib".to_owned(), (loaded_kib - before_kib) as f64);
    figures.insert("disk_bytes_per_key".to_owned(), (used / settings.keys) as f64);
    assert!(store.partition(0).last_seq(Space::Durable) > 0);
    println!("{}", serde_json::to_string(&figures).unwrap());
    drop(store.close());
}
