//! Records: objects as bytes, on disk and between nodes.
//!
//! Guarantees: equal objects have equal bytes (canonical); decoding accepts only what encoding
//! makes, never panics, and needs memory in proportion to the input; any single flipped bit, and a
//! record found in the row of another key, are noticed by the checksum.
//! Refuses: to repair. A record that does not decode is damage, and the caller decides.
//!
//! # Shape (version 1)
//! ```text
//! record = 1 ‖ flags ‖ [key] ‖ clock ‖ crc32c of (row ‖ all before), 4 bytes BE
//! flags  : bit 0 = key present, which is when the row is truncated
//! key    = varint length ‖ bytes
//! clock  = varint actors ‖ { actor (20) ‖ varint n ‖ varint live ‖ { value } }
//! value  = varint step ‖ flags ‖ stamp (8 BE) ‖ [expires_ms (8 BE)] ‖ [varint length ‖ payload]
//! step   : how far the counter is below the one before (newest first; the first: below n)
//! flags  : bit 0 = expires_ms present, bit 1 = tombstone (no payload)
//! ```
//! The checksum is in the last four bytes in every version, so that a version we do not know and
//! a damaged version byte are told apart.

use crate::dvvset::{Dvvset, Entry};
use crate::hlc::Hlc;
use crate::ids::{Actor, Dot};
use crate::key::{Key, ROW_BYTES_MAX, RowKey};
use crate::object::{Object, Value, ValueRef};
use crate::vector::VersionVector;
use crate::wire::{Reader, put_varint};

/// Version of the records written by this release.
pub const RECORD_VERSION: u8 = 1;

const CRC_BYTES: usize = 4;
const FLAG_KEY: u8 = 1;
const FLAG_EXPIRES: u8 = 1;
const FLAG_TOMBSTONE: u8 = 2;
const ENTRY_BYTES_MIN: usize = Actor::LEN + 2;
const VALUE_BYTES_MIN: usize = 10;

/// Bytes that are no record of the row at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Too short to hold a record.
    #[error("record is cut short: {len} bytes")]
    Short {
        /// Its length.
        len: usize,
    },
    /// Damaged, or in the row of another key.
    #[error("record is damaged: its checksum does not match")]
    Checksum,
    /// Written by another release.
    #[error("record has version {found}; this node reads version {RECORD_VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// The checksum fits but the content does not: written by a faulty program.
    #[error("record is malformed: {what}")]
    Malformed {
        /// The part that does not fit.
        what: &'static str,
    },
}

/// A decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The whole key, when the row is truncated.
    pub key: Option<Key>,
    /// The object.
    pub object: Object,
}

/// Appends the record of `object` to `out`. `key` is stored only when the row is truncated.
pub fn encode_record(row: &RowKey, key: &Key, object: &Object, out: &mut Vec<u8>) {
    let start = out.len();
    out.reserve(encoded_len_hint(object));
    out.push(RECORD_VERSION);
    if row.is_truncated() {
        out.push(FLAG_KEY);
        put_varint(out, key.as_bytes().len() as u64);
        out.extend_from_slice(key.as_bytes());
    } else {
        out.push(0);
    }
    put_clock(object, out);
    let crc = checksum(row, &out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// Decodes the record found in `row`.
///
/// # Errors
/// See [`RecordError`].
pub fn decode_record(row: &[u8], bytes: &[u8]) -> Result<Record, RecordError> {
    let view = RecordView::open(row, bytes)?;
    let key = match view.key.map(Key::new) {
        None => None,
        Some(Ok(key)) => Some(key),
        Some(Err(_)) => return Err(RecordError::Malformed { what: "key" }),
    };
    Ok(Record { key, object: view.to_object() })
}

/// Appends `object` alone, for use inside a message that has its own checksum and version.
pub fn encode_object(object: &Object, out: &mut Vec<u8>) {
    out.reserve(encoded_len_hint(object));
    put_clock(object, out);
}

/// Decodes what [`encode_object`] made; `bytes` must hold nothing else.
///
/// # Errors
/// [`RecordError::Malformed`].
pub fn decode_object(bytes: &[u8]) -> Result<Object, RecordError> {
    check_clock(bytes).ok_or(RecordError::Malformed { what: "clock" })?;
    Ok(object_of(bytes))
}

/// A verified record whose values are borrowed from its bytes: reading one costs no allocation.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    key: Option<&'a [u8]>,
    /// Checked by `check_clock`.
    clock: &'a [u8],
    live: Live<'a>,
}

/// What checking a clock finds on its way.
#[derive(Debug, Clone, Copy)]
struct Live<'a> {
    len: usize,
    /// The last live value: when it is the only one, reads need not walk the clock again.
    last: Option<ValueRef<'a>>,
}

impl<'a> RecordView<'a> {
    /// Verifies the record found in `row`: checksum, version and structure.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn open(row: &[u8], bytes: &'a [u8]) -> Result<Self, RecordError> {
        let short = RecordError::Short { len: bytes.len() };
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(short)?;
        let (&[version, flags], rest) = body.split_first_chunk::<2>().ok_or(short)?;
        if checksum(row, body) != u32::from_be_bytes(*crc) {
            return Err(RecordError::Checksum);
        }
        if version != RECORD_VERSION {
            return Err(RecordError::Version { found: version });
        }
        let malformed = |what| RecordError::Malformed { what };
        let expected = if row.len() == ROW_BYTES_MAX { FLAG_KEY } else { 0 };
        if flags != expected {
            return Err(malformed("flags"));
        }
        let mut reader = Reader::new(rest);
        let key = match flags {
            FLAG_KEY => Some(reader.sized().ok_or_else(|| malformed("key"))?),
            _ => None,
        };
        let clock = reader.rest();
        let live = check_clock(clock).ok_or_else(|| malformed("clock"))?;
        Ok(Self { key, clock, live })
    }

    /// The whole key, when the row is truncated.
    #[must_use]
    pub const fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Number of live values.
    #[must_use]
    pub const fn live_len(&self) -> usize {
        self.live.len
    }

    /// What is known per actor, in the order of the actors.
    #[must_use]
    #[inline]
    pub fn entries(&self) -> Entries<'a> {
        Entries::new(self.clock)
    }

    /// The live values, in the order of [`Dvvset::live`].
    #[must_use]
    #[inline]
    pub fn values(&self) -> Values<'a> {
        if self.live.len == 1 {
            let entries = Entries { left: 0, reader: Reader::new(&[]) };
            return Values { only: self.live.last, entries, current: None };
        }
        Values { only: None, entries: self.entries(), current: None }
    }

    /// The writes known, as [`Dvvset::join`].
    #[must_use]
    pub fn join(&self) -> VersionVector {
        let entries = self.entries();
        let mut vector = VersionVector::with_capacity(entries.left);
        for entry in entries {
            vector.push_last(entry.actor, entry.n);
        }
        vector
    }

    /// The object, copied out.
    #[must_use]
    pub fn to_object(&self) -> Object {
        object_of(self.clock)
    }
}

/// One actor's part of a [`RecordView`].
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    /// The actor.
    pub actor: Actor,
    /// See [`Entry::n`].
    pub n: u64,
    live_len: usize,
    values: Reader<'a>,
}

impl<'a> EntryView<'a> {
    /// Number of live values.
    #[must_use]
    pub const fn live_len(&self) -> usize {
        self.live_len
    }

    /// The live values, newest first.
    #[must_use]
    pub const fn values(&self) -> EntryValues<'a> {
        EntryValues { actor: self.actor, above: self.n, left: self.live_len, reader: self.values }
    }
}

/// Iterator of [`RecordView::entries`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Entries<'a> {
    #[inline]
    fn new(clock: &'a [u8]) -> Self {
        let mut reader = Reader::new(clock);
        let left = reader.count(ENTRY_BYTES_MIN).unwrap_or(0);
        Self { left, reader }
    }

    /// The next entry; leaves the cursor at its values.
    #[inline]
    fn head(&mut self) -> Option<EntryView<'a>> {
        let actor = Actor::from_bytes(self.reader.array()?);
        let n = self.reader.varint()?;
        let live_len = self.reader.count(VALUE_BYTES_MIN)?;
        Some(EntryView { actor, n, live_len, values: self.reader })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = EntryView<'a>;

    fn next(&mut self) -> Option<EntryView<'a>> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.head()?;
        if self.left > 0 {
            let mut values = entry.values();
            values.by_ref().for_each(drop);
            self.reader = values.reader;
        }
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Entries<'_> {}

/// Iterator of [`EntryView::values`].
#[derive(Debug, Clone)]
pub struct EntryValues<'a> {
    actor: Actor,
    /// Counter of the value before, or `n`.
    above: u64,
    left: usize,
    reader: Reader<'a>,
}

impl<'a> EntryValues<'a> {
    #[inline]
    fn read(&mut self) -> Option<ValueRef<'a>> {
        let counter = self.above.checked_sub(self.reader.varint()?)?;
        let flags = self.reader.u8()?;
        if flags & !(FLAG_EXPIRES | FLAG_TOMBSTONE) != 0 {
            return None;
        }
        let stamp = Hlc::from_u64(self.reader.u64_be()?);
        let expires_ms = if flags & FLAG_EXPIRES != 0 { Some(self.reader.u64_be()?) } else { None };
        let payload = if flags & FLAG_TOMBSTONE != 0 { None } else { Some(self.reader.sized()?) };
        self.above = counter;
        Some(ValueRef { dot: Dot { actor: self.actor, counter }, stamp, expires_ms, payload })
    }
}

impl<'a> Iterator for EntryValues<'a> {
    type Item = ValueRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<ValueRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.read()
    }
}

/// Iterator of [`RecordView::values`].
#[derive(Debug, Clone)]
pub struct Values<'a> {
    /// Set when there is just one value; the rest is empty then.
    only: Option<ValueRef<'a>>,
    entries: Entries<'a>,
    current: Option<EntryValues<'a>>,
}

impl<'a> Iterator for Values<'a> {
    type Item = ValueRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<ValueRef<'a>> {
        if self.only.is_some() {
            return self.only.take();
        }
        loop {
            if let Some(values) = &mut self.current {
                if let Some(value) = values.next() {
                    return Some(value);
                }
                self.entries.reader = values.reader;
                self.current = None;
            }
            self.entries.left = self.entries.left.checked_sub(1)?;
            self.current = Some(self.entries.head()?.values());
        }
    }
}

/// Checksum of a record body together with its row.
fn checksum(row: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(row), body)
}

/// A lower bound of the encoded length, near enough to reserve by.
fn encoded_len_hint(object: &Object) -> usize {
    let payloads: usize =
        object.values().map(|v| v.payload.as_ref().map_or(0, Vec::len) + 24).sum();
    16 + object.entries().len() * (Actor::LEN + 6) + payloads
}

fn put_clock(object: &Object, out: &mut Vec<u8>) {
    put_varint(out, object.entries().len() as u64);
    for (actor, entry) in object.entries() {
        out.extend_from_slice(&actor.to_bytes());
        put_varint(out, entry.n());
        put_varint(out, entry.values().len() as u64);
        let mut above = entry.n();
        for (counter, value) in entry.values() {
            put_varint(out, above - counter);
            put_value(value, out);
            above = *counter;
        }
    }
}

fn put_value(value: &Value, out: &mut Vec<u8>) {
    let expires = if value.expires_ms.is_some() { FLAG_EXPIRES } else { 0 };
    let tombstone = if value.is_tombstone() { FLAG_TOMBSTONE } else { 0 };
    out.push(expires | tombstone);
    out.extend_from_slice(&value.stamp.as_u64().to_be_bytes());
    if let Some(at) = value.expires_ms {
        out.extend_from_slice(&at.to_be_bytes());
    }
    if let Some(payload) = &value.payload {
        put_varint(out, payload.len() as u64);
        out.extend_from_slice(payload);
    }
}

/// Checks that `clock` is exactly one canonical clock.
fn check_clock(clock: &[u8]) -> Option<Live<'_>> {
    let mut reader = Reader::new(clock);
    let left = reader.count(ENTRY_BYTES_MIN)?;
    let mut entries = Entries { left, reader };
    let mut before: Option<Actor> = None;
    let mut live = Live { len: 0, last: None };
    for _ in 0..left {
        let entry = entries.head()?;
        if entry.n == 0 || before.is_some_and(|before| before >= entry.actor) {
            return None;
        }
        before = Some(entry.actor);
        let mut values = entry.values();
        for i in 0..entry.live_len {
            let above = values.above;
            let value = values.read()?;
            let counter = value.dot.counter;
            if counter == 0 || (i > 0 && counter == above) {
                return None;
            }
            live.last = Some(value);
        }
        live.len += entry.live_len;
        entries.reader = values.reader;
    }
    (entries.reader.remaining() == 0).then_some(live)
}

/// Copies a checked clock out.
fn object_of(clock: &[u8]) -> Object {
    let entries = Entries::new(clock);
    let mut owned = Vec::with_capacity(entries.left);
    for entry in entries {
        let mut values = Vec::with_capacity(entry.live_len);
        values.extend(entry.values().map(|value| (value.dot.counter, value.to_value())));
        owned.push((entry.actor, Entry::from_parts(entry.n, values).expect("clock was checked")));
    }
    Dvvset::from_entries(owned).expect("clock was checked")
}
