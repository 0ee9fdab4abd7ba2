//! What the router does to a message: decode what came, encode what goes out with the payload as it is.
//!
//! Run with `cargo bench -p weald-wamp`. Payloads of 16 bytes and 1 KiB of text; a transcoding for comparison.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails by panicking")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weald_wamp::message::{
    Call, CallOptions, Event, EventDetails, Invocation, InvocationDetails, Publish, PublishOptions,
};
use weald_wamp::{
    Dict, Limits, Message, Payload, PublicationId, RegistrationId, RequestId, Serializer,
    SubscriptionId, Value, decode,
};

fn payload(serializer: Serializer, bytes: usize) -> Payload {
    Payload::from_values(serializer, &[Value::from("x".repeat(bytes))], &Dict::new()).unwrap()
}

fn encoded(message: &Message, serializer: Serializer) -> Bytes {
    let mut out = Vec::new();
    message.encode(serializer, &mut out).unwrap();
    out.into()
}

fn publish(serializer: Serializer, bytes: usize) -> Bytes {
    let message = Message::Publish(Publish {
        request: RequestId::new(123_456).unwrap(),
        options: PublishOptions::default(),
        topic: "com.example.bench.topic".into(),
        payload: payload(serializer, bytes),
    });
    encoded(&message, serializer)
}

fn call(serializer: Serializer, bytes: usize) -> Bytes {
    let message = Message::Call(Call {
        request: RequestId::new(123_456).unwrap(),
        options: CallOptions::default(),
        procedure: "com.example.bench.procedure".into(),
        payload: payload(serializer, bytes),
    });
    encoded(&message, serializer)
}

/// PUBLISH in, EVENT out.
fn publish_to_event(serializer: Serializer, frame: &Bytes, out: &mut Vec<u8>) {
    let Ok(Message::Publish(m)) = decode(serializer, frame, &Limits::default()) else {
        panic!("no PUBLISH")
    };
    black_box(&m.topic);
    let event = Event {
        subscription: SubscriptionId::new(5_512_315_355).unwrap(),
        publication: PublicationId::new(4_429_313_566_123).unwrap(),
        details: EventDetails::default(),
        payload: m.payload,
    };
    out.clear();
    event.encode(serializer, out).unwrap();
}

/// CALL in, INVOCATION out.
fn call_to_invocation(serializer: Serializer, frame: &Bytes, out: &mut Vec<u8>) {
    let Ok(Message::Call(m)) = decode(serializer, frame, &Limits::default()) else {
        panic!("no CALL")
    };
    black_box(&m.procedure);
    let invocation = Invocation {
        request: RequestId::new(77_777).unwrap(),
        registration: RegistrationId::new(2_103_333_224_555).unwrap(),
        details: InvocationDetails::default(),
        payload: m.payload,
    };
    out.clear();
    invocation.encode(serializer, out).unwrap();
}

fn route(c: &mut Criterion) {
    let mut out = Vec::with_capacity(4096);
    for bytes in [16, 1024] {
        for serializer in Serializer::ALL {
            let mut group = c.benchmark_group(format!("{serializer}/{bytes}"));
            group.throughput(Throughput::Elements(1));
            let frame = publish(serializer, bytes);
            group.bench_function("publish_to_event", |b| {
                b.iter(|| publish_to_event(serializer, black_box(&frame), &mut out));
            });
            let frame = call(serializer, bytes);
            group.bench_function("call_to_invocation", |b| {
                b.iter(|| call_to_invocation(serializer, black_box(&frame), &mut out));
            });
            group.finish();
        }
    }
}

/// A payload of some structure, to each other serializer.
fn transcode(c: &mut Criterion) {
    let person = Dict::new()
        .with("name", "Alice Example")
        .with("age", 42u64)
        .with("ratio", 0.125)
        .with("tags", vec![Value::from("a"), Value::from("b"), Value::Null]);
    let args = vec![Value::Map(person); 4];
    let mut group = c.benchmark_group("transcode");
    for from in Serializer::ALL {
        let here = Payload::from_values(from, &args, &Dict::new()).unwrap();
        for to in Serializer::ALL.into_iter().filter(|to| *to != from) {
            group.bench_function(format!("{from}_to_{to}"), |b| {
                b.iter(|| black_box(&here).to(to, &Limits::default()).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, route, transcode);
criterion_main!(benches);
