//! The program of the power-loss test: writes to a store while it is recorded, and inspects directories after a cut.
//!
//! - `write DIR SEED FIRST BATCHES full|relaxed clean|kill|errors`: writes batches `FIRST..FIRST+BATCHES` of the plan to
//!   each partition, prints `ACK {...}` for each acknowledged write, and ends in order or is killed; with `errors`, it goes on
//!   after writes that fail, and is killed at the end.
//! - `inspect DIR full|relaxed`: opens the store and prints what is in it as JSON, after some new writes.
//! - `check DIR`: the child process in which the store has a partition checked.
//!
//! Its wall clock starts at the same moment in each process, as that of a machine that forgets the time: what must never repeat
//! has to hold without help from the clock.

use anyhow::{Context, Result, bail};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use weald_storage::digest::BUCKETS;
use weald_storage::{
    Bucket, CheckVerdict, DataDirLock, Dot, Durability, Key, OnDamage, Resolvers, Scan, Space,
    Store, StoreConfig, TableName, WallClock, Write, WriteOp, Written,
};
use weald_tests::powerloss::plan::{self, PARTITIONS, PlannedOp, TABLE};
use weald_tests::powerloss::verdict::{Ack, Findings, State};

/// When the clock of this program starts, in milliseconds since 1970.
const CLOCK_START_MS: u64 = 1_700_000_000_000;
/// New writes of an inspection, per partition.
const NEW_WRITES: usize = 3;

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["write", dir, seed, first, batches, durability, end] => {
            let store = open(Path::new(dir), durability)?.0;
            let may_fail = *end == "errors";
            let first: u64 = first.parse()?;
            let batches = first..first + batches.parse::<u64>()?;
            write_all(&store, seed.parse()?, &batches, may_fail)?;
            if *end != "clean" {
                rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                )?;
            }
            store.close()?;
            Ok(ExitCode::SUCCESS)
        }
        ["inspect", dir, durability] => {
            let findings = inspect(Path::new(dir), durability)?;
            let text = serde_json::to_string(&findings)?;
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        ["check", dir] => {
            let code = weald_storage::check::run_child(Path::new(dir), &mut std::io::stdout())?;
            Ok(ExitCode::from(code))
        }
        _ => bail!(
            "usage: write DIR SEED FIRST BATCHES full|relaxed clean|kill|errors | inspect DIR full|relaxed | check DIR"
        ),
    }
}

fn open(dir: &Path, durability: &str) -> Result<(Store, Vec<String>)> {
    drop(std::fs::create_dir(dir));
    let lock = DataDirLock::acquire(dir)?;
    // Held to the end of the process, which is when the store goes, too.
    Box::leak(Box::new(lock));
    let started = Instant::now();
    let config = StoreConfig {
        partitions: PARTITIONS,
        durability: match durability {
            "full" => Durability::Full,
            "relaxed" => Durability::Relaxed,
            other => bail!("durability {other}"),
        },
        map_size: 8 << 20,
        map_size_max: 256 << 20,
        changes_retained: 1000,
        on_damage: OnDamage::Stop,
        clock: WallClock::new(move || {
            CLOCK_START_MS + u64::try_from(started.elapsed().as_millis()).unwrap_or(0)
        }),
        ..StoreConfig::default()
    };
    let mut events = Vec::new();
    let store = Store::open(dir, config, Resolvers::default(), &check, &mut events);
    let events = events.iter().map(|event| format!("{event:?}")).collect();
    Ok((store.with_context(|| format!("open the store after {events:?}"))?, events))
}

fn check(dir: &Path) -> std::io::Result<CheckVerdict> {
    let out =
        std::process::Command::new(std::env::current_exe()?).arg("check").arg(dir).output()?;
    weald_storage::check::verdict_of_child(out.status, &out.stdout)
}

fn dot_text(partition: u16, dot: Option<Dot>) -> String {
    dot.map_or_else(String::new, |dot| {
        let actor = dot.actor;
        format!("{partition}:{}:{}:{}", actor.node, actor.incarnation, dot.counter)
    })
}

fn op(planned: PlannedOp) -> Result<WriteOp> {
    let (table, key) = (TableName::parse(TABLE)?, Key::new(planned.key.as_bytes())?);
    Ok(match planned.value {
        Some(value) => {
            let value = value.into_bytes();
            WriteOp::Put { table, key, value, context: None, ttl: None }
        }
        None => WriteOp::Delete { table, key, context: None },
    })
}

fn write_all(store: &Store, seed: u64, batches: &Range<u64>, may_fail: bool) -> Result<()> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                let batches = batches.clone();
                scope.spawn(move || write_partition(store, seed, partition, batches, may_fail))
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_panic| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(())
    })
}

fn write_partition(
    store: &Store,
    seed: u64,
    partition: u16,
    batches: Range<u64>,
    may_fail: bool,
) -> Result<()> {
    let keys = plan::keys(partition)?;
    let (done, finished) = sync_channel(1);
    for batch in batches {
        let mut writes = Vec::new();
        for (at, planned) in plan::batch(seed, partition, batch, &keys).into_iter().enumerate() {
            let reply = Box::new(move |outcome: Result<Written, _>| {
                acknowledge(partition, batch, at, outcome);
            });
            writes.push(Write { op: op(planned)?, reply });
        }
        let done = done.clone();
        store.partition(partition).submit(
            writes,
            // The receiver waits below.
            Box::new(move |report| drop(done.send(report))),
        );
        let report = finished.recv_timeout(Duration::from_secs(30))?;
        if report.failed > 0 && !may_fail {
            bail!("{} writes of batch {batch} failed", report.failed);
        }
    }
    Ok(())
}

fn acknowledge(
    partition: u16,
    batch: u64,
    op: usize,
    outcome: Result<Written, weald_storage::WriteError>,
) {
    let Ok(written) = outcome else { return };
    let ack = Ack { partition, batch, op, dot: dot_text(partition, written.dot) };
    let Ok(text) = serde_json::to_string(&ack) else {
        return;
    };
    // One write to the descriptor that the recorder watches. When it fails, the test sees the acknowledgement missing.
    drop(std::io::stdout().lock().write_all(format!("ACK {text}\n").as_bytes()));
}

fn inspect(dir: &Path, durability: &str) -> Result<Findings> {
    let (store, boot) = open(dir, durability)?;
    let mut states = vec![State::new(); usize::from(PARTITIONS)];
    let table = TableName::parse(TABLE)?;
    let mut scan = Scan::new(table.clone());
    loop {
        let page = store.scan(&scan, CLOCK_START_MS)?;
        for item in &page.items {
            let partition = usize::from(store.partition_of(&table, &item.key));
            let key = String::from_utf8_lossy(item.key.as_bytes()).into_owned();
            let values: Vec<_> =
                item.values.iter().map(|value| String::from_utf8_lossy(value)).collect();
            states[partition].insert(key, values.join("|"));
        }
        scan.after = page.next;
        if scan.after.is_none() {
            break;
        }
    }
    let mut tree_mismatches = mismatches(&store)?;
    let mut new_dots = Vec::new();
    for partition in 0..PARTITIONS {
        // Keys that are there already: a dot that was used before would do the most harm on them.
        for key in plan::keys(partition)?.into_iter().take(NEW_WRITES) {
            let written = store.write(op(PlannedOp { key, value: Some("new".into()) })?)?;
            new_dots.push(dot_text(partition, written.dot));
        }
    }
    tree_mismatches += mismatches(&store)?;
    store.close()?;
    Ok(Findings { boot, states, tree_mismatches, new_dots })
}

fn mismatches(store: &Store) -> Result<u64> {
    let first = Bucket::new(0).context("first bucket")?;
    let last = Bucket::new(BUCKETS - 1).context("last bucket")?;
    let mut found = 0;
    for partition in 0..PARTITIONS {
        let report = store.partition(partition).scrub(Space::Durable, first..=last)?;
        found += report.mismatches.len() as u64 + report.corrupt;
    }
    Ok(found)
}
