//! Names of tables and keys, their rows on disk, and the partition they belong to.
//!
//! Guarantees: rows sort like `(table, key)`, except that rows too long for LMDB keep only a
//! prefix and a hash: among those with the same 495-byte prefix the order is that of the hash. A
//! row of one key never equals the row of another (up to collisions of blake3). The partition of a
//! key is the same on every node and in every release.
//! Refuses: names that would need quoting in a log or on a command line.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Longest table name, in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 64;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// Longest row, in bytes: the limit of LMDB in its default build.
pub const ROW_BYTES_MAX: usize = 511;
/// Longest row that holds its key in full, in bytes; a truncated row keeps as many and a hash.
pub const ROW_PREFIX_BYTES: usize = ROW_BYTES_MAX - ROW_HASH_BYTES;

const ROW_HASH_BYTES: usize = 16;
/// Ends the table name; sorts before every byte a name may hold.
const SEPARATOR: u8 = 0;
/// Seed of [`key_tag`], likewise.
const TAG_SEED: u64 = 0x5745_414c_4420_5431; // "WEALD T1"
/// Seed of the partition hash. A constant of the format: another one would lose every key.
const PARTITION_SEED: u64 = 0x5745_414c_4420_5031; // "WEALD P1"

/// Name of a table.
///
/// # Shape
/// 1 to 64 bytes of `a-z 0-9 _ . -`, the first a letter or `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName(Arc<str>);

/// Text that is no table name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableNameError {
    /// No characters.
    #[error("table name is empty")]
    Empty,
    /// Too many characters.
    #[error("table name has {len} bytes; at most {TABLE_NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// The first character is neither a letter nor an underscore.
    #[error("table name starts with {found:?}; it must start with a-z or _")]
    Start {
        /// The first character.
        found: char,
    },
    /// A character that names may not hold.
    #[error("table name holds {found:?}; only a-z, 0-9, _, . and - are allowed")]
    Character {
        /// The first such character.
        found: char,
    },
}

impl TableName {
    /// Checks and copies a name.
    ///
    /// # Errors
    /// The text breaks a rule of the type.
    pub fn parse(text: &str) -> Result<Self, TableNameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(text: &str) -> Result<(), TableNameError> {
        let first = text.chars().next().ok_or(TableNameError::Empty)?;
        if text.len() > TABLE_NAME_BYTES_MAX {
            return Err(TableNameError::TooLong { len: text.len() });
        }
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-');
        if let Some(found) = text.chars().find(|c| !allowed(*c)) {
            return Err(TableNameError::Character { found });
        }
        if !matches!(first, 'a'..='z' | '_') {
            return Err(TableNameError::Start { found: first });
        }
        Ok(())
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for TableName {
    type Error = TableNameError;

    fn try_from(text: String) -> Result<Self, TableNameError> {
        Self::parse(&text)
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.as_str().to_owned()
    }
}

/// Key within a table: 1 to 4096 bytes of any content. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Key(Arc<[u8]>);

/// Bytes that are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No bytes.
    #[error("key is empty")]
    Empty,
    /// Too many bytes.
    #[error("key has {len} bytes; at most {KEY_BYTES_MAX} are allowed")]
    TooLong {
        /// Length of the bytes.
        len: usize,
    },
}

impl Key {
    /// Checks and copies a key.
    ///
    /// # Errors
    /// The length is not within 1 to 4096.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=KEY_BYTES_MAX => Ok(Self(bytes.into())),
            len => Err(KeyError::TooLong { len }),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::new(bytes)
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(text: &str) -> Result<Self, KeyError> {
        Self::new(text.as_bytes())
    }
}

impl TryFrom<Vec<u8>> for Key {
    type Error = KeyError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, KeyError> {
        Self::new(&bytes)
    }
}

impl From<Key> for Vec<u8> {
    fn from(key: Key) -> Self {
        key.as_bytes().to_vec()
    }
}

/// blake3 of `table ‖ 0 ‖ key`: names a key in hash trees and truncated rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Hashes a key.
    #[must_use]
    pub fn of(table: &TableName, key: &Key) -> Self {
        let full_len = table.0.len() + 1 + key.0.len();
        if full_len <= ROW_BYTES_MAX {
            let mut buffer = [0; ROW_BYTES_MAX];
            let full = join_into(&mut buffer, table, &key.0);
            return Self(blake3::hash(full).into());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(table.0.as_bytes());
        hasher.update(&[SEPARATOR]);
        hasher.update(&key.0);
        Self(hasher.finalize().into())
    }

    /// The first `N` bytes, at most 32.
    #[must_use]
    pub fn prefix<const N: usize>(&self) -> [u8; N] {
        const { assert!(N <= 32) };
        std::array::from_fn(|i| self.0[i])
    }
}

/// Row of an object on disk, held inline (no heap).
///
/// # Shape
/// `table ‖ 0 ‖ key` when that is at most 495 bytes; else its first 495 bytes and the first 16
/// bytes of its [`KeyHash`], 511 in all. So the length tells the two forms apart.
#[derive(Clone)]
pub struct RowKey {
    len: usize,
    bytes: [u8; ROW_BYTES_MAX],
}

impl RowKey {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// True when the key is not held in full.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.len == ROW_BYTES_MAX
    }
}

impl Deref for RowKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// The row of a key.
#[must_use]
pub fn row_key(table: &TableName, key: &Key) -> RowKey {
    let mut bytes = [0; ROW_BYTES_MAX];
    let full_len = table.0.len() + 1 + key.0.len();
    if full_len <= ROW_PREFIX_BYTES {
        join_into(&mut bytes, table, &key.0);
        return RowKey { len: full_len, bytes };
    }
    let kept = ROW_PREFIX_BYTES - table.0.len() - 1;
    join_into(&mut bytes, table, &key.0[..kept]);
    bytes[ROW_PREFIX_BYTES..].copy_from_slice(&KeyHash::of(table, key).prefix::<ROW_HASH_BYTES>());
    RowKey { len: ROW_BYTES_MAX, bytes }
}

/// The rows of a table: from the first (inclusive) to the second (exclusive).
#[must_use]
pub fn table_range(table: &TableName) -> (Vec<u8>, Vec<u8>) {
    let bound = |last: u8| [table.0.as_bytes(), &[last]].concat();
    (bound(SEPARATOR), bound(SEPARATOR + 1))
}

/// A place between rows: where the keys of `table` that are at or after `from` begin. Truncated
/// rows with the same prefix as a long `from` all sort at or after it.
#[must_use]
pub fn row_lower_bound(table: &TableName, from: &[u8]) -> Vec<u8> {
    let mut row = [table.0.as_bytes(), &[SEPARATOR], from].concat();
    row.truncate(ROW_PREFIX_BYTES);
    row
}

/// A row taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The table name.
    pub table: &'a str,
    /// The key, or what a truncated row holds of it.
    pub key: &'a [u8],
    /// True when `key` is only a prefix; the record then holds the whole key.
    pub truncated: bool,
}

/// Bytes that are no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an object row: {0}")]
pub struct RowError(&'static str);

/// Takes a row apart.
///
/// # Errors
/// The bytes cannot have been made by [`row_key`].
pub fn parse_row(row: &[u8]) -> Result<Row<'_>, RowError> {
    let (full, truncated) = match row.len() {
        0..=ROW_PREFIX_BYTES => (row, false),
        ROW_BYTES_MAX => (&row[..ROW_PREFIX_BYTES], true),
        _ => return Err(RowError("no row has this length")),
    };
    let at = full.iter().position(|b| *b == SEPARATOR).ok_or(RowError("no table name"))?;
    let (table, key) = (&full[..at], &full[at + 1..]);
    let table = std::str::from_utf8(table).ok().filter(|name| TableName::check(name).is_ok());
    let table = table.ok_or(RowError("bad table name"))?;
    if key.is_empty() {
        return Err(RowError("empty key"));
    }
    Ok(Row { table, key, truncated })
}

/// The partition of a key, below `partitions`: xxh3-64 with a fixed seed over `table ‖ 0 ‖ key`,
/// scaled by multiplication.
#[must_use]
pub fn partition_of(table: &TableName, key: &Key, partitions: u16) -> u16 {
    let hash = xxh3(table, key, PARTITION_SEED);
    let scaled = (u128::from(hash) * u128::from(partitions)) >> u64::BITS;
    u16::try_from(scaled).expect("below `partitions`, or 0")
}

/// A short name of a key, to notice when something belongs to another one: xxh3-64 with a fixed
/// seed over `table ‖ 0 ‖ key`. Whoever wants two keys with one tag can find them.
pub(crate) fn key_tag(table: &TableName, key: &Key) -> u64 {
    xxh3(table, key, TAG_SEED)
}

/// xxh3-64 over `table ‖ 0 ‖ key`.
fn xxh3(table: &TableName, key: &Key, seed: u64) -> u64 {
    let full_len = table.0.len() + 1 + key.0.len();
    if full_len <= ROW_BYTES_MAX {
        let mut buffer = [0; ROW_BYTES_MAX];
        return xxh3_64_with_seed(join_into(&mut buffer, table, &key.0), seed);
    }
    let mut hasher = Xxh3::with_seed(seed);
    hasher.update(table.0.as_bytes());
    hasher.update(&[SEPARATOR]);
    hasher.update(&key.0);
    hasher.digest()
}

/// Writes `table ‖ 0 ‖ key` to the front of `buffer`, which must be large enough.
fn join_into<'b>(buffer: &'b mut [u8; ROW_BYTES_MAX], table: &TableName, key: &[u8]) -> &'b [u8] {
    let table_len = table.0.len();
    let full_len = table_len + 1 + key.len();
    buffer[..table_len].copy_from_slice(table.0.as_bytes());
    buffer[table_len] = SEPARATOR;
    buffer[table_len + 1..full_len].copy_from_slice(key);
    &buffer[..full_len]
}
