//! The actors of this process that have a name at the node, and the messages that come for them.

use crate::wire::Wire;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weald_proto::error::{ErrorCode, WireError};
use weald_proto::frame::Frame;
use weald_proto::request::{Deliver, Reply, Request, error_frame, reply_frame};

/// Messages that are being answered at a time; more are answered `Overloaded`.
const SERVING_MAX: usize = 1024;

/// An answer that is ready, or one that takes a while.
pub(crate) enum Answer {
    Now(Reply<Vec<u8>>),
    Later(Pin<Box<dyn Future<Output = Reply<Vec<u8>>> + Send>>),
}

/// Takes a message; called in the order in which the messages came, so it must not block.
pub(crate) type Handler = Arc<dyn Fn(&[u8], bool) -> Answer + Send + Sync>;

/// All names of a client.
#[derive(Default)]
pub(crate) struct Inbox {
    handlers: Mutex<BTreeMap<String, Handler>>,
    serving: Arc<AtomicUsize>,
}

struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inbox {
    /// Adds a name; false when it is there already.
    pub(crate) fn add(&self, name: &str, handler: Handler) -> bool {
        let mut handlers = self.handlers();
        if handlers.contains_key(name) {
            return false;
        }
        handlers.insert(name.to_owned(), handler);
        true
    }

    pub(crate) fn remove(&self, name: &str) {
        let handler = self.handlers().remove(name);
        drop(handler);
    }

    /// Takes a frame that the node pushed, and answers it.
    pub(crate) fn take(&self, wire: &Arc<Wire>, frame: Frame) {
        let Frame { kind, corr, body } = frame;
        let Ok(Request::Deliver(Deliver { name, payload, reply })) = Request::decode(kind, &body)
        else {
            let why = format!("this client does not know request {kind}");
            wire.answer(&error_frame(corr, &WireError::new(ErrorCode::Unsupported, why)));
            return;
        };
        let handler = self.handlers().get(&name).map(Arc::clone);
        let answer = match handler {
            Some(handler) => handler(&payload, reply),
            None => {
                let why = format!("no actor has the name {name:?} here");
                Answer::Now(Err(WireError::new(ErrorCode::NotFound, why)))
            }
        };
        match answer {
            Answer::Now(result) => wire.answer(&reply_frame::<Deliver>(corr, &result)),
            Answer::Later(work) => {
                let serving = Serving(Arc::clone(&self.serving));
                if self.serving.fetch_add(1, Ordering::AcqRel) >= SERVING_MAX {
                    drop(serving);
                    let why = format!("{SERVING_MAX} messages are being answered already");
                    let busy = WireError::new(ErrorCode::Overloaded, why);
                    wire.answer(&error_frame(corr, &busy));
                    return;
                }
                let wire = Arc::clone(wire);
                tokio::spawn(async move {
                    let _serving = serving;
                    let result = work.await;
                    wire.answer(&reply_frame::<Deliver>(corr, &result));
                });
            }
        }
    }

    fn handlers(&self) -> MutexGuard<'_, BTreeMap<String, Handler>> {
        // Nothing in here panics half-way.
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
