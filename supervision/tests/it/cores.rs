//! Nested trees of the crate's pure cores, with a make-believe shell.

use std::collections::{BTreeMap, VecDeque};

use weald_supervision::core::{Action, ChildPolicy, Close, Core, Input, Key, Note, Policy};

use crate::tree::{Node, Step};

enum Queued {
    Exit { sup: u64, child: u64, abnormal: bool },
    Due { sup: u64, key: Key, ticket: u64 },
}

struct Proc {
    path: String,
    parent: Option<u64>,
    sup: Option<Shell>,
}

struct Shell {
    core: Core,
    nodes: Vec<Node>,
    live: BTreeMap<Key, u64>,
}

pub(crate) struct Cores {
    now: u64,
    next: u64,
    procs: BTreeMap<u64, Proc>,
    queue: VecDeque<Queued>,
    failing: BTreeMap<String, u8>,
    root: Option<u64>,
    pub(crate) trace: Vec<String>,
    pub(crate) notes: usize,
}

impl Cores {
    pub(crate) fn boot(root: &Node) -> Self {
        let mut cores = Self {
            now: 0,
            next: 1,
            procs: BTreeMap::new(),
            queue: VecDeque::new(),
            failing: BTreeMap::new(),
            root: None,
            trace: Vec::new(),
            notes: 0,
        };
        cores.root = cores.spawn(root, root.id.clone(), None);
        cores
    }

    pub(crate) fn is_up(&self) -> bool {
        self.root.is_some_and(|root| self.procs.contains_key(&root))
    }

    fn paths(&self, keep: impl Fn(&Proc) -> bool) -> Vec<(String, u64)> {
        let mut paths: Vec<_> = self
            .procs
            .iter()
            .filter(|(_, p)| keep(p))
            .map(|(id, p)| (p.path.clone(), *id))
            .collect();
        paths.sort();
        paths
    }

    pub(crate) fn live_workers(&self) -> Vec<String> {
        self.paths(|p| p.sup.is_none()).into_iter().map(|(path, _)| path).collect()
    }

    pub(crate) fn step(&mut self, step: &Step, all_workers: &[String]) {
        match step {
            Step::Advance(ms) => self.now += ms,
            Step::FailStarts(pick, times) => {
                if !all_workers.is_empty() {
                    *self
                        .failing
                        .entry(all_workers[pick % all_workers.len()].clone())
                        .or_default() += times;
                }
            }
            Step::Exits(exits) => {
                for (pick, abnormal) in exits {
                    let live = self.paths(|p| p.sup.is_none());
                    if live.is_empty() {
                        break;
                    }
                    let (path, id) = &live[pick % live.len()];
                    self.trace.push(format!("exit {path}"));
                    self.gone(*id, *abnormal);
                }
            }
            Step::KillSup(pick) => {
                let live = self.paths(|p| p.sup.is_some() && p.parent.is_some());
                if !live.is_empty() {
                    let (path, id) = &live[pick % live.len()];
                    self.trace.push(format!("killed {path}"));
                    let prefix = format!("{path}/");
                    self.procs.retain(|_, p| !p.path.starts_with(&prefix));
                    self.gone(*id, true);
                }
            }
        }
        while let Some(queued) = self.queue.pop_front() {
            match queued {
                Queued::Exit { sup, child, abnormal } => {
                    let Some(shell) = self.shell(sup) else {
                        continue;
                    };
                    let Some(key) =
                        shell.live.iter().find(|(_, id)| **id == child).map(|(k, _)| *k)
                    else {
                        continue;
                    };
                    shell.live.remove(&key);
                    self.drive(sup, Input::Exited { key, abnormal });
                }
                Queued::Due { sup, key, ticket } => {
                    if self.shell(sup).is_some() {
                        self.drive(sup, Input::Due { key, ticket });
                    }
                }
            }
        }
    }

    pub(crate) fn shutdown(&mut self) {
        if let Some(root) = self.root.filter(|r| self.procs.contains_key(r)) {
            self.stop(root);
        }
    }

    fn shell(&mut self, id: u64) -> Option<&mut Shell> {
        self.procs.get_mut(&id)?.sup.as_mut()
    }

    fn gone(&mut self, id: u64, abnormal: bool) {
        let parent = self.procs.remove(&id).and_then(|p| p.parent);
        if let Some(sup) = parent {
            self.queue.push_back(Queued::Exit { sup, child: id, abnormal });
        }
    }

    fn spawn(&mut self, node: &Node, path: String, parent: Option<u64>) -> Option<u64> {
        let id = self.next;
        self.next += 1;
        let Some(spec) = &node.sup else {
            if let Some(left) = self.failing.get_mut(&path).filter(|left| **left > 0) {
                *left -= 1;
                self.trace.push(format!("fail {path}"));
                return None;
            }
            self.trace.push(format!("start {path}"));
            self.procs.insert(id, Proc { path, parent, sup: None });
            return Some(id);
        };
        let policy = Policy {
            strategy: spec.strategy,
            intensity_max: spec.intensity,
            window_ms: spec.window_ms,
            auto_shutdown: spec.auto,
            backoff: None,
        };
        let children: Vec<ChildPolicy> = spec
            .children
            .iter()
            .map(|c| ChildPolicy { restart: c.restart, significant: c.significant })
            .collect();
        let shell = Shell {
            core: Core::new(policy, &children),
            nodes: spec.children.clone(),
            live: BTreeMap::new(),
        };
        self.procs.insert(id, Proc { path: path.clone(), parent, sup: Some(shell) });
        match self.drive(id, Input::Boot) {
            None => {
                self.trace.push(format!("start {path}"));
                Some(id)
            }
            Some(close) => {
                assert!(matches!(close, Close::StartFailed(_)));
                self.procs.remove(&id);
                self.trace.push(format!("fail {path}"));
                None
            }
        }
    }

    fn stop(&mut self, id: u64) {
        if self.procs[&id].sup.is_some() {
            let close = self.drive(id, Input::Shutdown);
            assert_eq!(close, Some(Close::Shutdown));
        }
        let path = self.procs.remove(&id).unwrap().path;
        self.trace.push(format!("stop {path}"));
    }

    fn drive(&mut self, sup: u64, input: Input) -> Option<Close> {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = self.now;
            let path = self.procs[&sup].path.clone();
            let mut out = Vec::new();
            self.shell(sup).unwrap().core.handle(now, input, &mut out);
            let last = out.len().saturating_sub(1);
            for (i, action) in out.into_iter().enumerate() {
                match action {
                    Action::Start(key) => {
                        assert_eq!(i, last, "a start is the last action");
                        let node =
                            self.shell(sup).unwrap().nodes[usize::try_from(key).unwrap()].clone();
                        let child = self.spawn(&node, format!("{path}/{}", node.id), Some(sup));
                        next = Some(match child {
                            Some(child) => {
                                self.shell(sup).unwrap().live.insert(key, child);
                                Input::Started(key)
                            }
                            None => Input::StartFailed(key),
                        });
                    }
                    Action::Stop(key) => {
                        assert_eq!(i, last, "a stop is the last action");
                        let child = self.shell(sup).unwrap().live.remove(&key).unwrap();
                        if self.procs.contains_key(&child) {
                            self.stop(child);
                        }
                        next = Some(Input::Stopped(key));
                    }
                    Action::StopAll(_) => unreachable!("no dynamic supervisors in random trees"),
                    Action::Schedule { key, ticket, delay_ms } => {
                        assert_eq!(delay_ms, 0);
                        self.queue.push_back(Queued::Due { sup, key, ticket });
                    }
                    Action::Forget(key) => {
                        assert!(!self.shell(sup).unwrap().live.contains_key(&key));
                    }
                    Action::Note(note) => {
                        self.notes += usize::from(!matches!(note, Note::GaveUp { .. }));
                    }
                    Action::Close(close) => return Some(self.closed(sup, &path, close)),
                }
            }
            if next.is_none() {
                self.shell(sup).unwrap().core.check().unwrap();
            }
        }
        None
    }

    fn closed(&mut self, sup: u64, path: &str, close: Close) -> Close {
        assert!(self.shell(sup).unwrap().live.is_empty(), "closed with live children");
        match close {
            Close::Intensity(_) => {
                self.trace.push(format!("gaveup {path}"));
                self.gone(sup, true);
            }
            Close::AutoShutdown(_) => {
                self.trace.push(format!("auto {path}"));
                self.gone(sup, false);
            }
            Close::Shutdown | Close::StartFailed(_) => {}
        }
        close
    }
}
