//! The signals that stop a node.
//!
//! Guarantees: the first SIGTERM, SIGINT or SIGHUP asks for an ordered shutdown; a second one ends the process at once, as if
//! it had crashed, which the next start notices. Refuses: any other meaning of signals.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, from the moment they are taken.
#[derive(Debug)]
pub(crate) struct Signals(Option<Taken>);

#[derive(Debug)]
struct Taken {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals: from now on they do not end the process by themselves.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self(Some(Taken {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })))
    }

    /// The name of the next signal; after [`Self::kill_on_next`], never.
    pub(crate) async fn next(&mut self) -> &'static str {
        match &mut self.0 {
            Some(signals) => signals.next().await,
            None => std::future::pending().await,
        }
    }

    /// From now on, the next signal ends the process at once.
    pub(crate) fn kill_on_next(&mut self) {
        let Some(mut signals) = self.0.take() else { return };
        tokio::spawn(async move {
            let name = signals.next().await;
            tracing::error!(signal = name, "second signal, the process ends at once");
            // Cannot fail for our own process; if it did, the ordered shutdown simply goes on.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .ok();
        });
    }
}

impl Taken {
    async fn next(&mut self) -> &'static str {
        // All three mean the same, so the order of the branches does not matter.
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
