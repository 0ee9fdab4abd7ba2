//! The reference: OTP's supervisor as its documentation and `supervisor.erl` describe it.
//!
//! Written from that source, with its names and its data (a child's pid is undefined, restarting or
//! a process; `restart_multiple_children`, `try_again`, `do_auto_shutdown`), so that it shares no
//! thought with `core.rs`. One documented deviation is built in: a supervisor that exhausts its
//! intensity exits abnormally (OTP: `shutdown`).

use std::collections::{BTreeMap, VecDeque};

use weald_supervision::{AutoShutdown, Restart, Strategy};

use crate::tree::{Node, Step, Sup};

type Pid = u64;

#[derive(Clone, Copy, PartialEq)]
enum ChildPid {
    Undefined,
    Restarting,
    Is(Pid),
}

struct Child {
    node: Node,
    pid: ChildPid,
}

struct SupState {
    spec: Sup,
    children: Vec<Child>,
    restarts: Vec<u64>,
}

struct Process {
    path: String,
    parent: Option<Pid>,
    sup: Option<SupState>,
}

enum Message {
    Exit { to: Pid, from: Pid, normal: bool },
    TryAgain { to: Pid, id: String },
}

pub(crate) struct Otp {
    now: u64,
    next_pid: Pid,
    processes: BTreeMap<Pid, Process>,
    queue: VecDeque<Message>,
    failing: BTreeMap<String, u8>,
    root: Option<Pid>,
    pub(crate) trace: Vec<String>,
}

#[derive(Clone, Copy)]
enum After {
    Ok,
    Shutdown { abnormal: bool },
}

impl Otp {
    pub(crate) fn boot(root: &Node) -> Self {
        let mut otp = Self {
            now: 0,
            next_pid: 1,
            processes: BTreeMap::new(),
            queue: VecDeque::new(),
            failing: BTreeMap::new(),
            root: None,
            trace: Vec::new(),
        };
        otp.root = otp.start(root, &root.id, None).ok();
        otp
    }

    pub(crate) fn is_up(&self) -> bool {
        self.root.is_some_and(|root| self.processes.contains_key(&root))
    }

    pub(crate) fn live_workers(&self) -> Vec<String> {
        let workers = self.processes.values().filter(|p| p.sup.is_none());
        let mut paths: Vec<String> = workers.map(|p| p.path.clone()).collect();
        paths.sort();
        paths
    }

    pub(crate) fn live_sups(&self) -> Vec<String> {
        let below = self.processes.values().filter(|p| p.sup.is_some() && p.parent.is_some());
        let mut paths: Vec<String> = below.map(|p| p.path.clone()).collect();
        paths.sort();
        paths
    }

    pub(crate) fn step(&mut self, step: &Step, all_workers: &[String]) {
        match step {
            Step::Advance(ms) => self.now += ms,
            Step::FailStarts(pick, times) => {
                if !all_workers.is_empty() {
                    let path = all_workers[pick % all_workers.len()].clone();
                    *self.failing.entry(path).or_default() += times;
                }
            }
            Step::Exits(exits) => {
                for (pick, abnormal) in exits {
                    let live = self.live_workers();
                    if live.is_empty() {
                        break;
                    }
                    let path = live[pick % live.len()].clone();
                    let pid = self.pid_of(&path);
                    self.trace.push(format!("exit {path}"));
                    self.die(pid, !abnormal);
                }
            }
            Step::KillSup(pick) => {
                let live = self.live_sups();
                if !live.is_empty() {
                    let path = live[pick % live.len()].clone();
                    let pid = self.pid_of(&path);
                    self.trace.push(format!("killed {path}"));
                    self.orphans_die(pid);
                    self.die(pid, false);
                }
            }
        }
        self.settle();
    }

    pub(crate) fn shutdown(&mut self) {
        if let Some(root) = self.root.filter(|root| self.processes.contains_key(root)) {
            self.shutdown_process(root);
        }
    }

    fn pid_of(&self, path: &str) -> Pid {
        *self.processes.iter().find(|(_, p)| p.path == path).unwrap().0
    }

    fn die(&mut self, pid: Pid, normal: bool) {
        let gone = self.processes.remove(&pid).unwrap();
        if let Some(to) = gone.parent {
            self.queue.push_back(Message::Exit { to, from: pid, normal });
        }
    }

    fn orphans_die(&mut self, pid: Pid) {
        let below: Vec<Pid> =
            self.processes.iter().filter(|(_, p)| p.parent == Some(pid)).map(|(k, _)| *k).collect();
        for child in below {
            self.orphans_die(child);
            self.processes.remove(&child);
        }
    }

    fn settle(&mut self) {
        while let Some(message) = self.queue.pop_front() {
            match message {
                Message::Exit { to, from, normal } => {
                    if self.processes.contains_key(&to) {
                        let after = self.restart_child(to, from, normal);
                        self.after(to, after);
                    }
                }
                Message::TryAgain { to, id } => {
                    if self.processes.contains_key(&to) {
                        let at = self
                            .sup(to)
                            .children
                            .iter()
                            .position(|c| c.node.id == id && c.pid == ChildPid::Restarting);
                        if at.is_some() {
                            let after = self.restart(to, &id);
                            self.after(to, after);
                        }
                    }
                }
            }
        }
    }

    fn after(&mut self, pid: Pid, after: After) {
        if let After::Shutdown { abnormal } = after {
            self.terminate_children(pid, None);
            let word = if abnormal { "gaveup" } else { "auto" };
            let path = self.processes[&pid].path.clone();
            self.trace.push(format!("{word} {path}"));
            self.die(pid, !abnormal);
        }
    }

    fn sup(&mut self, pid: Pid) -> &mut SupState {
        self.processes.get_mut(&pid).unwrap().sup.as_mut().unwrap()
    }

    fn child(&mut self, sup: Pid, id: &str) -> &mut Child {
        self.sup(sup).children.iter_mut().find(|c| c.node.id == id).unwrap()
    }

    // ---- starting ----

    fn start(&mut self, node: &Node, path: &str, parent: Option<Pid>) -> Result<Pid, ()> {
        let pid = self.next_pid;
        self.next_pid += 1;
        let Some(spec) = &node.sup else {
            if let Some(left) = self.failing.get_mut(path).filter(|left| **left > 0) {
                *left -= 1;
                self.trace.push(format!("fail {path}"));
                return Err(());
            }
            self.trace.push(format!("start {path}"));
            self.processes.insert(pid, Process { path: path.to_owned(), parent, sup: None });
            return Ok(pid);
        };
        let children = spec
            .children
            .iter()
            .map(|node| Child { node: node.clone(), pid: ChildPid::Undefined })
            .collect();
        let state = SupState { spec: spec.clone(), children, restarts: Vec::new() };
        self.processes.insert(pid, Process { path: path.to_owned(), parent, sup: Some(state) });
        if self.start_children(pid, None).is_err() {
            self.terminate_children(pid, None);
            self.processes.remove(&pid);
            self.trace.push(format!("fail {path}"));
            return Err(());
        }
        self.trace.push(format!("start {path}"));
        Ok(pid)
    }

    /// Starts the children (only those named, if any) in order; `Err` has the id of the first that failed.
    fn start_children(&mut self, sup: Pid, only: Option<&[String]>) -> Result<(), String> {
        let nodes: Vec<Node> = self.sup(sup).children.iter().map(|c| c.node.clone()).collect();
        for node in nodes.iter().filter(|n| only.is_none_or(|ids| ids.contains(&n.id))) {
            match self.do_start_child(sup, node) {
                Ok(pid) => self.child(sup, &node.id).pid = ChildPid::Is(pid),
                Err(()) => return Err(node.id.clone()),
            }
        }
        Ok(())
    }

    fn do_start_child(&mut self, sup: Pid, node: &Node) -> Result<Pid, ()> {
        let path = format!("{}/{}", self.processes[&sup].path, node.id);
        self.start(node, &path, Some(sup))
    }

    // ---- stopping ----

    /// Terminates the children (only those named, if any) in reverse start order. Temporary ones
    /// are deleted.
    fn terminate_children(&mut self, sup: Pid, only: Option<&[String]>) {
        let ids: Vec<String> = self.sup(sup).children.iter().map(|c| c.node.id.clone()).collect();
        for id in ids.iter().rev().filter(|id| only.is_none_or(|ids| ids.contains(id))) {
            let child = self.child(sup, id);
            let (pid, temporary) = (child.pid, child.node.restart == Restart::Temporary);
            child.pid = ChildPid::Undefined;
            if let ChildPid::Is(pid) = pid
                && self.processes.contains_key(&pid)
            {
                self.shutdown_process(pid);
            }
            if temporary {
                self.sup(sup).children.retain(|c| c.node.id != *id);
            }
        }
    }

    fn shutdown_process(&mut self, pid: Pid) {
        if self.processes[&pid].sup.is_some() {
            self.terminate_children(pid, None);
        }
        let path = self.processes.remove(&pid).unwrap().path;
        self.trace.push(format!("stop {path}"));
    }

    // ---- restarting ----

    fn restart_child(&mut self, sup: Pid, from: Pid, normal: bool) -> After {
        let found = self.sup(sup).children.iter().find(|c| c.pid == ChildPid::Is(from));
        let Some(node) = found.map(|c| c.node.clone()) else {
            return After::Ok;
        };
        // do_restart
        match (node.restart, normal) {
            (Restart::Permanent, _) | (Restart::Transient, false) => self.restart(sup, &node.id),
            (Restart::Temporary, _) | (Restart::Transient, true) => {
                self.del_child(sup, &node);
                self.do_auto_shutdown(sup, &node)
            }
        }
    }

    fn del_child(&mut self, sup: Pid, node: &Node) {
        if node.restart == Restart::Temporary {
            self.sup(sup).children.retain(|c| c.node.id != node.id);
        } else {
            self.child(sup, &node.id).pid = ChildPid::Undefined;
        }
    }

    fn do_auto_shutdown(&mut self, sup: Pid, node: &Node) -> After {
        let state = self.sup(sup);
        let ends = match state.spec.auto {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => node.significant,
            AutoShutdown::AllSignificant => {
                node.significant
                    && !state
                        .children
                        .iter()
                        .any(|c| c.pid != ChildPid::Undefined && c.node.significant)
            }
        };
        if ends { After::Shutdown { abnormal: false } } else { After::Ok }
    }

    fn restart(&mut self, sup: Pid, id: &str) -> After {
        if !self.add_restart(sup) {
            let node = self.child(sup, id).node.clone();
            self.del_child(sup, &node);
            return After::Shutdown { abnormal: true };
        }
        let try_again = match self.sup(sup).spec.strategy {
            Strategy::OneForOne => self.restart_one(sup, id),
            Strategy::RestForOne => {
                let ids: Vec<String> =
                    self.sup(sup).children.iter().map(|c| c.node.id.clone()).collect();
                let at = ids.iter().position(|i| i == id).unwrap();
                self.child(sup, id).pid = ChildPid::Undefined;
                self.restart_multiple_children(sup, &ids[at..])
            }
            Strategy::OneForAll => {
                let ids: Vec<String> =
                    self.sup(sup).children.iter().map(|c| c.node.id.clone()).collect();
                self.child(sup, id).pid = ChildPid::Undefined;
                self.restart_multiple_children(sup, &ids)
            }
            Strategy::Dynamic => unreachable!("not in random trees"),
        };
        if let Some(id) = try_again {
            self.queue.push_back(Message::TryAgain { to: sup, id });
        }
        After::Ok
    }

    fn restart_one(&mut self, sup: Pid, id: &str) -> Option<String> {
        let node = self.child(sup, id).node.clone();
        match self.do_start_child(sup, &node) {
            Ok(pid) => {
                self.child(sup, id).pid = ChildPid::Is(pid);
                None
            }
            Err(()) => {
                self.child(sup, id).pid = ChildPid::Restarting;
                Some(id.to_owned())
            }
        }
    }

    fn restart_multiple_children(&mut self, sup: Pid, ids: &[String]) -> Option<String> {
        self.terminate_children(sup, Some(ids));
        match self.start_children(sup, Some(ids)) {
            Ok(()) => None,
            Err(failed) => {
                self.child(sup, &failed).pid = ChildPid::Restarting;
                Some(failed)
            }
        }
    }

    fn add_restart(&mut self, sup: Pid) -> bool {
        let now = self.now;
        let state = self.sup(sup);
        state.restarts.insert(0, now);
        let period = state.spec.window_ms;
        state.restarts.retain(|then| now <= then + period);
        state.restarts.len() <= state.spec.intensity as usize
    }
}
