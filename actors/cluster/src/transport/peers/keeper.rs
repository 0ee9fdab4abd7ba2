//! The keeper: starts a dialer for each wanted peer, ends connections that nobody wants, pings, and looks at the certificate
//! files. Holds no state that matters: a successor finds everything in the table.

use super::{Shared, dial};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use weald_storage::NodeId;
use weald_supervision::{BoxError, ChildSpec, Restart, StartError, TaskContext};

/// How often it looks, if nothing wakes it.
const PERIOD: Duration = Duration::from_millis(500);
/// How often peers are pinged.
const PING_PERIOD: Duration = Duration::from_secs(2);
/// How often the certificate files are looked at.
const FILES_PERIOD: Duration = Duration::from_secs(2);

/// Takes a dialer off the list when it ends, however it does.
struct Listed(Arc<Shared>, NodeId);

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.dialers().remove(&self.1);
    }
}

/// Something to do from time to time.
struct Every {
    period: Duration,
    last: Instant,
}

impl Every {
    fn new(period: Duration) -> Self {
        Self { period, last: Instant::now() }
    }

    fn is_due(&mut self) -> bool {
        let is_due = self.last.elapsed() >= self.period;
        if is_due {
            self.last = Instant::now();
        }
        is_due
    }
}

/// The task.
pub(in super::super) async fn keep(shared: Arc<Shared>, cx: TaskContext) -> Result<(), BoxError> {
    let mut changes = shared.changes.subscribe();
    let (mut pings, mut files) = (Every::new(PING_PERIOD), Every::new(FILES_PERIOD));
    let mut bad_files = None;
    loop {
        changes.borrow_and_update();
        start_dialers(&shared).await;
        let now = Instant::now();
        let may_stay = |node| shared.way_to(node).is_some();
        let has_overdue = shared.table().overdue(now).any(|node| !may_stay(node));
        if has_overdue {
            shared.change(|table, effects| table.reap(now, may_stay, effects));
        }
        shared.look_at_far();
        if pings.is_due() {
            shared.ping();
        }
        if files.is_due() {
            look_at_files(&shared, &mut bad_files).await;
        }
        tokio::select! {
            biased; // an end that is asked for goes first
            () = cx.cancelled() => return Ok(()),
            _ = tokio::time::timeout(PERIOD, changes.changed()) => {}
        }
    }
}

async fn start_dialers(shared: &Arc<Shared>) {
    let to_dial = shared.table().to_dial();
    for node in to_dial {
        if !shared.dialers().insert(node) {
            continue;
        }
        let listed = Mutex::new(Some(Listed(Arc::clone(shared), node)));
        let dialer = Arc::clone(shared);
        let child = ChildSpec::task(&format!("dial-{node}"), move |cx| {
            let listed = listed.lock().unwrap_or_else(PoisonError::into_inner).take();
            let dialer = Arc::clone(&dialer);
            async move {
                let _listed = listed;
                dial::run(dialer, node, cx).await
            }
        })
        .restart(Restart::Temporary);
        match shared.children.start_child(child).await {
            // One that has just ended may still hold the name: it is tried again in a moment.
            Ok(_) | Err(StartError::Duplicate { .. }) => {}
            Err(e) => {
                if let Some(suppressed) = shared.logs.admit() {
                    tracing::warn!(event = "dialer_not_started", peer = %node, error = %e, suppressed, "dialer not started");
                }
            }
        }
    }
}

async fn look_at_files(shared: &Arc<Shared>, bad: &mut Option<String>) {
    let looked = Arc::clone(shared);
    // Files may be slow to read.
    let result = tokio::task::spawn_blocking(move || looked.tls.load_if_changed()).await;
    match result {
        Ok(Ok(false)) | Err(_) => {}
        Ok(Ok(true)) => {
            *bad = None;
            tracing::info!(
                event = "certificates_loaded",
                "certificate files have changed and are in use"
            );
        }
        Ok(Err(why)) if bad.as_ref() != Some(&why) => {
            tracing::error!(event = "certificates_bad", reason = %why, "changed certificate files are not used, those before stay");
            *bad = Some(why);
        }
        Ok(Err(_)) => {}
    }
}
