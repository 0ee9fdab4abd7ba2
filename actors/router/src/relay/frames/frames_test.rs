//! Messages of routing come out as they went in, and damaged ones are refused.

use proptest::prelude::*;
use weald_wamp::Value;

use super::*;

fn text() -> impl Strategy<Value = ByteString> {
    "[a-z.é]{0,12}".prop_map(ByteString::from)
}

fn session() -> impl Strategy<Value = SessionId> {
    (1..=weald_wamp::id::ID_MAX).prop_map(|number| SessionId::new(number).unwrap())
}

fn key() -> impl Strategy<Value = CallKey> {
    (session(), 1..1000u64)
        .prop_map(|(session, number)| CallKey { session, request: RequestId::new(number).unwrap() })
}

fn payload() -> impl Strategy<Value = Payload> {
    let raw = prop::collection::vec(any::<u8>(), 1..50);
    let serializer = prop::sample::select(Serializer::ALL.as_slice());
    let parts = prop_oneof![Just(Parts::Args), Just(Parts::ArgsKwargs)];
    prop_oneof![
        Just(Payload::empty()),
        (serializer, parts, raw).prop_map(|(serializer, parts, raw)| Payload::from_raw_trusted(
            serializer,
            parts,
            raw.into()
        )),
    ]
}

fn discloser() -> impl Strategy<Value = Discloser> {
    (session(), prop::option::of(text()), prop::option::of(text()))
        .prop_map(|(session, authid, authrole)| Discloser { session, authid, authrole })
}

fn ppt() -> impl Strategy<Value = Option<Box<Ppt>>> {
    let ppt =
        (text(), prop::option::of(text()), prop::option::of(text()), prop::option::of(text()))
            .prop_map(|(scheme, serializer, cipher, keyid)| {
                Box::new(Ppt { scheme, serializer, cipher, keyid })
            });
    prop::option::of(ppt)
}

fn receivers() -> impl Strategy<Value = Option<Box<Receivers>>> {
    let ids = || prop::option::of(prop::collection::vec(session(), 0..4));
    let names = || prop::option::of(prop::collection::vec(text(), 0..4));
    let receivers = (ids(), names(), names(), ids(), names(), names()).prop_map(
        |(
            exclude,
            exclude_authid,
            exclude_authrole,
            eligible,
            eligible_authid,
            eligible_authrole,
        )| {
            Box::new(Receivers {
                exclude,
                exclude_authid,
                exclude_authrole,
                eligible,
                eligible_authid,
                eligible_authrole,
            })
        },
    );
    prop::option::of(receivers)
}

fn publish() -> impl Strategy<Value = Message> {
    let who = (prop::option::of(session()), receivers(), prop::option::of(discloser()));
    let flags = (prop::option::of(any::<u64>()), any::<bool>(), any::<bool>());
    (text(), session(), text(), who, flags, ppt(), payload()).prop_map(
        |(realm, number, topic, who, flags, ppt, payload)| {
            let (without, receivers, publisher) = who;
            let (trustlevel, retain, retained) = flags;
            Message::Publish(Publish {
                realm,
                publication: PublicationId::new(number.get()).unwrap(),
                topic,
                without,
                receivers,
                publisher,
                trustlevel,
                retain,
                retained,
                ppt,
                payload,
            })
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let disclosure =
        prop_oneof![Just(Disclosure::Always), Just(Disclosure::Asked), Just(Disclosure::Never)];
    let numbers = (prop::option::of(any::<u64>()), prop::option::of(any::<u64>()));
    let flags = (any::<bool>(), any::<bool>());
    (text(), key(), text(), discloser(), (disclosure, numbers, flags), ppt(), payload()).prop_map(
        |(realm, key, procedure, caller, (disclosure, numbers, flags), ppt, payload)| Call {
            realm,
            key,
            registration: RegistrationId::new(key.session.get()).unwrap(),
            procedure,
            caller,
            disclosure,
            trustlevel: numbers.0,
            receive_progress: flags.0,
            progress: flags.1,
            timeout_ms: numbers.1,
            ppt,
            payload,
        },
    )
}

fn details() -> impl Strategy<Value = ErrorDetails> {
    (ppt(), prop::collection::btree_map("[a-z]{1,6}", any::<i32>(), 0..4)).prop_map(
        |(ppt, rest)| {
            let mut details = ErrorDetails { ppt, ..ErrorDetails::default() };
            for (name, number) in rest {
                details.rest.insert(name, Value::from(i64::from(number)));
            }
            details
        },
    )
}

fn about_calls() -> impl Strategy<Value = Message> {
    let modes = [CancelMode::Skip, CancelMode::Kill, CancelMode::KillNoWait];
    let mode = prop::sample::select(modes.to_vec());
    let cancel =
        (text(), key(), mode).prop_map(|(realm, key, mode)| Message::Cancel { realm, key, mode });
    let answer = (text(), key(), any::<bool>(), ppt(), payload()).prop_map(
        |(realm, key, progress, ppt, payload)| Message::Answer {
            realm,
            key,
            progress,
            ppt,
            payload,
        },
    );
    let failure = (text(), key(), text(), details(), payload()).prop_map(
        |(realm, key, error, details, payload)| Message::Failure {
            realm,
            key,
            error,
            details,
            payload,
        },
    );
    let short =
        (text(), key(), prop::option::of(any::<bool>())).prop_map(
            |(realm, key, taken)| match taken {
                Some(keeps_time) => Message::Taken { realm, key, keeps_time },
                None => Message::NotThere { realm, key },
            },
        );
    prop_oneof![cancel, answer, failure, short]
}

fn message() -> impl Strategy<Value = Message> {
    let kinds = prop_oneof![Just(Kind::Subscription), Just(Kind::Registration)];
    let policies = [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard];
    let row = (kinds, prop::sample::select(policies.to_vec()), text());
    let revoke = (text(), row, prop::option::of(session()), prop::option::of(text())).prop_map(
        |(realm, (kind, policy, uri), session, reason)| Message::Revoke {
            realm,
            kind,
            policy,
            uri,
            session,
            reason,
        },
    );
    let body = prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
    let ask =
        (prop::option::of(text()), any::<u64>(), body).prop_map(|(realm, ask, body)| match realm {
            Some(realm) => Message::Ask { realm, ask, body },
            None => Message::Reply { ask, body },
        });
    prop_oneof![
        publish(),
        call().prop_map(Message::Call),
        call().prop_map(Message::Chunk),
        about_calls(),
        revoke,
        ask
    ]
}

proptest! {
    #[test]
    fn message_round_trips(message in message()) {
        let frame = message.encode().unwrap();
        prop_assert_eq!(Message::decode(frame, &Limits::default()).unwrap(), message);
    }

    /// What is decoded from damaged bytes keeps the rules, so it can be encoded and decoded again.
    #[test]
    fn decode_of_damaged_bytes_refuses_or_keeps_the_rules(
        message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0..40usize
    ) {
        let mut frame = message.encode().unwrap();
        let index = at.index(frame.body.len());
        frame.body[index] = byte;
        let len = frame.body.len().saturating_sub(cut);
        frame.body.truncate(len);
        let limits = Limits::default();
        if let Ok(decoded) = Message::decode(frame, &limits) {
            let again = decoded.encode().unwrap();
            prop_assert!(Message::decode(again, &limits).is_ok());
        }
    }

    #[test]
    fn decode_of_any_bytes_does_not_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = Frame { kind: RELAY, corr: 0, body };
        if let Err(error) = Message::decode(frame, &Limits::default()) {
            prop_assert!(!error.why.is_empty());
        }
    }
}

fn cancel() -> Message {
    let (session, request) = (SessionId::new(7).unwrap(), RequestId::new(300).unwrap());
    let key = CallKey { session, request };
    Message::Cancel { realm: "r".into(), key, mode: CancelMode::Kill }
}

#[test]
fn bytes_of_a_cancel_hold() {
    let frame = cancel().encode().unwrap();
    assert_eq!(
        (frame.kind, frame.body.as_slice()),
        (0x1410, [1, 3, 1, b'r', 7, 172, 2, 1].as_slice())
    );
}

#[test]
fn what_is_wrong_is_said() {
    let why = |change: &dyn Fn(&mut Frame)| {
        let mut frame = cancel().encode().unwrap();
        change(&mut frame);
        Message::decode(frame, &Limits::default()).unwrap_err().to_string()
    };
    assert_eq!(why(&|f| f.body[0] = 9), "malformed format: 9 is not known here");
    assert_eq!(why(&|f| f.body[4] = 0), "malformed session: it is no id");
    assert_eq!(why(&|f| f.body[7] = 3), "malformed mode: 3 is not known here");
    assert_eq!(why(&|f| f.body.push(0)), "malformed message: 1 bytes are left over");
    assert_eq!(why(&|f| f.kind = 0x1401), "malformed frame: kind 0x1401 is not of routing");
    assert_eq!(why(&|f| f.body.clear()), "malformed body: it is empty");
}

#[test]
fn payload_is_a_slice_of_the_frame() {
    let raw = Bytes::from(vec![0x91; 5000]);
    let payload = Payload::from_raw_trusted(Serializer::MsgPack, Parts::Args, raw);
    let Message::Cancel { realm, key, .. } = cancel() else { panic!("it is a cancel") };
    let message = Message::Answer { realm, key, progress: false, ppt: None, payload };
    let frame = message.encode().unwrap();
    let range = frame.body.as_ptr_range();
    let decoded = Message::decode(frame, &Limits::default()).unwrap();
    let Message::Answer { payload, .. } = decoded else { panic!("it is an answer") };
    assert!(range.contains(&payload.raw().as_ptr()));
}

#[test]
fn questions_round_trip() {
    let question = (3u8, Some("x".to_owned()), vec![1u64, 2]);
    let body = pack(&question).unwrap();
    assert_eq!(unpack::<(u8, Option<String>, Vec<u64>)>(&body).unwrap(), question);
    assert!(unpack::<u8>(&body).is_err());
}
