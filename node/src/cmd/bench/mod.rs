//! `bench`: load on a router, and what it costs.
//!
//! What it is: lean clients in one thread ([`client`], [`crowd`]) that send messages encoded once ([`template`]), and count what
//! comes back ([`measure`]), in three shapes: [`pubsub`], [`rpc`], [`idle`]. It speaks plain WAMP, so it measures any router.
//!
//! Guarantees: what is told was counted between two moments, with the processor time of the same time; the driver tells what
//! it used itself, so that a rate that it limited can be seen.
//!
//! Refuses: TLS and authentication, which are set-up costs, not those of a message; other machines' processor time.

mod address;
pub(crate) mod args;
mod client;
mod crowd;
mod framing;
mod idle;
mod measure;
mod pubsub;
mod report;
mod rpc;
mod template;

use crate::args::LogForm;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::Out;
use args::{Bench, Shape};
use client::Options;
use report::Extra;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but sessions.
const OTHER_FILES: u64 = 64;

/// Runs a bench and prints what it measured. Exits with 1 when events were lost.
pub(crate) fn run(bench: &Bench, out: &mut Out) -> Outcome {
    let Bench::Wamp(args) = bench;
    let options = Options { serializer: args.serializer.into(), realm: args.realm.clone() };
    let (measured, extra) = match args.shape {
        Shape::Pubsub { publishers, subscribers, window } => {
            allow_sessions(u64::from(publishers) + u64::from(subscribers))?;
            let default = pubsub::Size::default_window(publishers.into(), subscribers.into());
            let window = window.map_or(default, u64::from);
            let (publishers, subscribers) = (publishers as usize, subscribers as usize);
            let size = pubsub::Size { publishers, subscribers, window };
            let ran = pubsub::run(args, size, &options)?;
            (ran.measured, Extra::Pubsub { lost: ran.lost, window })
        }
        Shape::Rpc { depth, callers, callees } => {
            allow_sessions(u64::from(callers) + u64::from(callees))?;
            let (callers, callees) = (callers as usize, callees as usize);
            let size = rpc::Size { depth: depth as usize, callers, callees };
            (rpc::run(args, size, &options)?, Extra::Rpc)
        }
        Shape::Idle { sessions } => {
            allow_sessions(sessions.into())?;
            let ran = idle::run(args, sessions as usize, &options)?;
            let extra = Extra::Idle { opened_in: ran.opened_in, rss_before: ran.rss_before };
            (ran.measured, extra)
        }
    };
    if out.is_json() || args.format == LogForm::Json {
        out.json(&report::machine(args, &measured, extra))?;
    } else {
        out.bytes(report::human(args, &measured, extra).as_bytes())?;
    }
    out.flush()?;
    let lossy = matches!(extra, Extra::Pubsub { lost: 1.., .. });
    Ok(if lossy { Exit::Unhealthy } else { Exit::Ok })
}

/// Raises the limit of open files as far as is needed.
fn allow_sessions(sessions: u64) -> Result<(), Failure> {
    let needed = sessions + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        let what = format!(
            "{sessions} sessions need {needed} open files, and no more than {} are allowed here (ulimit -Hn)",
            maximum.unwrap_or(0)
        );
        return Err(Failure::new(Exit::Usage, what));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .map_err(|e| Failure::new(Exit::Usage, format!("allow {needed} open files: {e}")))
}
