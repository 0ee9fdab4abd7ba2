//! WAMP on raw frames: every feature of the router, over each transport and serializer, on one node and across two.
//!
//! Cases are functions. Those of the matrix get a [`net::Net`]: the places of two peers, which are on one node or on two, speak
//! the same serializer or different ones; each run has URIs of its own, so that all share the nodes, which are started once.
//! Those that hurt nodes start their own cluster.
//!
//! `cargo test -p weald-tests --test wamp -- progressive` runs the cases whose name has that in it; `@raw-json` keeps the runs
//! whose variant has that in its name. `WEALD_WAMP_AT=127.0.0.1:8081,127.0.0.1:8080` (RawSocket, WebSocket) runs what needs one
//! node only against the router there, whoever made it. `WEALD_CLUSTER_FULL=1` runs the long forms.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking, and speaks to whoever runs it"
)]

mod bounds;
mod cancel;
mod cluster;
mod features;
mod history;
mod interop;
mod limits;
mod meta;
mod net;
mod nodes;
mod p2p;
mod patterns;
mod payloads;
mod ports;
mod ppt;
mod progressive;
mod protocol;
mod pubsub;
mod realm;
mod receivers;
mod reroute;
mod retention;
mod revocation;
mod rpc;
mod run;
mod session;
mod shared;
mod soak;
mod testament;
mod timeout;
mod transport;

use run::Run;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut run = Run::from_args();
    if run.is_listing() {
        return ExitCode::SUCCESS;
    }
    let groups = [
        session::add,
        pubsub::add,
        receivers::add,
        payloads::add,
        patterns::add,
        rpc::add,
        features::add,
        shared::add,
        cancel::add,
        timeout::add,
        progressive::add,
        revocation::add,
        reroute::add,
        meta::add,
        testament::add,
        retention::add,
        history::add,
        ppt::add,
        protocol::add,
        transport::add,
        limits::add,
        ports::add,
        bounds::add,
        realm::add,
        cluster::add,
        soak::add,
        p2p::add,
        interop::add,
    ];
    groups.iter().for_each(|group| group(&mut run));
    run.finish()
}
