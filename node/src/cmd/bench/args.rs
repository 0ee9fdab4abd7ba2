//! The arguments of `weald bench`.

use super::address::Address;
use crate::args::{LogForm, duration};
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;
use weald_wamp::Serializer;

/// `weald bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Load a WAMP router, this one or another, and measure it
    Wamp(Wamp),
}

/// `weald bench wamp`.
#[derive(Debug, Args)]
pub(crate) struct Wamp {
    /// Router: ws://HOST:PORT/PATH, tcp://HOST:PORT (RawSocket) or unix:PATH (RawSocket)
    #[arg(long, global = true, value_name = "URL", default_value = "ws://127.0.0.1:18080/ws")]
    pub(crate) url: Address,
    /// Where subscribers and callees connect, such as another node of the cluster [default: --url]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) to: Option<Address>,
    /// Realm to join
    #[arg(long, global = true, value_name = "REALM", default_value = "realm1")]
    pub(crate) realm: String,
    /// Encoding of messages
    #[arg(long, global = true, value_enum, value_name = "NAME", default_value = "msgpack")]
    pub(crate) serializer: Encoding,
    /// Size of the one text that a message carries; below 16, every 64th has 16 for the time it was sent
    #[arg(long, global = true, value_name = "BYTES", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub(crate) payload: u32,
    /// For how long to measure
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// For how long to run before that
    #[arg(long, global = true, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Also tell processor time and memory of this process; may be repeated
    #[arg(long = "pid", global = true, value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// Form of the result; json is the same as --json
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "human")]
    pub(crate) format: LogForm,
    /// What is done
    #[command(subcommand)]
    pub(crate) shape: Shape,
}

impl Wamp {
    /// Where subscribers and callees connect.
    pub(crate) fn to(&self) -> &Address {
        self.to.as_ref().unwrap_or(&self.url)
    }
}

/// What is done.
#[derive(Debug, Subcommand)]
pub(crate) enum Shape {
    /// Publish to one topic, and count what its subscribers get
    #[command(after_help = "Examples:\n  weald bench wamp pubsub --subscribers 10\n  \
        weald bench wamp pubsub --url tcp://127.0.0.1:18082 --payload 1024 --pid $(pidof weald)\n\n\
        Publishers never run further ahead of the slowest subscriber than --window, so that nothing has to be dropped; what is \
        missing in the end is told as lost. LATENCY is from before an event is sent until its subscriber reads it, under that \
        load.")]
    Pubsub {
        /// Sessions that publish
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        publishers: u32,
        /// Sessions that subscribe
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=50_000))]
        subscribers: u32,
        /// Publications under way at a time [default: 16 to 256, fewer with more subscribers]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
        window: Option<u32>,
    },
    /// Call procedures that give back what they got
    #[command(after_help = "Examples:\n  weald bench wamp rpc --depth 64\n  \
        weald bench wamp rpc --callers 10 --callees 10 --to ws://127.0.0.1:18180/ws\n\n\
        Each callee has a procedure of its own; callers call them in turn.")]
    Rpc {
        /// Calls that each caller has under way at a time
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
        depth: u32,
        /// Sessions that call
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        callers: u32,
        /// Sessions that are called
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        callees: u32,
    },
    /// Open sessions that do nothing, and tell what they cost
    #[command(
        after_help = "Example:\n  weald bench wamp idle --sessions 10000 --pid $(pidof weald)\n\n\
        They are held for --duration; memory is compared before the first and at the end."
    )]
    Idle {
        /// Sessions to open
        #[arg(long, value_name = "N", default_value_t = 1000)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=60_000))]
        sessions: u32,
    },
}

/// How messages are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// JSON.
    Json,
    /// MessagePack.
    Msgpack,
    /// CBOR.
    Cbor,
}

impl From<Encoding> for Serializer {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::Json,
            Encoding::Msgpack => Self::MsgPack,
            Encoding::Cbor => Self::Cbor,
        }
    }
}
