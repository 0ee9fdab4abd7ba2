//! Many clients in one thread.
//!
//! Guarantees: no client waits for another; what a client queued is sent as soon as its socket takes it.

use super::client::{Client, Flushed, Received};
use crate::exit::{Exit, Failure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;
use weald_wamp::Message;

/// Octets of one read.
const READ_BYTES: usize = 64 << 10;
/// Reads of one client before others get their turn.
const READS_MAX: usize = 4;
/// Clients looked at in one round.
const READY_MAX: usize = 256;

/// Clients that do not block, by number.
pub(crate) struct Crowd {
    poll: OwnedFd,
    clients: Vec<Client>,
    /// Whose socket was full.
    full: Vec<bool>,
    ready: Vec<epoll::Event>,
    scratch: Vec<u8>,
}

impl fmt::Debug for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crowd").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

impl Crowd {
    /// Takes clients that are set up.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn new(clients: Vec<Client>) -> Result<Self, Failure> {
        let poll = epoll::create(CreateFlags::CLOEXEC).map_err(|e| refused(&e))?;
        for (number, client) in clients.iter().enumerate() {
            client.set_nonblocking()?;
            let data = EventData::new_u64(number as u64);
            epoll::add(&poll, client, data, EventFlags::IN).map_err(|e| refused(&e))?;
        }
        let full = vec![false; clients.len()];
        let (ready, scratch) = (Vec::with_capacity(READY_MAX), vec![0; READ_BYTES]);
        Ok(Self { poll, clients, full, ready, scratch })
    }

    /// A client.
    pub(crate) fn client(&mut self, number: usize) -> &mut Client {
        &mut self.clients[number]
    }

    /// Hands over what was read while the clients were set up.
    ///
    /// # Errors
    /// A connection ended, or `on` failed.
    pub(crate) fn begin(
        &mut self,
        on: &mut impl FnMut(usize, &mut Client, Message) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for number in 0..self.clients.len() {
            let mut each = |client: &mut Client, message| on(number, client, message);
            self.clients[number].drain(&mut each)?;
            self.flush(number)?;
        }
        Ok(())
    }

    /// Sends what the client has queued, now as far as possible, and the rest in later rounds.
    ///
    /// # Errors
    /// The connection ended.
    pub(crate) fn flush(&mut self, number: usize) -> Result<(), Failure> {
        let client = &mut self.clients[number];
        let full = client.queued_bytes() > 0 && client.flush()? == Flushed::Part;
        if full != self.full[number] {
            self.full[number] = full;
            let flags = if full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(number as u64);
            epoll::modify(&self.poll, &*client, data, flags).map_err(|e| refused(&e))?;
        }
        Ok(())
    }

    /// Waits until something happens or that time has passed, reads it, and sends what was queued meanwhile.
    ///
    /// # Errors
    /// A connection ended, or `on` failed.
    pub(crate) fn round(
        &mut self,
        limit: Duration,
        on: &mut impl FnMut(usize, &mut Client, Message) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let limit = Timespec::try_from(limit).ok();
        self.ready.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.ready);
        match epoll::wait(&self.poll, buffer, limit.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(refused(&error)),
        }
        for at in 0..self.ready.len() {
            let number = usize::try_from(self.ready[at].data.u64()).unwrap_or(usize::MAX);
            let Some(client) = self.clients.get_mut(number) else { continue };
            let mut each = |client: &mut Client, message| on(number, client, message);
            for _ in 0..READS_MAX {
                if client.receive(&mut self.scratch, &mut each)? == Received::All {
                    break;
                }
            }
            self.flush(number)?;
        }
        Ok(())
    }
}

fn refused(error: &rustix::io::Errno) -> Failure {
    Failure::new(Exit::Io, format!("wait for sockets: {error}"))
}
