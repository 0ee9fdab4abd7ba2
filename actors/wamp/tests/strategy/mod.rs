//! Any values and any messages.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weald_wamp::message::*;
use weald_wamp::roles::{Features, Roles};
use weald_wamp::{
    ByteString, Dict, Message, Payload, PublicationId, RegistrationId, RequestId, Serializer,
    SessionId, SubscriptionId, Value,
};

/// Text of all sorts, but none that JSON takes for octets.
pub(crate) fn text() -> BoxedStrategy<ByteString> {
    prop_oneof![
        "[a-z.]{0,24}",
        "[ -~]{0,80}",
        "\\PC{0,12}",
        "[\u{1}-\u{1f}\"\\\\/\u{7f}\u{2028}\u{10ffff}]{0,8}",
        "x\u{0}.{0,3}",
        "[a-z]{250,300}",
    ]
    .prop_map(ByteString::from)
    .boxed()
}

fn integer() -> BoxedStrategy<i128> {
    prop_oneof![
        any::<u64>().prop_map(i128::from),
        any::<i64>().prop_map(i128::from),
        -70_000..70_000i128,
        (0u32..64, -1i128..=1).prop_map(|(bits, off)| (1i128 << bits) + off),
        (0u32..63, -1i128..=1).prop_map(|(bits, off)| -(1i128 << bits) + off),
    ]
    .boxed()
}

fn leaf() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        integer().prop_map(Value::Int),
        (prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO)
            .prop_map(Value::Float),
        text().prop_map(Value::Text),
        octets().prop_map(Value::Bytes),
    ]
    .boxed()
}

fn octets() -> BoxedStrategy<Bytes> {
    prop_oneof![vec(any::<u8>(), 0..8), vec(any::<u8>(), 250..270)].prop_map(Bytes::from).boxed()
}

/// Any value that all serializers can hold.
pub(crate) fn value() -> BoxedStrategy<Value> {
    leaf()
        .prop_recursive(4, 40, 20, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..20).prop_map(Value::List),
                pairs(inner).prop_map(Value::Map),
            ]
        })
        .boxed()
}

fn pairs(value: BoxedStrategy<Value>) -> BoxedStrategy<Dict> {
    // Keys twice are kept.
    vec((text(), value), 0..20)
        .prop_map(|pairs| {
            let mut dict = Dict::new();
            for (key, value) in pairs {
                dict.push(key, value);
            }
            dict
        })
        .boxed()
}

pub(crate) fn dict() -> BoxedStrategy<Dict> {
    prop_oneof![3 => Just(Dict::new()), 1 => pairs(value())].boxed()
}

pub(crate) fn arguments() -> BoxedStrategy<(Vec<Value>, Dict)> {
    (vec(value(), 0..5), dict()).boxed()
}

fn payload(serializer: Serializer) -> BoxedStrategy<Payload> {
    arguments()
        .prop_map(move |(args, kwargs)| Payload::from_values(serializer, &args, &kwargs).unwrap())
        .boxed()
}

fn number() -> BoxedStrategy<u64> {
    prop_oneof![1..300u64, 1..=(1u64 << 53), Just(1u64 << 53)].boxed()
}

macro_rules! ids {
    ($($name:ident: $id:ident),*) => {$(
        fn $name() -> BoxedStrategy<$id> {
            number().prop_map(|number| $id::new(number).unwrap()).boxed()
        }
    )*};
}
ids!(
    request: RequestId,
    session: SessionId,
    publication: PublicationId,
    subscription: SubscriptionId,
    registration: RegistrationId
);

fn choice<T: Copy + std::fmt::Debug + 'static>(known: &'static [T]) -> BoxedStrategy<Choice<T>> {
    prop_oneof![
        Just(Choice::Absent),
        prop::sample::select(known).prop_map(Choice::Known),
        "[A-Z]{1,9}".prop_map(|name| Choice::Unknown(name.into())),
    ]
    .boxed()
}

fn match_policy() -> BoxedStrategy<Choice<MatchPolicy>> {
    choice(&[MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard])
}

fn mode() -> BoxedStrategy<Choice<CancelMode>> {
    choice(&[CancelMode::Skip, CancelMode::Kill, CancelMode::KillNoWait])
}

fn ppt() -> BoxedStrategy<Option<Box<Ppt>>> {
    let text = || option::of(text());
    option::weighted(0.3, ("x_[a-z]{1,5}", text(), text(), text()))
        .prop_map(|ppt| {
            let (scheme, serializer, cipher, keyid) = ppt?;
            Some(Box::new(Ppt { scheme: scheme.into(), serializer, cipher, keyid }))
        })
        .boxed()
}

fn receivers() -> BoxedStrategy<Option<Box<Receivers>>> {
    let ids = || option::of(vec(session(), 0..20));
    let texts = || option::of(vec(text(), 0..4));
    (ids(), texts(), texts(), ids(), texts(), texts())
        .prop_map(|lists| {
            let receivers = Receivers {
                exclude: lists.0,
                exclude_authid: lists.1,
                exclude_authrole: lists.2,
                eligible: lists.3,
                eligible_authid: lists.4,
                eligible_authrole: lists.5,
            };
            // Without any list there is nothing to tell on the wire.
            (receivers != Receivers::default()).then(|| Box::new(receivers))
        })
        .boxed()
}

fn peer() -> BoxedStrategy<Option<Discloser>> {
    option::of(
        (session(), option::of(text()), option::of(text()))
            .prop_map(|(session, authid, authrole)| Discloser { session, authid, authrole }),
    )
    .boxed()
}

fn roles() -> BoxedStrategy<Roles> {
    let features = || {
        option::of(prop::sample::subsequence(Features::NAMES, 0..=Features::NAMES.len())).prop_map(
            |names| Some(names?.into_iter().fold(Features::NONE, |all, (_, one)| all.with(one))),
        )
    };
    (features(), features(), features(), features(), features(), features())
        .prop_map(|all| Roles {
            caller: all.0,
            callee: all.1,
            publisher: all.2,
            subscriber: all.3,
            broker: all.4,
            dealer: all.5,
        })
        .boxed()
}

fn hello() -> BoxedStrategy<Message> {
    let text = || option::of(text());
    let methods = option::of(vec(self::text(), 0..5));
    (text(), roles(), text(), methods, text(), text(), dict())
        .prop_map(|(realm, roles, agent, authmethods, authid, authrole, authextra)| {
            let details = HelloDetails { roles, agent, authmethods, authid, authrole, authextra };
            Message::Hello(Box::new(Hello { realm, details }))
        })
        .boxed()
}

fn publish(s: Serializer) -> BoxedStrategy<Message> {
    let flag = || option::of(any::<bool>());
    let options = (any::<bool>(), flag(), flag(), any::<bool>(), receivers(), ppt()).prop_map(
        |(acknowledge, exclude_me, disclose_me, retain, receivers, ppt)| PublishOptions {
            acknowledge,
            exclude_me,
            disclose_me,
            retain,
            receivers,
            ppt,
        },
    );
    (request(), options, text(), payload(s))
        .prop_map(|(request, options, topic, payload)| {
            Message::Publish(Publish { request, options, topic, payload })
        })
        .boxed()
}

fn event(s: Serializer) -> BoxedStrategy<Message> {
    let details = (peer(), option::of(text()), option::of(any::<u64>()), any::<bool>(), ppt())
        .prop_map(|(publisher, topic, trustlevel, retained, ppt)| EventDetails {
            publisher,
            topic,
            trustlevel,
            retained,
            ppt,
        });
    (subscription(), publication(), details, payload(s))
        .prop_map(|(subscription, publication, details, payload)| {
            Message::Event(Event { subscription, publication, details, payload })
        })
        .boxed()
}

fn call(s: Serializer) -> BoxedStrategy<Message> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let options = (option::of(any::<u64>()), flags, ppt()).prop_map(|(timeout_ms, flags, ppt)| {
        let (receive_progress, progress, disclose_me) = flags;
        CallOptions { timeout_ms, receive_progress, progress, disclose_me, ppt }
    });
    (request(), options, text(), payload(s))
        .prop_map(|(request, options, procedure, payload)| {
            Message::Call(Call { request, options, procedure, payload })
        })
        .boxed()
}

fn invocation(s: Serializer) -> BoxedStrategy<Message> {
    let number = || option::of(any::<u64>());
    let details =
        (peer(), option::of(text()), number(), any::<bool>(), any::<bool>(), number(), ppt())
            .prop_map(|(caller, procedure, trustlevel, receive_progress, progress, t, ppt)| {
                InvocationDetails {
                    caller,
                    procedure,
                    trustlevel,
                    receive_progress,
                    progress,
                    timeout_ms: t,
                    ppt,
                }
            });
    (request(), registration(), details, payload(s))
        .prop_map(|(request, registration, details, payload)| {
            Message::Invocation(Invocation { request, registration, details, payload })
        })
        .boxed()
}

fn register() -> BoxedStrategy<Message> {
    let invoke = choice(&[
        InvokePolicy::Single,
        InvokePolicy::First,
        InvokePolicy::Last,
        InvokePolicy::RoundRobin,
        InvokePolicy::Random,
    ]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let options = (match_policy(), invoke, flags, option::of(any::<u64>())).prop_map(
        |(match_policy, invoke, flags, concurrency)| RegisterOptions {
            match_policy,
            invoke,
            disclose_caller: flags.0,
            forward_timeout: flags.1,
            force_reregister: flags.2,
            concurrency,
        },
    );
    (request(), options, text())
        .prop_map(|(request, options, procedure)| {
            Message::Register(Register { request, options, procedure })
        })
        .boxed()
}

fn error(s: Serializer) -> BoxedStrategy<Message> {
    let kind = prop::sample::select(&RequestType::ALL[..]);
    (kind, request(), ppt(), dict(), text(), payload(s))
        .prop_map(|(request_type, request, ppt, rest, error, payload)| {
            let details = ErrorDetails { ppt, rest };
            Message::Error(Error { request_type, request, details, error, payload })
        })
        .boxed()
}

fn revocable() -> BoxedStrategy<(Option<RequestId>, Option<Dict>)> {
    prop_oneof![
        request().prop_map(|request| (Some(request), None)),
        dict().prop_map(|details| (None, Some(details))),
    ]
    .boxed()
}

/// Messages that open, end and guard sessions.
fn session_message(s: Serializer) -> BoxedStrategy<Message> {
    prop_oneof![
        hello(),
        (session(), dict())
            .prop_map(|(session, details)| Message::Welcome(Welcome { session, details })),
        (dict(), text(), payload(s)).prop_map(|(details, reason, payload)| Message::Abort(Abort {
            details,
            reason,
            payload
        })),
        (text(), dict())
            .prop_map(|(method, extra)| Message::Challenge(Challenge { method, extra })),
        (text(), dict()).prop_map(|(signature, extra)| Message::Authenticate(Authenticate {
            signature,
            extra
        })),
        (dict(), text())
            .prop_map(|(details, reason)| Message::Goodbye(Goodbye { details, reason })),
        error(s),
    ]
    .boxed()
}

fn pubsub_message(s: Serializer) -> BoxedStrategy<Message> {
    prop_oneof![
        publish(s),
        (request(), publication()).prop_map(|(request, publication)| Message::Published(
            Published { request, publication }
        )),
        (request(), match_policy(), any::<bool>(), text()).prop_map(
            |(request, match_policy, get_retained, topic)| {
                let options = SubscribeOptions { match_policy, get_retained };
                Message::Subscribe(Subscribe { request, options, topic })
            }
        ),
        (request(), subscription()).prop_map(|(request, subscription)| Message::Subscribed(
            Subscribed { request, subscription }
        )),
        (request(), subscription()).prop_map(|(request, subscription)| Message::Unsubscribe(
            Unsubscribe { request, subscription }
        )),
        revocable().prop_map(|(request, revocation)| Message::Unsubscribed(Unsubscribed {
            request,
            revocation
        })),
        event(s),
    ]
    .boxed()
}

fn rpc_message(s: Serializer) -> BoxedStrategy<Message> {
    let interrupt = (request(), mode(), option::of(text())).prop_map(|(request, mode, reason)| {
        Message::Interrupt(Interrupt { request, options: InterruptOptions { mode, reason } })
    });
    prop_oneof![
        call(s),
        (request(), mode()).prop_map(|(request, mode)| Message::Cancel(Cancel {
            request,
            options: CancelOptions { mode }
        })),
        (request(), any::<bool>(), ppt(), payload(s)).prop_map(
            |(request, progress, ppt, payload)| {
                let details = ResultDetails { progress, ppt };
                Message::Result(CallResult { request, details, payload })
            }
        ),
        register(),
        (request(), registration()).prop_map(|(request, registration)| Message::Registered(
            Registered { request, registration }
        )),
        (request(), registration()).prop_map(|(request, registration)| Message::Unregister(
            Unregister { request, registration }
        )),
        revocable().prop_map(|(request, revocation)| Message::Unregistered(Unregistered {
            request,
            revocation
        })),
        invocation(s),
        interrupt,
        (request(), any::<bool>(), ppt(), payload(s)).prop_map(
            |(request, progress, ppt, payload)| {
                let options = YieldOptions { progress, ppt };
                Message::Yield(Yield { request, options, payload })
            }
        ),
    ]
    .boxed()
}

pub(crate) fn serializer() -> BoxedStrategy<Serializer> {
    prop::sample::select(&Serializer::ALL[..]).boxed()
}

/// Any message, with a serializer that its payload is of.
pub(crate) fn message() -> BoxedStrategy<(Serializer, Message)> {
    serializer()
        .prop_flat_map(|s| {
            (Just(s), prop_oneof![session_message(s), pubsub_message(s), rpc_message(s)])
        })
        .boxed()
}
