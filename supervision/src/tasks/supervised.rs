//! The wrapper of every task.
//!
//! Guarantees: a panic goes no further, be it of a poll or of the future's own drop; the future is dropped before its
//! place in the books is given back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::group::{End, Ticket};
use crate::guard::chain;
use crate::panics::{self, Caught};
use crate::task::BoxError;

// Boxed: moved into the runtime as it is, a future takes its space twice while it is.
type Run = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

pub(super) struct Supervised {
    /// None once it is over.
    future: Option<Run>,
    ticket: Ticket,
}

impl Supervised {
    pub(super) fn new(future: Run, ticket: Ticket) -> Self {
        Self { future: Some(future), ticket }
    }

    /// Drops the future, and only then notes how it ended.
    fn end(&mut self, end: End) {
        let future = self.future.take();
        let end = match panics::catch_sync(|| drop(future)) {
            Ok(()) => end,
            Err(caught) => panicked(caught),
        };
        self.ticket.ended(end);
    }
}

fn panicked(caught: Caught) -> End {
    End::Crashed { reason: "panic", error: caught.text, location: caught.location }
}

impl Future for Supervised {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(future) = self.future.as_mut() else {
            return Poll::Ready(());
        };
        let end = match panics::catch_sync(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => End::Normal,
            Ok(Poll::Ready(Err(error))) => {
                let error = chain(error.as_ref());
                End::Crashed { reason: "error", error, location: None }
            }
            Err(caught) => panicked(caught),
        };
        self.end(end);
        Poll::Ready(())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.end(End::Killed);
        }
    }
}
