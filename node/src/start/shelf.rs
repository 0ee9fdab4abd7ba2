//! Where the router keeps events for later subscribers: a table of the store, in memory on each node, and on all.

use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::Duration;
use weald_cluster::store::StoreHandle;
use weald_router::broker::retained::Shelf;
use weald_storage::{DeclareError, Key, Page, Scan, TableKind, TableName, TableSpec, WriteOp};

/// The table.
const TABLE: &str = "weald.retained";
/// Time that keeping an event may take.
const KEEP_TIME: Duration = Duration::from_secs(5);

/// Events kept in the store.
pub(super) struct Stored {
    store: StoreHandle,
    table: TableName,
}

impl Stored {
    /// Writes the declaration of the table if it is new, so call it where blocking is fine.
    pub(super) fn new(store: &StoreHandle) -> Result<Self, DeclareError> {
        let table = TableName::parse(TABLE).expect("it is a name of a table");
        let spec = TableSpec { kind: TableKind::Memory, ..TableSpec::UNDECLARED };
        store.store().declare_system_table(&table, spec)?;
        Ok(Self { store: store.clone(), table })
    }

    fn scan_of(&self, prefix: &[u8]) -> Scan {
        Scan { prefix: prefix.to_vec(), ..Scan::new(self.table.clone()) }
    }
}

/// Counts items up to a limit. Blocks.
fn count(store: &StoreHandle, mut scan: Scan, limit: usize) -> usize {
    scan.keys_only = true;
    let mut count = 0;
    while count < limit {
        let Some(page) = page(store, &scan) else { break };
        count += page.items.len();
        let Some(next) = page.next else { break };
        scan.after = Some(next);
    }
    count.min(limit)
}

fn page(store: &StoreHandle, scan: &Scan) -> Option<Page> {
    let page = store.store().scan(scan, store.wall_ms());
    page.inspect_err(|error| {
        tracing::warn!(event = "retained_unreadable", %error, "kept events could not be read");
    })
    .ok()
}

impl Shelf for Stored {
    fn put(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        age_max: Option<Duration>,
    ) -> BoxFuture<'static, ()> {
        // A topic longer than a key can be: its events are not kept.
        let Ok(key) = Key::new(&key) else { return futures::future::ready(()).boxed() };
        let table = self.table.clone();
        let op = WriteOp::Put { table, key, value, context: None, ttl: age_max };
        let writing = self.store.write(op, tokio::time::Instant::now() + KEEP_TIME);
        async move {
            if let Err(error) = writing.await {
                tracing::warn!(event = "event_not_retained", %error, "an event could not be kept");
            }
        }
        .boxed()
    }

    fn count(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, usize> {
        let (store, scan) = (self.store.clone(), self.scan_of(prefix));
        let counting = tokio::task::spawn_blocking(move || count(&store, scan, limit));
        // Not counted is as full: what bounds memory must not fail open.
        async move { counting.await.unwrap_or(limit) }.boxed()
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let got = self.store.get(&self.table, &Key::new(key).ok()?).ok()?;
        got.values.into_iter().next()
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
        let mut scan = self.scan_of(prefix);
        while let Some(page) = page(&self.store, &scan) {
            for item in &page.items {
                if let Some(value) = item.values.first() {
                    visit(item.key.as_bytes(), value);
                }
            }
            let Some(next) = page.next else { return };
            scan.after = Some(next);
        }
    }
}
