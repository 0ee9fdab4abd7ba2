//! One connection of the Unix socket.

use crate::service::Service;
use crate::session::{Identity, Place, Session};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use weald_link::{Close, Limits, Outbound, Receive};
use weald_proto::frame::{Frame, HEADER_BYTES, Header};
use weald_proto::request::ClientRole;

/// Bytes read from the socket at once.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Bytes taken for a body before any of it has come.
const BODY_FIRST_BYTES: usize = 64 << 10;
/// Batches between the queue and the writer; the queue itself keeps no more than this under way.
const BATCHES: usize = 4;

/// The process at the other end, as far as the system tells.
pub(super) fn identity(stream: &UnixStream) -> Identity {
    let peer = match stream.peer_cred().map(|cred| cred.pid()) {
        Ok(Some(pid)) => format!("unix pid {pid}"),
        Ok(None) | Err(_) => "unix".to_owned(),
    };
    Identity {
        name: "local".to_owned(),
        role: ClientRole::Operator,
        peer,
    }
}

/// Ends the session, also when the task is aborted.
struct Ending(Arc<Session>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    stream: UnixStream,
    place: Place,
    identity: Identity,
    service: Arc<dyn Service>,
    limits: Limits,
) {
    let (read, mut write) = stream.into_split();
    let outbound = Arc::new(Outbound::new(&limits));
    let ending = Ending(Session::open(
        place,
        identity,
        service,
        Arc::clone(&outbound),
    ));
    let session = &ending.0;
    let (end, mut ended) = watch::channel(None);
    session.ends_by(move |why| {
        end.send_if_modified(|end| end.is_none().then(|| *end = Some(why)).is_some());
    });
    let (batches, mut to_write) = mpsc::channel::<Vec<u8>>(BATCHES);
    outbound.attach(move |batch| batches.try_send(batch).is_ok());
    let writer = async {
        while let Some(batch) = to_write.recv().await {
            if let Err(why) = write_all(&mut write, &batch, limits.idle_timeout).await {
                return why;
            }
            outbound.written();
        }
        Close::Local("the session has ended".to_owned())
    };
    let reader = read_frames(BufReader::with_capacity(READ_BUFFER_BYTES, read), session);
    let why = tokio::select! {
        why = reader => why,
        why = writer => why,
        why = ended.wait_for(Option::is_some) => match why {
            Ok(why) => why.clone().unwrap_or(Close::Peer),
            Err(_session_gone) => Close::Peer,
        },
    };
    match why {
        Close::Peer | Close::Io(_) => session.finish(),
        why => session.closed(&why),
    }
}

async fn write_all<W>(write: &mut W, batch: &[u8], timeout: Duration) -> Result<(), Close>
where
    W: AsyncWriteExt + Unpin,
{
    let mut rest = batch;
    while !rest.is_empty() {
        match tokio::time::timeout(timeout, write.write(rest)).await {
            Ok(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
            Ok(Err(e)) => return Err(Close::Io(e.to_string())),
            Err(_elapsed) => return Err(Close::Stalled),
        }
    }
    Ok(())
}

async fn read_frames<R: AsyncRead + Unpin>(mut read: R, session: &Session) -> Close {
    loop {
        match read_frame(&mut read).await {
            Ok(Some(frame)) => session.frame(frame),
            Ok(None) => return Close::Peer,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Close::Local(format!("malformed frame: {e}"));
            }
            Err(e) => return Close::Io(e.to_string()),
        }
    }
}

/// The next frame; none at the end. A body is allocated as it comes, not as it is announced.
async fn read_frame<R: AsyncRead + Unpin>(read: &mut R) -> io::Result<Option<Frame>> {
    let mut head = [0; HEADER_BYTES];
    match read.read_exact(&mut head).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let header =
        Header::decode(&head).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let mut body = Vec::with_capacity(header.len.min(BODY_FIRST_BYTES));
    read.take(header.len as u64).read_to_end(&mut body).await?;
    if body.len() < header.len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame {
        kind: header.kind,
        corr: header.corr,
        body,
    }))
}
