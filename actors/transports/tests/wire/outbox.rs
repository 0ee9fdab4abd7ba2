//! Queues of clients that read slowly, not at all, or never again.

use crate::common::{PATIENCE, exactly, raw_pair, rest, settings, settings_with, tcp_pair, within};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use weald_transports::{
    Class, Close, Connection, EgressConfig, Flushes, Kick, Outbox, Policy, Pushed, Read, Settings,
    accept_raw,
};

/// Until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn message(outbox: &Outbox, bytes: usize) -> Bytes {
    outbox.framing().frame(|out| out.resize(out.len() + bytes, b'x'))
}

/// Sends until the socket takes no more, then `more` bytes in messages of a kilobyte; what the last push said.
fn fill(outbox: &Outbox, class: Class, more: usize) -> Pushed {
    let mut flushes = Flushes::new();
    let mut last = Pushed::Queued;
    while outbox.queued_bytes() < 1 + more {
        last = flushes.push(outbox, message(outbox, 1_000), class);
        if matches!(last, Pushed::Refused | Pushed::Dropped) {
            break;
        }
        flushes.flush();
    }
    last
}

/// Reads in its own task until something else than messages comes.
fn serve(mut connection: Connection) -> tokio::task::JoinHandle<(Connection, Read)> {
    tokio::spawn(async move {
        let mut inbox = Vec::new();
        loop {
            let read = connection.read(&mut inbox, None).await;
            inbox.clear();
            if read != Read::Messages {
                return (connection, read);
            }
        }
    })
}

fn config() -> EgressConfig {
    EgressConfig { queue_bytes_max: 200_000, ..EgressConfig::default() }
}

#[tokio::test]
async fn client_that_does_not_read_is_disconnected_when_its_queue_is_full() {
    let settings = settings_with(config());
    let (connection, client) = raw_pair(&settings).await;
    let outbox = connection.outbox().clone();
    let server = serve(connection);
    assert_eq!(fill(&outbox, Class::Event, usize::MAX - 1), Pushed::Refused);
    let (_connection, read) = within(server).await.unwrap();
    assert_eq!(read, Read::Kicked(Kick::QueueFull));
    let counts = settings.egress.counts();
    assert_eq!((counts.queue_full, counts.stuck_bytes, counts.stuck_connections), (1, 0, 0));
    assert_eq!(outbox.queued_bytes(), 0);
    drop(client);
}

#[tokio::test]
async fn events_are_dropped_by_policy_and_replies_are_not() {
    let settings = settings_with(EgressConfig { policy: Policy::DropEvents, ..config() });
    let (connection, mut client) = raw_pair(&settings).await;
    let outbox = connection.outbox().clone();
    let server = serve(connection);
    assert_eq!(fill(&outbox, Class::Event, usize::MAX - 1), Pushed::Dropped);
    assert_eq!(fill(&outbox, Class::Event, usize::MAX - 1), Pushed::Dropped);
    assert!(settings.egress.counts().dropped_events >= 2);
    // Once it reads it gets what was queued, and more.
    let mut got = 0;
    while outbox.queued_bytes() > 0 {
        got += exactly(&mut client, 1_004).await.len();
    }
    assert!(got >= 190_000, "{got}");
    assert_eq!(fill(&outbox, Class::Reply, usize::MAX - 1), Pushed::Refused);
    assert_eq!(within(server).await.unwrap().1, Read::Kicked(Kick::QueueFull));
}

#[tokio::test]
async fn socket_that_takes_nothing_for_too_long_is_given_up() {
    let stuck_max = Duration::from_millis(200);
    let settings = settings_with(EgressConfig { stuck_max, ..config() });
    let (connection, _client) = raw_pair(&settings).await;
    let outbox = connection.outbox().clone();
    let server = serve(connection);
    let _last = fill(&outbox, Class::Event, 0);
    let (_connection, read) = within(server).await.unwrap();
    assert_eq!(read, Read::Kicked(Kick::Stuck));
    assert_eq!((settings.egress.counts().stuck, settings.egress.counts().stuck_bytes), (1, 0));
}

#[tokio::test]
async fn socket_that_takes_nothing_for_too_long_gets_no_more_events_by_policy() {
    let stuck_max = Duration::from_millis(200);
    let policy = Policy::DropEvents;
    let settings = settings_with(EgressConfig { stuck_max, policy, ..config() });
    let (connection, mut client) = raw_pair(&settings).await;
    let outbox = connection.outbox().clone();
    let _server = serve(connection);
    let _last = fill(&outbox, Class::Event, 0);
    until("no event is dropped", || {
        outbox.push(message(&outbox, 1), Class::Event) == Pushed::Dropped
    })
    .await;
    until("reading does not help", || {
        let mut buffer = [0; 4_096];
        while client.try_read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
        let mut flushes = Flushes::new();
        flushes.push(&outbox, message(&outbox, 1), Class::Event) != Pushed::Dropped
    })
    .await;
    client.shutdown().await.unwrap();
}

#[tokio::test]
async fn largest_queue_pays_for_the_budget() {
    let settings = settings_with(EgressConfig {
        queue_bytes_max: 10_000_000,
        budget_bytes: 400_000,
        ..EgressConfig::default()
    });
    let mut servers = Vec::new();
    let mut outboxes = Vec::new();
    let mut clients = Vec::new();
    for more in [50_000, 300_000, 20_000] {
        let (connection, client) = raw_pair(&settings).await;
        outboxes.push(connection.outbox().clone());
        servers.push(serve(connection));
        clients.push(client);
        let _last = fill(outboxes.last().unwrap(), Class::Reply, more);
    }
    assert_eq!(settings.egress.counts().budget, 0);
    // Goes over the budget, and has less than the second one.
    let _last = fill(&outboxes[0], Class::Reply, 100_000);
    let (_connection, read) = within(servers.remove(1)).await.unwrap();
    assert_eq!(read, Read::Kicked(Kick::Budget));
    let counts = settings.egress.counts();
    assert_eq!((counts.budget, counts.stuck_connections), (1, 2));
    assert!((120_000..=400_000).contains(&counts.stuck_bytes), "{counts:?}");
    // The first is the largest now, and goes over the budget by itself.
    assert_eq!(fill(&outboxes[0], Class::Reply, usize::MAX - 1), Pushed::Refused);
    let (_connection, read) = within(servers.remove(0)).await.unwrap();
    assert_eq!(read, Read::Kicked(Kick::Budget));
    assert!(outboxes[2].queued_bytes() > 20_000, "the third was none of it");
    assert_eq!(clients.len(), 3);
}

#[tokio::test]
async fn message_too_long_for_the_client_is_not_sent() {
    let (accepted, mut client) = tcp_pair().await;
    let settings = settings();
    client.write_all(&[0x7f, 0x02, 0, 0]).await.unwrap();
    let connection = within(accept_raw(accepted, &settings)).await.unwrap();
    let outbox = connection.outbox().clone();
    assert_eq!(outbox.message_bytes_max(), 512);
    assert_eq!(outbox.push(message(&outbox, 513), Class::Reply), Pushed::TooLarge);
    assert_eq!(outbox.push(message(&outbox, 512), Class::Reply), Pushed::First);
    outbox.flush();
    assert_eq!(exactly(&mut client, 4 + 4 + 512).await[4..8], [0, 0, 2, 0]);
    assert_eq!(settings.egress.counts().too_large, 1);
}

#[tokio::test]
async fn close_sends_what_is_queued_to_a_slow_reader() {
    let (connection, mut client) = raw_pair(&settings()).await;
    let outbox = connection.outbox().clone();
    let mut pushed = 0;
    while outbox.queued_bytes() < 500_000 {
        if outbox.push(message(&outbox, 10_000), Class::Reply) == Pushed::First {
            outbox.flush();
        }
        pushed += 1;
    }
    let closing = tokio::spawn(connection.close(Close::Normal, PATIENCE));
    assert_eq!(rest(&mut client).await.len(), pushed * 10_004);
    drop(client);
    within(closing).await.unwrap();
}

#[tokio::test]
async fn close_gives_up_a_reader_that_does_not_read() {
    let (connection, _client) = raw_pair(&settings()).await;
    let outbox = connection.outbox().clone();
    let _last = fill(&outbox, Class::Reply, 100_000);
    within(connection.close(Close::Normal, Duration::from_millis(100))).await;
    assert_eq!(outbox.push(message(&outbox, 1), Class::Reply), Pushed::Refused);
}

#[tokio::test]
async fn dropped_connection_is_cut_though_outboxes_live() {
    let (connection, mut client) = raw_pair(&settings()).await;
    let outbox = connection.outbox().clone();
    drop(connection);
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(outbox.push(message(&outbox, 1), Class::Reply), Pushed::Refused);
}

#[tokio::test]
async fn flushes_flush_when_dropped_by_a_panic() {
    let (connection, mut client) = raw_pair(&settings()).await;
    let outbox = connection.outbox().clone();
    let task = tokio::spawn(async move {
        let mut flushes = Flushes::new();
        let _outcome = flushes.push(&outbox, message(&outbox, 3), Class::Reply);
        panic!("as tested");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(exactly(&mut client, 7).await, b"\0\0\0\x03xxx");
    drop(connection);
}

/// Reads numbered messages of several senders and checks that none is missing, doubled or out of order.
async fn check_numbers(client: &mut TcpStream, senders: usize, each: u32) {
    let mut next = BTreeMap::new();
    for count in 0..senders as u64 * u64::from(each) {
        let head = exactly(client, 4 + 5).await;
        let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
        exactly(client, length - 5).await;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let expected = next.entry(head[4]).or_insert(0);
        assert_eq!(number, *expected, "sender {}", head[4]);
        *expected += 1;
        if count % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Goal: nothing is lost, doubled or out of order however threads meet at one outbox. Method: many tasks on several
/// threads push numbered messages of changing length; the client reads in fits and starts, so that the socket blocks.
async fn numbers(settings: Settings, wait: bool) {
    const SENDERS: usize = 8;
    const EACH: u32 = 3_000;
    let (connection, mut client) = raw_pair(&settings).await;
    let outbox = connection.outbox().clone();
    let server = serve(connection);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let outbox = outbox.clone();
            tokio::spawn(async move {
                let mut flushes = Flushes::new();
                for number in 0..EACH {
                    let padding = [0, 30, 2_000][number as usize % 3];
                    let framed = outbox.framing().frame(|out| {
                        out.push(u8::try_from(sender).unwrap());
                        out.extend(number.to_be_bytes());
                        out.resize(out.len() + padding, 0);
                    });
                    let pushed = flushes.push(&outbox, framed, Class::Reply);
                    assert!(matches!(pushed, Pushed::First | Pushed::Queued), "{pushed:?}");
                    if number % 7 == 0 {
                        flushes.flush();
                        if wait {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            })
        })
        .collect();
    check_numbers(&mut client, SENDERS, EACH).await;
    for sender in senders {
        within(sender).await.unwrap();
    }
    assert_eq!(settings.egress.counts().stuck_bytes, 0);
    drop(client);
    assert!(matches!(within(server).await.unwrap().1, Read::Closed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_at_one_outbox_lose_nothing() {
    let config = EgressConfig { queue_bytes_max: 1 << 30, ..EgressConfig::default() };
    numbers(settings_with(config.clone()), true).await;
    numbers(settings_with(config), false).await;
}
