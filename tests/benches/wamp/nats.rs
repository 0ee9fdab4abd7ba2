//! The protocol of NATS: `PUB`, `SUB`, `MSG`.

use super::lean::{Incoming, Wire, line, number};
use anyhow::{Context, Result, bail};
use std::io::Write;

/// NATS.
#[derive(Debug)]
pub(crate) enum Nats {}

impl Wire for Nats {
    const HAS_CALLS: bool = true;

    fn hello(out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
    }

    fn subscribe(subject: &str, out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        write!(out, "SUB {subject} 1\r\n").ok();
    }

    fn publish(subject: &[u8], reply_to: Option<&str>, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(subject);
        if let Some(reply_to) = reply_to {
            out.push(b' ');
            out.extend_from_slice(reply_to.as_bytes());
        }
        write!(out, " {}\r\n", payload.len()).ok();
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn take<'a>(input: &'a [u8], at: &mut usize) -> Result<Option<Incoming<'a>>> {
        let Some((head, from)) = line(input, *at) else { return Ok(None) };
        let Some(rest) = head.strip_prefix(b"MSG ") else {
            *at = from;
            return match head {
                b"PING" => Ok(Some(Incoming::Ping(b"PONG\r\n"))),
                _ if head.starts_with(b"-ERR") => bail!("{}", String::from_utf8_lossy(head)),
                _ => Ok(Some(Incoming::Nothing)),
            };
        };
        // SUBJECT ID [REPLY] LEN
        let mut fields = rest.split(|octet| *octet == b' ').skip(2);
        let (third, fourth) = (fields.next().context("MSG without a length")?, fields.next());
        let (reply_to, len) = match fourth {
            Some(len) => (Some(third), number(len)?),
            None => (None, number(third)?),
        };
        let Some(payload) = input.get(from..from + len) else { return Ok(None) };
        if input.len() < from + len + 2 {
            return Ok(None);
        }
        *at = from + len + 2;
        Ok(Some(Incoming::Message { reply_to, payload }))
    }
}
