//! Where a panic happened, and what it said.
//!
//! Guarantees: inside [`catch`] a panic is turned into a [`Caught`] with its `file:line:column`; the
//! hook that was installed before still sees panics that happen outside of it.
//! Refuses: to print supervised panics a second time (they become crash reports), unless
//! `RUST_BACKTRACE` asks for the trace.
//!
//! The hook is the one piece of process-wide state here: the language offers no other way.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

/// A panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caught {
    pub(crate) text: String,
    pub(crate) location: Option<String>,
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook, once per process.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let wants_trace = std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0");
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let supervised = DEPTH.try_with(Cell::get).is_ok_and(|depth| depth > 0);
            if supervised {
                let location = info.location().map(ToString::to_string);
                // Fails only while the thread's locals are being destroyed: no location then.
                LOCATION.try_with(|slot| *slot.borrow_mut() = location).ok();
            }
            if !supervised || wants_trace {
                previous(info);
            }
        }));
    });
}

struct Entered;

impl Entered {
    fn new() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Runs `f`, catching its panic.
pub(crate) fn catch_sync<T>(f: impl FnOnce() -> T) -> Result<T, Caught> {
    let _entered = Entered::new();
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| Caught {
        text: text_of(payload.as_ref()),
        location: LOCATION.with(|slot| slot.borrow_mut().take()),
    })
}

/// Runs a future, catching a panic of any of its polls. It is not polled again after one.
pub(crate) async fn catch<F: Future>(future: F) -> Result<F::Output, Caught> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_sync(|| future.as_mut().poll(cx)) {
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(caught) => Poll::Ready(Err(caught)),
    })
    .await
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
