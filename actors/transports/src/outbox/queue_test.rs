//! The queue's rules one by one, and all interleavings of a few tasks.

use super::*;
use std::collections::BTreeSet;

const BOUNDS: Bounds = Bounds { queue_bytes_max: 1_000, policy: Policy::Disconnect };

fn chunk(bytes: usize) -> Bytes {
    Bytes::from(vec![b'x'; bytes])
}

fn push(queue: &mut Queue<()>, bytes: usize) -> Pushed {
    queue.push(chunk(bytes), Class::Reply, BOUNDS, None)
}

/// Takes the writer, writes so many bytes of it, and gives it back.
fn write(queue: &mut Queue<()>, by: By, bytes: usize, how: Wrote) -> Option<Next<()>> {
    let mut writer = queue.take(by)?;
    let freed = writer.batch.written(bytes);
    Some(queue.wrote(writer, freed, how))
}

#[test]
fn first_pusher_flushes_for_all() {
    let mut queue = Queue::new(());
    assert_eq!(push(&mut queue, 1), Pushed::First);
    assert_eq!(push(&mut queue, 1), Pushed::Queued);
    assert!(matches!(write(&mut queue, By::Flusher, 2, Wrote::All), Some(Next::Done)));
    assert!(queue.is_empty() && queue.bytes() == 0);
    assert_eq!(push(&mut queue, 1), Pushed::First);
}

#[test]
fn flush_of_an_empty_queue_does_nothing() {
    let mut queue = Queue::new(());
    assert!(queue.take(By::Flusher).is_none() && queue.take(By::Owner).is_none());
}

#[test]
fn what_comes_while_one_writes_is_written_by_that_one() {
    let mut queue = Queue::new(());
    let _first = push(&mut queue, 1);
    let mut writer = queue.take(By::Flusher).unwrap();
    assert_eq!(push(&mut queue, 1), Pushed::Queued);
    assert!(queue.take(By::Flusher).is_none() && queue.take(By::Owner).is_none());
    let freed = writer.batch.written(1);
    let Next::Write(mut writer) = queue.wrote(writer, freed, Wrote::All) else { panic!() };
    let freed = writer.batch.written(1);
    assert!(matches!(queue.wrote(writer, freed, Wrote::All), Next::Done));
}

#[test]
fn blocked_writer_is_the_owners_until_all_is_written() {
    let mut queue = Queue::new(());
    let _first = push(&mut queue, 10);
    assert!(matches!(write(&mut queue, By::Flusher, 4, Wrote::Blocked), Some(Next::Owner)));
    assert_eq!(push(&mut queue, 1), Pushed::Queued);
    assert!(queue.take(By::Flusher).is_none() && queue.is_owners());
    let writer = queue.take(By::Owner).unwrap();
    assert_eq!((writer.batch.offset, writer.batch.chunks.len()), (4, 2));
}

#[test]
fn long_turn_is_handed_over() {
    let mut queue = Queue::new(());
    let _first = push(&mut queue, 10);
    let mut writer = queue.take(By::Flusher).unwrap();
    writer.turn_bytes = TURN_BYTES;
    let _queued = push(&mut queue, 1);
    let freed = writer.batch.written(10);
    assert!(matches!(queue.wrote(writer, freed, Wrote::All), Next::Owner));
    assert!(matches!(write(&mut queue, By::Owner, 1, Wrote::All), Some(Next::Done)));
}

#[test]
fn full_queue_ends_the_connection_or_drops_events() {
    let mut queue = Queue::new(());
    let _first = push(&mut queue, 1_000 - ENTRY_BYTES);
    assert_eq!(push(&mut queue, 0), Pushed::Refused);
    assert_eq!((queue.kicked(), queue.bytes()), (Some(Kick::QueueFull), 0));
    assert_eq!(push(&mut queue, 0), Pushed::Refused);

    let mut queue = Queue::new(());
    let bounds = Bounds { policy: Policy::DropEvents, ..BOUNDS };
    let _first = push(&mut queue, 1_000 - ENTRY_BYTES);
    assert_eq!(queue.push(chunk(1), Class::Event, bounds, None), Pushed::Dropped);
    assert_eq!(queue.kicked(), None);
    assert_eq!(queue.push(chunk(1), Class::Reply, bounds, None), Pushed::Refused);
    assert_eq!(queue.kicked(), Some(Kick::QueueFull));
}

#[test]
fn one_long_message_has_room_in_an_empty_queue() {
    let mut queue = Queue::new(());
    assert_eq!(push(&mut queue, 5_000), Pushed::First);
}

#[test]
fn share_bounds_a_queue_while_memory_is_short() {
    let mut queue = Queue::new(());
    let _first = push(&mut queue, 100);
    assert_eq!(queue.push(chunk(1), Class::Event, BOUNDS, Some(300)), Pushed::Queued);
    assert_eq!(queue.push(chunk(100), Class::Event, BOUNDS, Some(300)), Pushed::Refused);
    assert_eq!(queue.kicked(), Some(Kick::Budget));
}

#[test]
fn asked_to_end_it_still_sends_and_worse_reasons_replace_it() {
    let mut queue = Queue::new(());
    queue.end(Kick::Asked);
    assert_eq!(push(&mut queue, 1), Pushed::First);
    queue.end(Kick::Stuck);
    queue.end(Kick::Budget);
    assert_eq!((queue.kicked(), queue.bytes()), (Some(Kick::Stuck), 0));
    assert_eq!(push(&mut queue, 1), Pushed::Refused);
}

#[test]
fn end_while_somebody_writes_frees_all_when_that_one_is_done() {
    let mut queue = Queue::new(());
    let _first = push(&mut queue, 10);
    let mut writer = queue.take(By::Flusher).unwrap();
    queue.end(Kick::Budget);
    let freed = writer.batch.written(3);
    assert!(matches!(queue.wrote(writer, freed, Wrote::Blocked), Next::Done));
    assert!(queue.is_empty() && queue.bytes() == 0);
}

#[test]
fn close_while_somebody_writes_drops_the_socket_there() {
    let mut queue = Queue::new(());
    let _first = push(&mut queue, 10);
    let writer = queue.take(By::Flusher).unwrap();
    assert!(queue.close().is_none());
    assert!(matches!(queue.wrote(writer, 0, Wrote::Blocked), Next::Done));
    assert!(queue.is_closed() && queue.is_empty());
    assert_eq!(push(&mut queue, 1), Pushed::Refused);
}

#[test]
fn burst_leaves_no_memory_behind() {
    let mut queue = Queue::new(());
    let bounds = Bounds { queue_bytes_max: usize::MAX, ..BOUNDS };
    for _ in 0..10_000 {
        let _outcome = queue.push(chunk(1), Class::Reply, bounds, None);
    }
    assert!(matches!(write(&mut queue, By::Flusher, 10_000, Wrote::All), Some(Next::Done)));
    assert!(queue.waiting.capacity() <= IDLE_CHUNKS);
    let Turn::Idle(writer) = &queue.turn else { panic!() };
    assert!(writer.batch.chunks.capacity() <= 2 * IDLE_CHUNKS);
}

/// One task that pushes numbered chunks, and flushes where it has to.
#[derive(Debug, Clone)]
struct Pusher {
    name: u8,
    left: u8,
    at: At,
}

/// Where a task is between two steps; a step is what happens under one lock, or without one.
#[derive(Debug, Clone)]
enum At {
    /// Next is a push, or nothing.
    Start,
    /// It was told to flush.
    Flush,
    /// It has the writer.
    Write(Writer<()>),
    /// It has given the writer to the owner, and not told it yet.
    Call,
}

/// Everything: two pushers, the owner, and a socket that blocks a few times.
#[derive(Debug, Clone)]
struct World {
    queue: Queue<()>,
    pushers: Vec<Pusher>,
    owner: At,
    /// The owner was called.
    called: bool,
    /// The owner knows that it has to write.
    writing: bool,
    /// The socket takes nothing now.
    full: bool,
    /// Times it may still become full.
    fills: u8,
    /// What the socket took.
    got: Vec<u8>,
}

impl World {
    /// Writes to the socket: all of the batch, or a part of it after which the socket is full.
    fn writes(&self, writer: &Writer<()>) -> Vec<(Self, Writer<()>, usize, Wrote)> {
        let mut outcomes = Vec::new();
        let bytes: Vec<u8> = writer.batch.chunks.iter().flatten().copied().collect();
        let bytes = &bytes[writer.batch.offset..];
        let mut cases = Vec::new();
        if !self.full {
            cases.push((bytes.len(), Wrote::All));
        }
        if self.full {
            cases.push((0, Wrote::Blocked));
        } else if self.fills > 0 {
            cases.extend([(0, Wrote::Blocked), (1, Wrote::Blocked)]);
        }
        for (count, how) in cases {
            let (mut world, mut writer) = (self.clone(), writer.clone());
            if how == Wrote::Blocked && !world.full {
                world.full = true;
                world.fills -= 1;
            }
            world.got.extend(&bytes[..count]);
            let freed = writer.batch.written(count);
            outcomes.push((world, writer, freed, how));
        }
        outcomes
    }

    fn steps(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for at in 0..self.pushers.len() {
            self.pusher_steps(at, &mut next);
        }
        self.owner_steps(&mut next);
        if self.full {
            next.push(Self { full: false, ..self.clone() });
        }
        next
    }

    fn pusher_steps(&self, at: usize, next: &mut Vec<Self>) {
        let mut world = self.clone();
        let pusher = &mut world.pushers[at];
        match pusher.at.clone() {
            At::Start if pusher.left == 0 => {}
            At::Start => {
                // Two octets, so that one may be written without the other.
                let chunk = Bytes::from(vec![pusher.name + pusher.left; 2]);
                pusher.left -= 1;
                match world.queue.push(chunk, Class::Reply, BOUNDS, None) {
                    Pushed::First => pusher.at = At::Flush,
                    Pushed::Queued => {}
                    other => panic!("{other:?}"),
                }
                next.push(world);
            }
            At::Flush => {
                pusher.at = world.queue.take(By::Flusher).map_or(At::Start, At::Write);
                next.push(world);
            }
            At::Write(writer) => {
                for (mut world, writer, freed, how) in self.writes(&writer) {
                    world.pushers[at].at = match world.queue.wrote(writer, freed, how) {
                        Next::Write(writer) => At::Write(writer),
                        Next::Done => At::Start,
                        Next::Owner => At::Call,
                    };
                    next.push(world);
                }
            }
            At::Call => {
                pusher.at = At::Start;
                world.called = true;
                next.push(world);
            }
        }
    }

    fn owner_steps(&self, next: &mut Vec<Self>) {
        let mut world = self.clone();
        match self.owner.clone() {
            At::Start if self.called => {
                world.called = false;
                world.writing |= world.queue.is_owners();
                next.push(world);
            }
            At::Start if self.writing && !self.full => {
                world.writing = false;
                if let Some(writer) = world.queue.take(By::Owner) {
                    world.owner = At::Write(writer);
                }
                next.push(world);
            }
            At::Write(writer) => {
                for (mut world, writer, freed, how) in self.writes(&writer) {
                    world.owner = match world.queue.wrote(writer, freed, how) {
                        Next::Write(writer) => At::Write(writer),
                        Next::Done => At::Start,
                        Next::Owner => {
                            world.writing = true;
                            At::Start
                        }
                    };
                    next.push(world);
                }
            }
            At::Start | At::Flush | At::Call => {}
        }
    }

    /// What must hold when nobody can do anything any more.
    fn check_end(&self, pushed: usize) {
        assert!(self.queue.is_empty() && self.queue.bytes() == 0, "something is left: {self:?}");
        assert_eq!(self.got.len(), 2 * pushed, "{self:?}");
        for pusher in &self.pushers {
            let mine: Vec<u8> =
                self.got.iter().copied().filter(|n| n & 0xf0 == pusher.name).collect();
            assert!(mine.is_sorted_by(|a, b| a >= b), "out of order: {self:?}");
        }
        assert!(self.got.chunks(2).all(|pair| pair[0] == pair[1]), "mixed: {self:?}");
    }
}

/// Goal: no interleaving of pushers, owner and socket loses a wake-up, an order, or a byte. Method: all of them.
#[test]
fn no_interleaving_leaves_anything_behind() {
    let mut ends = 0;
    for (counts, fills) in [(&[2, 2][..], 2), (&[1, 1, 1], 1), (&[3, 1], 1)] {
        let named =
            (1..).zip(counts).map(|(n, left)| Pusher { name: n << 4, left: *left, at: At::Start });
        let start = World {
            queue: Queue::new(()),
            pushers: named.collect(),
            owner: At::Start,
            called: false,
            writing: false,
            full: false,
            fills,
            got: Vec::new(),
        };
        let pushed = counts.iter().map(|count| usize::from(*count)).sum();
        let mut seen = BTreeSet::from([format!("{start:?}")]);
        let mut open = vec![start];
        while let Some(world) = open.pop() {
            let steps = world.steps();
            if steps.is_empty() {
                world.check_end(pushed);
                ends += 1;
            }
            open.extend(steps.into_iter().filter(|next| seen.insert(format!("{next:?}"))));
        }
        assert!(seen.len() > 500, "{}", seen.len());
    }
    assert!(ends > 20, "{ends}");
}
