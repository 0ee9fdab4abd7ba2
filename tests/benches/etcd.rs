//! Durable puts a second with 64 clients: Weald, over its cluster port and over its Unix socket, beside etcd.
//!
//! ```text
//! apt-get install etcd-server            # etcd of the distribution, one node; without it only Weald is measured
//! cargo build --release --workspace && cargo bench -p weald-tests --bench etcd
//! ```
//!
//! Fair play: the same machine, disk and run; both sync each write to disk before they answer; keys and values of the same
//! sizes; each of 64 clients has one write under way at a time, all with a connection of their own, then all on one that
//! they share, as tasks of one program do; the contenders take turns, and the median of the rounds counts. etcd is spoken to by its own gRPC interface (`etcdserverpb.KV/Put` on HTTP/2), not by
//! its JSON gateway; Weald by its Rust client. Not the same: etcd keeps all versions until a compaction and would replicate by
//! consensus, Weald keeps hash trees and a change log.
//!
//! `WEALD_BENCH_SECONDS` (5) is the length of a round, `WEALD_BENCH_ROUNDS` (3) their number, `WEALD_BENCH_DIR` where the data
//! goes (the system's place for temporary files), `WEALD_BENCH_CONFIG` configuration lines for the node.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of a bench is its output"
)]

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use weald_client::{Client, Credential};
use weald_tests::harness::node::{Node, Site};
use weald_tests::seed::Seeded;

const CLIENTS: usize = 64;
const KEY_BYTES: usize = 24;
const VALUE_BYTES: usize = 256;
/// Keys in use, so that writes replace as well as add.
const KEYS: usize = 100_000;

/// What a round gave.
struct Round {
    puts_per_s: f64,
    /// Latencies in microseconds, sorted.
    latencies_us: Vec<u64>,
}

/// Something that can be written to by one client.
trait Writer: Clone + Send + 'static {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> impl Future<Output = Result<()>> + Send;
}

#[derive(Clone)]
struct Weald(Client);

impl Writer for Weald {
    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.0.put("bench", key, value).await?;
        Ok(())
    }
}

/// A connection to etcd.
#[derive(Clone)]
struct Etcd {
    send: h2::client::SendRequest<Bytes>,
    uri: http::Uri,
}

impl Etcd {
    async fn connect(port: u16) -> Result<Self> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                eprintln!("etcd closed a connection: {e}");
            }
        });
        let uri = format!("http://127.0.0.1:{port}/etcdserverpb.KV/Put").parse()?;
        Ok(Self { send, uri })
    }
}

impl Writer for Etcd {
    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let request = http::Request::post(self.uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(request, false)?;
        body.send_data(put_request(&key, &value)?, true)?;
        let response = response.await?;
        let early = response.headers().get("grpc-status").cloned();
        let mut data = response.into_body();
        while let Some(chunk) = data.data().await {
            let chunk = chunk?;
            data.flow_control().release_capacity(chunk.len())?;
        }
        let trailers = data.trailers().await?;
        let late = trailers.and_then(|t| t.get("grpc-status").cloned());
        let status = early.or(late).context("no grpc-status")?;
        if status != "0" {
            bail!("etcd answered with grpc-status {status:?}");
        }
        Ok(())
    }
}

/// A gRPC message with `PutRequest { key = 1, value = 2 }`.
fn put_request(key: &[u8], value: &[u8]) -> Result<Bytes> {
    fn field(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
        out.push(tag << 3 | 2);
        let mut len = bytes.len();
        let low = |len: usize| len.to_le_bytes()[0] & 0x7F;
        while len >= 0x80 {
            out.push(low(len) | 0x80);
            len >>= 7;
        }
        out.push(low(len));
        out.extend_from_slice(bytes);
    }
    let mut message = vec![0; 5];
    field(1, key, &mut message);
    field(2, value, &mut message);
    let len = u32::try_from(message.len() - 5)?;
    message[1..5].copy_from_slice(&len.to_be_bytes());
    Ok(message.into())
}

/// 64 clients on these connections write for that time.
async fn round<W: Writer>(connections: &[W], time: Duration, seed: u64) -> Result<Round> {
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut writer = connections[client % connections.len()].clone();
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut rng = Seeded::new(seed ^ client as u64);
                let mut latencies = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{:0KEY_BYTES$}", rng.below(KEYS)).into_bytes();
                    let value = rng.bytes(VALUE_BYTES);
                    let began = Instant::now();
                    writer.put(key, value).await?;
                    let us = began.elapsed().as_micros();
                    latencies.push(u64::try_from(us).unwrap_or(u64::MAX));
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await??);
    }
    let puts_per_s = latencies_us.len() as f64 / started.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    Ok(Round { puts_per_s, latencies_us })
}

/// An etcd of one node; ended when dropped.
struct EtcdServer {
    child: Child,
    port: u16,
}

impl EtcdServer {
    /// None where etcd is not installed.
    fn start(dir: &Path) -> Result<Option<Self>> {
        let version = Command::new("etcd").arg("--version").output();
        let Ok(version) = version else { return Ok(None) };
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        println!("etcd: {}", version.lines().next().unwrap_or("of unknown version"));
        let free = || -> Result<u16> {
            Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
        };
        let port = free()?;
        let [client, peer] = [port, free()?].map(|port| format!("http://127.0.0.1:{port}"));
        let log = std::fs::File::create(dir.join("etcd.log"))?;
        let child = Command::new("etcd")
            .args(["--name", "bench", "--log-level", "error", "--data-dir"])
            .arg(dir.join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start etcd")?;
        Ok(Some(Self { child, port }))
    }

    async fn clients(&self) -> Result<Vec<Etcd>> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let ready = async {
                let mut first = Etcd::connect(self.port).await?;
                first.put(b"ready".to_vec(), b"?".to_vec()).await
            };
            match tokio::time::timeout(Duration::from_secs(5), ready).await {
                Ok(Ok(())) => break,
                Ok(Err(e)) if Instant::now() > end => return Err(e.context("etcd is not ready")),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Etcd::connect(self.port).await?);
        }
        Ok(clients)
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        // Our own child; when it is gone already there is nothing left to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn weald_clients(site: &Site, over_port: bool) -> Result<Vec<Weald>> {
    let mut clients = Vec::new();
    let first = Client::unix(site.data().join("weald.sock")).await?;
    let status = first.status().await?;
    let address = find_address(&status).context("no cluster address in the status")?;
    for _ in 0..CLIENTS {
        clients.push(Weald(if over_port {
            let credential = Credential::read(site.data().join("client.key"))?;
            Client::connect(address.clone(), credential).await?
        } else {
            Client::unix(site.data().join("weald.sock")).await?
        }));
    }
    Ok(clients)
}

/// The address of the cluster port, wherever the status shows it.
fn find_address(status: &serde_json::Value) -> Option<String> {
    match status {
        serde_json::Value::String(text) if text.starts_with("127.0.0.1:") => Some(text.clone()),
        serde_json::Value::Object(fields) => fields.values().find_map(find_address),
        serde_json::Value::Array(items) => items.iter().find_map(find_address),
        _ => None,
    }
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

/// The median round.
fn median(mut rounds: Vec<Round>) -> Option<Round> {
    rounds.sort_by(|a, b| a.puts_per_s.total_cmp(&b.puts_per_s));
    let middle = rounds.len() / 2;
    rounds.into_iter().nth(middle)
}

fn row(name: &str, rounds: Vec<Round>) -> Option<f64> {
    let all: Vec<_> = rounds.iter().map(|round| format!("{:.0}", round.puts_per_s)).collect();
    let round = median(rounds)?;
    let at = |part: usize| {
        let us = round.latencies_us[(round.latencies_us.len() - 1) * part / 1000];
        us as f64 / 1000.0
    };
    println!(
        "{name:<22} {:>8.0} puts/s   p50 {:>7.2} ms   p99 {:>7.2} ms   rounds: {}",
        round.puts_per_s,
        at(500),
        at(990),
        all.join(" ")
    );
    Some(round.puts_per_s)
}

async fn compare(dir: &Path, site: &Site, _node: &Node) -> Result<()> {
    let time = Duration::from_secs(number("WEALD_BENCH_SECONDS", 5)?);
    let rounds = number("WEALD_BENCH_ROUNDS", 3)?;
    println!(
        "{CLIENTS} clients, one put each under way, keys of {KEY_BYTES} and values of {VALUE_BYTES} bytes, {rounds} rounds of \
         {time:?}, every put synced to disk, data in {}",
        dir.display()
    );
    let port = weald_clients(site, true).await?;
    let socket = weald_clients(site, false).await?;
    let server = EtcdServer::start(dir)?;
    let etcd = match &server {
        Some(server) => Some(server.clients().await?),
        None => {
            println!("SKIPPED: etcd is not installed (apt-get install etcd-server): no comparison");
            None
        }
    };
    for connections in [CLIENTS, 1] {
        let (mut port_rounds, mut socket_rounds, mut etcd_rounds) = (vec![], vec![], vec![]);
        for seed in 0..rounds {
            port_rounds.push(round(&port[..connections], time, seed).await?);
            if let Some(etcd) = &etcd {
                etcd_rounds.push(round(&etcd[..connections], time, seed).await?);
            }
            socket_rounds.push(round(&socket[..connections], time, seed).await?);
        }
        println!("{CLIENTS} clients on {connections} connection(s):");
        let port = row("weald, cluster port", port_rounds).context("no round")?;
        let socket = row("weald, unix socket", socket_rounds).context("no round")?;
        if let Some(etcd) = row("etcd, gRPC", etcd_rounds) {
            println!(
                "weald : etcd = {:.2} over the cluster port, {:.2} over the socket",
                port / etcd,
                socket / etcd
            );
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    if std::env::args().any(|arg| arg == "--test") {
        // `cargo test --benches` runs benches as tests; this one needs minutes and a release build.
        return Ok(());
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix("weald-bench-");
    let dir = match std::env::var_os("WEALD_BENCH_DIR") {
        Some(dir) => builder.tempdir_in(dir)?,
        None => builder.tempdir()?,
    };
    let site = Site::new(dir.path(), &std::env::var("WEALD_BENCH_CONFIG").unwrap_or_default());
    let node = site.start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(dir.path(), &site, &node))?;
    node.stop();
    Ok(())
}
