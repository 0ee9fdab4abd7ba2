//! Round trips of a small read, one at a time and 64 at a time, over both transports, against bare TCP.
//!
//! Client and node share this process and its cores, as the bare pair does.
#![allow(clippy::print_stdout, reason = "it prints its results")]

use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use weald_client::{Client, Credential};
use weald_client_testing::FakeNode;

const VALUE_BYTES: usize = 100;
const TIME: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() {
    let node = FakeNode::start().await;
    let key = Credential::read(node.key_file("bench")).expect("the key file");
    let cluster = Client::connect(node.address().to_string(), key).await.expect("the node");
    let unix = Client::unix(node.socket()).await.expect("the socket");
    unix.put("bench", "key", vec![1; VALUE_BYTES]).await.expect("a write");
    println!("{:<24}{:>12}{:>12}{:>12}{:>12}", "", "depth 1 /s", "p50 us", "p99 us", "depth 64 /s");
    let bare = bare().await;
    bare.print("bare TCP", None);
    for (name, client) in [("ractor_cluster", &cluster), ("Unix socket", &unix)] {
        measure(client).await.print(name, Some(&bare));
    }
    crowd(&node).await;
    node.stop().await;
}

/// What many clients cost: each has its own connection, and both of its ends are in this process.
async fn crowd(node: &FakeNode) {
    const CLIENTS: usize = 200;
    let key = node.key_file("crowd");
    let (before, start) = (rss_kib(), Instant::now());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let key = Credential::read(&key).expect("the key file");
        let client = Client::connect(node.address().to_string(), key).await.expect("the node");
        client.get("bench", "key").await.expect("a read");
        clients.push(client);
    }
    let rate = rate(CLIENTS, start.elapsed());
    let each = rss_kib().saturating_sub(before) / CLIENTS;
    println!("{CLIENTS} clients: {rate:.0} connects/s, {each} KiB each, both ends");
    drop(clients);
}

fn rss_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

struct Result {
    one: f64,
    p50: f64,
    p99: f64,
    many: f64,
}

impl Result {
    fn print(&self, name: &str, bare: Option<&Self>) {
        let Self { one, p50, p99, many } = self;
        print!("{name:<24}{one:>12.0}{p50:>12.0}{p99:>12.0}{many:>12.0}");
        match bare {
            Some(bare) => println!("   {:.2} / {:.2} of bare", one / bare.one, many / bare.many),
            None => println!(),
        }
    }

    fn new(mut times: Vec<Duration>, elapsed: Duration, many: f64) -> Self {
        times.sort();
        let at = |percent: usize| {
            let time = times.get(times.len() * percent / 100).copied().unwrap_or_default();
            time.as_secs_f64() * 1e6
        };
        Self { one: rate(times.len(), elapsed), p50: at(50), p99: at(99), many }
    }
}

fn rate(count: usize, elapsed: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / elapsed.as_secs_f64()
}

async fn measure(client: &Client) -> Result {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < TIME {
        let one = Instant::now();
        client.get("bench", "key").await.expect("a read");
        times.push(one.elapsed());
    }
    let alone = start.elapsed();
    let start = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while start.elapsed() < TIME {
                    client.get("bench", "key").await.expect("a read");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.expect("a task");
    }
    Result::new(times, alone, rate(count, start.elapsed()))
}

/// The same over TCP without anything: 64 pairs of tasks, one connection each, for the depth.
async fn bare() -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let mut times = Vec::new();
    let start = Instant::now();
    let mut stream = BufReader::new(connect(address).await);
    while start.elapsed() < TIME {
        let one = Instant::now();
        ping(&mut stream).await;
        times.push(one.elapsed());
    }
    let alone = start.elapsed();
    let start = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            tokio::spawn(async move {
                let mut stream = BufReader::new(connect(address).await);
                let mut count = 0;
                while start.elapsed() < TIME {
                    ping(&mut stream).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.expect("a task");
    }
    Result::new(times, alone, rate(count, start.elapsed()))
}

async fn connect(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream
}

async fn ping(stream: &mut BufReader<TcpStream>) {
    stream.get_mut().write_all(&[1; 32]).await.expect("a write");
    let mut answer = [0; VALUE_BYTES + 16];
    stream.read_exact(&mut answer).await.expect("an answer");
}

async fn echo(stream: TcpStream) {
    stream.set_nodelay(true).expect("no delay");
    let mut stream = BufReader::new(stream);
    let mut request = [0; 32];
    while stream.read_exact(&mut request).await.is_ok() {
        if stream.get_mut().write_all(&[2; VALUE_BYTES + 16]).await.is_err() {
            return;
        }
    }
}
