//! Patterns with prefixes in common: a persistent radix trie over bytes.
//!
//! What it is: the one structure behind prefix and wildcard patterns. Stored are the patterns as they are written; how a
//! URI meets them differs. All children of a node lie in one block of memory with their labels, so that a step down costs
//! one access to memory that is not in a cache.
//!
//! What it guarantees: a walk allocates nothing. Prefixes are met the shortest first, on one path. Wildcards are met in the
//! order of choice, the best first: depth first, a literal component before a blank one.

use std::sync::Arc;

use smallvec::SmallVec;

/// Bytes between a node and its parent. Most fit into the node.
type Label = SmallVec<[u8; 16]>;

#[derive(Debug, Clone)]
struct Node<T> {
    label: Label,
    value: Option<T>,
    /// By the first byte of their labels, in order. Never an empty list.
    children: Option<Arc<[Self]>>,
}

/// Values by pattern.
#[derive(Debug, Clone)]
pub(super) struct Trie<T> {
    root: Node<T>,
    len: usize,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node { label: Label::new(), value: None, children: None }, len: 0 }
    }
}

impl<T> Trie<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, pattern: &str) -> Option<&T> {
        let mut node = &self.root;
        let mut rest = pattern.as_bytes();
        loop {
            rest = rest.strip_prefix(node.label.as_slice())?;
            match rest.first() {
                Some(first) => node = node.child(*first)?,
                None => return node.value.as_ref(),
            }
        }
    }

    /// Visits all patterns that `uri` begins with, the shortest first.
    pub(super) fn prefixes<'a>(&'a self, uri: &str, mut visit: impl FnMut(&'a T)) {
        let mut node = &self.root;
        let mut rest = uri.as_bytes();
        while let Some(after) = rest.strip_prefix(node.label.as_slice()) {
            if let Some(value) = &node.value {
                visit(value);
            }
            rest = after;
            match rest.first().and_then(|first| node.child(*first)) {
                Some(child) => node = child,
                None => return,
            }
        }
    }

    /// Visits the patterns that fit `uri` component by component, where an empty one of the pattern fits any, the best first;
    /// until `visit` says that it has seen enough.
    pub(super) fn wildcards<'a>(&'a self, uri: &str, visit: &mut impl FnMut(&'a T) -> Walk) {
        if self.len > 0 {
            self.root.wildcards(Place { rest: uri.as_bytes(), at_start: true }, visit);
        }
    }

    /// Visits all.
    pub(super) fn each<'a>(&'a self, visit: &mut impl FnMut(&'a T)) {
        let mut open = vec![&self.root];
        while let Some(node) = open.pop() {
            if let Some(value) = &node.value {
                visit(value);
            }
            open.extend(node.children());
        }
    }
}

impl<T: Clone> Trie<T> {
    pub(super) fn get_mut(&mut self, pattern: &str) -> Option<&mut T> {
        self.get(pattern)?; // Copies no path in vain.
        let mut node = &mut self.root;
        let mut rest = pattern.as_bytes();
        loop {
            rest = rest.strip_prefix(node.label.as_slice())?;
            match rest.first() {
                Some(first) => node = node.child_mut(*first)?,
                None => return node.value.as_mut(),
            }
        }
    }

    pub(super) fn insert(&mut self, pattern: &str, value: T) -> Option<T> {
        let mut node = &mut self.root;
        let mut rest = pattern.as_bytes();
        loop {
            let common = node.label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < node.label.len() {
                node.split(common);
            }
            rest = &rest[common..];
            let Some(first) = rest.first() else {
                let before = node.value.replace(value);
                self.len += usize::from(before.is_none());
                return before;
            };
            match node.position(*first) {
                Ok(at) => node = &mut Arc::make_mut(node.children.as_mut()?)[at],
                Err(at) => {
                    let mut children = node.children().to_vec();
                    children.insert(
                        at,
                        Node { label: rest.into(), value: Some(value), children: None },
                    );
                    node.children = Some(children.into());
                    self.len += 1;
                    return None;
                }
            }
        }
    }

    pub(super) fn remove(&mut self, pattern: &str) -> Option<T> {
        self.get(pattern)?; // Copies no path in vain.
        let removed = self.root.remove(pattern.as_bytes());
        self.len -= usize::from(removed.is_some());
        removed
    }
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    On,
    Stop,
}

/// How far a URI has been walked along a wildcard pattern.
#[derive(Debug, Clone, Copy)]
struct Place<'u> {
    rest: &'u [u8],
    /// At the first byte of a component.
    at_start: bool,
}

impl<'u> Place<'u> {
    /// The place after `label`; none if it does not fit.
    fn after(mut self, label: &[u8]) -> Option<Self> {
        for byte in label {
            if self.at_start && *byte == b'.' {
                // A blank component, and the dot after it.
                let dot = self.dot()?;
                self.rest = &self.rest[dot + 1..];
            } else {
                self.rest = self.rest.strip_prefix(std::slice::from_ref(byte))?;
                self.at_start = *byte == b'.';
            }
        }
        Some(self)
    }

    fn dot(self) -> Option<usize> {
        self.rest.iter().position(|byte| *byte == b'.')
    }

    /// Whether a pattern that ends here fits: nothing is left, or one component where the pattern has a blank.
    fn is_end(self) -> bool {
        if self.at_start { self.dot().is_none() } else { self.rest.is_empty() }
    }
}

impl<T> Node<T> {
    fn children(&self) -> &[Self] {
        self.children.as_deref().unwrap_or_default()
    }

    fn position(&self, first: u8) -> Result<usize, usize> {
        self.children().binary_search_by_key(&first, |child| child.label[0])
    }

    fn child(&self, first: u8) -> Option<&Self> {
        self.position(first).ok().map(|at| &self.children()[at])
    }

    fn wildcards<'a>(&'a self, place: Place<'_>, visit: &mut impl FnMut(&'a T) -> Walk) -> Walk {
        let Some(place) = place.after(&self.label) else {
            return Walk::On;
        };
        let first = place.rest.first().copied();
        if let Some(child) = first.and_then(|first| self.child(first))
            && child.wildcards(place, visit) == Walk::Stop
        {
            return Walk::Stop;
        }
        if let Some(value) = &self.value
            && place.is_end()
            && visit(value) == Walk::Stop
        {
            return Walk::Stop;
        }
        // A dot where a component begins is a blank; where the URI's own component is empty it was met above.
        match self.child(b'.') {
            Some(child) if place.at_start && first != Some(b'.') => child.wildcards(place, visit),
            Some(_) | None => Walk::On,
        }
    }

    /// Moves all but the first bytes of the label, and what lies below, into a child.
    fn split(&mut self, at: usize) {
        let label = Label::from_slice(&self.label[at..]);
        let lower = Self { label, value: self.value.take(), children: self.children.take() };
        self.label.truncate(at);
        self.children = Some(Arc::new([lower]));
    }
}

impl<T: Clone> Node<T> {
    fn child_mut(&mut self, first: u8) -> Option<&mut Self> {
        let at = self.position(first).ok()?;
        Some(&mut Arc::make_mut(self.children.as_mut()?)[at])
    }

    /// Takes out what lies at `pattern` below this node, and leaves no node without a purpose.
    fn remove(&mut self, pattern: &[u8]) -> Option<T> {
        let rest = pattern.strip_prefix(self.label.as_slice())?;
        let Some(first) = rest.first() else {
            return self.value.take();
        };
        let at = self.position(*first).ok()?;
        let child = self.child_mut(*first)?;
        let removed = child.remove(rest);
        if child.value.is_none() {
            match child.children().len() {
                0 => {
                    let mut children = self.children().to_vec();
                    children.remove(at);
                    self.children = (!children.is_empty()).then(|| children.into());
                }
                1 => child.merge(),
                _ => {}
            }
        }
        removed
    }

    /// Becomes one with its only child.
    fn merge(&mut self) {
        if let [only] = self.children() {
            let only = only.clone();
            self.label.extend_from_slice(&only.label);
            self.value = only.value;
            self.children = only.children;
        }
    }
}
