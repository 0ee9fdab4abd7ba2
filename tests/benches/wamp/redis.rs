//! The protocol of Redis: `PUBLISH` and `SUBSCRIBE` in RESP 2.

use super::lean::{Incoming, Wire, line, number};
use anyhow::{Result, bail};
use std::io::Write;

/// Redis.
#[derive(Debug)]
pub(crate) enum Redis {}

impl Wire for Redis {
    const HAS_CALLS: bool = false;

    fn hello(_out: &mut Vec<u8>) {}

    fn subscribe(subject: &str, out: &mut Vec<u8>) {
        command(&[b"SUBSCRIBE", subject.as_bytes()], out);
    }

    fn publish(subject: &[u8], _reply_to: Option<&str>, payload: &[u8], out: &mut Vec<u8>) {
        command(&[b"PUBLISH", subject, payload], out);
    }

    fn take<'a>(input: &'a [u8], at: &mut usize) -> Result<Option<Incoming<'a>>> {
        let Some((head, mut from)) = line(input, *at) else { return Ok(None) };
        match head.first() {
            // Answers to PUBLISH: how many got it.
            Some(b':' | b'+') => {
                *at = from;
                Ok(Some(Incoming::Nothing))
            }
            Some(b'*') => {
                let mut payload = None;
                for _ in 0..number(&head[1..])? {
                    let Some((item, next)) = line(input, from) else { return Ok(None) };
                    from = next;
                    payload = None;
                    if let Some(len) = item.strip_prefix(b"$") {
                        let len = number(len)?;
                        if input.len() < from + len + 2 {
                            return Ok(None);
                        }
                        payload = Some(&input[from..from + len]);
                        from += len + 2;
                    }
                }
                *at = from;
                // The last of a message is its payload; that of an answer to SUBSCRIBE is a number.
                Ok(Some(match payload {
                    Some(payload) => Incoming::Message { reply_to: None, payload },
                    None => Incoming::Nothing,
                }))
            }
            _ => bail!("{}", String::from_utf8_lossy(head)),
        }
    }
}

fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    write!(out, "*{}\r\n", words.len()).ok();
    for word in words {
        write!(out, "${}\r\n", word.len()).ok();
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
