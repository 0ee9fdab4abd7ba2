//! The batcher: which writes go into the next transaction, and when. Pure.

use std::collections::VecDeque;

/// Something that happened to the actor.
#[derive(Debug)]
pub enum Input<W> {
    /// Writes arrived, in order.
    Writes(Vec<W>),
    /// The writer thread has finished a batch.
    Finished {
        /// The batch's number.
        batch: u64,
    },
}

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<W> {
    /// Hand these to the writer thread as one transaction.
    Submit {
        /// Number of the batch, to be given back with [`Input::Finished`].
        batch: u64,
        /// The writes, in the order they arrived.
        writes: Vec<W>,
    },
}

/// Keeps one batch with the writer and collects the next meanwhile: under load the batch grows by itself, an idle
/// partition answers at once.
#[derive(Debug)]
pub struct Batcher<W> {
    waiting: VecDeque<W>,
    in_flight: Option<u64>,
    next_batch: u64,
    batch_max: usize,
}

impl<W> Batcher<W> {
    /// A batcher whose first batch is numbered `first_batch`. An actor passes a number its predecessor has not used, so that
    /// a late answer to the predecessor is not taken for its own.
    #[must_use]
    pub fn new(first_batch: u64, batch_max: usize) -> Self {
        Self { waiting: VecDeque::new(), in_flight: None, next_batch: first_batch, batch_max }
    }

    /// Takes an input and says what to do.
    pub fn handle(&mut self, input: Input<W>) -> Option<Output<W>> {
        match input {
            Input::Writes(writes) => self.waiting.extend(writes),
            Input::Finished { batch } => {
                if self.in_flight == Some(batch) {
                    self.in_flight = None;
                }
            }
        }
        self.next()
    }

    /// Writes not yet handed over.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    fn next(&mut self) -> Option<Output<W>> {
        if self.in_flight.is_some() || self.waiting.is_empty() {
            return None;
        }
        let take = self.waiting.len().min(self.batch_max);
        let batch = self.next_batch;
        self.next_batch += 1;
        self.in_flight = Some(batch);
        Some(Output::Submit { batch, writes: self.waiting.drain(..take).collect() })
    }
}

/// A thing that goes back to its sender when it is dropped unused. So a message lost with a dying mailbox is known to be
/// undone, and its sender may give it to the successor.
#[derive(Debug)]
pub struct Ticket<T, R: Returns<T>> {
    content: Option<(T, R)>,
}

/// Where an unused [`Ticket`] goes.
pub trait Returns<T> {
    /// Takes the content back.
    fn returned(self, content: T);
}

impl<T, R: Returns<T>> Ticket<T, R> {
    /// A ticket for `content`, to be returned to `sender`.
    pub fn new(content: T, sender: R) -> Self {
        Self { content: Some((content, sender)) }
    }

    /// Uses the ticket: from now on the taker answers.
    #[must_use]
    pub fn take(mut self) -> Option<(T, R)> {
        self.content.take()
    }
}

impl<T, R: Returns<T>> Drop for Ticket<T, R> {
    fn drop(&mut self) {
        if let Some((content, sender)) = self.content.take() {
            sender.returned(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, rc::Rc};

    #[test]
    fn one_batch_in_flight_and_the_next_one_collects() {
        let mut batcher = Batcher::new(10, 3);
        let first = batcher.handle(Input::Writes(vec![1]));
        assert_eq!(first, Some(Output::Submit { batch: 10, writes: vec![1] }));
        assert_eq!(batcher.handle(Input::Writes(vec![2, 3])), None);
        assert_eq!(batcher.handle(Input::Writes(vec![4, 5])), None);
        assert_eq!(batcher.handle(Input::Finished { batch: 9 }), None, "not ours");
        let second = batcher.handle(Input::Finished { batch: 10 });
        assert_eq!(second, Some(Output::Submit { batch: 11, writes: vec![2, 3, 4] }));
        let third = batcher.handle(Input::Finished { batch: 11 });
        assert_eq!(third, Some(Output::Submit { batch: 12, writes: vec![5] }));
        assert_eq!(batcher.handle(Input::Finished { batch: 12 }), None);
        assert_eq!(batcher.waiting_len(), 0);
    }

    #[test]
    fn a_dropped_ticket_returns_and_a_used_one_does_not() {
        #[derive(Clone, Default)]
        struct Back(Rc<RefCell<Vec<u8>>>);
        impl Returns<u8> for Back {
            fn returned(self, content: u8) {
                self.0.borrow_mut().push(content);
            }
        }
        let back = Back::default();
        drop(Ticket::new(1, back.clone()));
        let used = Ticket::new(2, back.clone()).take();
        assert!(used.is_some());
        drop(used);
        assert_eq!(*back.0.borrow(), vec![1]);
    }
}
