//! Sessions of the command line: `--session FILE` of `get`, `put` and `delete`, and `--acked-by`.
//!
//! # Shape
//! The file holds the token as hexadecimal digits. It is replaced as a whole after each command; two commands at a time with
//! one file are two sessions, of which the last one stays.

use super::cluster::{SLACK, millis};
use crate::api::Api;
use crate::args::SessionFile;
use crate::exit::{Exit, Failure};
use crate::text;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use weald_proto::error::Current;
use weald_proto::limits::WAIT_MS_MAX;
use weald_proto::request::{GetWith, Op, WriteWith};

/// What was seen, and where that is kept.
pub(super) struct Session {
    file: PathBuf,
    token: Option<Vec<u8>>,
}

impl Session {
    /// The session that was asked for, if one was.
    pub(super) fn of(args: &SessionFile) -> Result<Option<Self>, Failure> {
        let Some(file) = args.file.clone() else { return Ok(None) };
        let token = match std::fs::read_to_string(&file) {
            Ok(hex) => {
                let token = text::unhex(hex.trim()).map_err(|why| {
                    let text = format!("{} is no session file: it {why}", file.display());
                    Failure::new(Exit::Usage, text)
                })?;
                (!token.is_empty()).then_some(token)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Failure::file("read", &file, &e)),
        };
        Ok(Some(Self { file, token }))
    }

    pub(super) async fn get<A: Api>(
        self,
        api: &A,
        table: String,
        key: Vec<u8>,
        deadline: Duration,
    ) -> Result<Current, Failure> {
        let wait_ms = wait_ms(deadline);
        let call = GetWith { table, key, token: self.token.clone(), wait_ms };
        let seen = api.request(call, deadline + SLACK).await?;
        self.keep(&seen.token)?;
        Ok(seen.current)
    }

    fn keep(&self, token: &[u8]) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::file("write", &self.file, &e);
        let mut name = self.file.clone().into_os_string();
        name.push(".tmp");
        std::fs::write(&name, format!("{}\n", text::hex(token))).map_err(failed)?;
        std::fs::rename(&name, &self.file).map_err(failed)
    }
}

/// Writes, in a session if there is one. Gives the context, and what to say when too few members have it.
pub(super) async fn write<A: Api>(
    api: &A,
    op: Op,
    session: Option<Session>,
    members: u8,
    deadline: Duration,
) -> Result<(Vec<u8>, Option<Failure>), Failure> {
    let token = session.as_ref().and_then(|session| session.token.clone());
    let call = WriteWith { op, token, wait_ms: wait_ms(deadline), concern: members };
    let written = api.request(call, deadline + SLACK).await?;
    if let Some(session) = session {
        session.keep(&written.token)?;
    }
    let unmet = (written.acked < members).then(|| {
        let text = format!(
            "the write is durable on the node, but {} of {members} other members had it in time; the rest get it \
             later",
            written.acked
        );
        Failure::new(Exit::ConcernNotMet, text)
    });
    Ok((written.context, unmet))
}

fn wait_ms(deadline: Duration) -> u64 {
    millis(deadline).min(WAIT_MS_MAX)
}
