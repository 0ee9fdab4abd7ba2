//! The corners of each encoding: what is accepted, what is refused and why, and what limits do.
//!
//! Method: tables of octets written by hand, so that a mistake shared by readers and writers shows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use Serializer::{Cbor, Json, MsgPack};
use bytes::Bytes;
use weald_wamp::message::{Choice, ErrorDetails, MatchPolicy, Publish};
use weald_wamp::{
    DecodeError, Dict, EncodeError, Limits, Message, Parts, Payload, Serializer, TranscodeError,
    Value, decode,
};

fn args(serializer: Serializer, raw: &[u8]) -> Result<Payload, DecodeError> {
    let raw = Bytes::copy_from_slice(raw);
    Payload::from_raw_checked(serializer, Parts::Args, raw, &Limits::default())
}

/// The one argument that the octets are.
fn value(serializer: Serializer, raw: &[u8]) -> Result<Value, DecodeError> {
    let list = match serializer {
        Json => [b"[", raw, b"]"].concat(),
        MsgPack => [b"\x91", raw].concat(),
        Cbor => [b"\x81", raw].concat(),
    };
    let (mut values, _) = args(serializer, &list)?.decode(&Limits::default())?;
    Ok(values.pop().unwrap())
}

fn text(text: &str) -> Value {
    Value::from(text)
}

#[test]
fn values_of_json() {
    for (raw, wanted) in [
        (r#""""#, text("")),
        (r#""\"\\\/\b\f\n\r\t\u0041\u00e9""#, text("\"\\/\u{8}\u{c}\n\r\tAé")),
        (r#""\ud83d\ude00!""#, text("😀!")),
        (r#""a\u0000b""#, text("a\0b")),
        (r#""\u0000""#, Value::Bytes(Bytes::new())),
        (r#""\u0000AP8=""#, Value::Bytes(Bytes::from_static(b"\0\xff"))),
        (r#""\u0000AP8""#, Value::Bytes(Bytes::from_static(b"\0\xff"))),
        (r#""\u0000\/\/8=""#, Value::Bytes(Bytes::from_static(b"\xff\xff"))),
        ("0", Value::Int(0)),
        ("-1", Value::Int(-1)),
        ("18446744073709551615", Value::Int(u64::MAX.into())),
        ("-9223372036854775808", Value::Int(i64::MIN.into())),
        ("18446744073709551616", Value::Float(18_446_744_073_709_551_616.0)),
        ("1.0", Value::Float(1.0)),
        ("1e2", Value::Float(100.0)),
        ("1E-2", Value::Float(0.01)),
        (" [ ] ", Value::List(vec![])),
        ("\t{ \"a\" :\r\n1 }", Value::Map(Dict::new().with("a", 1u64))),
    ] {
        assert_eq!(value(Json, raw.as_bytes()), Ok(wanted), "{raw}");
    }
    let Ok(Value::Float(zero)) = value(Json, b"-0") else { panic!("minus zero is an integer") };
    assert!(zero == 0.0 && zero.is_sign_negative());
}

#[test]
fn malformed_json_is_refused() {
    for raw in [
        "01",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "-",
        "0x1",
        "NaN",
        "Infinity",
        "nul",
        "truE",
        "'a'",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "[1}",
        "]",
        "1]",
        "[",
        "{",
        "\u{feff}1",
        "1,",
    ] {
        assert!(value(Json, raw.as_bytes()).is_err(), "{raw}");
    }
    // Well-formed, and passed on, but no Unicode text and no octets.
    for raw in [r#""\ud800""#, r#""\ud800\u0041""#, r#""\udc00""#, r#""\u0000*""#, "1e999"] {
        let list = format!("[{raw}]");
        let payload = args(Json, list.as_bytes()).unwrap();
        assert!(payload.decode(&Limits::default()).is_err(), "{raw}");
        let there = payload.to(MsgPack, &Limits::default());
        assert!(matches!(there, Err(TranscodeError::Decode(_))), "{raw}: {there:?}");
    }
    let invalid = args(Json, b"[\"\xff\"]");
    assert_eq!(invalid, Err(DecodeError::Malformed { at: 2, what: "not UTF-8" }));
}

#[test]
fn values_of_msgpack() {
    for (raw, wanted) in [
        (&b"\xc0"[..], Value::Null),
        (b"\xc2", Value::Bool(false)),
        (b"\x7f", Value::Int(127)),
        (b"\xe0", Value::Int(-32)),
        (b"\xcc\x05", Value::Int(5)),
        (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", Value::Int(u64::MAX.into())),
        (b"\xd0\x80", Value::Int(-128)),
        (b"\xd3\x80\0\0\0\0\0\0\0", Value::Int(i64::MIN.into())),
        (b"\xd3\0\0\0\0\0\0\0\x01", Value::Int(1)),
        (b"\xca\x3f\x80\0\0", Value::Float(1.0)),
        (b"\xcb\x3f\xf0\0\0\0\0\0\0", Value::Float(1.0)),
        (b"\xd9\x01a", text("a")),
        (b"\xda\0\x01a", text("a")),
        (b"\xdb\0\0\0\x01a", text("a")),
        (b"\xc4\x01\xff", Value::Bytes(Bytes::from_static(b"\xff"))),
        (b"\xc6\0\0\0\x01\xff", Value::Bytes(Bytes::from_static(b"\xff"))),
        (b"\xdc\0\x01\xc0", Value::List(vec![Value::Null])),
        (b"\xdf\0\0\0\x01\xa1a\x01", Value::Map(Dict::new().with("a", 1u64))),
    ] {
        assert_eq!(value(MsgPack, raw), Ok(wanted), "{raw:x?}");
    }
    for raw in
        [&b"\xc1"[..], b"\xa1\xff", b"\xd9", b"\xd9\x02a", b"\xcf\0", b"\x92\xc0", b"\x81\xa1a"]
    {
        assert!(value(MsgPack, raw).is_err(), "{raw:x?}");
    }
}

#[test]
fn values_of_cbor() {
    for (raw, wanted) in [
        (&b"\xf6"[..], Value::Null),
        (b"\xf7", Value::Null),
        (b"\xf5", Value::Bool(true)),
        (b"\x18\x05", Value::Int(5)),
        (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", Value::Int(u64::MAX.into())),
        (b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", Value::Int(i64::MIN.into())),
        (b"\x20", Value::Int(-1)),
        (b"\xf9\x3c\0", Value::Float(1.0)),
        (b"\xfa\x3f\x80\0\0", Value::Float(1.0)),
        (b"\x61a", text("a")),
        (b"\x7f\x61a\x60\x61b\xff", text("ab")),
        (b"\x5f\x41\x01\x41\x02\xff", Value::Bytes(Bytes::from_static(b"\x01\x02"))),
        (b"\x9f\x01\xff", Value::List(vec![Value::Int(1)])),
        (b"\xbf\x61a\x01\xff", Value::Map(Dict::new().with("a", 1u64))),
        (b"\xc0\x61a", text("a")),
        (b"\xd9\xd9\xf7\x81\xc1\x01", Value::List(vec![Value::Int(1)])),
    ] {
        assert_eq!(value(Cbor, raw), Ok(wanted), "{raw:x?}");
    }
    for raw in [
        &b"\xff"[..],
        b"\x1c",
        b"\x61\xff",
        b"\x7f\x41a\xff",
        b"\x7f\x61a",
        b"\x9f\x01",
        b"\xbf\x61a\xff",
        b"\xc0",
        b"\x82\x01",
        b"\xf8\x10",
        b"\x62a",
    ] {
        assert!(value(Cbor, raw).is_err(), "{raw:x?}");
    }
}

#[test]
fn values_without_equivalent_pass_but_are_not_transcoded() {
    for (serializer, raw) in [
        (MsgPack, &b"\x91\xd4\x01\x02"[..]),
        (MsgPack, b"\x91\xc7\x00\x01"),
        (Cbor, b"\x81\xc2\x41\x01"),
        (Cbor, b"\x81\x3b\xff\xff\xff\xff\xff\xff\xff\xff"),
        (Cbor, b"\x81\xf0"),
    ] {
        let payload = args(serializer, raw).unwrap();
        assert_eq!(payload.to(serializer, &Limits::default()), Ok(payload.clone()));
        let unsupported = payload.to(Json, &Limits::default());
        assert!(
            matches!(unsupported, Err(TranscodeError::Decode(DecodeError::Unsupported { .. }))),
            "{raw:x?}: {unsupported:?}"
        );
    }
    for (serializer, raw) in [(MsgPack, &b"\x91\x81\x01\x02"[..]), (Cbor, b"\x81\xa1\x01\x02")] {
        let there = args(serializer, raw).unwrap().to(Json, &Limits::default());
        assert_eq!(there, Err(TranscodeError::KeyNotText { at: 2 }));
    }
}

#[test]
fn values_that_json_cannot_hold_are_refused() {
    for (value, error) in [
        (Value::Float(f64::NAN), EncodeError::NotFinite),
        (Value::Float(f64::NEG_INFINITY), EncodeError::NotFinite),
        (text("\0a"), EncodeError::LeadingNul),
        (Value::Int(1 << 64), EncodeError::IntegerRange),
    ] {
        let direct = Payload::from_values(Json, std::slice::from_ref(&value), &Dict::new());
        assert_eq!(direct, Err(error.clone()));
        let Ok(here) = Payload::from_values(Cbor, &[value], &Dict::new()) else { continue };
        assert_eq!(here.to(Json, &Limits::default()), Err(TranscodeError::Encode(error)));
    }
}

#[test]
fn keys_twice_the_last_counts_and_both_are_kept() {
    let payload = args(Json, br#"[{"a":1,"b":2,"a":3}]"#).unwrap();
    let (values, _) = payload.decode(&Limits::default()).unwrap();
    assert_eq!(values[0].as_dict().unwrap().get_u64("a"), Some(3));
    let there = payload.to(MsgPack, &Limits::default()).unwrap();
    assert_eq!(&there.raw()[..], b"\x91\x83\xa1a\x01\xa1b\x02\xa1a\x03");
}

#[test]
fn payload_stays_as_it_came() {
    let frame =
        Bytes::from_static(b" [ 16 , 7 , { } , \"a\" , [ 1 , \"\\u0062\" ] , {\"k\" : 1} ] ");
    let Message::Publish(m) = decode(Json, &frame, &Limits::default()).unwrap() else { panic!() };
    assert_eq!(&m.payload.raw()[..], b"[ 1 , \"\\u0062\" ] , {\"k\" : 1}");
    assert_eq!(m.payload.parts(), Parts::ArgsKwargs);
    let cbor = Bytes::from_static(b"\x9f\x10\x07\xa0\x61a\x9f\x01\xff\xbf\x61k\x01\xff\xff");
    let Message::Publish(c) = decode(Cbor, &cbor, &Limits::default()).unwrap() else { panic!() };
    assert_eq!(&c.payload.raw()[..], b"\x9f\x01\xff\xbf\x61k\x01\xff");
    let mut encoded = Vec::new();
    c.encode(Cbor, &mut encoded).unwrap();
    assert_eq!(encoded, b"\x86\x10\x07\xa0\x61a\x9f\x01\xff\xbf\x61k\x01\xff");
    // A payload of another serializer is refused, and leaves nothing behind.
    let mut out = b"before".to_vec();
    let refused = m.encode(MsgPack, &mut out);
    assert_eq!(refused, Err(EncodeError::PayloadSerializer { found: Json, wanted: MsgPack }));
    assert_eq!(out, b"before");
}

fn json(text: &str) -> Result<Message, DecodeError> {
    decode(Json, &Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
}

#[test]
fn malformed_messages_are_refused() {
    for (text, wanted) in [
        ("{}", "expected a list at byte 0"),
        ("[]", "message.type must be an integer"),
        ("[true]", "message.type must be an integer"),
        ("[16.0]", "message.type must be an integer"),
        ("[-1]", "message.type must be a positive integer"),
        ("[7]", "unknown message type 7"),
        ("[337,1]", "unknown message type 337"),
        ("[16]", "PUBLISH has a wrong number of elements"),
        ("[16,1,{}]", "PUBLISH has a wrong number of elements"),
        ("[16,1,{},\"a\",[],{},1]", "PUBLISH has a wrong number of elements"),
        ("[34,1]", "UNSUBSCRIBE has a wrong number of elements"),
        ("[34,1,1,1]", "UNSUBSCRIBE has a wrong number of elements"),
        ("[16,0,{},\"a\"]", "PUBLISH.Request must be an id from 1 to 2^53"),
        ("[16,9007199254740993,{},\"a\"]", "PUBLISH.Request must be an id from 1 to 2^53"),
        ("[16,-1,{},\"a\"]", "PUBLISH.Request must be an integer from 0 up"),
        ("[16,1.0,{},\"a\"]", "PUBLISH.Request must be an integer from 0 up"),
        ("[16,true,{},\"a\"]", "PUBLISH.Request must be an integer from 0 up"),
        ("[16,1,[],\"a\"]", "PUBLISH.Options must be a map"),
        ("[16,1,{},7]", "PUBLISH.Topic must be text"),
        ("[16,1,{},\"\\u0000YQ==\"]", "PUBLISH.Topic must be text"),
        ("[16,1,{},\"a\",{}]", "PUBLISH.Arguments must be a list"),
        ("[16,1,{},\"a\",[],[]]", "PUBLISH.ArgumentsKw must be a map"),
        ("[16,1,{\"acknowledge\":1},\"a\"]", "PUBLISH option acknowledge must be a boolean"),
        ("[48,1,{\"timeout\":-1},\"a\"]", "CALL option timeout must be an integer from 0 up"),
        ("[48,1,{\"ppt_scheme\":1},\"a\"]", "CALL option ppt_scheme must be text"),
        ("[1,\"r\",{\"roles\":[]}]", "HELLO option roles must be a map"),
        ("[1,\"r\",{\"roles\":{\"caller\":1}}]", "HELLO option roles must be maps of roles"),
        ("[1,7,{}]", "HELLO.Realm must be text or null"),
        ("[8,1,1,{},\"a\"]", "ERROR.REQUEST.Type must be the type of a request"),
        ("[35,0]", "UNSUBSCRIBED has a wrong number of elements"),
        ("[16,1,{},\"a\"]x", "trailing octets at byte 13"),
    ] {
        assert_eq!(json(text).unwrap_err().to_string(), wanted, "{text}");
    }
}

#[test]
fn options_unknown_null_and_unknown_names() {
    let text = r#"[32,1,{"x_a":[{"b":1}],"match":"nearly","get_retained":null},"a"]"#;
    let Message::Subscribe(m) = json(text).unwrap() else { panic!() };
    assert_eq!(m.options.match_policy, Choice::Unknown("nearly".into()));
    assert!(m.options.match_policy.get().is_err() && !m.options.get_retained);
    let Message::Subscribe(m) = json(r#"[32,1,{"match":"prefix"},"a"]"#).unwrap() else { panic!() };
    assert_eq!(m.options.match_policy.get(), Ok(MatchPolicy::Prefix));
    // Attributes of payload passthru mode without its scheme do not switch it on.
    let Message::Call(m) = json(r#"[48,1,{"ppt_keyid":"k"},"a"]"#).unwrap() else { panic!() };
    assert_eq!(m.options.ppt, None);
    let Message::Error(m) = json(r#"[8,68,1,{"ppt_scheme":"x_s","why":[1]},"a"]"#).unwrap() else {
        panic!()
    };
    let ErrorDetails { ppt, rest } = m.details;
    assert_eq!(ppt.unwrap().scheme, "x_s");
    assert_eq!(rest.get_list("why"), Some(&[Value::Int(1)][..]));
}

#[test]
fn limits_hold() {
    let tight = Limits { message_bytes: 40, depth: 3, elements: 12 };
    let decode = |text: &str| decode(Json, &Bytes::copy_from_slice(text.as_bytes()), &tight);
    assert!(decode("[16,1,{},\"a\",[[1]]]").is_ok());
    let deep = decode("[16,1,{},\"a\",[[[1]]]]");
    assert!(matches!(deep, Err(DecodeError::TooDeep { max: 3, .. })), "{deep:?}");
    let many = decode("[16,1,{},\"a\",[1,1,1,1,1,1,1,1]]");
    assert!(matches!(many, Err(DecodeError::TooManyElements { max: 12, .. })), "{many:?}");
    let large = decode(&format!("[16,1,{{}},\"a\"]{}", " ".repeat(40)));
    assert!(matches!(large, Err(DecodeError::TooLarge { bytes: 53, max: 40 })), "{large:?}");
    // Transcoding to what is larger stops at the limit.
    let nulls = Payload::from_values(MsgPack, &vec![Value::Null; 11], &Dict::new()).unwrap();
    assert_eq!(nulls.to(Json, &tight), Err(TranscodeError::TooLarge { max: 40 }));
}

/// A length is compared with the octets at hand before anything is made of it, so these fail at once and not after
/// reserving room for 2^32 items.
#[test]
fn claims_beyond_the_octets_are_refused() {
    for (serializer, claim) in [
        (MsgPack, &b"\xdd\xff\xff\xff\xff"[..]),
        (MsgPack, b"\xdf\xff\xff\xff\xff"),
        (MsgPack, b"\xdb\xff\xff\xff\xff"),
        (MsgPack, b"\xc6\xff\xff\xff\xff"),
        (MsgPack, b"\xc9\xff\xff\xff\xff\x01"),
        (Cbor, b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        (Cbor, b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
        (Cbor, b"\xbb\x80\0\0\0\0\0\0\0"),
        (Cbor, b"\x9a\xff\xff\xff\xff"),
        (Cbor, b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff"),
        (Cbor, b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ] {
        let whole = decode(serializer, &Bytes::copy_from_slice(claim), &Limits::default());
        assert!(whole.is_err(), "{claim:x?}");
        let inner = value(serializer, claim);
        assert!(matches!(inner, Err(DecodeError::Truncated { .. })), "{claim:x?}: {inner:?}");
        let head = if serializer == MsgPack { &b"\x93\x04\xa1a"[..] } else { b"\x83\x04\x61a" };
        let extra = Bytes::from([head, claim].concat());
        assert!(decode(serializer, &extra, &Limits::default()).is_err(), "{claim:x?}");
    }
}

#[test]
fn deepest_nesting_is_refused_without_following_it() {
    let limits = Limits { depth: usize::MAX, ..Limits::default() };
    for (serializer, open) in
        [(Json, &b"["[..]), (MsgPack, b"\x91"), (Cbor, b"\x81"), (Cbor, b"\x9f")]
    {
        let deep = Bytes::from(open.repeat(1 << 20));
        let checked = Payload::from_raw_checked(serializer, Parts::Args, deep, &limits);
        assert!(matches!(checked, Err(DecodeError::TooDeep { max: 256, .. })), "{checked:?}");
    }
    // Tags are no nesting: any number of them is passed one after the other.
    let tags = [&b"\x81"[..], &b"\xc6".repeat(1 << 20), b"\x01"].concat();
    assert!(args(Cbor, &tags).is_ok());
}

/// Before anybody is known to the router, a message of the allowed size must not take many times its size of memory.
#[test]
fn details_have_fewer_values_than_payloads() {
    let nulls = "null,".repeat(70_000);
    let hello = format!("[1,\"r\",{{\"authextra\":{{\"a\":[{nulls}1]}}}}]");
    assert!(matches!(json(&hello), Err(DecodeError::TooManyElements { .. })));
    let publish = format!("[16,1,{{}},\"a\",[{nulls}1]]");
    let Message::Publish(Publish { payload, .. }) = json(&publish).unwrap() else { panic!() };
    assert_eq!(payload.decode(&Limits::default()).unwrap().0.len(), 70_001);
    let excluded = format!("[16,1,{{\"exclude\":[{}1]}},\"a\"]", "1,".repeat(70_000));
    assert!(matches!(json(&excluded), Err(DecodeError::TooManyElements { .. })));
}

#[test]
fn option_that_is_undefined_in_msgpack_is_absent() {
    // [16, 1, {"retain": undefined}, "a.b"], as JavaScript clients write it.
    let octets = b"\x94\x10\x01\x81\xa6retain\xd4\x00\x00\xa3a.b";
    let message = decode(MsgPack, &Bytes::from_static(octets), &Limits::default()).unwrap();
    let Message::Publish(Publish { options, .. }) = message else { panic!("{message:?}") };
    assert!(!options.retain);
    // Any other extension is of no type that options have.
    let octets = b"\x94\x10\x01\x81\xa6retain\xd4\x01\x00\xa3a.b";
    assert!(decode(MsgPack, &Bytes::from_static(octets), &Limits::default()).is_err());
}
