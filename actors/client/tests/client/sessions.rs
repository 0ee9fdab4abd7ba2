//! Sessions, write concerns, and the cluster's operations as typed calls.

use crate::support::{SECOND, over_cluster};
use std::sync::atomic::Ordering;
use std::time::Duration;
use weald_client::{Concern, Error, MembershipEvent, Session, Token};
use weald_client_testing::FakeNode;

const SHORT: Duration = Duration::from_millis(80);

#[tokio::test(flavor = "multi_thread")]
async fn session_carries_its_token_to_another_node_which_waits_or_refuses() {
    let (here, there) = (FakeNode::start().await, FakeNode::start().await);
    let (a, b) = (over_cluster(&here, "a").await, over_cluster(&there, "b").await);
    let session = a.session();
    assert_eq!(session.token(), Token::default());
    let context = session.put("t", "k", "1").await.unwrap();
    session.put_if("t", "k", "2", Some(&context)).await.unwrap();
    session.delete("t", "other").await.unwrap();
    assert_eq!(session.get("t", "k").await.unwrap().value(), Some(&b"2"[..]));

    // The other node has made one write of three: it says so in time, and nothing is written.
    b.put("t", "k", "0").await.unwrap();
    let moved = Session::resume(&b, Token::from_bytes(session.token().as_bytes()));
    let refused = moved.get_within("t", "k", SHORT).await.unwrap_err();
    assert!(matches!(refused, Error::NotCaughtUp(_)) && refused.is_transient(), "{refused}");
    let refused = moved.put("t", "k", "9").deadline(SHORT).await.unwrap_err();
    assert!(matches!(refused, Error::NotCaughtUp(_)), "{refused}");
    assert!(matches!(moved.catch_up(SHORT).await, Err(Error::NotCaughtUp(_))));
    assert_eq!(moved.token(), session.token());
    assert_eq!(b.get("t", "k").await.unwrap().value(), Some(&b"0"[..]));

    // A read that waits is answered as soon as the rest is there, and what it saw is in the token.
    let waiting = tokio::spawn({
        let moved = moved.clone();
        async move { moved.get("t", "k").await }
    });
    for value in ["1", "2", "3"] {
        b.put("t", "k", value).await.unwrap();
    }
    assert!(waiting.await.unwrap().is_ok());
    moved.catch_up(SECOND).await.unwrap();
    assert_eq!(moved.get("t", "k").await.unwrap().value(), Some(&b"3"[..]));
    assert_ne!(moved.token(), session.token());
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_session_run_one_after_the_other() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    let session = client.session();
    let writes = (0..32_u8).map(|i| {
        let session = session.clone();
        tokio::spawn(async move { session.put("t", [i], [i]).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    // A token that had been overwritten by an older one would be less than the number of writes.
    assert_eq!(session.token().as_bytes(), 32_u64.to_be_bytes());

    // One that is under way holds the next back, not for longer than its deadline.
    let ahead = Session::resume(&client, Token::from_bytes(99_u64.to_be_bytes()));
    let first = tokio::spawn({
        let ahead = ahead.clone();
        async move { ahead.get_within("t", "k", 2 * SECOND).await }
    });
    while node.service.calls.load(Ordering::Relaxed) < 33 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(ahead.get_within("t", "k", SHORT).await, Err(Error::Overloaded(_))));
    let held = ahead.put("t", "k", "v").deadline(SHORT).await;
    assert!(matches!(held, Err(Error::Overloaded(_))), "{held:?}");
    assert!(matches!(first.await.unwrap(), Err(Error::NotCaughtUp(_))));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concern_that_is_not_met_leaves_the_write_and_says_how_many_have_it() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    node.service.others.store(1, Ordering::Relaxed);
    client.put("t", "k", "1").acked_by(1).await.unwrap();
    client.put("t", "k", "1").concern(Concern::Local).await.unwrap();

    let session = client.session();
    let unmet = session.put("t", "k", "2").acked_by(2).await.unwrap_err();
    let Error::ConcernNotMet { acked: 1, wanted: 2, ref context } = unmet else {
        panic!("{unmet}")
    };
    assert!(!unmet.is_transient() && unmet.code().is_none());
    let got = session.get("t", "k").await.unwrap();
    assert_eq!((got.value(), &got.context), (Some(&b"2"[..]), context));
    let unmet = client.delete("t", "k").concern(Concern::Members(3)).await.unwrap_err();
    assert!(matches!(unmet, Error::ConcernNotMet { acked: 1, wanted: 3, .. }), "{unmet}");
    assert_eq!(session.get("t", "k").await.unwrap().value(), None);
    // The session has seen its write, though its concern was not met.
    assert_eq!(session.token().as_bytes(), 4_u64.to_be_bytes());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_on_the_cluster_are_typed() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    let members = client.members().await.unwrap();
    assert_eq!((&*members.cluster, &*members.members[0].name), ("fake", "test-node"));
    assert_eq!(client.join(&["a:1".to_owned()]).await.unwrap(), members);
    let nobody = client.join(&["nobody:1".to_owned()]).await.unwrap_err();
    assert!(matches!(nobody, Error::Unavailable(_)), "{nobody}");
    client.leave().await.unwrap();
    assert!(matches!(client.forget("b").await, Err(Error::Invalid(_))));
    client.forget_by_force("b").await.unwrap();
    assert_eq!(client.cluster_status().await.unwrap().members, 1);
    assert_eq!(client.aae_status().await.unwrap().peers[0].name, "b");
    assert_eq!(client.aae_run("b", SECOND).await.unwrap().objects_in, 7);
    assert!(client.aae_diff("b", SECOND).await.unwrap().equal);

    let mut events = client.membership_events().await.unwrap();
    assert_eq!(events.next().await.unwrap(), MembershipEvent::Lagged);
    let MembershipEvent::Change(event) = events.next().await.unwrap() else { panic!() };
    assert_eq!((&*event.event, &*event.member.name), ("member_up", "b"));
    node.stop().await;
}
