//! Checking an environment that may be damaged.
//!
//! [`check_env`] reads the file page by page (see `check/pages.rs`) and then what the pages mean: each
//! record's checksum and row, the indexes against the objects, the hash tree against a
//! recomputation, the change log, the clock, the identity. It never maps the file and does not use
//! LMDB, needs memory for one page and one value at a time, and changes nothing.
//!
//! It is made to run in a child process all the same ([`run_child`], [`verdict_of_child`]): the
//! process that serves must survive whatever a damaged disk does to a reader.

pub(crate) mod pages;

use std::fmt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::clock::Seen;
use crate::codec::RecordView;
use crate::digest::{BRANCHES, Bucket, EntryDigest, TreeNode};
use crate::identity::{DATA_FILE, EnvIdentity, IDENTITY_ROW, IdentityFault};
use crate::key::KeyHash;
use crate::lmdb::{DATABASES, NAMES};
use crate::partition::changes;
use crate::partition::damage::{self, DAMAGED_ROW};
use crate::partition::events::{decode_event, decode_swept};
use crate::partition::expiry::index_key;
use crate::partition::head::{HEAD_ROW, Head};
use crate::partition::ops::expires_all_ms;
use crate::partition::tree::{Leaves, Pending, decode_leaves, leaf_index, node_of, target_of};
use pages::{Fault, Item, PageFile, Tree};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum CheckVerdict {
    /// Nothing is wrong.
    Sound {
        /// Objects checked.
        rows: u64,
        /// Time it took.
        ms: u64,
    },
    /// The environment must not be used.
    Damaged {
        /// What was found first.
        why: String,
    },
}

/// Exit code of a child that found nothing wrong.
pub const EXIT_SOUND: u8 = 0;
/// Exit code of a child that found damage.
pub const EXIT_DAMAGED: u8 = 3;

/// Checks the environment in directory `dir`. A directory without a data file is sound and empty.
pub fn check_env(dir: &Path) -> CheckVerdict {
    let started = Instant::now();
    match check_file(&dir.join(DATA_FILE)) {
        Ok(rows) => CheckVerdict::Sound {
            rows,
            ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        Err(why) => CheckVerdict::Damaged { why },
    }
}

/// The body of the child process: checks `dir`, writes the verdict as JSON to `out` and gives the
/// exit code.
///
/// # Errors
/// The verdict could not be written.
pub fn run_child(dir: &Path, out: &mut impl std::io::Write) -> std::io::Result<u8> {
    let verdict = check_env(dir);
    serde_json::to_writer(&mut *out, &verdict)?;
    out.flush()?;
    Ok(match verdict {
        CheckVerdict::Sound { .. } => EXIT_SOUND,
        CheckVerdict::Damaged { .. } => EXIT_DAMAGED,
    })
}

/// The verdict of a child that ran [`run_child`]. A child that was ended by a signal met damage.
///
/// # Errors
/// The child did not do what it was started for: its exit code or its output is something else.
pub fn verdict_of_child(status: ExitStatus, stdout: &[u8]) -> std::io::Result<CheckVerdict> {
    use std::os::unix::process::ExitStatusExt;
    if let Some(signal) = status.signal() {
        return Ok(CheckVerdict::Damaged { why: format!("the checker died of signal {signal}") });
    }
    let verdict: CheckVerdict = serde_json::from_slice(stdout)?;
    let expected = match verdict {
        CheckVerdict::Sound { .. } => EXIT_SOUND,
        CheckVerdict::Damaged { .. } => EXIT_DAMAGED,
    };
    if status.code() == Some(i32::from(expected)) {
        Ok(verdict)
    } else {
        Err(std::io::Error::other(format!("the checker ended with {status} after {verdict:?}")))
    }
}

/// A sum over rows that does not depend on their order: two databases hold the same pairs exactly
/// when their sums and counts agree (up to collisions of blake3).
#[derive(Debug, Default, PartialEq, Eq)]
struct PairSum {
    count: u64,
    sum: u128,
}

impl PairSum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update(value);
        let hash: [u8; 32] = hasher.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        self.count += 1;
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(first));
    }
}

/// What the objects say everything else must be.
struct Expected {
    buckets: PairSum,
    expiry: PairSum,
    leaves: Vec<TreeNode>,
    own_counter_max: u64,
}

fn check_file(path: &Path) -> Result<u64, Fault> {
    match pages::read_header(path) {
        Ok(None) => return Ok(0),
        Ok(Some(header)) => drop(header?),
        Err(error) => return Err(format!("cannot read the data file: {error}")),
    }
    let mut file = PageFile::open(path)?;
    let meta = file.header.meta;
    if meta.txn > 1 && file.header.older_txn + 1 != meta.txn {
        return Err(format!(
            "the meta pages are of transactions {} and {}, which do not follow each other",
            file.header.older_txn, meta.txn
        ));
    }
    let trees = named_trees(&mut file)?;
    let tree_of =
        |name: &str| NAMES.iter().position(|known| *known == name).and_then(|at| trees[at]);
    if trees.iter().all(Option::is_none) {
        // Created, but nothing was ever committed to it.
        file.check_free_list()?;
        return Ok(0);
    }
    let mut walk = |name: &str, visit: &mut Visit<'_>| {
        let tree = tree_of(name).ok_or_else(|| format!("database {name} is missing"))?;
        file.walk(name, tree, &mut |key, item| match item {
            Item::Value(value) => visit(key, value),
            Item::Tree(_) => Err("a tree where a value was expected".to_owned()),
        })
    };
    let meta_rows = check_meta(&mut walk, meta.txn)?;
    let expected = check_objects(&mut walk, meta_rows.as_ref().map(|(identity, _)| identity))?;
    check_index(&mut walk, "buckets", &expected.buckets)?;
    check_index(&mut walk, "expiry", &expected.expiry)?;
    let root = check_tree(&mut walk, &expected)?;
    let log = check_log(&mut walk)?;
    walk("clock", &mut |actor, seen| {
        let sound = actor.len() == 20 && Seen::decode(seen).is_some();
        sound.then_some(()).ok_or_else(|| "a clock row is damaged".to_owned())
    })?;
    walk("dots", &mut |dot, event| match decode_event(dot, event) {
        Some((_, Some(_))) if dot.len() == 28 => Ok(()),
        _ => Err("a row of the index of events is damaged".to_owned()),
    })?;
    walk("swept", &mut |actor, counter| match decode_swept(actor, counter) {
        Some(_) => Ok(()),
        None => Err("a swept row is damaged".to_owned()),
    })?;
    file.check_free_list()?;
    let rows = expected.buckets.count;
    match meta_rows {
        Some((_, head)) => check_head(&head, root, &expected, log).map(|()| rows),
        None if rows == 0 => Ok(0),
        None => Err("there are objects but no identity".to_owned()),
    }
}

fn check_head(
    head: &Head,
    root: TreeNode,
    expected: &Expected,
    log: Option<(u64, u64)>,
) -> Result<(), Fault> {
    if head.root != root {
        return Err("the root of the hash tree is not the sum of its leaves".to_owned());
    }
    if expected.own_counter_max > head.counter {
        return Err(format!(
            "an object holds event {} of this node, but only {} were issued",
            expected.own_counter_max, head.counter
        ));
    }
    let (first, last) = log.unwrap_or((head.last_seq + 1, head.last_seq));
    if (first, last) != (head.first_seq, head.last_seq) {
        return Err(format!(
            "the change log holds {first}..={last}, but should hold {}..={}",
            head.first_seq, head.last_seq
        ));
    }
    Ok(())
}

fn named_trees(file: &mut PageFile) -> Result<[Option<Tree>; DATABASES], Fault> {
    let mut trees = [None; DATABASES];
    let main = file.header.meta.main;
    file.walk("main", main, &mut |name, item| {
        let at = NAMES.iter().position(|known| known.as_bytes() == name);
        match (at, item) {
            (Some(at), Item::Tree(tree)) => {
                trees[at] = Some(tree);
                Ok(())
            }
            _ => Err(format!("unknown database {:?}", name.escape_ascii().to_string())),
        }
    })?;
    Ok(trees)
}

/// Called with each row of a database.
type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<(), Fault> + 'v;
/// Walks the database of a name.
type Walk<'w> = dyn FnMut(&str, &mut Visit<'_>) -> Result<(), Fault> + 'w;

fn check_meta(walk: &mut Walk<'_>, txn: u64) -> Result<Option<(EnvIdentity, Head)>, Fault> {
    let (mut identity, mut head) = (None, None);
    walk("meta", &mut |key, value| {
        match key {
            IDENTITY_ROW => {
                identity = Some(EnvIdentity::decode(value).map_err(|fault| match fault {
                    IdentityFault::Damaged => "the identity row is damaged".to_owned(),
                    IdentityFault::UnknownFormat(format) => format!("unknown format {format}"),
                })?);
            }
            DAMAGED_ROW => {
                damage::decode(value).ok_or("the marks of damaged buckets are damaged")?;
            }
            HEAD_ROW => head = Some(Head::decode(value).ok_or("the head row is damaged")?),
            _ => return Err("an unknown row".to_owned()),
        }
        Ok(())
    })?;
    match (identity, head) {
        (None, None) => Ok(None),
        (Some(_), Some(head)) if head.txn != txn => Err(format!(
            "the head was written by transaction {}, the meta page speaks of {txn}",
            head.txn
        )),
        (Some(identity), Some(head)) => Ok(Some((identity, head))),
        _ => Err("the identity or the head is missing".to_owned()),
    }
}

fn check_objects(walk: &mut Walk<'_>, identity: Option<&EnvIdentity>) -> Result<Expected, Fault> {
    let buckets = usize::from(crate::digest::BUCKETS);
    let mut expected = Expected {
        buckets: PairSum::default(),
        expiry: PairSum::default(),
        leaves: vec![TreeNode::default(); buckets],
        own_counter_max: 0,
    };
    walk("objects", &mut |row, bytes| {
        let name = || row.escape_ascii().to_string();
        let view = RecordView::open(row, bytes).map_err(|error| format!("{}: {error}", name()))?;
        let (table, key) = target_of(row, &view).ok_or_else(|| format!("{}: bad row", name()))?;
        if crate::key::row_key(&table, &key).as_bytes() != row {
            return Err(format!("{}: the record belongs to another row", name()));
        }
        let hash = KeyHash::of(&table, &key);
        let short: [u8; 16] = hash.prefix();
        expected.buckets.add(&short, row);
        if let Some(ms) = expires_all_ms(&view.to_object()) {
            expected.expiry.add(&index_key(ms, short), row);
        }
        let digest = EntryDigest::of_view(&table, &key, &view);
        let leaf = &mut expected.leaves[usize::from(Bucket::of_hash(&hash).number())];
        *leaf = TreeNode::sum([*leaf, node_of(digest)]);
        for entry in view.entries() {
            let own = identity.is_some_and(|identity| {
                entry.actor.node == identity.node && entry.actor.incarnation == identity.incarnation
            });
            if own {
                expected.own_counter_max = expected.own_counter_max.max(entry.n);
            }
        }
        Ok(())
    })?;
    Ok(expected)
}

fn check_index(walk: &mut Walk<'_>, name: &str, expected: &PairSum) -> Result<(), Fault> {
    let mut found = PairSum::default();
    walk(name, &mut |key, value| {
        found.add(key, value);
        Ok(())
    })?;
    if found == *expected {
        Ok(())
    } else {
        Err(format!(
            "index {name} has {} rows that do not match the objects, which ask for {}",
            found.count, expected.count
        ))
    }
}

fn check_tree(walk: &mut Walk<'_>, expected: &Expected) -> Result<TreeNode, Fault> {
    let mut rows: Vec<Leaves> = vec![Leaves::default(); usize::from(BRANCHES)];
    let mut pending = Pending::default();
    walk("tree", &mut |branch, row| {
        if Pending::is_key(branch) {
            return pending.add_row(row).ok_or_else(|| "a row of changes is damaged".to_owned());
        }
        let [branch] = branch else { return Err("a row that is no branch".to_owned()) };
        rows[usize::from(*branch)] = decode_leaves(row).ok_or("a branch of a wrong length")?;
        Ok(())
    })?;
    for (branch, leaves) in (0..=u8::MAX).zip(&mut rows) {
        *leaves = pending.apply_to(branch, *leaves);
    }
    for bucket in Bucket::all() {
        let stored = rows[usize::from(bucket.branch())][leaf_index(bucket)];
        if stored != expected.leaves[usize::from(bucket.number())] {
            return Err(format!(
                "hash tree: bucket {} is not the sum of its objects",
                bucket.number()
            ));
        }
    }
    Ok(TreeNode::sum(expected.leaves.iter().copied()))
}

/// First and last number of the log, which must have no gaps.
fn check_log(walk: &mut Walk<'_>) -> Result<Option<(u64, u64)>, Fault> {
    let mut range: Option<(u64, u64)> = None;
    walk("changes", &mut |seq, row| {
        let seq = seq.try_into().map(u64::from_be_bytes).map_err(|_length| "a bad number")?;
        changes::decode(seq, row).ok_or_else(|| format!("entry {seq} is damaged"))?;
        if range.is_some_and(|(_, last)| last + 1 != seq) {
            return Err(format!("a gap before entry {seq}"));
        }
        range = Some((range.map_or(seq, |(first, _)| first), seq));
        Ok(())
    })?;
    Ok(range)
}

impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound { rows, ms } => write!(f, "sound: {rows} objects in {ms} ms"),
            Self::Damaged { why } => write!(f, "damaged: {why}"),
        }
    }
}
