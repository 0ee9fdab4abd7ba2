//! The command line: what may be typed, and its help.
//!
//! Guarantees: every command takes `--json` and `--data-dir` before or after its name, and shows an example in `--help`.

use crate::cmd::bench::args::Bench;
use crate::config::log::Format;
use crate::transfer::import::OnBad;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use weald_proto::request::{ClientRole, TableKind};

/// An open, dependable WAMP cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "weald", version, about, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Data directory of the node; its socket lies there [default: ./weald-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON, one value per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Reach a node over the network instead of its local socket; needs --key
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Reaching the node")]
    pub(crate) node: Option<String>,
    /// File with the client credential for --node, such as DIR/client.key
    #[arg(long = "key", global = true, value_name = "FILE", help_heading = "Reaching the node")]
    pub(crate) key_file: Option<PathBuf>,
    /// Speak TLS with --node, and trust the authorities in this PEM file
    #[arg(long = "ca", global = true, value_name = "FILE", help_heading = "Reaching the node")]
    pub(crate) authorities: Option<PathBuf>,
    /// Time for one request
    #[arg(long, global = true, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = duration, help_heading = "Reaching the node")]
    pub(crate) deadline: Duration,
}

/// Which command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node
    #[command(after_help = "Example:\n  weald start --data-dir /var/lib/weald\n\n\
        Works without any configuration: it then keeps its data in ./weald-data and listens on loopback only.")]
    Start(Start),
    /// Print the order in which a node boots, with the exit code of each step
    #[command(after_help = "Example:\n  weald boot-plan")]
    BootPlan,
    /// Show the state of the node
    #[command(after_help = "Example:\n  weald status --json")]
    Status,
    /// Read a key
    #[command(after_help = "Examples:\n  weald get packages bash\n  \
        weald get packages bash --session s      # what `put --session s` wrote, on another node\n\n\
        Prints the value as it is stored. Several values (siblings) are printed one per line, with a note on stderr.")]
    Get(Get),
    /// Write a key
    #[command(after_help = "Examples:\n  weald put packages bash '{\"version\": \"5.2\"}'\n  \
        weald put files logo - < logo.png\n  weald put packages bash 5 --acked-by 1 --session s")]
    Put(Put),
    /// Delete a key
    #[command(after_help = "Example:\n  weald delete packages bash")]
    Delete(Delete),
    /// List the keys of a table in order
    #[command(after_help = "Example:\n  weald scan packages --prefix ba --limit 10\n\n\
        Prints key, a tab, and the value.")]
    Scan(Scan),
    /// Follow changes
    #[command(after_help = "Example:\n  weald watch packages --prefix ba\n\n\
        Prints table, key and value, separated by tabs; a deleted key has no third column.")]
    Watch(Watch),
    /// Write JSON lines into tables
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
    /// Write tables out as JSON lines
    #[command(after_help = "Example:\n  weald export --table packages --output packages.jsonl\n\n\
        Lines are sorted by table, then key, and hold each value byte for byte as it was imported. A value that is not JSON \
        stands as {\"$bytes\": \"<base64>\"}, which import turns back.")]
    Export(Export),
    /// Look at and exercise the supervision tree
    #[command(subcommand)]
    Supervision(Supervision),
    /// Make, look at and change the cluster that the node belongs to
    #[command(subcommand)]
    Cluster(Cluster),
    /// Look at and run anti-entropy, which makes nodes equal
    #[command(subcommand)]
    Aae(Aae),
    /// Run a cluster of several nodes on this machine, to try it
    #[command(after_help = DEV_HELP)]
    Dev(Dev),
    /// Declare and list tables
    #[command(subcommand)]
    Table(Table),
    /// List the names of actors, on all nodes
    #[command(after_help = "Example:\n  weald names pump --json\n\n\
        STATE is that of the node: a name whose node is down cannot be sent to until it is back. At most 1,000 are listed.")]
    Names {
        /// Only names that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Manage credentials of clients
    #[command(subcommand)]
    Client(Client),
    /// Load a router, and measure what it does and costs
    #[command(subcommand)]
    Bench(Bench),
    /// Change what the node logs, until it restarts
    #[command(after_help = "Example:\n  weald log-level info,weald_storage=debug")]
    LogLevel {
        /// Filter directives
        directives: String,
    },
    /// Print or check the configuration
    #[command(subcommand)]
    Config(Config),
    /// Check the environment of one partition; run by the node itself.
    #[command(name = "__check-env", hide = true)]
    CheckEnv {
        /// Directory of the partition.
        path: PathBuf,
    },
}

const IMPORT_HELP: &str = "\
Examples:
  weald import packages.jsonl --resume packages.checkpoint
  zcat packages.jsonl.gz | weald import -

A line is {\"table\": \"packages\", \"key\": \"bash\", \"value\": <any JSON>}. The JSON text of the value is stored byte for byte; \
{\"$bytes\": \"<base64>\"} stands for bytes that are not JSON. A table that was never declared is created durable with `lww`.

The import goes on when the node restarts meanwhile. A batch whose outcome is unknown is written again, which changes nothing: \
the same keys get the same values. For the same reason an import may simply be run again.";

const DEV_HELP: &str = "\
Examples:
  weald dev --nodes 3
  weald dev --nodes 3 --data-dir /tmp/try

Node k lives in DIR/node<k>, with its weald.toml, weald.pid, client.key and node.log, and adds 100 * (k - 1) to each default \
port. DIR is ./weald-dev unless --data-dir says otherwise; run again on the same DIR, it goes on with what is there. A node \
that is killed stays down until `weald start --config DIR/node<k>/weald.toml`, so that failures can be tried. Ctrl-C ends all \
nodes in order; a second one kills them.";

/// `weald start`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Start {
    /// Configuration file [default: ./weald.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the log lines on stderr
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<Format>,
    /// Print the boot order and end
    #[arg(long)]
    pub(crate) plan: bool,
}

/// A key of a table.
#[derive(Debug, Args)]
pub(crate) struct TableKey {
    /// Table
    pub(crate) table: String,
    /// Key
    pub(crate) key: String,
}

/// `weald get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) at: TableKey,
    #[command(flatten)]
    pub(crate) session: SessionFile,
}

/// The session of a command.
#[derive(Debug, Args)]
pub(crate) struct SessionFile {
    /// Keep in this file what was seen, and see at least that, on whatever node of the cluster
    #[arg(long = "session", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// How a write is made.
#[derive(Debug, Args)]
pub(crate) struct Writing {
    #[command(flatten)]
    pub(crate) session: SessionFile,
    /// Wait until so many other members have the write, too; it is not undone when they are too late
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    pub(crate) acked_by: u8,
}

/// `weald put`.
#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) at: TableKey,
    /// Value, stored as given; `-` reads it from stdin
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// Context printed by `get --json`: values written since by others are kept beside this one
    #[arg(long, value_name = "HEX")]
    pub(crate) context: Option<String>,
    /// Write only if this context is what is stored now
    #[arg(long, value_name = "HEX", conflicts_with_all = ["context", "if_absent"])]
    pub(crate) if_context: Option<String>,
    /// Write only if the key is absent
    #[arg(long, conflicts_with = "context")]
    pub(crate) if_absent: bool,
    /// Time after which the key is gone
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

/// `weald delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) at: TableKey,
    /// Context printed by `get --json`: values written since by others are kept
    #[arg(long, value_name = "HEX")]
    pub(crate) context: Option<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

/// `weald scan`.
#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Table
    pub(crate) table: String,
    /// Only keys that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// First key, included
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<String>,
    /// Last key, excluded
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<String>,
    /// Most keys
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Leave the values out
    #[arg(long)]
    pub(crate) keys_only: bool,
}

/// `weald watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Table [default: all]
    pub(crate) table: Option<String>,
    /// Only keys that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Go on after a position printed by `watch --json` [default: from now on]
    #[arg(long, value_name = "HEX")]
    pub(crate) position: Option<String>,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// How long to wait for a node that is away
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) retry_for: Duration,
}

/// `weald import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// File of JSON lines; `-` reads stdin
    pub(crate) file: PathBuf,
    /// What to do about a bad line
    #[arg(long, value_enum, value_name = "WHAT", default_value = "skip")]
    pub(crate) on_bad: OnBad,
    /// Keep the progress in this file, and go on where it says
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    /// Append the number of each line to this file as soon as it is acknowledged
    #[arg(long, value_name = "FILE")]
    pub(crate) ack_file: Option<PathBuf>,
    /// How long to wait for a node that is away
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) retry_for: Duration,
    /// Lines in a batch
    #[arg(long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) batch: u16,
    /// Batches in flight
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) in_flight: u16,
}

/// `weald export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Only this table; may be repeated [default: all but those of the system]
    #[arg(long = "table", value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
    /// Only keys that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// File to write; it appears when it is complete [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// How long to wait for a node that is away
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) retry_for: Duration,
}

/// `weald supervision`.
#[derive(Debug, Subcommand)]
pub(crate) enum Supervision {
    /// Show the tree with status, uptime, restarts and mailbox depth
    #[command(after_help = "Example:\n  weald supervision tree --watch")]
    Tree {
        /// Only the subtree under this path
        #[arg(default_value = "", hide_default_value = true)]
        path: String,
        /// Show it again every second
        #[arg(long)]
        watch: bool,
        /// Pause between two looks
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
        interval: Duration,
    },
    /// Show what supervisors did and why
    #[command(
        after_help = "Examples:\n  weald supervision log --since 10m --event child_exited\n  \
        weald supervision log --follow --path node/storage\n\n\
        When the node is down, the log is read from its data directory."
    )]
    Log(LogArgs),
    /// Kill an actor, for drills; its supervisor restarts it
    #[command(after_help = "Example:\n  weald supervision kill node/storage/partition-0/store")]
    Kill {
        /// Its path in the tree
        path: String,
    },
}

/// `weald supervision log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Go on with new records
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only records since then: a time ago (10m) or a moment (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only this path and those below it
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Only this event; may be repeated
    #[arg(long = "event", value_name = "EVENT")]
    pub(crate) events: Vec<String>,
    /// The newest so many records, up to 1000
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Form of the records; json is the same as --json
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub(crate) format: LogForm,
}

/// How supervision records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// `weald cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Make certificates and configurations for the nodes of a cluster
    #[command(after_help = INIT_HELP)]
    Init(Init),
    /// List the members, as the node knows them
    #[command(after_help = "Example:\n  weald cluster members")]
    Members,
    /// Make the node join the cluster of other nodes
    #[command(after_help = "Example:\n  weald cluster join 10.0.0.1:18086 10.0.0.2:18086\n\n\
        One address that answers is enough. Nodes that are in cluster.seeds are joined without this command.")]
    Join {
        /// Cluster ports of nodes to join
        #[arg(required = true, value_name = "HOST:PORT")]
        addresses: Vec<String>,
    },
    /// Make the node leave its cluster, after others have its data
    #[command(after_help = "Example:\n  weald cluster leave\n\n\
        A node that is only stopped stays a member: this is for one that does not come back.")]
    Leave,
    /// Remove a member for good, such as one whose machine is lost
    #[command(after_help = "Example:\n  weald cluster forget node3\n\n\
        The member is refused from then on; what only it has is lost. Made anew, with an empty directory, it may join again.")]
    Forget {
        /// Its name or node id
        member: String,
        /// Also when it answers at the moment
        #[arg(long)]
        force: bool,
    },
    /// Follow what happens to the membership: who joins, leaves, answers again or no more
    #[command(after_help = "Example:\n  weald cluster events --json\n\n\
        Begins with what happens from now on. After a restart of the node it says that something may have been missed.")]
    Events {
        /// End after so many events
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// How long to wait for a node that is away
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
        retry_for: Duration,
    },
    /// Show the cluster and the node's connections; exits with 1 when something is wrong
    #[command(after_help = "Example:\n  weald cluster status --json")]
    Status,
}

const INIT_HELP: &str = "\
Examples:
  weald cluster init --node a --node b --node c --out pki
  weald cluster init --cluster shop --node a=10.0.0.1 --node b=10.0.0.2,b.example.org --out pki
  weald cluster init --cluster shop --node d=10.0.0.4 --out pki        # another node, later

Makes DIR/ca.pem and DIR/ca.key, unless they are there, and for each node a directory DIR/NAME with node.pem, node.key, ca.pem \
and weald.toml, to be copied to its machine as a whole. Nothing is overwritten. Nodes without a host, or with hosts of loopback \
only, are for this machine and get ports of their own, 100 apart.";

/// `weald cluster init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the cluster
    #[arg(long, value_name = "NAME", default_value = "weald")]
    pub(crate) cluster: String,
    // Takes the place of the flag of the same name that all other commands have.
    /// A node, and where others and clients reach it; may be repeated
    #[arg(id = "node", long = "node", value_name = "NAME[=HOST[:PORT],...]", required = true)]
    pub(crate) nodes: Vec<String>,
    /// Directory to make, or to add nodes to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// `weald aae`.
#[derive(Debug, Subcommand)]
pub(crate) enum Aae {
    /// Show how far each peer is
    #[command(after_help = "Example:\n  weald aae status\n\n\
        BEHIND is for how long this node may lack something that the peer has.")]
    Status,
    /// Exchange with a peer now, and wait for the end
    #[command(after_help = "Example:\n  weald aae run node2")]
    Run {
        /// Its name or node id
        peer: String,
        /// Time for the exchange, up to 10m
        #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
        timeout: Duration,
    },
    /// Compare with a peer and change nothing; exits with 1 when there is a difference
    #[command(after_help = "Example:\n  weald aae diff node2")]
    Diff {
        /// Its name or node id
        peer: String,
        /// Time for the comparison, up to 10m
        #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
        timeout: Duration,
    },
}

/// `weald dev`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Dev {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) nodes: u16,
    /// Cluster port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 18086)]
    #[arg(value_parser = clap::value_parser!(u16).range(1024..=60_000))]
    pub(crate) port: u16,
}

/// `weald table`.
#[derive(Debug, Subcommand)]
pub(crate) enum Table {
    /// Declare a table
    #[command(after_help = "Example:\n  weald table declare sessions --kind memory --ttl 1h")]
    Declare {
        /// Its name
        name: String,
        /// Where it lives: durable survives restarts, memory does not
        #[arg(long, value_name = "KIND", default_value = "durable", value_parser = table_kind)]
        kind: TableKind,
        /// How siblings are resolved: lww, siblings, or merge:FUNCTION (max, union)
        #[arg(long, value_name = "HOW", default_value = "lww")]
        resolver: String,
        /// Time to live of keys that are written without one
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// List the tables
    #[command(after_help = "Example:\n  weald table list")]
    List,
}

/// `weald client`.
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Create a credential; what it prints is the only copy of the secret
    #[command(
        after_help = "Example:\n  weald client add reports --role reader --output reports.key"
    )]
    Add {
        /// Name of the client
        name: String,
        /// What it may do: reader, writer or operator
        #[arg(long, value_name = "ROLE", default_value = "writer", value_parser = role)]
        role: ClientRole,
        /// Write the credential to a new file that only you can read
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take a credential away and cut its connections
    #[command(after_help = "Example:\n  weald client remove reports")]
    Remove {
        /// Name of the client
        name: String,
    },
    /// List the clients
    #[command(after_help = "Example:\n  weald client list")]
    List,
}

/// `weald config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print a configuration file with every key, its default and what it does
    #[command(after_help = "Example:\n  weald config default > weald.toml")]
    Default,
    /// Check a configuration file and the environment, and list all problems
    #[command(after_help = "Example:\n  weald config check weald.toml")]
    Check {
        /// The file [default: ./weald.toml if it is there]
        file: Option<PathBuf>,
    },
    /// Print the effective configuration and where each value came from
    #[command(after_help = "Example:\n  weald config show --config weald.toml")]
    Show {
        /// Configuration file [default: ./weald.toml if it is there]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; a duration looks like 10s or 5m"))
}

fn role(text: &str) -> Result<ClientRole, String> {
    match text {
        "reader" => Ok(ClientRole::Reader),
        "writer" => Ok(ClientRole::Writer),
        "operator" => Ok(ClientRole::Operator),
        _ => Err("a role is reader, writer or operator".to_owned()),
    }
}

fn table_kind(text: &str) -> Result<TableKind, String> {
    match text {
        "durable" => Ok(TableKind::Durable),
        "memory" => Ok(TableKind::Memory),
        _ => Err("a kind is durable or memory".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check_examples(command: &clap::Command, path: &str) {
        let mut leaf = true;
        for sub in command.get_subcommands() {
            leaf = false;
            check_examples(sub, &format!("{path} {}", sub.get_name()));
        }
        if leaf && !command.is_hide_set() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains(path), "{path} shows no example");
        }
    }

    #[test]
    fn command_line_is_consistent_and_every_command_shows_an_example() {
        Cli::command().debug_assert();
        check_examples(&Cli::command(), "weald");
    }

    #[test]
    fn data_dir_and_json_are_taken_before_and_after_the_command() {
        for line in [
            "weald --data-dir d --json supervision tree",
            "weald supervision --data-dir d tree --json",
            "weald supervision tree --json --data-dir d",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.data_dir, Some(PathBuf::from("d")), "{line}");
            assert!(cli.global.json, "{line}");
        }
    }

    #[test]
    fn value_that_looks_like_a_flag_is_a_value() {
        let cli = Cli::try_parse_from(["weald", "put", "t", "k", "-1"]).unwrap();
        assert!(matches!(cli.command, Command::Put(put) if put.value == "-1"));
    }
}
