//! Two nodes, and a link that is cut: messages from clients of the one to actors at the other.

use super::{key, row, table, write};
use crate::support::{Node, QUIET, TestClient, member, wait_until};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use weald_cluster::gate::consistency::{Consistency, Place};
use weald_cluster::mail::MailHandle;
use weald_cluster::service::{BoxFuture, Push, PushError};
use weald_peers::{Channel, Cluster, Inbox, Network, PeerEvent, PeerInfo, SendError};
use weald_proto::request::{
    ClientRole, Deliver, Delivery, Register, SendTo, SendWith, reply_frame,
};
use weald_proto::{ErrorCode, Frame, Reply, Request, WireError};
use weald_storage::{Dot, NodeId, VersionVector, WriteOp};

/// The link between two nodes.
#[derive(Default)]
struct Link {
    ends: OnceLock<[(NodeId, MailHandle); 2]>,
    is_up: AtomicBool,
    /// So many frames are lost next.
    lose: AtomicUsize,
    lost: AtomicUsize,
}

/// One end of it.
struct End(Arc<Link>, NodeId);

impl Network for End {
    fn send(&self, to: NodeId, channel: Channel, _: u64, frame: &Frame) -> Result<(), SendError> {
        assert_eq!(channel, Channel::Relay);
        let other = self.0.ends.get().and_then(|ends| ends.iter().find(|(node, _)| *node == to));
        let (Some((_, mail)), true) = (other, self.0.is_up.load(Ordering::SeqCst)) else {
            return Err(SendError::NotConnected);
        };
        let loses =
            self.0.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if loses.is_ok() {
            self.0.lost.fetch_add(1, Ordering::SeqCst);
        } else {
            mail.frame(self.1, channel, frame.clone());
        }
        Ok(())
    }

    fn has_room(&self, _: NodeId, _: Channel) -> bool {
        self.0.is_up.load(Ordering::SeqCst)
    }
}

impl Link {
    fn set(&self, is_up: bool) {
        if self.is_up.swap(is_up, Ordering::SeqCst) == is_up {
            return;
        }
        let Some([a, b]) = self.ends.get() else { return };
        for ((_, mail), (other, _)) in [(a, b), (b, a)] {
            let info = PeerInfo {
                node: *other,
                name: String::new(),
                incarnation: 1,
                addresses: Vec::new(),
                capabilities: Vec::new(),
            };
            mail.peer(&if is_up {
                PeerEvent::Up(Arc::new(info))
            } else {
                PeerEvent::Down { node: *other, why: "cut".into(), is_agreed: false }
            });
        }
    }
}

/// A node whose sessions wait for a word.
#[derive(Clone)]
struct Behind(watch::Sender<bool>);

impl Consistency for Behind {
    fn is_caught_up(&self, _: &[u8]) -> Reply<bool> {
        Ok(*self.0.borrow())
    }

    fn caught_up(&self, _: Vec<u8>, deadline: Instant) -> BoxFuture<'static, Reply<()>> {
        let mut has = self.0.subscribe();
        Box::pin(async move {
            let waited = tokio::time::timeout_at(deadline, has.wait_for(|has| *has)).await;
            let late = |_elapsed| WireError::new(ErrorCode::NotCaughtUp, "behind");
            waited.map(|_has| ()).map_err(late)
        })
    }

    fn observe(&self, _: Option<&[u8]>, _: Place, _: &VersionVector) -> Reply<Vec<u8>> {
        Ok(vec![1])
    }

    fn acked(&self, _: Place, _: Vec<Dot>, _: u8, _: Instant) -> BoxFuture<'static, u8> {
        Box::pin(std::future::ready(0))
    }
}

/// An actor: keeps what it gets, and answers with that reversed, once it may.
#[derive(Clone)]
struct Actor {
    got: Arc<Mutex<Vec<Vec<u8>>>>,
    may_answer: watch::Sender<bool>,
}

impl Actor {
    fn got(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

impl Push for Actor {
    fn request(&self, frame: Frame, _: Duration) -> BoxFuture<'static, Result<Frame, PushError>> {
        let Ok(Request::Deliver(r)) = Request::decode(frame.kind, &frame.body) else {
            panic!("not a delivery: {frame:?}");
        };
        self.got.lock().unwrap().push(r.payload.clone());
        let mut may = self.may_answer.subscribe();
        Box::pin(async move {
            let waited = may.wait_for(|may| *may).await;
            waited.map_err(|_closed| PushError::Closed)?;
            let answer = if r.reply { r.payload.into_iter().rev().collect() } else { Vec::new() };
            Ok(reply_frame::<Deliver>(frame.corr, &Ok(answer)))
        })
    }
}

struct Two {
    a: Node,
    b: Node,
    link: Arc<Link>,
    behind: Behind,
    actor: Actor,
    client: TestClient,
}

impl Two {
    /// `pump` is an actor at the second node, of which the first has heard.
    async fn start() -> Self {
        let link = Arc::<Link>::default();
        let behind = Behind(watch::Sender::new(false));
        let end = |own| -> Arc<dyn Network> { Arc::new(End(Arc::clone(&link), own)) };
        let a = Node::start_with(QUIET, None, end).await;
        let b = Node::start_with(QUIET, Some(Arc::new(behind.clone())), end).await;
        let ids = [&a, &b].map(|node| node.storage.store.store().node_id());
        let ends = [(ids[0], a.mail.clone()), (ids[1], b.mail.clone())];
        assert!(link.ends.set(ends).is_ok());
        link.set(true);
        let incarnation = 7;
        for (node, other, name) in [(&a, ids[1], "b"), (&b, ids[0], "a")] {
            node.cluster.send_modify(|cluster| {
                let mut changed = Cluster::clone(cluster);
                changed.members.insert(other, member(other, name, incarnation));
                *cluster = Arc::new(changed);
            });
        }
        let actor = Actor { got: Arc::default(), may_answer: watch::Sender::new(true) };
        let owner = b.client_with(1, ClientRole::Writer, Arc::new(actor.clone()));
        owner.call(&Register { name: "pump".into() }).await.unwrap();
        let put = WriteOp::Put {
            table: table(),
            key: key("pump", ids[1]),
            value: row(7, 1),
            context: None,
            ttl: None,
        };
        write(&a, put).await;
        wait_until("it is found", || a.registry.whereis("pump").is_some_and(|n| n.node == "b"))
            .await;
        let client = a.client(9, ClientRole::Writer);
        Self { a, b, link, behind, actor, client }
    }

    fn once(&self, payload: &[u8], reply: bool) -> impl Future<Output = Reply<Vec<u8>>> + use<> {
        let payload = payload.to_vec();
        self.client.call(&SendTo { name: "pump".into(), payload, reply, timeout_ms: 20_000 })
    }

    fn with(&self, payload: u8, delivery: Delivery) -> impl Future<Output = Reply<()>> + use<> {
        self.within(payload, delivery, 20_000)
    }

    fn within(
        &self,
        payload: u8,
        delivery: Delivery,
        timeout_ms: u64,
    ) -> impl Future<Output = Reply<()>> + use<> {
        let (name, payload) = ("pump".into(), vec![payload]);
        self.client.call(&SendWith { name, payload, timeout_ms, delivery })
    }

    async fn stop(self) {
        for node in [&self.a, &self.b] {
            let needed = || node.mail.stats();
            assert_eq!(needed().malformed, 0);
        }
        self.a.stop().await;
        self.b.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actor_at_another_node_is_sent_to_and_called() {
    let two = Two::start().await;
    assert_eq!(two.once(b"abc", true).await.unwrap(), b"cba");
    assert_eq!(two.once(b"tell", false).await.unwrap(), b"");
    let deliveries = [Delivery::BestEffort, Delivery::Acknowledged];
    for (n, delivery) in (1..).zip(deliveries) {
        two.with(n, delivery).await.unwrap();
        assert_eq!(two.actor.got().last().unwrap(), &[n]);
    }
    two.with(3, Delivery::Monotonic { key: vec![1] }).await.unwrap();
    wait_until("it has come", || two.actor.got().last().is_some_and(|last| *last == [3])).await;
    // Many at once, in order.
    let sent: Vec<_> = (0..200_u8).map(|n| two.once(&[n], false)).collect();
    for sent in sent {
        sent.await.unwrap();
    }
    let got = two.actor.got();
    assert!(
        got[got.len() - 200..].iter().eq((0..200_u8).map(|n| vec![n]).collect::<Vec<_>>().iter())
    );
    for key in [vec![], vec![0; 256]] {
        let bad = two.with(1, Delivery::Monotonic { key }).await.unwrap_err();
        assert_eq!(bad.code, ErrorCode::Invalid);
    }
    let large = two.once(&vec![0; (8 << 20) - 1000], false).await.unwrap_err();
    assert_eq!(large.code, ErrorCode::Invalid, "{large}");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_sent_once_says_whether_it_left_when_the_link_is_cut() {
    let two = Two::start().await;
    two.actor.may_answer.send_replace(false);
    let call = tokio::spawn(two.once(b"1", true));
    wait_until("the actor has it", || two.actor.count() == 1).await;
    two.link.set(false);
    let cut = call.await.unwrap().unwrap_err();
    assert_eq!(cut.code, ErrorCode::Unknown);
    assert!(cut.message.contains("\"b\"") && cut.message.contains("may or may not"), "{cut}");
    let unsent = two.once(b"2", true).await.unwrap_err();
    assert_eq!(unsent.code, ErrorCode::Unavailable);
    assert!(unsent.message.contains("nothing was sent"), "{unsent}");
    two.link.set(true);
    two.actor.may_answer.send_replace(true);
    assert_eq!(two.once(b"34", true).await.unwrap(), b"43");
    assert_eq!(two.actor.got(), [b"1".to_vec(), b"34".to_vec()]);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_outlive_cuts_and_losses_and_come_once() {
    let two = Two::start().await;
    let mut sent = Vec::new();
    for round in 0..20_u8 {
        two.link.set(round % 4 != 1);
        two.link.lose.store(usize::from(round % 3), Ordering::SeqCst);
        sent.extend(
            (0..10).map(|n| tokio::spawn(two.with(round * 10 + n, Delivery::Acknowledged))),
        );
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    two.link.set(true);
    for sent in sent {
        sent.await.unwrap().unwrap();
    }
    let mut got = two.actor.got();
    got.sort();
    assert_eq!(got, (0..200).map(|n| vec![n]).collect::<Vec<_>>());
    assert!(two.link.lost.load(Ordering::SeqCst) > 0 && two.a.mail.stats().repeated > 0);
    // Never sent by its deadline: known not to have arrived.
    two.link.set(false);
    let late = two.within(0, Delivery::Acknowledged, 300).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::Unavailable, "{late}");
    two.link.set(true);
    two.with(0, Delivery::Acknowledged).await.unwrap();
    assert_eq!(two.actor.count(), 201);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_the_mail_ends_what_is_in_flight_and_delivers_nothing_twice() {
    let two = Two::start().await;
    for at in [&two.b, &two.a] {
        let before = two.actor.count();
        two.actor.may_answer.send_replace(false);
        let sent = tokio::spawn(two.with(1, Delivery::Acknowledged));
        wait_until("the actor has it", || two.actor.count() == before + 1).await;
        at.scope.kill("node/mail").unwrap();
        let error = sent.await.unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::Unknown, "{error}");
        wait_until("it is back", || at.mail.address().is_up()).await;
        two.actor.may_answer.send_replace(true);
        two.with(2, Delivery::Acknowledged).await.unwrap();
        assert_eq!(two.actor.count(), before + 2);
    }
    assert_eq!(two.once(b"abc", true).await.unwrap(), b"cba");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_message_of_a_key_is_what_comes_after_a_cut() {
    let two = Two::start().await;
    two.link.set(false);
    for n in 0..50_u8 {
        for key in [1, 2] {
            two.with(n + key * 100, Delivery::Monotonic { key: vec![key] }).await.unwrap();
        }
    }
    two.link.set(true);
    wait_until("both have come", || two.actor.count() >= 2).await;
    two.with(7, Delivery::Acknowledged).await.unwrap();
    assert_eq!(two.actor.got(), [[149], [249], [7]]);
    assert_eq!(two.a.mail.stats().replaced, 98);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn causal_message_waits_for_its_node_to_see_what_the_sender_saw() {
    let two = Two::start().await;
    let causal = || Delivery::Causal { token: vec![1] };
    let late = two.within(1, causal(), 4000).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::NotCaughtUp, "{late}");
    let waiting = tokio::spawn(two.with(2, causal()));
    two.with(3, Delivery::Acknowledged).await.unwrap();
    assert!(!waiting.is_finished());
    two.behind.0.send_replace(true);
    waiting.await.unwrap().unwrap();
    assert_eq!(two.actor.got(), [[3], [2]]);
    // An actor at the sender's own node, in the same way: its token is none of that node's.
    let own = two.a.client_with(2, ClientRole::Writer, Arc::new(two.actor.clone()));
    own.call(&Register { name: "own".into() }).await.unwrap();
    let send =
        SendWith { name: "own".into(), payload: vec![4], timeout_ms: 1000, delivery: causal() };
    assert_eq!(two.client.call(&send).await.unwrap_err().code, ErrorCode::Invalid);
    two.client.call(&SendWith { delivery: Delivery::Acknowledged, ..send }).await.unwrap();
    assert_eq!(two.actor.got().last().unwrap(), &[4]);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_has_moved_is_not_found_where_it_was() {
    let two = Two::start().await;
    two.b.close(1);
    wait_until("it is free there", || two.b.registry.whereis("pump").is_none()).await;
    for sent in [two.once(b"1", false).await.map(drop), two.with(1, Delivery::Acknowledged).await] {
        assert_eq!(sent.unwrap_err().code, ErrorCode::NotFound);
    }
    assert_eq!(two.actor.count(), 0);
    two.stop().await;
}
