//! Several real nodes under faults: the scenarios of the plan, and a table of what they found.
//!
//! - [`split`]: cuts, one-way cuts, slow and isolated nodes, in namespaces where they can be made.
//! - [`wire`]: half-open peers, lost, doubled, reordered and damaged messages, through the proxy.
//! - [`crash`]: nodes shot while they write, full disks, damaged files, syncs that fail.
//! - [`identity`]: lost and old data directories, and members that were away too long.
//! - [`membership`]: leaving, moving, twins, restarts of all, many at once, other versions.
//! - [`sessions`]: tokens that go from node to node, and write concerns.
//! - [`actors`]: messages to named actors at other nodes, and names on both sides of a split.
//! - [`clock`]: a wall clock that is wrong.
//!
//! `cargo test -p weald-tests --test cluster -- N1 I4` runs some of them; `WEALD_CLUSTER_FULL=1` runs the long forms. What this
//! machine cannot do is in the table, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking, and speaks to whoever runs it"
)]

mod actors;
mod clock;
mod crash;
mod identity;
mod membership;
mod run;
mod sessions;
mod split;
mod wire;

use run::Run;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut run = Run::from_args();
    if run.is_listing() {
        return ExitCode::SUCCESS;
    }
    let groups = [
        split::run,
        wire::run,
        crash::run,
        identity::run,
        membership::run,
        sessions::run,
        actors::run,
        clock::run,
    ];
    groups.iter().for_each(|group| group(&mut run));
    run.report()
}
