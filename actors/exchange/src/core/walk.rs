//! The walk of two trees: where they differ, down to objects, and these objects both ways.
//!
//! What it guarantees: questions are batched level by level (the root, the differing branches, then buckets), and bounded;
//! of a bucket that is empty on one side the objects are sent straight away; an object that one side holds and the other
//! knows to be gone goes on both.
//! What it refuses: to hold the stores still. Each answer is of a snapshot of its own; what differs by that is found next time.

use std::collections::{BTreeMap, VecDeque};

use weald_storage::{Bucket, Key, Replicated, TableName, TreePath};

use super::link::{Cx, Link, short_hash};
use super::outcome::{DIFF_KEYS_MAX, DiffKey, DiffReport, DiffSide, Failed};
use super::wire::{DELTAS_BYTES, Message, Want, WireBucket, WireEntry, WireNode};

/// Most buckets in one question.
pub const BUCKETS_MAX: usize = 256;
/// Objects in the buckets of one question, about. // guess: their digests are about 256 KiB
pub const ENTRIES_MAX: u64 = 8192;
/// Leaves of a branch.
const LEAVES: usize = 16;
/// Branches of the root.
const BRANCHES: usize = 256;

/// Where a walk is.
#[derive(Debug)]
enum Step {
    /// R: answers.
    Answering,
    /// I: has asked for the sums of all branches.
    Root,
    /// I: has asked for the leaves of these branches.
    Branches(Vec<u8>),
    /// I: has asked for the entries of these buckets.
    Entries(Vec<Differing>),
    /// I: objects are under way.
    Swapping,
    /// This side has said what it had to say.
    Ended,
}

/// A bucket that differs.
#[derive(Debug, Clone, Copy)]
struct Differing {
    bucket: Bucket,
    mine: WireNode,
    theirs: WireNode,
}

/// A walk, on either side.
#[derive(Debug)]
pub(crate) struct Walk {
    step: Step,
    /// What is different, when nothing is to be merged.
    look: Option<DiffReport>,
    differing: VecDeque<Differing>,
    /// What is wanted from the peer in the batch at hand.
    wants: Vec<(u16, Want)>,
    /// What is to be sent to it.
    queue: VecDeque<(TableName, Key)>,
    /// What the peer said at its end.
    peer_clean: Option<bool>,
}

impl Walk {
    fn new(step: Step, looks: bool) -> Self {
        Self {
            step,
            look: looks.then(DiffReport::default),
            differing: VecDeque::new(),
            wants: Vec::new(),
            queue: VecDeque::new(),
            peer_clean: None,
        }
    }

    /// Begins to ask.
    pub(crate) fn ask(link: &mut Link, cx: &mut Cx<'_>, looks: bool) -> Self {
        link.restart();
        cx.say(Message::AskNodes { shard: link.number(), branches: Vec::new() });
        Self::new(Step::Root, looks)
    }

    /// Is ready to answer.
    pub(crate) fn answer(link: &mut Link, looks: bool) -> Self {
        link.restart();
        // Nothing is to be sent before it is asked for.
        (link.ended_out, link.ended_in) = (true, true);
        Self::new(Step::Answering, looks)
    }

    /// Once both sides are through: whether all was sound and merged on both.
    pub(crate) fn ended(&self, link: &Link) -> Option<bool> {
        match self.step {
            Step::Ended => self.peer_clean.map(|clean| clean && link.clean),
            _ => None,
        }
    }

    /// What was found, if that was the question.
    pub(crate) const fn look(&self) -> Option<&DiffReport> {
        self.look.as_ref()
    }

    /// Takes a message of the walk.
    pub(crate) fn message(
        &mut self,
        link: &mut Link,
        cx: &mut Cx<'_>,
        message: Message,
    ) -> Result<(), Failed> {
        let step = std::mem::replace(&mut self.step, Step::Answering);
        match (step, message) {
            (Step::Answering, Message::AskNodes { branches, .. }) => {
                answer_nodes(link, cx, &branches)?;
            }
            (Step::Answering, Message::AskEntries { buckets, names, .. }) => {
                answer_entries(link, cx, &buckets, names)?;
            }
            (Step::Answering, Message::Swap { wants, .. }) if self.look.is_none() => {
                self.take_wants(link, cx, wants)?;
            }
            (Step::Answering, Message::WalkEnd { clean, .. }) => {
                self.peer_clean = Some(clean);
            }
            (Step::Root, Message::Nodes { nodes, .. }) => self.compare_root(link, cx, &nodes)?,
            (Step::Branches(asked), Message::Nodes { nodes, .. }) => {
                self.compare_branches(link, cx, &asked, &nodes)?;
            }
            (Step::Entries(asked), Message::Entries { buckets, .. }) => {
                self.compare_entries(link, cx, &asked, &buckets)?;
            }
            (Step::Ended, Message::WalkEnd { clean, .. }) => {
                self.peer_clean = Some(clean);
                self.step = Step::Ended;
            }
            _ => return Err(Failed::Protocol("a message of another step of the walk")),
        }
        Ok(())
    }

    /// Does what can be done now. To be called after anything has happened.
    pub(crate) fn advance(&mut self, link: &mut Link, cx: &mut Cx<'_>) -> Result<(), Failed> {
        match self.step {
            Step::Answering => {
                link.send_objects(cx, &mut self.queue)?;
                if self.peer_clean.is_some() && link.is_merged() {
                    if !link.is_idle() {
                        return Err(Failed::Protocol("the walk ended with objects under way"));
                    }
                    cx.say(Message::WalkEnd { shard: link.number(), clean: link.clean });
                    self.step = Step::Ended;
                }
            }
            Step::Swapping => {
                link.send_objects(cx, &mut self.queue)?;
                if link.is_idle() {
                    self.next_batch(link, cx)?;
                }
            }
            Step::Root | Step::Branches(_) | Step::Entries(_) | Step::Ended => {}
        }
        Ok(())
    }

    // I's side.

    fn compare_root(
        &mut self,
        link: &mut Link,
        cx: &mut Cx<'_>,
        nodes: &[WireNode],
    ) -> Result<(), Failed> {
        if nodes.len() != BRANCHES {
            return Err(Failed::Protocol("not as many branches as there are"));
        }
        let mine = children(cx.replica, TreePath::Root)?;
        let looks = self.look.is_some();
        let is_wanted = |branch: u8| {
            let mut leaves = TreePath::Branch(branch).children();
            !looks && leaves.any(|leaf| matches!(leaf, TreePath::Leaf(b) if link.is_wanted(b)))
        };
        let branches: Vec<u8> = (0..=u8::MAX)
            .zip(mine.iter().zip(nodes))
            .filter(|(branch, (mine, theirs))| mine != theirs || is_wanted(*branch))
            .map(|(branch, _)| branch)
            .collect();
        if branches.is_empty() {
            return self.next_batch(link, cx);
        }
        cx.say(Message::AskNodes { shard: link.number(), branches: branches.clone() });
        self.step = Step::Branches(branches);
        Ok(())
    }

    fn compare_branches(
        &mut self,
        link: &mut Link,
        cx: &mut Cx<'_>,
        asked: &[u8],
        nodes: &[WireNode],
    ) -> Result<(), Failed> {
        if nodes.len() != asked.len() * LEAVES {
            return Err(Failed::Protocol("not as many leaves as asked for"));
        }
        for (branch, theirs) in asked.iter().zip(nodes.chunks(LEAVES)) {
            let path = TreePath::Branch(*branch);
            let mine = children(cx.replica, path)?;
            for (leaf, (mine, theirs)) in path.children().zip(mine.into_iter().zip(theirs)) {
                if let TreePath::Leaf(bucket) = leaf
                    && (mine != *theirs || (self.look.is_none() && link.is_wanted(bucket)))
                {
                    self.differing.push_back(Differing { bucket, mine, theirs: *theirs });
                }
            }
        }
        self.next_batch(link, cx)
    }

    fn next_batch(&mut self, link: &mut Link, cx: &mut Cx<'_>) -> Result<(), Failed> {
        link.begin_swap();
        let (mut batch, mut entries) = (Vec::new(), 0);
        while batch.len() < BUCKETS_MAX
            && entries < ENTRIES_MAX
            && let Some(next) = self.differing.pop_front()
        {
            entries = entries.saturating_add(next.mine.count).saturating_add(next.theirs.count);
            batch.push(next);
        }
        if batch.is_empty() {
            cx.say(Message::WalkEnd { shard: link.number(), clean: link.clean });
            self.step = Step::Ended;
            return Ok(());
        }
        let looks = self.look.is_some();
        let mut ask = Vec::new();
        for differing in batch {
            let both = differing.mine.count > 0 && differing.theirs.count > 0;
            if looks || both || link.is_wanted(differing.bucket) {
                ask.push(differing);
            } else if differing.mine.count == 0 {
                link.is_sound(cx.replica, differing.bucket)?;
                self.wants.push((differing.bucket.number(), Want::All));
            } else {
                let (content, sound) = content(cx.replica, differing.bucket)?;
                link.note_sound(differing.bucket, sound);
                self.offer(link, content);
            }
        }
        if ask.is_empty() {
            return self.swap(link, cx);
        }
        let buckets = ask.iter().map(|differing| differing.bucket.number()).collect();
        cx.say(Message::AskEntries { shard: link.number(), buckets, names: looks });
        self.step = Step::Entries(ask);
        Ok(())
    }

    fn compare_entries(
        &mut self,
        link: &mut Link,
        cx: &mut Cx<'_>,
        asked: &[Differing],
        buckets: &[WireBucket],
    ) -> Result<(), Failed> {
        let known = asked.iter().map(|d| d.bucket.number()).zip(buckets);
        let prefix = known.into_iter().all(|(asked, answer)| asked == answer.bucket);
        if buckets.is_empty() || buckets.len() > asked.len() || !prefix {
            return Err(Failed::Protocol("entries of other buckets than asked for"));
        }
        for differing in asked.iter().skip(buckets.len()).rev() {
            self.differing.push_front(*differing);
        }
        for (differing, theirs) in asked.iter().zip(buckets) {
            let (mut mine, sound) = content(cx.replica, differing.bucket)?;
            if let Some(report) = &mut self.look {
                compare_names(report, mine, theirs);
                continue;
            }
            link.note_sound(differing.bucket, sound);
            link.note_their_sound(differing.bucket, theirs.sound);
            link.clean &= theirs.sound;
            let mut keys = Vec::new();
            for entry in &theirs.entries {
                match mine.get(&entry.hash) {
                    Some((digest, _)) if *digest == entry.digest => {
                        mine.remove(&entry.hash);
                    }
                    _ => keys.push(entry.hash),
                }
            }
            self.offer(link, mine);
            if !keys.is_empty() {
                self.wants.push((theirs.bucket, Want::Keys(keys)));
            }
        }
        if self.look.is_some() { self.next_batch(link, cx) } else { self.swap(link, cx) }
    }

    fn swap(&mut self, link: &mut Link, cx: &mut Cx<'_>) -> Result<(), Failed> {
        let wants = std::mem::take(&mut self.wants);
        if wants.is_empty() && self.queue.is_empty() {
            return self.next_batch(link, cx);
        }
        link.restart();
        cx.say(Message::Swap { shard: link.number(), wants });
        self.step = Step::Swapping;
        Ok(())
    }

    /// Puts objects into the queue of those that the peer is sent.
    fn offer(&mut self, link: &mut Link, content: Content) {
        for (hash, (_, name)) in content {
            link.offer(hash);
            self.queue.push_back(name);
        }
    }

    // R's side.

    fn take_wants(
        &mut self,
        link: &mut Link,
        cx: &mut Cx<'_>,
        wants: Vec<(u16, Want)>,
    ) -> Result<(), Failed> {
        if wants.len() > BUCKETS_MAX || !link.ended_out || !link.ended_in {
            return Err(Failed::Protocol("a swap out of turn"));
        }
        link.restart();
        link.begin_swap();
        for (number, want) in wants {
            let bucket = Bucket::new(number).ok_or(Failed::Protocol("no such bucket"))?;
            let (mut content, sound) = content(cx.replica, bucket)?;
            link.note_sound(bucket, sound);
            match want {
                Want::All => self.offer(link, content),
                Want::Keys(keys) => {
                    let found = keys.iter().filter_map(|hash| content.remove_entry(hash));
                    self.offer(link, found.collect());
                }
            }
        }
        Ok(())
    }
}

/// By the hash of the key, its digest and name.
type Content = BTreeMap<u128, (u128, (TableName, Key))>;

fn content(replica: &dyn Replicated, bucket: Bucket) -> Result<(Content, bool), Failed> {
    let content = replica.bucket(bucket)?;
    let entries = content.entries.into_iter();
    let by_hash = entries.map(|e| (short_hash(&e.table, &e.key), (e.digest.0, (e.table, e.key))));
    Ok((by_hash.collect(), content.sound))
}

fn children(replica: &dyn Replicated, path: TreePath) -> Result<Vec<WireNode>, Failed> {
    let mut nodes: Vec<WireNode> =
        replica.tree_children(path)?.into_iter().map(WireNode::from).collect();
    // An empty tree need not have its nodes.
    nodes.resize(if path == TreePath::Root { BRANCHES } else { LEAVES }, WireNode::default());
    Ok(nodes)
}

fn answer_nodes(link: &Link, cx: &mut Cx<'_>, branches: &[u8]) -> Result<(), Failed> {
    if branches.len() > BRANCHES {
        return Err(Failed::Protocol("more branches than there are"));
    }
    let nodes = if branches.is_empty() {
        children(cx.replica, TreePath::Root)?
    } else {
        let mut nodes = Vec::with_capacity(branches.len() * LEAVES);
        for branch in branches {
            nodes.extend(children(cx.replica, TreePath::Branch(*branch))?);
        }
        nodes
    };
    cx.say(Message::Nodes { shard: link.number(), nodes });
    Ok(())
}

fn answer_entries(
    link: &mut Link,
    cx: &mut Cx<'_>,
    buckets: &[u16],
    names: bool,
) -> Result<(), Failed> {
    if buckets.is_empty() || buckets.len() > BUCKETS_MAX {
        return Err(Failed::Protocol("a question about too many buckets"));
    }
    let (mut answers, mut bytes) = (Vec::new(), 0);
    for number in buckets {
        if bytes > DELTAS_BYTES {
            break;
        }
        let bucket = Bucket::new(*number).ok_or(Failed::Protocol("no such bucket"))?;
        let (content, sound) = content(cx.replica, bucket)?;
        link.note_sound(bucket, sound);
        let entries = content.into_iter().map(|(hash, (digest, (table, key)))| {
            let name = names.then(|| (table.to_string(), key.as_bytes().to_vec()));
            bytes += 36 + name.as_ref().map_or(0, |name| name.0.len() + name.1.len());
            WireEntry { hash, digest, name }
        });
        let entries = entries.collect();
        answers.push(WireBucket { bucket: *number, sound, entries });
    }
    cx.say(Message::Entries { shard: link.number(), buckets: answers });
    Ok(())
}

fn compare_names(report: &mut DiffReport, mut mine: Content, theirs: &WireBucket) {
    let mut note = |table: TableName, key: Vec<u8>, side| {
        if report.first.len() < DIFF_KEYS_MAX {
            report.first.push(DiffKey { table, key, side });
        }
    };
    for entry in &theirs.entries {
        match mine.remove(&entry.hash) {
            Some((digest, _)) if digest == entry.digest => {}
            Some((_, (table, key))) => {
                report.keys_differing += 1;
                note(table, key.into(), DiffSide::Both);
            }
            None => {
                report.keys_lacking_here += 1;
                if let Some((table, key)) = &entry.name
                    && let Ok(table) = TableName::parse(table)
                {
                    note(table, key.clone(), DiffSide::There);
                }
            }
        }
    }
    for (_, (table, key)) in mine.into_values() {
        report.keys_lacking_there += 1;
        note(table, key.into(), DiffSide::Here);
    }
}
