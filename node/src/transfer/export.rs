//! Exporting tables as lines.
//!
//! Guarantees: sorted by table, then key; each page is a snapshot of its keys; with `--output` the file appears only when it is
//! complete. A key with several values gives a line for each, and the user is told. Refuses: exporting the tables of the
//! system itself, unless one is named.

use super::checkpoint::AtomicFile;
use super::line;
use super::progress::Progress;
use crate::api::{self, Api, ApiError};
use crate::exit::Failure;
use crate::out::Out;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use weald_proto::limits::PAGE_ITEMS_MAX;
use weald_proto::request::{Page, Scan, Tables};

/// What to export.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Only these tables; none: all.
    pub(crate) tables: Vec<String>,
    /// Only keys that start with this.
    pub(crate) prefix: Vec<u8>,
    /// Time for one request.
    pub(crate) deadline: Duration,
    /// How long a request is repeated while the node is away.
    pub(crate) retry_for: Duration,
}

/// Where it goes.
#[derive(Debug)]
pub(crate) enum Sink<'a> {
    /// Stdout.
    Out(&'a mut Out),
    /// A file.
    File(AtomicFile),
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Out(out) => out.bytes(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Out(out) => out.flush(),
            Self::File(file) => file.commit(),
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Tables.
    pub(crate) tables: u64,
    /// Lines.
    pub(crate) exported: u64,
    /// Keys with several values.
    pub(crate) siblings: u64,
    /// Damaged records left out.
    pub(crate) corrupt: u64,
}

/// The prefix of the tables of the system itself.
const SYSTEM: &str = "weald.";

/// Exports to a sink.
pub(crate) async fn run<A: Api>(
    api: Arc<A>,
    options: Options,
    mut sink: Sink<'_>,
) -> Result<Summary, Failure> {
    let progress = Progress::entries();
    let mut summary = Summary::default();
    let mut tables = options.tables.clone();
    if tables.is_empty() {
        let all = api::request_again(&*api, Tables {}, options.deadline, options.retry_for).await?;
        tables = all.into_iter().map(|table| table.name).collect();
        tables.retain(|name| !name.starts_with(SYSTEM));
    }
    tables.sort();
    tables.dedup();
    let mut buffer = Vec::new();
    for table in tables {
        summary.tables += 1;
        let mut page = page(&api, &options, &table, None).await?;
        loop {
            // The next page is fetched while this one is written.
            let next = page.next.take().map(|token| {
                let (api, options, table) = (Arc::clone(&api), options.clone(), table.clone());
                tokio::spawn(async move { self::page(&api, &options, &table, Some(token)).await })
            });
            buffer.clear();
            render(&table, &page, &mut summary, &mut buffer);
            sink.write(&buffer)?;
            progress.at(summary.exported, table.clone());
            match next {
                None => break,
                Some(next) => {
                    page = next.await.map_err(|e| {
                        Failure::new(crate::exit::Exit::Io, format!("export task failed: {e}"))
                    })??;
                }
            }
        }
    }
    progress.finish();
    sink.finish()?;
    Ok(summary)
}

fn render(table: &str, page: &Page, summary: &mut Summary, buffer: &mut Vec<u8>) {
    for item in &page.items {
        for value in &item.values {
            line::render(table, &item.key, value, buffer);
            summary.exported += 1;
        }
        summary.siblings += u64::from(item.values.len() > 1);
    }
    summary.corrupt += page.corrupt;
}

async fn page<A: Api>(
    api: &Arc<A>,
    options: &Options,
    table: &str,
    token: Option<Vec<u8>>,
) -> Result<Page, ApiError> {
    let scan = Scan {
        table: table.to_owned(),
        prefix: options.prefix.clone(),
        from: None,
        to: None,
        token,
        limit: u32::try_from(PAGE_ITEMS_MAX).unwrap_or(u32::MAX),
        keys_only: false,
    };
    api::request_again(&**api, scan, options.deadline, options.retry_for).await
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    async fn export(api: Fake, options: Options) -> (Summary, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let file = AtomicFile::create(&path).unwrap();
        let options = Options {
            deadline: Duration::from_secs(1),
            retry_for: Duration::from_secs(9),
            ..options
        };
        let summary = run(Arc::new(api), options, Sink::File(file)).await.unwrap();
        (summary, std::fs::read_to_string(path).unwrap())
    }

    fn filled() -> Fake {
        let api = Fake::default();
        for n in 0..7 {
            api.store("b", format!("k{n}").as_bytes(), &[b"1"]);
        }
        api.store("a", b"\xff", &[b"raw"]);
        api.store("weald.tables", b"a", &[b"1"]);
        api
    }

    #[tokio::test(start_paused = true)]
    async fn export_is_sorted_paged_and_leaves_the_system_out() {
        let api = filled();
        api.fail_next([ApiError::Unreachable("down".into())]);
        let (summary, text) = export(api, Options::default()).await;
        assert_eq!(summary, Summary { tables: 2, exported: 8, siblings: 0, corrupt: 0 });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "{\"table\": \"a\", \"key\": {\"$bytes\": \"/w==\"}, \"value\": {\"$bytes\": \"cmF3\"}}"
        );
        assert_eq!(lines[7], "{\"table\": \"b\", \"key\": \"k6\", \"value\": 1}");
    }

    #[tokio::test]
    async fn export_of_a_prefix_and_of_siblings() {
        let api = filled();
        api.store("b", b"k3", &[b"1", b"2"]);
        let options =
            Options { tables: vec!["b".into()], prefix: b"k3".to_vec(), ..Options::default() };
        let (summary, text) = export(api, options).await;
        assert_eq!(summary, Summary { tables: 1, exported: 2, siblings: 1, corrupt: 0 });
        assert_eq!(text.lines().count(), 2);
    }
}
