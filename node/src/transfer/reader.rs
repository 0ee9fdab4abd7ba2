//! Reading the input of an import into batches.
//!
//! Guarantees: memory is bounded however long a line is; every line of the input is in exactly one batch or reported as bad; in
//! one batch no key appears twice, so that the operations of a batch may be done again in any order.

use super::checkpoint::Mark;
use super::line;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead};
use weald_proto::request::Put;

/// Longest line, in bytes: the largest value in base64, with room for a key in escapes.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 20;
/// Most bytes of keys and values in a batch that holds more than one entry; well under the limit of a frame.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Lines that travel together.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Counts up from 0.
    pub(crate) seq: u64,
    /// The writes, with the number of the line of each.
    pub(crate) puts: Vec<(u64, Put)>,
    /// Identifies the keys; equal keys have equal ids, and once in a long while different ones have, too.
    pub(crate) ids: BTreeSet<u64>,
    /// The end of the batch in the input.
    pub(crate) end: Mark,
}

/// A line that is not an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// What comes next in the input.
#[derive(Debug)]
pub(crate) enum Next {
    /// Lines to be sent.
    Batch(Batch),
    /// A line to be reported.
    Bad(BadLine),
    /// The end.
    End,
}

/// How to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most entries in a batch.
    pub(crate) batch_ops: usize,
    /// Send what is there when the next read would wait: for a pipe that somebody types into.
    pub(crate) eager: bool,
}

/// Batches of an input.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: io::BufReader<R>,
    limits: Limits,
    at: Mark,
    seq: u64,
    next_line: Vec<u8>,
    held: Option<(u64, u64, Put)>,
    held_mark: Mark,
    bad: Option<BadLine>,
    ended: bool,
}

enum Read {
    Line,
    TooLong,
    End,
}

impl<R: io::Read> Reader<R> {
    /// Reads from the start.
    pub(crate) fn new(input: R, limits: Limits) -> Self {
        Self {
            input: io::BufReader::with_capacity(1 << 20, input),
            limits,
            at: Mark::default(),
            seq: 0,
            next_line: Vec::new(),
            held: None,
            held_mark: Mark::default(),
            bad: None,
            ended: false,
        }
    }

    /// Skips the part before a mark, if that part is the one the mark was made of.
    ///
    /// # Errors
    /// Of the outer kind when the input cannot be read, of the inner kind when it is another input.
    pub(crate) fn skip(&mut self, mark: Mark) -> io::Result<Result<(), String>> {
        let mut crc = 0;
        let mut left = mark.offset;
        while left > 0 {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(Err(format!("it is {left} bytes shorter than what was imported")));
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(available.len());
            crc = crc32c::crc32c_append(crc, &available[..take]);
            self.input.consume(take);
            left -= take as u64;
        }
        if crc != mark.crc32c {
            return Ok(Err(format!("its first {} lines are not those imported", mark.line)));
        }
        self.at = mark;
        Ok(Ok(()))
    }

    /// The next batch or bad line.
    pub(crate) fn next(&mut self) -> io::Result<Next> {
        if let Some(bad) = self.bad.take() {
            return Ok(Next::Bad(bad));
        }
        let mut batch =
            Batch { seq: self.seq, puts: Vec::new(), ids: BTreeSet::new(), end: self.at };
        let mut bytes = 0;
        if let Some((number, id, put)) = self.held.take() {
            bytes += put.key.len() + put.value.len();
            batch.ids.insert(id);
            batch.puts.push((number, put));
            batch.end = self.held_mark;
        }
        while batch.puts.len() < self.limits.batch_ops && bytes < BATCH_BYTES_MAX && !self.ended {
            if self.limits.eager && !batch.puts.is_empty() && self.input.buffer().is_empty() {
                break;
            }
            match self.read_entry()? {
                None => {}
                Some(Err(bad)) => {
                    if batch.puts.is_empty() {
                        return Ok(Next::Bad(bad));
                    }
                    // The batch ends before the bad line: what comes out stays in the order of the input.
                    self.bad = Some(bad);
                    break;
                }
                Some(Ok(put)) => {
                    let id = id_of(&put);
                    let size = put.key.len() + put.value.len();
                    if batch.ids.contains(&id) || (bytes + size > BATCH_BYTES_MAX && bytes > 0) {
                        self.held = Some((self.at.line, id, put));
                        self.held_mark = self.at;
                        break;
                    }
                    bytes += size;
                    batch.ids.insert(id);
                    batch.puts.push((self.at.line, put));
                }
            }
            batch.end = self.at;
        }
        if batch.puts.is_empty() {
            return Ok(Next::End);
        }
        self.seq += 1;
        Ok(Next::Batch(batch))
    }

    /// The end of the input, once [`Next::End`] was returned: bad lines and blank ones at the end included.
    pub(crate) fn end(&self) -> Mark {
        self.at
    }

    /// One line: none when it is blank or there is none.
    fn read_entry(&mut self) -> io::Result<Option<Result<Put, BadLine>>> {
        let read = self.read_line()?;
        let bad = |reason: String| BadLine { number: self.at.line, reason };
        Ok(match read {
            Read::End => {
                self.ended = true;
                None
            }
            Read::TooLong => Some(Err(bad(format!("longer than {LINE_BYTES_MAX} bytes")))),
            Read::Line if self.next_line.trim_ascii().is_empty() => None,
            Read::Line => Some(line::parse(&self.next_line).map_err(bad)),
        })
    }

    fn read_line(&mut self) -> io::Result<Read> {
        self.next_line.clear();
        let mut any = false;
        let mut too_long = false;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.map_or(available.len(), |end| end + 1)];
            too_long |= self.next_line.len() + part.len() > LINE_BYTES_MAX;
            if !too_long {
                self.next_line.extend_from_slice(part);
            }
            let taken = part.len();
            self.at.crc32c = crc32c::crc32c_append(self.at.crc32c, part);
            self.at.offset += taken as u64;
            self.input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(Read::End);
        }
        self.at.line += 1;
        Ok(if too_long { Read::TooLong } else { Read::Line })
    }
}

fn id_of(put: &Put) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&put.table, &put.key).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> String {
        format!("{{\"table\": \"t\", \"key\": \"{key}\", \"value\": 1}}\n")
    }

    fn read_all(input: &str, batch_ops: usize) -> (Vec<Vec<u64>>, Vec<u64>, Mark) {
        let mut reader = Reader::new(input.as_bytes(), Limits { batch_ops, eager: false });
        let (mut batches, mut bad) = (Vec::new(), Vec::new());
        loop {
            match reader.next().unwrap() {
                Next::Batch(batch) => {
                    assert_eq!(batch.seq, batches.len() as u64);
                    batches.push(batch.puts.iter().map(|(number, _)| *number).collect());
                }
                Next::Bad(line) => bad.push(line.number),
                Next::End => return (batches, bad, reader.end()),
            }
        }
    }

    #[test]
    fn batches_are_cut_by_size_repeated_keys_and_bad_lines() {
        let input = [entry("a"), entry("b"), entry("c"), entry("c"), entry("d")].concat();
        let (batches, bad, end) = read_all(&input, 2);
        assert_eq!(batches, [vec![1, 2], vec![3], vec![4, 5]]);
        assert!(bad.is_empty());
        assert_eq!((end.line, end.offset), (5, input.len() as u64));
        assert_eq!(end.crc32c, crc32c::crc32c(input.as_bytes()));

        let input = format!("{}nonsense\n\n{}bad", entry("a"), entry("b"));
        let (batches, bad, end) = read_all(&input, 10);
        assert_eq!(batches, [vec![1], vec![4]]);
        assert_eq!(bad, [2, 5]);
        assert_eq!(end.line, 5);
    }

    #[test]
    fn skip_goes_on_where_a_batch_ended_and_refuses_another_input() {
        let input = [entry("a"), entry("b"), entry("c")].concat();
        let limits = Limits { batch_ops: 2, eager: false };
        let mut reader = Reader::new(input.as_bytes(), limits);
        let Next::Batch(first) = reader.next().unwrap() else { panic!("no batch") };
        assert_eq!(first.end.line, 2);

        let mut again = Reader::new(input.as_bytes(), limits);
        assert_eq!(again.skip(first.end).unwrap(), Ok(()));
        let Next::Batch(rest) = again.next().unwrap() else { panic!("no batch") };
        assert_eq!(rest.puts[0].0, 3);

        let other = input.replace('a', "x");
        assert!(Reader::new(other.as_bytes(), limits).skip(first.end).unwrap().is_err());
        assert!(Reader::new(&input.as_bytes()[..9], limits).skip(first.end).unwrap().is_err());
    }

    #[test]
    fn endless_line_is_one_bad_line() {
        let input = format!("{}\n{}", "x".repeat(LINE_BYTES_MAX + 1), entry("a"));
        let (batches, bad, _) = read_all(&input, 10);
        assert_eq!((batches, bad), (vec![vec![2]], vec![1]));
    }
}
