//! A reader of LMDB data files that trusts nothing.
//!
//! It reads pages with ordinary file reads, never through the memory map and never through LMDB,
//! so a damaged file can give an error but neither a signal nor an abort. Every page it meets must
//! carry its own number, the right kind and sane bounds; a page met twice, out of the file, or both
//! used and listed as free is damage; keys must ascend and the counts of each tree must be right.
//!
//! Refuses files of another page format, and never writes.
//!
//! Source: layout of `MDB_page`, `MDB_node`, `MDB_db` and `MDB_meta` in `mdb.c` (format version 1).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Magic number of an LMDB meta page.
const MAGIC: u32 = 0xBEEF_C0DE;
/// Data format version this reader knows.
const DATA_VERSION: u32 = 1;
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
const META_BYTES: usize = 136;
const NO_ROOT: u64 = u64::MAX;

const P_BRANCH: u16 = 0x01;
const P_LEAF: u16 = 0x02;
const P_OVERFLOW: u16 = 0x04;
const P_META: u16 = 0x08;

const F_BIGDATA: u16 = 0x01;
const F_SUBDATA: u16 = 0x02;

/// Deepest tree this reader follows (LMDB's own cursor stack has 32 levels).
const DEPTH_MAX: usize = 32;

/// What is wrong with a file, in words for the operator's report.
pub(crate) type Fault = String;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let raw = <[u8; 2]>::try_from(bytes.get(at..at + 2)?).ok()?;
    Some(if cfg!(target_endian = "big") {
        u16::from_be_bytes(raw)
    } else {
        u16::from_le_bytes(raw)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?;
    Some(if cfg!(target_endian = "big") {
        u32::from_be_bytes(raw)
    } else {
        u32::from_le_bytes(raw)
    })
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let raw = <[u8; 8]>::try_from(bytes.get(at..at + 8)?).ok()?;
    Some(if cfg!(target_endian = "big") {
        u64::from_be_bytes(raw)
    } else {
        u64::from_le_bytes(raw)
    })
}

/// One tree of the file: root page and the counts LMDB keeps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    flags: u16,
    depth: u16,
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    pub(crate) entries: u64,
    root: u64,
}

impl Tree {
    fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= 48).then_some(())?;
        Some(Self {
            flags: u16_at(bytes, 4)?,
            depth: u16_at(bytes, 6)?,
            branch_pages: u64_at(bytes, 8)?,
            leaf_pages: u64_at(bytes, 16)?,
            overflow_pages: u64_at(bytes, 24)?,
            entries: u64_at(bytes, 32)?,
            root: u64_at(bytes, 40)?,
        })
    }
}

/// One meta page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) page_bytes: u32,
    pub(crate) map_bytes: u64,
    pub(crate) last_page: u64,
    pub(crate) txn: u64,
    free: Tree,
    pub(crate) main: Tree,
}

impl Meta {
    fn parse(page: &[u8], number: u64) -> Result<Self, Fault> {
        let torn = || format!("meta page {number} is cut short");
        if u16_at(page, 10).ok_or_else(torn)? & P_META == 0 {
            return Err(format!("page {number} is not a meta page"));
        }
        let body = page.get(PAGE_HEADER..PAGE_HEADER + META_BYTES).ok_or_else(torn)?;
        if u32_at(body, 0) != Some(MAGIC) {
            return Err(format!("meta page {number} has a wrong magic number"));
        }
        if u32_at(body, 4) != Some(DATA_VERSION) {
            return Err(format!("meta page {number} has an unknown data format version"));
        }
        let (free, main) =
            Tree::parse(&body[24..72]).zip(Tree::parse(&body[72..120])).ok_or_else(torn)?;
        Ok(Self {
            page_bytes: u32_at(body, 24).ok_or_else(torn)?,
            map_bytes: u64_at(body, 16).ok_or_else(torn)?,
            last_page: u64_at(body, 120).ok_or_else(torn)?,
            txn: u64_at(body, 128).ok_or_else(torn)?,
            free,
            main,
        })
    }
}

/// The head of a data file: the newer of its two meta pages and the file's length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) meta: Meta,
    pub(crate) older_txn: u64,
    pub(crate) file_bytes: u64,
}

impl Header {
    /// Whether the file holds fewer bytes than its meta page speaks of. Not damage by itself (the
    /// last pages may be free), but only a full check can tell.
    pub(crate) fn is_short(&self) -> bool {
        let pages = self.meta.last_page.saturating_add(1);
        self.file_bytes < pages.saturating_mul(u64::from(self.meta.page_bytes))
    }
}

/// Reads the head of the data file at `path`; `None` when there is no file or it is empty.
pub(crate) fn read_header(path: &Path) -> io::Result<Option<Result<Header, Fault>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file_bytes = file.metadata()?.len();
    if file_bytes == 0 {
        return Ok(None);
    }
    Ok(Some(header_of(&file, file_bytes)))
}

fn header_of(file: &File, file_bytes: u64) -> Result<Header, Fault> {
    let mut page = [0_u8; PAGE_HEADER + META_BYTES];
    let mut read = |at: u64| {
        file.read_exact_at(&mut page, at)
            .map_err(|error| format!("meta page at byte {at} cannot be read: {error}"))?;
        Ok::<_, Fault>(page)
    };
    let first = Meta::parse(&read(0)?, 0)?;
    let page_bytes = first.page_bytes;
    if !page_bytes.is_power_of_two() || !(512..=65_536).contains(&page_bytes) {
        return Err(format!("meta page 0 claims pages of {page_bytes} bytes"));
    }
    let second = Meta::parse(&read(u64::from(page_bytes))?, 1)?;
    if second.page_bytes != page_bytes {
        return Err("the two meta pages disagree on the page size".to_owned());
    }
    let (meta, older) = if first.txn >= second.txn { (first, second) } else { (second, first) };
    Ok(Header { meta, older_txn: older.txn, file_bytes })
}

/// Called with each row of a tree.
pub(crate) type Visit<'v> = dyn FnMut(&[u8], Item<'_>) -> Result<(), Fault> + 'v;

/// A value met in a leaf.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// Ordinary bytes.
    Value(&'a [u8]),
    /// A named tree.
    Tree(Tree),
}

/// A data file being walked.
#[derive(Debug)]
pub(crate) struct PageFile {
    file: File,
    pub(crate) header: Header,
    page_bytes: usize,
    /// One bit per page up to `last_page`: met so far.
    seen: Vec<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    branch: u64,
    leaf: u64,
    overflow: u64,
    entries: u64,
}

impl PageFile {
    /// Opens `path` and reads its head.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let file =
            File::open(path).map_err(|error| format!("cannot open the data file: {error}"))?;
        let bytes = file.metadata().map_err(|error| format!("cannot stat: {error}"))?.len();
        let header = header_of(&file, bytes)?;
        // A page beyond the end of the file cannot be read, so the bitmap is bounded by the file,
        // not by what a damaged meta page claims.
        let pages = (bytes / u64::from(header.meta.page_bytes)).saturating_add(1);
        let words =
            usize::try_from(pages / 64 + 1).map_err(|_overflow| "file too large".to_owned())?;
        let page_bytes = usize::try_from(header.meta.page_bytes).unwrap_or(4096);
        let mut this = Self { file, header, page_bytes, seen: vec![0; words] };
        this.mark(0)?;
        this.mark(1)?;
        Ok(this)
    }

    fn is_marked(&self, page: u64) -> bool {
        usize::try_from(page / 64)
            .ok()
            .and_then(|word| self.seen.get(word))
            .is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    fn mark(&mut self, page: u64) -> Result<(), Fault> {
        if page > self.header.meta.last_page {
            return Err(format!("page {page} is beyond the last page in use"));
        }
        if self.is_marked(page) {
            return Err(format!("page {page} is used twice"));
        }
        let word = usize::try_from(page / 64).ok().and_then(|word| self.seen.get_mut(word));
        *word.ok_or_else(|| format!("page {page} is beyond the end of the file"))? |=
            1 << (page % 64);
        Ok(())
    }

    fn read(&mut self, page: u64, pages: u64, into: &mut Vec<u8>) -> Result<(), Fault> {
        let last = page.checked_add(pages).ok_or("page number overflow")?;
        for number in page..last {
            self.mark(number)?;
        }
        let bytes = usize::try_from(pages).ok().and_then(|n| n.checked_mul(self.page_bytes));
        into.resize(bytes.ok_or("value too large")?, 0);
        let at = page.checked_mul(self.page_bytes as u64).ok_or("page number overflow")?;
        self.file
            .read_exact_at(into, at)
            .map_err(|error| format!("page {page} cannot be read: {error}"))?;
        if u64_at(into, 0) != Some(page) {
            return Err(format!("page {page} does not carry its own number"));
        }
        Ok(())
    }

    /// Walks `tree` in key order and gives each row to `visit`.
    pub(crate) fn walk(
        &mut self,
        name: &str,
        tree: Tree,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        if tree.root == NO_ROOT {
            return if tree.entries == 0 { Ok(()) } else { Err(format!("{name}: root is lost")) };
        }
        if usize::from(tree.depth) > DEPTH_MAX {
            return Err(format!("{name}: a depth of {} is impossible", tree.depth));
        }
        let mut walker = Walker {
            integer_keys: tree.flags & 0x08 != 0,
            last_key: None,
            floor: None,
            counts: Counts::default(),
            overflow: Vec::new(),
            visit,
        };
        self.descend(&mut walker, tree.root, usize::from(tree.depth))
            .map_err(|fault| format!("{name}: {fault}"))?;
        let counts = walker.counts;
        let expected = [tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries];
        if [counts.branch, counts.leaf, counts.overflow, counts.entries] == expected {
            Ok(())
        } else {
            Err(format!("{name}: counted {counts:?}, but its header says {expected:?}"))
        }
    }

    fn descend(&mut self, walker: &mut Walker<'_>, page: u64, levels: usize) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        self.read(page, 1, &mut bytes)?;
        let flags = u16_at(&bytes, 10).unwrap_or(0);
        let torn = || format!("page {page} has impossible bounds");
        let lower = usize::from(u16_at(&bytes, 12).ok_or_else(torn)?);
        let upper = usize::from(u16_at(&bytes, 14).ok_or_else(torn)?);
        if lower < PAGE_HEADER || lower > upper || upper > self.page_bytes || lower % 2 != 0 {
            return Err(torn());
        }
        let nodes = (lower - PAGE_HEADER) / 2;
        match (flags, levels) {
            (P_LEAF, 1) => {
                walker.counts.leaf += 1;
                for index in 0..nodes {
                    let at = node_at(&bytes, index, upper).ok_or_else(torn)?;
                    self.leaf_node(walker, &bytes, at, page)?;
                }
                Ok(())
            }
            (P_BRANCH, 2..) => {
                walker.counts.branch += 1;
                if nodes < 2 {
                    return Err(format!("branch page {page} has {nodes} children"));
                }
                for index in 0..nodes {
                    let at = node_at(&bytes, index, upper).ok_or_else(torn)?;
                    let child = u64::from(u32_at(&bytes, at).ok_or_else(torn)?)
                        | u64::from(u16_at(&bytes, at + 4).ok_or_else(torn)?) << 32;
                    let size = usize::from(u16_at(&bytes, at + 6).ok_or_else(torn)?);
                    let key =
                        bytes.get(at + NODE_HEADER..at + NODE_HEADER + size).ok_or_else(torn)?;
                    // The first separator of a branch stands for "everything below the second".
                    if index > 0 && !walker.may_follow(key) {
                        return Err(format!("branch page {page} is out of order"));
                    }
                    let bound = (index > 0).then(|| key.to_vec());
                    walker.lower_bound(bound);
                    self.descend(walker, child, levels - 1)?;
                }
                Ok(())
            }
            _ => Err(format!("page {page} has kind {flags:#x} where level {levels} was expected")),
        }
    }

    fn leaf_node(
        &mut self,
        walker: &mut Walker<'_>,
        bytes: &[u8],
        at: usize,
        page: u64,
    ) -> Result<(), Fault> {
        let torn = || format!("a row in page {page} has impossible bounds");
        let size = u32_at(bytes, at).ok_or_else(torn)?;
        let flags = u16_at(bytes, at + 4).ok_or_else(torn)?;
        let key_end = at + NODE_HEADER + usize::from(u16_at(bytes, at + 6).ok_or_else(torn)?);
        let key = bytes.get(at + NODE_HEADER..key_end).ok_or_else(torn)?;
        if !walker.may_follow(key) {
            return Err(format!("rows in page {page} are out of order"));
        }
        walker.last_key = Some(key.to_vec());
        walker.counts.entries += 1;
        let len = usize::try_from(size).map_err(|_overflow| torn())?;
        match flags {
            0 => (walker.visit)(
                key,
                Item::Value(bytes.get(key_end..key_end + len).ok_or_else(torn)?),
            ),
            F_SUBDATA => {
                let body = bytes.get(key_end..key_end + len).ok_or_else(torn)?;
                (walker.visit)(key, Item::Tree(Tree::parse(body).ok_or_else(torn)?))
            }
            F_BIGDATA => {
                let first = u64_at(bytes, key_end).ok_or_else(torn)?;
                let pages = (PAGE_HEADER - 1 + len) / self.page_bytes + 1;
                let mut overflow = std::mem::take(&mut walker.overflow);
                self.read(first, pages as u64, &mut overflow)?;
                let claimed = u32_at(&overflow, 12).map(u64::from);
                if u16_at(&overflow, 10) != Some(P_OVERFLOW) || claimed != Some(pages as u64) {
                    return Err(format!("page {first} is not the overflow page it should be"));
                }
                walker.counts.overflow += pages as u64;
                let body = overflow.get(PAGE_HEADER..PAGE_HEADER + len).ok_or_else(torn)?;
                let visited = (walker.visit)(key, Item::Value(body));
                walker.overflow = overflow;
                visited
            }
            other => Err(format!("a row in page {page} has unknown flags {other:#x}")),
        }
    }

    /// Walks the list of free pages: each inside the file's range, none in use, none twice.
    ///
    /// Call it after every tree was walked.
    pub(crate) fn check_free_list(&mut self) -> Result<u64, Fault> {
        let mut rows: Vec<u64> = Vec::new();
        self.walk("free list", self.header.meta.free, &mut |_txn, item| {
            let Item::Value(list) = item else { return Err("a tree in the free list".to_owned()) };
            let count = u64_at(list, 0).and_then(|count| usize::try_from(count).ok());
            let count = count.filter(|count| list.len() / 8 > *count);
            for index in 0..count.ok_or("free list: a list is cut short")? {
                rows.push(u64_at(list, 8 + index * 8).ok_or("free list: cut short")?);
            }
            Ok(())
        })?;
        rows.sort_unstable();
        if let Some(pair) = rows.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("page {} is free twice", pair[0]));
        }
        for page in &rows {
            if *page > self.header.meta.last_page {
                return Err(format!("free page {page} is beyond the last page"));
            }
            if self.is_marked(*page) {
                return Err(format!("page {page} is in use and free"));
            }
        }
        Ok(rows.len() as u64)
    }
}

/// Offset of node `index`, checked to lie between the page's upper bound and its end.
fn node_at(page: &[u8], index: usize, upper: usize) -> Option<usize> {
    let at = usize::from(u16_at(page, PAGE_HEADER + index * 2)?);
    (at >= upper && at + NODE_HEADER <= page.len()).then_some(at)
}

struct Walker<'v> {
    integer_keys: bool,
    last_key: Option<Vec<u8>>,
    /// Separator of the child being walked: no row may be below it.
    floor: Option<Vec<u8>>,
    counts: Counts,
    overflow: Vec<u8>,
    visit: &'v mut Visit<'v>,
}

impl Walker<'_> {
    fn may_follow(&self, key: &[u8]) -> bool {
        let (last, floor) = (self.last_key.as_deref(), self.floor.as_deref());
        if self.integer_keys {
            let number = |key: &[u8]| u64_at(key, 0);
            return last.is_none_or(|last| number(key) > number(last))
                && floor.is_none_or(|floor| number(key) >= number(floor));
        }
        last.is_none_or(|last| key > last) && floor.is_none_or(|floor| key >= floor)
    }

    /// Rows of the next child are not below its separator.
    fn lower_bound(&mut self, separator: Option<Vec<u8>>) {
        if separator.is_some() {
            self.floor = separator;
        }
    }
}
