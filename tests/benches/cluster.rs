//! What replication costs, and how fast it is: three nodes beside one, all real processes on this machine.
//!
//! ```text
//! cargo build --release --workspace && cargo bench -p weald-tests --bench cluster
//! cargo bench -p weald-tests --bench cluster -- puts latency     # only these parts
//! ```
//!
//! Parts: `puts` (durable puts a second, 64 and 256 tasks, at one node and at the nodes of a cluster in turn; a round ends
//! only when every node has everything; and the CPU of the nodes for each), `latency` (from before a put on one node until a client of another is told, beside
//! a bare TCP ping-pong), `missed` (a node that was down while keys were written: time and bytes until it has them),
//! `exchange` (many equal keys and ten that differ), `idle` (traffic of a cluster in which nothing happens).
//!
//! `WEALD_BENCH_SECONDS` (5), `WEALD_BENCH_ROUNDS` (3), `WEALD_BENCH_MISSED` (100000), `WEALD_BENCH_KEYS` (1000000).
#![allow(clippy::print_stdout, reason = "the result of a bench is its output")]

use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weald_client::{Client, Op, WatchEvent};
use weald_proto::request::Put;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::wait::pause;
use weald_tests::harness::wires::Wire;
use weald_tests::seed::Seeded;

const TABLE: &str = "bench";
const KEY_BYTES: usize = 24;
const VALUE_BYTES: usize = 256;
/// Keys in one batch of a load, and batches under way.
const BATCH: usize = 500;
const BATCHES: usize = 8;
const LATENCY_PUTS: usize = 2000;
const IDLE: Duration = Duration::from_secs(30);

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("{number:0KEY_BYTES$}").into_bytes()
}

async fn rows(client: &Client) -> Result<u64> {
    let status = client.status().await?;
    status["storage"]["rows"].as_u64().context("no rows in the status")
}

/// Waits until the nodes have as many rows as the first.
async fn same_rows(clients: &[Client]) -> Result<()> {
    loop {
        let wanted = rows(&clients[0]).await?;
        let mut same = true;
        for client in &clients[1..] {
            same &= rows(client).await? == wanted;
        }
        if same {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes keys `from..to` in batches.
async fn load(client: &Client, from: usize, to: usize) -> Result<()> {
    let mut running = tokio::task::JoinSet::new();
    let mut next = from;
    while next < to || !running.is_empty() {
        while next < to && running.len() < BATCHES {
            let client = client.clone();
            let range = next..to.min(next + BATCH);
            next = range.end;
            running.spawn(async move {
                let mut rng = Seeded::new(range.start as u64);
                let put = |n| {
                    Op::Put(Put {
                        table: TABLE.to_owned(),
                        key: key(n),
                        value: rng.bytes(100),
                        context: None,
                        ttl_ms: None,
                    })
                };
                let ops = range.map(put).collect();
                for outcome in client.batch(ops).await? {
                    outcome?;
                }
                anyhow::Ok(())
            });
        }
        if let Some(ended) = running.join_next().await {
            ended??;
        }
    }
    Ok(())
}

/// Puts a second by so many tasks on these nodes in turn, until they are acknowledged and until all have all; how many.
async fn round(
    clients: &[Client],
    tasks: usize,
    time: Duration,
    seed: u64,
) -> Result<(f64, f64, f64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let client = clients[task % clients.len()].clone();
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            tokio::spawn(async move {
                let mut rng = Seeded::new(seed ^ task as u64);
                while !stop.load(Ordering::Relaxed) {
                    let value = rng.bytes(VALUE_BYTES);
                    // Keys of this task alone, new ones: that all are everywhere shows in the number of rows.
                    let n = count.fetch_add(1, Ordering::Relaxed);
                    let key = format!("{seed}-{n:0KEY_BYTES$}").into_bytes();
                    client.put(TABLE, key, value).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await??;
    }
    let acknowledged = began.elapsed().as_secs_f64();
    same_rows(clients).await?;
    let everywhere = began.elapsed().as_secs_f64();
    let count = count.load(Ordering::Relaxed) as f64;
    Ok((count / acknowledged, count / everywhere, count))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn clients(cluster: &Cluster, nodes: usize) -> Vec<Client> {
    (0..nodes).map(|node| cluster.client(node)).collect()
}

fn pids(cluster: &mut Cluster) -> Vec<u32> {
    (0..cluster.len()).map(|node| cluster.node(node).pid()).collect()
}

/// Milliseconds of CPU that these processes have used.
fn cpu_of(pids: &[u32]) -> Result<f64> {
    let ms: u64 = pids.iter().map(|pid| cpu_ms(*pid)).sum::<Result<u64>>()?;
    Ok(ms as f64)
}

fn puts() -> Result<()> {
    let time = Duration::from_secs(number("WEALD_BENCH_SECONDS", 5)?);
    let rounds = number("WEALD_BENCH_ROUNDS", 3)?;
    println!(
        "\nputs: values of {VALUE_BYTES} bytes, every put synced, {rounds} rounds of {time:?}"
    );
    let mut one = Cluster::start("bench-one", Options::new(Wire::Direct, 1));
    let mut three = Cluster::start("bench-three", Options::new(Wire::Direct, 3));
    let (pids_of_one, pids_of_three) = (pids(&mut one), pids(&mut three));
    for tasks in [64, 256] {
        let (mut alone, mut acked, mut everywhere) = (Vec::new(), Vec::new(), Vec::new());
        let (mut cpu_alone, mut cpu_three) = (Vec::new(), Vec::new());
        for n in 0..rounds {
            let seed = n * 1000 + tasks as u64;
            let before = cpu_of(&pids_of_one)?;
            let (a, _, count) = one.block(round(&clients(&one, 1), tasks, time, seed))?;
            cpu_alone.push((cpu_of(&pids_of_one)? - before) * 1000.0 / count);
            alone.push(a);
            let before = cpu_of(&pids_of_three)?;
            let (a, e, count) = three.block(round(&clients(&three, 3), tasks, time, seed))?;
            cpu_three.push((cpu_of(&pids_of_three)? - before) * 1000.0 / count);
            acked.push(a);
            everywhere.push(e);
        }
        let (alone, acked, everywhere) = (median(alone), median(acked), median(everywhere));
        println!(
            "{tasks:>4} tasks: one node {alone:>7.0}/s   three nodes, acknowledged {acked:>7.0}/s   \
             on all three {everywhere:>7.0}/s   ratio {:.2}",
            everywhere / alone
        );
        println!(
            "            CPU of the nodes for a put: one node {:.0} us   three nodes {:.0} us in all",
            median(cpu_alone),
            median(cpu_three)
        );
    }
    one.finish();
    three.finish();
    Ok(())
}

fn percentiles(name: &str, mut us: Vec<u64>) -> Option<(u64, u64)> {
    us.sort_unstable();
    let at = |part: usize| us.get((us.len().checked_sub(1)?) * part / 100).copied();
    let (p50, p99) = (at(50)?, at(99)?);
    println!("{name:<44} p50 {p50:>6} us   p99 {p99:>6} us");
    Some((p50, p99))
}

fn ping_pong() -> Result<Vec<u64>> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut message = [0; VALUE_BYTES];
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message)?;
        }
        Ok(())
    });
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut message = [7; VALUE_BYTES];
    let mut us = Vec::new();
    for _ in 0..LATENCY_PUTS {
        let began = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        us.push(u64::try_from(began.elapsed().as_micros())?);
    }
    drop(stream);
    echo.join().map_err(|_panic| anyhow::anyhow!("the echo panicked"))??;
    Ok(us)
}

async fn visible(a: Client, b: Client) -> Result<(Vec<u64>, Vec<u64>)> {
    let mut watch = b.watch("latency").await?;
    let (mut written, mut seen) = (Vec::new(), Vec::new());
    for n in 0..LATENCY_PUTS {
        let wanted = key(n);
        let began = Instant::now();
        let put = a.put("latency", wanted.clone(), vec![7; VALUE_BYTES]);
        let putting = tokio::spawn(async move {
            let done = put.await;
            (done, began.elapsed())
        });
        loop {
            if let WatchEvent::Change(change) = watch.next().await?
                && change.key == wanted
            {
                break;
            }
        }
        seen.push(u64::try_from(began.elapsed().as_micros())?);
        let (done, took) = putting.await?;
        done?;
        written.push(u64::try_from(took.as_micros())?);
    }
    Ok((written, seen))
}

fn latency() -> Result<()> {
    println!("\nlatency: {LATENCY_PUTS} puts, one at a time");
    let cluster = Cluster::start("bench-latency", Options::new(Wire::Direct, 3));
    let (written, seen) = cluster.block(visible(cluster.client(0), cluster.client(1)))?;
    let bare = percentiles("bare TCP ping-pong", ping_pong()?);
    percentiles("put on A, acknowledged", written);
    let seen = percentiles("put on A, told to a client of B", seen);
    if let (Some(bare), Some(seen)) = (bare, seen) {
        println!("ratio of the p50s: {:.1}", seen.0 as f64 / bare.0.max(1) as f64);
    }
    cluster.finish();
    Ok(())
}

/// Bytes that a node has received from peers.
fn bytes_in(cluster: &Cluster, node: usize) -> Result<u64> {
    let status = cluster.cli(node, &["cluster", "status", "--json"]);
    let status: Value = serde_json::from_str(&status.out)?;
    let peers = status["peers"].as_array().context("no peers in the status")?;
    Ok(peers.iter().filter_map(|peer| peer["bytes_in"].as_u64()).sum())
}

fn missed() -> Result<()> {
    let many = usize::try_from(number("WEALD_BENCH_MISSED", 100_000)?)?;
    for keys in [many / 5, many] {
        let mut cluster = Cluster::start("bench-missed", Options::new(Wire::Direct, 3));
        cluster.stop(2);
        cluster.block(load(&cluster.client(0), 0, keys))?;
        cluster.block(same_rows(&clients(&cluster, 2)))?;
        let began = Instant::now();
        cluster.start_node(2);
        let ready = began.elapsed();
        cluster.block(same_rows(&clients(&cluster, 3)))?;
        let took = began.elapsed();
        let bytes = bytes_in(&cluster, 2)?;
        println!(
            "missed: {keys} keys: {:.2} s from the start of the node ({:.2} s until it is ready), {} KiB received, {:.0} bytes a key",
            took.as_secs_f64(),
            ready.as_secs_f64(),
            bytes / 1024,
            bytes as f64 / keys as f64
        );
        cluster.finish();
    }
    Ok(())
}

/// Milliseconds of CPU that a process has used.
fn cpu_ms(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Ok(ticks * 10) // clock ticks of Linux are hundredths
}

fn exchange() -> Result<()> {
    let keys = usize::try_from(number("WEALD_BENCH_KEYS", 1_000_000)?)?;
    let options = Options::new(Wire::Direct, 2).with("aae.enabled", "false");
    let mut cluster = Cluster::start("bench-exchange", options);
    cluster.block(load(&cluster.client(0), 0, keys))?;
    // Nothing repairs what the broadcast may have dropped but this.
    cluster.cli(0, &["aae", "run", &Cluster::node_name(1), "--timeout", "600s"]);
    cluster.block(same_rows(&clients(&cluster, 2)))?;
    for differences in [0, 10] {
        cluster.stop(1);
        cluster.block(load(&cluster.client(0), keys, keys + differences))?;
        cluster.start_node(1);
        cluster.wait_formed(Duration::from_secs(30));
        let pids = pids(&mut cluster);
        let before = cpu_of(&pids)?;
        let run = cluster.cli(0, &["aae", "run", &Cluster::node_name(1), "--json"]);
        let after = cpu_of(&pids)?;
        let report: Value = serde_json::from_str(&run.out).context(run.err)?;
        println!(
            "exchange: {keys} equal keys, {differences} differences: {} ms, {} bytes in, {} bytes out, {} ms of CPU on both nodes, {} partitions walked",
            report["elapsed_ms"],
            report["bytes_in"],
            report["bytes_out"],
            after - before,
            report["walked"]
        );
    }
    cluster.finish();
    Ok(())
}

fn idle() -> Result<()> {
    let cluster = Cluster::start("bench-idle", Options::new(Wire::Direct, 3));
    pause(Duration::from_secs(5));
    let sum = || (0..3).map(|node| bytes_in(&cluster, node)).sum::<Result<u64>>();
    let before = sum()?;
    pause(IDLE);
    let bytes = sum()? - before;
    println!("idle: 3 nodes: {:.0} bytes/s in all", bytes as f64 / IDLE.as_secs_f64());
    cluster.finish();
    Ok(())
}

type Part = fn() -> Result<()>;

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, Part); 5] = [
        ("puts", puts),
        ("latency", latency),
        ("missed", missed),
        ("exchange", exchange),
        ("idle", idle),
    ];
    for (name, part) in parts {
        if asked.is_empty() || asked.iter().any(|wanted| wanted == name) {
            part()?;
        }
    }
    Ok(())
}
