//! Virtual time: events in the order of their time, and of their making where times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events to come, and the time of the last one taken.
#[derive(Debug)]
pub struct Queue<E> {
    now_ms: u64,
    made: u64,
    heap: BinaryHeap<Reverse<Due<E>>>,
}

#[derive(Debug)]
struct Due<E> {
    at_ms: u64,
    number: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.number) == (other.at_ms, other.number)
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.number).cmp(&(other.at_ms, other.number))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { now_ms: 0, made: 0, heap: BinaryHeap::new() }
    }
}

impl<E> Queue<E> {
    /// Milliseconds since the run began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Plans an event; one in the past happens now.
    pub fn at(&mut self, at_ms: u64, event: E) {
        let at_ms = at_ms.max(self.now_ms);
        self.heap.push(Reverse(Due { at_ms, number: self.made, event }));
        self.made += 1;
    }

    /// Plans an event `in_ms` from now.
    pub fn after(&mut self, in_ms: u64, event: E) {
        self.at(self.now_ms.saturating_add(in_ms), event);
    }

    /// The next event no later than `until_ms`; time goes on to it, or to `until_ms` when there is none.
    pub fn next(&mut self, until_ms: u64) -> Option<E> {
        if self.heap.peek().is_none_or(|Reverse(due)| due.at_ms > until_ms) {
            self.now_ms = self.now_ms.max(until_ms);
            return None;
        }
        let Reverse(due) = self.heap.pop()?;
        self.now_ms = due.at_ms;
        Some(due.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_by_their_making() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            queue.at(at, event);
        }
        let early: String = std::iter::from_fn(|| queue.next(5)).collect();
        assert_eq!((early.as_str(), queue.now_ms()), ("abcd", 5));
        queue.at(2, 'l');
        assert_eq!((queue.next(8), queue.next(8), queue.now_ms()), (Some('l'), None, 8));
        assert_eq!((queue.next(9), queue.now_ms()), (Some('e'), 9));
    }
}
