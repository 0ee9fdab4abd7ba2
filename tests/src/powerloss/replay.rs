//! From a recorded log to directories as a power cut may leave them.

use super::log::{Event, Id};
use crate::seed::Seeded;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};

/// Bytes that reach the disk together or not at all.
const PAGE_BYTES: u64 = 4096;

/// Which of the parts that no sync covers are there after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// None.
    Nothing,
    /// All: a crash of the process alone.
    Everything,
    /// Each with even odds.
    Random,
    /// The newest ones, in place of those before them.
    NewestFirst,
    /// The oldest ones.
    OldestFirst,
}

impl Variant {
    /// All variants.
    pub const ALL: [Self; 5] =
        [Self::Nothing, Self::Everything, Self::Random, Self::NewestFirst, Self::OldestFirst];

    /// Which of `len` parts, oldest first, are there.
    fn choose(self, len: usize, rng: &mut Seeded) -> Vec<bool> {
        let edge = rng.below(len + 1);
        (0..len)
            .map(|at| match self {
                Self::Nothing => false,
                Self::Everything => true,
                Self::Random => rng.chance(50),
                Self::NewestFirst => at >= edge,
                Self::OldestFirst => at < edge,
            })
            .collect()
    }
}

/// A part of a write, or a change of length.
#[derive(Debug, Clone)]
enum Part {
    Data { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

#[derive(Debug, Clone)]
struct Pending {
    id: Id,
    done: bool,
    part: Part,
}

#[derive(Debug, Default)]
struct FileState {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    File(usize),
    Dir(usize),
}

#[derive(Debug, Clone)]
enum DirChange {
    Link(String, Object),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct DirState {
    live: BTreeMap<String, Object>,
    durable: BTreeMap<String, Object>,
    pending: Vec<DirChange>,
}

/// The recorded directory at some moment: what is certain, and what is not.
#[derive(Debug)]
pub struct Disk {
    files: Vec<FileState>,
    dirs: Vec<DirState>,
    inodes: BTreeMap<u64, usize>,
    writes: BTreeMap<Id, usize>,
    syncs: BTreeMap<Id, Cover>,
}

/// What a sync that is under way will have made durable.
#[derive(Debug)]
enum Cover {
    File(usize, Vec<Id>),
    Dir(usize, usize),
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            dirs: vec![DirState::default()],
            inodes: BTreeMap::new(),
            writes: BTreeMap::new(),
            syncs: BTreeMap::new(),
        }
    }
}

const ROOT: usize = 0;

impl Disk {
    /// Goes one event on.
    ///
    /// # Errors
    /// An event that does not fit those before it.
    pub fn apply(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Create { inode, path } => {
                self.files.push(FileState::default());
                let file = self.files.len() - 1;
                self.inodes.insert(*inode, file);
                self.link(path, Object::File(file))?;
            }
            Event::Mkdir { path } => {
                self.dirs.push(DirState::default());
                self.link(path, Object::Dir(self.dirs.len() - 1))?;
            }
            Event::Remove { path } => {
                let (dir, name) = self.parent(path)?;
                self.change(dir, DirChange::Unlink(name));
            }
            Event::Rename { from, to } => self.rename(from, to)?,
            Event::Write { id, inode, offset, data } => {
                let parts =
                    pages(*offset, data).map(|(offset, bytes)| Part::Data { offset, bytes });
                self.pend(*id, *inode, parts.collect())?;
            }
            Event::Truncate { id, inode, len } => {
                self.pend(*id, *inode, vec![Part::Len(*len)])?;
            }
            Event::Done { id, synced } => {
                let file = *self.writes.get(id).context("the end of no write")?;
                let state = &mut self.files[file];
                for pending in state.pending.iter_mut().filter(|p| p.id == *id) {
                    pending.done = true;
                }
                if *synced {
                    state.settle(&[*id]);
                }
            }
            Event::Sync { id, inode, path } => {
                let cover = match self.find(path)? {
                    Some(Object::Dir(dir)) => Cover::Dir(dir, self.dirs[dir].pending.len()),
                    Some(Object::File(_)) | None => {
                        let file = *self.inodes.get(inode).context("sync of an unknown file")?;
                        let done = self.files[file].pending.iter().filter(|p| p.done);
                        Cover::File(file, done.map(|p| p.id).collect())
                    }
                };
                self.syncs.insert(*id, cover);
            }
            Event::Synced { id } => match self.syncs.remove(id).context("the end of no sync")? {
                Cover::File(file, writes) => self.files[file].settle(&writes),
                Cover::Dir(dir, changes) => self.dirs[dir].settle(changes),
            },
            Event::Ack { .. } => {}
        }
        Ok(())
    }

    fn pend(&mut self, id: Id, inode: u64, parts: Vec<Part>) -> Result<()> {
        let file = *self.inodes.get(&inode).context("a write to an unknown file")?;
        self.writes.insert(id, file);
        let pending = parts.into_iter().map(|part| Pending { id, done: false, part });
        self.files[file].pending.extend(pending);
        Ok(())
    }

    fn find(&self, path: &Path) -> Result<Option<Object>> {
        let mut at = Object::Dir(ROOT);
        for component in path.components() {
            let Component::Normal(name) = component else { bail!("path {}", path.display()) };
            let Object::Dir(dir) = at else { bail!("{} goes through a file", path.display()) };
            let name = name.to_str().context("a name that is no text")?;
            let Some(next) = self.dirs[dir].live.get(name) else {
                return Ok(None);
            };
            at = *next;
        }
        Ok(Some(at))
    }

    fn parent(&self, path: &Path) -> Result<(usize, String)> {
        let parent = path.parent().context("no parent")?;
        let name = path.file_name().and_then(|n| n.to_str()).context("no name")?;
        match self.find(parent)? {
            Some(Object::Dir(dir)) => Ok((dir, name.to_owned())),
            _ => bail!("{} is no directory", parent.display()),
        }
    }

    fn link(&mut self, path: &Path, object: Object) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        self.change(dir, DirChange::Link(name, object));
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let object = self.find(from)?.with_context(|| format!("no {}", from.display()))?;
        let ((from_dir, from), (to_dir, to)) = (self.parent(from)?, self.parent(to)?);
        if from_dir == to_dir {
            self.change(from_dir, DirChange::Rename(from, to));
        } else {
            self.change(to_dir, DirChange::Link(to, object));
            self.change(from_dir, DirChange::Unlink(from));
        }
        Ok(())
    }

    fn change(&mut self, dir: usize, change: DirChange) {
        let dir = &mut self.dirs[dir];
        change.apply(&mut dir.live);
        dir.pending.push(change);
    }

    /// Writes a directory as a cut at this moment may leave it. `into` must not be there yet.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn image(&self, into: &Path, variant: Variant, rng: &mut Seeded) -> Result<()> {
        self.image_of_dir(ROOT, into, variant, rng)
    }

    fn image_of_dir(
        &self,
        dir: usize,
        into: &Path,
        variant: Variant,
        rng: &mut Seeded,
    ) -> Result<()> {
        std::fs::create_dir(into).with_context(|| format!("create {}", into.display()))?;
        let state = &self.dirs[dir];
        // A directory's changes go to the disk in order.
        let kept = match variant {
            Variant::Nothing => 0,
            Variant::Everything => state.pending.len(),
            Variant::Random | Variant::NewestFirst | Variant::OldestFirst => {
                rng.below(state.pending.len() + 1)
            }
        };
        let mut names = state.durable.clone();
        for change in &state.pending[..kept] {
            change.apply(&mut names);
        }
        for (name, object) in names {
            let path = into.join(name);
            match object {
                Object::Dir(dir) => self.image_of_dir(dir, &path, variant, rng)?,
                Object::File(file) => self.files[file]
                    .image(&path, variant, rng)
                    .with_context(|| format!("write {}", path.display()))?,
            }
        }
        Ok(())
    }
}

impl DirChange {
    fn apply(&self, names: &mut BTreeMap<String, Object>) {
        match self {
            Self::Link(name, object) => {
                names.insert(name.clone(), *object);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(object) = names.remove(from) {
                    names.insert(to.clone(), object);
                }
            }
        }
    }
}

impl DirState {
    fn settle(&mut self, changes: usize) {
        // An earlier sync that returned later may have taken some of them already; what is left is newer.
        for change in self.pending.drain(..changes.min(self.pending.len())) {
            change.apply(&mut self.durable);
        }
    }
}

impl FileState {
    fn settle(&mut self, writes: &[Id]) {
        let (settled, pending): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|p| writes.contains(&p.id));
        self.pending = pending;
        for pending in settled {
            pending.part.apply(&mut self.durable);
        }
    }

    fn image(&self, path: &Path, variant: Variant, rng: &mut Seeded) -> std::io::Result<()> {
        let mut bytes = self.durable.clone();
        let kept = variant.choose(self.pending.len(), rng);
        for (pending, kept) in self.pending.iter().zip(kept) {
            if kept {
                pending.part.apply(&mut bytes);
            }
        }
        std::fs::File::create(path)?.write_all_at(&bytes, 0)
    }
}

impl Part {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Len(len) => file.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
            Self::Data { offset, bytes } => {
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(bytes.len());
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[start..end].copy_from_slice(bytes);
            }
        }
    }
}

/// Cuts a write where pages end.
fn pages(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = data.get(at..).filter(|rest| !rest.is_empty())?;
        let start = offset + at as u64;
        let to_edge = usize::try_from(PAGE_BYTES - start % PAGE_BYTES).unwrap_or(usize::MAX);
        let take = rest.len().min(to_edge);
        at += take;
        Some((start, rest[..take].to_vec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(id: u64, offset: u64, byte: u8, len: usize) -> Event {
        Event::Write { id: (1, id), inode: 7, offset, data: vec![byte; len] }
    }

    fn done(id: u64, synced: bool) -> Event {
        Event::Done { id: (1, id), synced }
    }

    fn sync(id: u64, path: &str) -> [Event; 2] {
        let id = (1, id);
        [Event::Sync { id, inode: 7, path: path.into() }, Event::Synced { id }]
    }

    fn image(events: &[Event], variant: Variant, seed: u64) -> BTreeMap<String, Vec<u8>> {
        let mut disk = Disk::default();
        for event in events {
            disk.apply(event).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("image");
        disk.image(&root, variant, &mut Seeded::new(seed)).unwrap();
        std::fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
            .collect()
    }

    fn a_file() -> Vec<Event> {
        let mut events = vec![Event::Create { inode: 7, path: "a".into() }];
        events.extend(sync(1, ""));
        events
    }

    #[test]
    fn sync_covers_what_was_done_before_it_began_and_nothing_else() {
        let mut events = a_file();
        events.extend([write(2, 0, b'x', 10), done(2, false)]);
        // Begun before the sync, done after it: not covered.
        events.push(write(3, 10, b'y', 10));
        events.extend(sync(4, "a"));
        events.push(done(3, false));
        assert_eq!(image(&events, Variant::Nothing, 1)["a"], vec![b'x'; 10]);
        assert_eq!(image(&events, Variant::Everything, 1)["a"].len(), 20);
    }

    #[test]
    fn dsync_write_is_durable_alone() {
        let mut events = a_file();
        events.extend([write(2, 0, b'x', 4), done(2, false), write(3, 4, b'y', 4), done(3, true)]);
        assert_eq!(image(&events, Variant::Nothing, 1)["a"], b"\0\0\0\0yyyy");
    }

    #[test]
    fn names_are_durable_with_their_directory_only() {
        let mut events = vec![Event::Create { inode: 7, path: "a".into() }];
        events.extend([write(1, 0, b'x', 1), done(1, false)]);
        events.extend(sync(2, "a"));
        assert!(image(&events, Variant::Nothing, 1).is_empty());
        events.extend(sync(3, ""));
        events.push(Event::Rename { from: "a".into(), to: "b".into() });
        assert_eq!(image(&events, Variant::Nothing, 1).into_keys().collect::<Vec<_>>(), ["a"]);
        events.extend(sync(4, ""));
        events.push(Event::Remove { path: "b".into() });
        assert_eq!(image(&events, Variant::Nothing, 1).into_keys().collect::<Vec<_>>(), ["b"]);
        assert!(image(&events, Variant::Everything, 1).is_empty());
    }

    #[test]
    fn unsynced_pages_come_in_every_mixture() {
        let mut events = a_file();
        events.extend([write(2, 0, b'x', 3 * 4096), done(2, false)]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let bytes = image(&events, Variant::Random, seed).remove("a").unwrap();
            assert_eq!(bytes.len() % 4096, 0, "a page was torn");
            seen.insert((0..3).map(|p| bytes.get(p * 4096) == Some(&b'x')).collect::<Vec<_>>());
        }
        assert_eq!(seen.len(), 8);
        let newest = |seed| image(&events, Variant::NewestFirst, seed).remove("a").unwrap();
        assert!((0..64).map(newest).any(|b| b.len() == 3 * 4096 && b[0] == 0 && b[8192] == b'x'));
    }

    #[test]
    fn small_write_within_a_page_is_one_part() {
        assert_eq!(pages(16, &[1; 120]).count(), 1);
        assert_eq!(
            pages(4090, &[1; 12]).map(|(at, b)| (at, b.len())).collect::<Vec<_>>(),
            [(4090, 6), (4096, 6)]
        );
    }
}
