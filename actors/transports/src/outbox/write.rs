//! Writing a batch of chunks with few system calls and little copying.
//!
//! What it guarantees: neighbouring small chunks are gathered in one buffer of the thread, large ones are written from where
//! they are; what the socket took is taken off the batch exactly.

use super::queue::{Batch, TURN_BYTES, Wrote};
use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;

/// Chunks up to this are gathered: copying them costs less than a slice of their own. // guess
const SMALL_BYTES: usize = 1024;
/// Size of the buffer for small chunks.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Slices of one system call.
const SLICES: usize = 32;
/// Bytes of one system call, more or less: it copies them while this task runs.
const CALL_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A part of what one system call writes.
enum Part {
    Gathered(Range<usize>),
    Chunk(usize),
}

/// Writes the batch until it is empty, `io` takes no more, or the turn is over; the cost of what is written, and which.
pub(super) fn write(
    batch: &mut Batch,
    turn_bytes: &mut usize,
    io: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> (usize, Wrote) {
    let mut freed = 0;
    loop {
        if batch.chunks.is_empty() {
            return (freed, Wrote::All);
        }
        if *turn_bytes >= TURN_BYTES {
            return (freed, Wrote::Turn);
        }
        match write_once(batch, io) {
            Ok(0) => return (freed, Wrote::Broken),
            Ok(bytes) => {
                *turn_bytes += bytes;
                freed += batch.written(bytes);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return (freed, Wrote::Blocked),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return (freed, Wrote::Broken),
        }
    }
}

fn write_once(
    batch: &Batch,
    io: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    if let [only] = batch.chunks.as_slices().0
        && batch.chunks.len() == 1
    {
        return io(&[IoSlice::new(&only[batch.offset..])]);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.reserve(SCRATCH_BYTES);
        let parts = plan(batch, scratch);
        let rest = |index: usize| &batch.chunks[index][if index == 0 { batch.offset } else { 0 }..];
        let slice = |part: &Part| match part {
            Part::Gathered(range) => IoSlice::new(&scratch[range.clone()]),
            Part::Chunk(index) => IoSlice::new(rest(*index)),
        };
        let mut slices = [IoSlice::new(&[]); SLICES];
        for (place, part) in slices.iter_mut().zip(&parts) {
            *place = slice(part);
        }
        io(&slices[..parts.len().min(SLICES)])
    })
}

/// What goes into one system call; small chunks are copied to `scratch`.
fn plan(batch: &Batch, scratch: &mut Vec<u8>) -> Parts {
    let mut parts = Parts::new();
    let mut bytes = 0;
    for (index, chunk) in batch.chunks.iter().enumerate() {
        let rest = &chunk[if index == 0 { batch.offset } else { 0 }..];
        if bytes >= CALL_BYTES {
            break;
        }
        if rest.len() > SMALL_BYTES {
            if parts.len() == SLICES {
                break;
            }
            parts.push(Part::Chunk(index));
        } else {
            let start = scratch.len();
            let end = start + rest.len();
            let follows = matches!(parts.last(), Some(Part::Gathered(_)));
            if end > SCRATCH_BYTES || (!follows && parts.len() == SLICES) {
                break;
            }
            scratch.extend_from_slice(rest);
            match parts.last_mut() {
                Some(Part::Gathered(range)) => range.end = end,
                _ => parts.push(Part::Gathered(start..end)),
            }
        }
        bytes += rest.len();
    }
    parts
}

type Parts = Vec<Part>;
