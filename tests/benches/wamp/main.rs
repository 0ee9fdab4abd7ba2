//! What a message costs: Weald beside crossbar, nats-server and redis-server, in one run on one machine.
//!
//! ```text
//! cargo build --release --workspace && cargo bench -p weald-tests --bench wamp
//! cargo bench -p weald-tests --bench wamp -- pubsub rpc-1      # shapes and contenders whose names have one of these
//! ```
//!
//! Fair play: one contender runs at a time, all measured by processor time of their processes (`/proc/PID/stat`) per million
//! events delivered, or calls answered. Each is loaded by one thread that sends what was encoded before, in batches of the same
//! window, and counts what comes back: Weald and crossbar by `weald bench wamp`, the others by a driver of the same kind in
//! [`lean`]. Not the same: events of NATS and Redis have no ids; Redis answers each publication, and has no calls. Publications of
//! WAMP are not acknowledged here.
//!
//! crossbar is installed with pip into a virtual environment below the target directory, nats-server and redis-server are
//! taken from `PATH`, or unpacked from the distribution's packages to the same place; without either, the table says so.
//!
//! `WEALD_BENCH_SECONDS` (2) is the length of a shape, `WEALD_BENCH_FULL=1` makes it 10 and adds 1 KiB payloads to all shapes
//! and opens 10,000 idle sessions in place of 5,000; `WEALD_BENCH_PYTHON` names the Python for crossbar.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of a bench is its output"
)]

mod lean;
mod nats;
mod peers;
mod processes;
mod redis;
mod shape;
mod table;
mod weald;

use anyhow::{Context, Result};
use peers::Server;
use shape::{Figures, Shape};
use table::Table;

/// What is measured, and how to start it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Weald,
    WealdWebSocket,
    WealdTwoNodes,
    Crossbar,
    CrossbarWebSocket,
    Nats,
    Redis,
}

impl Contender {
    const ALL: [Self; 7] = [
        Self::Weald,
        Self::WealdWebSocket,
        Self::WealdTwoNodes,
        Self::Crossbar,
        Self::CrossbarWebSocket,
        Self::Nats,
        Self::Redis,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Weald => "weald raw+msgpack",
            Self::WealdWebSocket => "weald ws+json",
            Self::WealdTwoNodes => "weald two nodes",
            Self::Crossbar => "crossbar raw+msgpack",
            Self::CrossbarWebSocket => "crossbar ws+json",
            Self::Nats => "nats-server",
            Self::Redis => "redis-server",
        }
    }

    fn start(self) -> Result<Box<dyn Server>> {
        Ok(match self {
            Self::Weald => Box::new(weald::OneNode::start(weald::Transport::Raw)?),
            Self::WealdWebSocket => Box::new(weald::OneNode::start(weald::Transport::WebSocket)?),
            Self::WealdTwoNodes => Box::new(weald::TwoNodes::start()?),
            Self::Crossbar => Box::new(peers::Crossbar::start(weald::Transport::Raw)?),
            Self::CrossbarWebSocket => {
                Box::new(peers::Crossbar::start(weald::Transport::WebSocket)?)
            }
            Self::Nats => Box::new(peers::Nats::start()?),
            Self::Redis => Box::new(peers::Redis::start()?),
        })
    }
}

/// How long, and how much.
#[derive(Debug, Clone, Copy)]
struct Extent {
    seconds: u64,
    full: bool,
}

impl Extent {
    fn from_env() -> Result<Self> {
        let full = std::env::var_os("WEALD_BENCH_FULL").is_some();
        let seconds = match std::env::var("WEALD_BENCH_SECONDS") {
            Ok(text) => text.parse().with_context(|| format!("WEALD_BENCH_SECONDS={text}"))?,
            Err(_) => {
                if full {
                    10
                } else {
                    2
                }
            }
        };
        Ok(Self { seconds, full })
    }
}

/// Measures all shapes of one contender, on one process of it.
fn measure(contender: Contender, shapes: &[Shape], extent: Extent, table: &mut Table) {
    let server = match contender.start() {
        Ok(server) => server,
        Err(e) => {
            println!("{}: not measured: {e:#}", contender.name());
            return table.missing(contender.name(), &format!("{e:#}"));
        }
    };
    println!("{}: {}", contender.name(), server.what());
    for shape in shapes {
        let figures = server.measure(*shape, extent.seconds);
        match &figures {
            Ok(Some(figures)) => println!("  {:<18} {}", shape.to_string(), figures.line()),
            Ok(None) => {}
            Err(e) => println!("  {:<18} failed: {e:#}", shape.to_string()),
        }
        table.put(contender.name(), *shape, figures.unwrap_or_else(|e| Some(Figures::failed(&e))));
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--test") {
        // `cargo test --benches` runs benches as tests; this one needs minutes and a release build.
        return Ok(());
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let extent = Extent::from_env()?;
    let all = shape::all(extent.full);
    let named = |name: &str| wanted.iter().any(|part| name.contains(part.as_str()));
    let some = |hit: bool, any: bool| hit || !any;
    let any_shape = all.iter().any(|shape| named(&shape.to_string()));
    let shapes: Vec<Shape> =
        all.into_iter().filter(|shape| some(named(&shape.to_string()), any_shape)).collect();
    let any_contender = Contender::ALL.iter().any(|contender| named(contender.name()));
    let mut table = Table::default();
    for contender in Contender::ALL {
        if some(named(contender.name()), any_contender) {
            measure(contender, &shapes, extent, &mut table);
        }
    }
    println!("\n{}", table.text(&shapes));
    Ok(())
}
