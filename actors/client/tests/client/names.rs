//! Named actors between two clients.

use crate::support::{SECOND, both, eventually, over_cluster};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::mpsc;
use weald_client::ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use weald_client::{Delivery, Ended, Error, NamedActor};
use weald_client_testing::FakeNode;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    number: u32,
    text: String,
}

impl Message for Note {}

struct Notes(mpsc::Sender<Note>);

impl Actor for Notes {
    type Msg = Note;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Note>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Note>,
        note: Note,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.0.send(note).await?;
        Ok(())
    }
}

fn note(number: u32) -> Note {
    Note { number, text: format!("note {number}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_gets_messages_from_another_client_in_order() {
    let node = FakeNode::start().await;
    let [one, two] = both(&node).await;
    for (here, there) in [(&one, &two), (&two, &one)] {
        let (notes, mut received) = mpsc::channel(1000);
        let (actor, _) = Actor::spawn(None, Notes(notes), ()).await.unwrap();
        let registration = here.register("notes", actor.clone()).await.unwrap();
        assert_eq!(registration.name(), "notes");
        let found = there.whereis("notes").await.unwrap().unwrap();
        assert_eq!(found.name, "notes");
        assert_eq!(there.names("no").await.unwrap(), [found]);
        let named: NamedActor<Note> = there.actor("notes");
        for number in 0..200 {
            named.send(&note(number)).await.unwrap();
        }
        for number in 0..200 {
            assert_eq!(received.recv().await.unwrap(), note(number));
        }
        let call = named.call(&note(0), SECOND).await;
        assert!(matches!(call, Err(Error::Unsupported(_))), "{call:?}");
        let other: NamedActor<u8> = there.actor("notes");
        assert!(matches!(other.send(&1).await, Err(Error::Invalid(_))));

        // The name goes with the actor.
        actor.stop(None);
        eventually("the name is free", || node.service.names().is_empty()).await;
        assert!(matches!(named.send(&note(1)).await, Err(Error::NotFound(_))));
        drop(registration);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_name_answers_calls_and_keeps_deadlines() {
    let node = FakeNode::start().await;
    let [one, two] = both(&node).await;
    let registration = one
        .serve("double", |number: u64| async move {
            if number == 0 {
                std::future::pending::<()>().await;
            }
            number * 2
        })
        .await
        .unwrap();
    let double: NamedActor<u64, u64> = two.actor("double");
    assert_eq!(double.call(&21, SECOND).await, Ok(42));
    let slow = double.call(&0, Duration::from_millis(100)).await;
    assert!(matches!(slow, Err(Error::TimedOut(_))), "{slow:?}");
    let calls = (1..=500_u64).map(|n| {
        let double = double.clone();
        tokio::spawn(async move { double.call(&n, 10 * SECOND).await == Ok(n * 2) })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap());
    }
    assert!(matches!(two.serve("double", |n: u64| async move { n }).await, Err(Error::Taken(_))));
    assert_eq!(double.call(&4, SECOND).await, Ok(8), "a refused name is left with its owner");
    drop(registration);
    eventually("the name is free", || node.service.names().is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_freed_with_their_client_and_taken_again_after_a_reconnect() {
    let node = FakeNode::start().await;
    let one = over_cluster(&node, "one").await;
    let two = over_cluster(&node, "two").await;
    let _held = one.serve("echo", |text: String| async move { text }).await.unwrap();
    let echo: NamedActor<String, String> = two.actor("echo");
    for round in 0..5 {
        // The last call of the round before may have gone over a session that outlived the kill by a moment.
        eventually("sessions are up", || node.scope.kill("node/transport/clients").is_ok()).await;
        let until = tokio::time::Instant::now() + 10 * SECOND;
        while echo.call(&"x".to_owned(), SECOND).await != Ok("x".to_owned()) {
            assert!(tokio::time::Instant::now() < until, "round {round}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    drop((one, _held));
    eventually("the name is free", || node.service.names().is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_lost_ends_its_registration_with_the_reason() {
    let node = FakeNode::start().await;
    let [one, two] = both(&node).await;
    let mut held = one.serve("echo", |text: String| async move { text }).await.unwrap();
    let kept = one.serve("kept", |text: String| async move { text }).await.unwrap();
    node.service.lose("echo");
    let lost = Ended::Lost { node: "other-node".into(), owner: "other".into(), since_ms: 1 };
    let ended = tokio::time::timeout(20 * SECOND, held.ended()).await.unwrap();
    assert_eq!(ended, lost);
    assert_eq!(held.ended().await, lost, "it stays so");
    // The name is another's, or may be registered anew; the old registration has no part in it.
    let again = one.serve("echo", |text: String| async move { text }).await.unwrap();
    drop(held);
    let echo: NamedActor<String, String> = two.actor("echo");
    assert_eq!(echo.call(&"x".to_owned(), 20 * SECOND).await, Ok("x".to_owned()));
    assert_eq!(node.service.names(), ["echo", "kept"]);
    drop((again, kept));
    eventually("the names are free", || node.service.names().is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_with_each_delivery() {
    let node = FakeNode::start().await;
    let [one, two] = both(&node).await;
    let (notes, mut received) = mpsc::channel(100);
    let (actor, _) = Actor::spawn(None, Notes(notes), ()).await.unwrap();
    let mut held = one.register("notes", actor.clone()).await.unwrap();
    let named: NamedActor<Note> = two.actor("notes");
    let session = two.session();
    session.put("colours", "sky", "blue").await.unwrap();
    let deliveries = [
        Delivery::BestEffort,
        Delivery::Acknowledged,
        Delivery::monotonic("level"),
        Delivery::causal(&session),
        Delivery::causal(&two.session()),
    ];
    for (number, delivery) in (0..).zip(deliveries) {
        named.send(&note(number)).delivery(delivery).deadline(20 * SECOND).await.unwrap();
        assert_eq!(received.recv().await.unwrap(), note(number));
    }
    let nobody: NamedActor<Note> = two.actor("nobody");
    let error = nobody.send(&note(1)).delivery(Delivery::Acknowledged).await;
    assert!(matches!(error, Err(Error::NotFound(_))), "{error:?}");
    actor.stop(None);
    assert_eq!(tokio::time::timeout(20 * SECOND, held.ended()).await.unwrap(), Ended::Actor);
    node.stop().await;
}
