//! Scanning a table: ascending by key, over all partitions, page by page.
//!
//! A page is a merge of one snapshot per partition, taken together at its start. A page token is
//! the last key looked at, so what is written between two pages at keys not yet reached is seen.
//!
//! Rows of keys too long for LMDB sort by a hash behind their common 495-byte prefix; such a group
//! is gathered and sorted by the full key when it is met. So a page within a group costs time in
//! proportion to the group, and 48 bytes of memory per row of it.

use std::ops::Bound;

use heed::{RoRange, RoTxn, WithTls, types::Bytes};

use crate::codec::RecordView;
use crate::context::Context;
use crate::error::ReadError;
use crate::key::{Key, ROW_BYTES_MAX, ROW_PREFIX_BYTES, TableName, row_lower_bound, table_range};
use crate::memory::MemoryState;
use crate::object::Object;
use crate::partition::Partition;
use crate::partition::read::{Seen, see};
use crate::resolve::Resolvers;
use crate::table::{TableKind, TableSpec};

/// Most rows one page looks at: bounds how long its snapshots live when most rows are tombstones.
const ROWS_PER_PAGE_MAX: usize = 65_536;
const TOKEN_VERSION: u8 = 1;

/// What to scan.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The table.
    pub table: TableName,
    /// Where to begin.
    pub from: Bound<Vec<u8>>,
    /// Where to end.
    pub to: Bound<Vec<u8>>,
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// Go on where this page ended; all else must be as in the scan that gave it.
    pub after: Option<PageToken>,
    /// Most items of a page; at least one is allowed.
    pub limit_items: usize,
    /// A page ends when its keys and values have reached this many bytes.
    pub limit_bytes: usize,
    /// Leave the values out.
    pub keys_only: bool,
}

impl Scan {
    /// All of `table`, in pages of up to 1,000 items or 1 MiB.
    pub fn new(table: TableName) -> Self {
        Self {
            table,
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            prefix: Vec::new(),
            after: None,
            limit_items: 1_000,
            limit_bytes: 1024 * 1024,
            keys_only: false,
        }
    }

    fn checksum(&self, key: &[u8]) -> u32 {
        let bound = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Unbounded => vec![0],
            Bound::Included(key) => [&[1], key.as_slice()].concat(),
            Bound::Excluded(key) => [&[2], key.as_slice()].concat(),
        };
        let parts = [
            self.table.as_str().as_bytes(),
            &self.prefix,
            &bound(&self.from),
            &bound(&self.to),
            key,
        ];
        parts.iter().fold(u32::from(TOKEN_VERSION), |sum, part| {
            let len = (part.len() as u64).to_be_bytes();
            crc32c::crc32c_append(crc32c::crc32c_append(sum, &len), part)
        })
    }

    fn token(&self, key: &[u8]) -> PageToken {
        let sum = self.checksum(key).to_be_bytes();
        PageToken([&[TOKEN_VERSION], &sum[..], key].concat())
    }

    /// Where keys begin: the lowest key, and whether it is itself wanted.
    fn low(&self) -> Result<(Vec<u8>, bool), ReadError> {
        let mut low = (self.prefix.clone(), true);
        let mut raise = |key: &[u8], inclusive: bool| {
            if key > low.0.as_slice() || (key == low.0 && !inclusive) {
                low = (key.to_vec(), inclusive);
            }
        };
        match &self.from {
            Bound::Unbounded => {}
            Bound::Included(key) => raise(key, true),
            Bound::Excluded(key) => raise(key, false),
        }
        if let Some(token) = &self.after {
            let [TOKEN_VERSION, s0, s1, s2, s3, key @ ..] = token.0.as_slice() else {
                return Err(ReadError::BadPageToken);
            };
            if u32::from_be_bytes([*s0, *s1, *s2, *s3]) != self.checksum(key) {
                return Err(ReadError::BadPageToken);
            }
            raise(key, false);
        }
        Ok(low)
    }

    /// Whether `key`, which is not below the lowest key, is past the end.
    fn is_past(&self, key: &[u8]) -> bool {
        let past_to = match &self.to {
            Bound::Unbounded => false,
            Bound::Included(to) => key > to.as_slice(),
            Bound::Excluded(to) => key >= to.as_slice(),
        };
        past_to || !key.starts_with(&self.prefix)
    }
}

/// Where a page ended; opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(Vec<u8>);

impl PageToken {
    /// The bytes to give to a client.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes back what [`Self::as_bytes`] gave; checked when it is used.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// A key met by a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Key,
    /// Its values, as `Got::values`; empty with `keys_only`.
    pub values: Vec<Vec<u8>>,
    /// Its context.
    pub context: Context,
    /// Whether there are siblings that `WriteOp::Repair` would resolve.
    pub needs_repair: bool,
}

/// A page of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The keys that have a value, ascending. May be empty although there is a next page.
    pub items: Vec<Item>,
    /// Pass it as [`Scan::after`]; `None` when the table was read to its end.
    pub next: Option<PageToken>,
    /// Damaged records that were left out.
    pub corrupt: u64,
}

/// An object at the head of a stream.
#[derive(Clone, Copy)]
enum Found<'t> {
    Record(RecordView<'t>),
    Object(&'t Object),
}

struct Head<'t> {
    key: &'t [u8],
    found: Found<'t>,
}

/// The rows of one partition, by full key.
enum Stream<'t> {
    Durable(DurableStream<'t>),
    Memory(Box<dyn Iterator<Item = (&'t [u8], &'t Object)> + 't>),
}

/// A row and its record.
type Row<'t> = (&'t [u8], &'t [u8]);

struct DurableStream<'t> {
    rows: RoRange<'t, Bytes, Bytes>,
    key_at: usize,
    ahead: Option<Row<'t>>,
    /// A sorted group of long keys, the next one last.
    group: Vec<Head<'t>>,
    corrupt: u64,
}

impl<'t> DurableStream<'t> {
    fn open(partition: &Lmdb<'t>, scan: &Scan, low: &[u8]) -> Result<Self, ReadError> {
        let start = row_lower_bound(&scan.table, low);
        let end = table_range(&scan.table).1;
        let range = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
        let rows = partition.lmdb.dbs.objects.range(partition.txn, &range)?;
        Ok(Self {
            rows,
            key_at: scan.table.as_str().len() + 1,
            ahead: None,
            group: Vec::new(),
            corrupt: 0,
        })
    }

    fn advance(&mut self) -> Result<Option<Row<'t>>, ReadError> {
        match self.ahead.take() {
            Some(row) => Ok(Some(row)),
            None => Ok(self.rows.next().transpose()?),
        }
    }

    fn next(&mut self) -> Result<Option<Head<'t>>, ReadError> {
        loop {
            if let Some(head) = self.group.pop() {
                return Ok(Some(head));
            }
            let Some((row, record)) = self.advance()? else { return Ok(None) };
            if row.len() == ROW_BYTES_MAX {
                self.ahead = Some((row, record));
                self.gather(&row[..ROW_PREFIX_BYTES])?;
            } else if let Some(view) = self.view(row, record) {
                let key = row.get(self.key_at..).unwrap_or_default();
                return Ok(Some(Head { key, found: Found::Record(view) }));
            }
        }
    }

    fn view(&mut self, row: &[u8], record: &'t [u8]) -> Option<RecordView<'t>> {
        let view = RecordView::open(row, record).ok();
        self.corrupt += u64::from(view.is_none());
        view
    }

    fn gather(&mut self, prefix: &[u8]) -> Result<(), ReadError> {
        while let Some((row, record)) = self.advance()? {
            if row.len() != ROW_BYTES_MAX || !row.starts_with(prefix) {
                self.ahead = Some((row, record));
                break;
            }
            if let Some(view) = self.view(row, record) {
                let key = view.key().unwrap_or_default();
                self.group.push(Head { key, found: Found::Record(view) });
            }
        }
        self.group.sort_unstable_by(|left, right| right.key.cmp(left.key));
        Ok(())
    }
}

/// A snapshot of a partition.
struct Lmdb<'t> {
    lmdb: &'t crate::lmdb::Lmdb,
    txn: &'t RoTxn<'t, WithTls>,
}

impl<'t> Stream<'t> {
    fn next(&mut self) -> Result<Option<Head<'t>>, ReadError> {
        match self {
            Self::Durable(stream) => stream.next(),
            Self::Memory(stream) => {
                Ok(stream.next().map(|(key, object)| Head { key, found: Found::Object(object) }))
            }
        }
    }
}

/// Scans `scan` over all `partitions`.
pub(crate) fn scan<P: AsRef<Partition>>(
    partitions: &[P],
    spec: &TableSpec,
    scan: &Scan,
    now_ms: u64,
) -> Result<Page, ReadError> {
    let Some(first) = partitions.first() else { return Err(ReadError::Closed) };
    let merge = Merge { resolvers: &first.as_ref().shared.resolvers, spec, scan, now_ms };
    let (low, inclusive) = scan.low()?;
    if spec.kind == TableKind::Memory {
        let states: Vec<_> =
            partitions.iter().map(|partition| partition.as_ref().memory()).collect();
        let streams = states.iter().map(|state| Stream::Memory(memory_rows(state, scan, &low)));
        return merge.page(streams.collect(), &low, inclusive);
    }
    // Always in the order of the partitions: two scans and two growing maps cannot wait in a circle.
    let envs: Vec<_> = partitions.iter().map(|partition| partition.as_ref().pin()).collect();
    let lmdbs = envs.iter().map(|env| env.as_ref().ok_or(ReadError::Closed));
    let lmdbs = lmdbs.collect::<Result<Vec<_>, _>>()?;
    let txns = lmdbs.iter().map(|lmdb| lmdb.read()).collect::<heed::Result<Vec<_>>>()?;
    let mut streams = Vec::with_capacity(lmdbs.len());
    for (lmdb, txn) in lmdbs.iter().zip(&txns) {
        streams.push(Stream::Durable(DurableStream::open(&Lmdb { lmdb, txn }, scan, &low)?));
    }
    merge.page(streams, &low, inclusive)
}

fn memory_rows<'t>(
    state: &'t MemoryState,
    scan: &Scan,
    low: &[u8],
) -> Box<dyn Iterator<Item = (&'t [u8], &'t Object)> + 't> {
    let table = scan.table.clone();
    // The empty key is no key, and a bound longer than any key still sorts right when cut.
    let cut = low.get(..crate::key::KEY_BYTES_MAX).unwrap_or(low);
    let from = Key::new(if cut.is_empty() { &[0] } else { cut });
    let Ok(from) = from else { return Box::new(std::iter::empty()) };
    let rows = state.range((table.clone(), from)).take_while(move |(at, _)| at.0 == table);
    Box::new(rows.map(|(at, object)| (at.1.as_bytes(), &**object)))
}

struct Merge<'s> {
    resolvers: &'s Resolvers,
    spec: &'s TableSpec,
    scan: &'s Scan,
    now_ms: u64,
}

impl Merge<'_> {
    fn page(
        &self,
        mut streams: Vec<Stream<'_>>,
        low: &[u8],
        inclusive: bool,
    ) -> Result<Page, ReadError> {
        let mut page = Page { items: Vec::new(), next: None, corrupt: 0 };
        let mut heads = streams.iter_mut().map(Stream::next).collect::<Result<Vec<_>, _>>()?;
        let (mut bytes, mut rows) = (0, 0);
        let mut last: Option<&[u8]> = None;
        loop {
            let heads_at =
                heads.iter().enumerate().filter_map(|(at, head)| Some((at, head.as_ref()?.key)));
            let Some((at, _)) = heads_at.min_by(|left, right| left.1.cmp(right.1)) else { break };
            let is_full = page.items.len() >= self.scan.limit_items.max(1)
                || bytes >= self.scan.limit_bytes.max(1)
                || rows >= ROWS_PER_PAGE_MAX;
            let Some(head) = heads[at].take() else { break };
            let below = head.key < low || (head.key == low && !inclusive);
            if !below {
                if self.scan.is_past(head.key) {
                    break;
                }
                if is_full {
                    page.next = last.map(|key| self.scan.token(key));
                    break;
                }
                last = Some(head.key);
                rows += 1;
                if let Some(item) = self.item(&head) {
                    let values: usize = item.values.iter().map(Vec::len).sum();
                    bytes += head.key.len() + values;
                    page.items.push(item);
                }
            }
            heads[at] = streams[at].next()?;
        }
        for stream in &streams {
            if let Stream::Durable(stream) = stream {
                page.corrupt += stream.corrupt;
            }
        }
        Ok(page)
    }

    /// The item of a row; `None` when its key is absent.
    fn item(&self, head: &Head<'_>) -> Option<Item> {
        let key = Key::new(head.key).ok()?;
        let table = &self.scan.table;
        let (seen, vector) = match head.found {
            Found::Record(view) => (self.see(&key, view.values()), view.join()),
            Found::Object(object) => (self.see(&key, object.refs()), object.join()),
        };
        if seen.values.is_empty() {
            return None;
        }
        Some(Item {
            context: Context::new(table, &key, vector),
            values: if self.scan.keys_only { Vec::new() } else { seen.values },
            needs_repair: seen.needs_repair,
            key,
        })
    }

    fn see<'v>(
        &self,
        key: &Key,
        values: impl Iterator<Item = crate::object::ValueRef<'v>>,
    ) -> Seen {
        see(self.resolvers, self.spec, &self.scan.table, key, values, self.now_ms)
    }
}
