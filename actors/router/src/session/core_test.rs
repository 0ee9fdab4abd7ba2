//! What a client may say when: every kind of message in every state, and the order of request ids.

use weald_wamp::{Limits, Serializer};

use super::*;

fn message(json: &str) -> Message {
    let octets = bytes::Bytes::copy_from_slice(json.as_bytes());
    weald_wamp::decode(Serializer::Json, &octets, &Limits::default())
        .unwrap_or_else(|e| panic!("{json}: {e}"))
}

/// What a step is, in a word.
fn word(step: &Step) -> &'static str {
    match step {
        Step::Hello(_) => "hello",
        Step::Authenticate(_) => "authenticate",
        Step::Route(_) => "route",
        Step::Chunk(_) => "chunk",
        Step::Leave => "leave",
        Step::Gone => "gone",
        Step::Left => "left",
        Step::Ignore => "ignore",
        Step::Violation(_) => "violation",
    }
}

const STATES: [State; 6] = [
    State::Closed,
    State::Joining,
    State::Challenging,
    State::Established,
    State::Leaving,
    State::Failed,
];

/// Rules in a state, reached as the shell reaches it.
fn in_state(state: State) -> Core {
    let mut core = Core::default();
    match state {
        State::Closed => {}
        State::Joining => {
            core.receive(message(HELLO));
        }
        State::Challenging => core.challenged(),
        State::Established => core.welcomed(true),
        State::Leaving => core.leaving(),
        State::Failed => core.failed(),
    }
    assert_eq!(core.state(), state);
    core
}

const HELLO: &str = r#"[1, "realm1", {"roles": {"caller": {}}}]"#;

/// Messages, and what comes of each in the order of [`STATES`].
const TABLE: [(&str, [&str; 6]); 24] = [
    (HELLO, ["hello", "ignore", "violation", "violation", "ignore", "ignore"]),
    (r#"[3, {}, "a.b"]"#, ["gone", "ignore", "gone", "gone", "left", "ignore"]),
    (r#"[5, "s", {}]"#, ["violation", "ignore", "authenticate", "violation", "ignore", "ignore"]),
    (r#"[6, {}, "a.b"]"#, ["violation", "ignore", "violation", "leave", "left", "ignore"]),
    // Requests, numbered as they must be.
    (r#"[16, 1, {}, "a.b"]"#, ROUTED),
    (r#"[32, 1, {}, "a.b"]"#, ROUTED),
    (r#"[34, 1, 7]"#, ROUTED),
    (r#"[48, 1, {}, "a.b"]"#, ROUTED),
    (r#"[64, 1, {}, "a.b"]"#, ROUTED),
    (r#"[66, 1, 7]"#, ROUTED),
    // What concerns a request made before, by anybody.
    (r#"[49, 9, {}]"#, ROUTED),
    (r#"[70, 9, {}]"#, ROUTED),
    (r#"[8, 68, 9, {}, "a.b"]"#, ROUTED),
    // A client answers invocations, and nothing else.
    (r#"[8, 48, 9, {}, "a.b"]"#, REFUSED),
    // What only a router says.
    (r#"[2, 9, {"roles": {}}]"#, REFUSED),
    (r#"[4, "ticket", {}]"#, REFUSED),
    (r#"[17, 1, 9]"#, REFUSED),
    (r#"[33, 1, 9]"#, REFUSED),
    (r#"[35, 1]"#, REFUSED),
    (r#"[36, 1, 9, {}]"#, REFUSED),
    (r#"[50, 1, {}]"#, REFUSED),
    (r#"[65, 1, 9]"#, REFUSED),
    (r#"[68, 1, 9, {}]"#, REFUSED),
    (r#"[69, 1, {}]"#, REFUSED),
];

const ROUTED: [&str; 6] = ["violation", "ignore", "violation", "route", "ignore", "ignore"];
const REFUSED: [&str; 6] = ["violation", "ignore", "violation", "violation", "ignore", "ignore"];

#[test]
fn core_every_message_in_every_state_is_answered_by_the_table() {
    for (json, expected) in TABLE {
        for (state, expected) in STATES.into_iter().zip(expected) {
            let mut core = in_state(state);
            let step = core.receive(message(json));
            assert_eq!(word(&step), expected, "{json} in {state:?}");
            let then = match expected {
                "hello" | "authenticate" => State::Joining,
                "violation" => State::Failed,
                "leave" | "left" => State::Closed,
                "gone" => State::Closed,
                _ => state,
            };
            assert_eq!(core.state(), then, "{json} in {state:?}");
        }
    }
}

#[test]
fn core_violation_says_what_was_wrong_and_nothing_is_heard_after_it() {
    for (state, json, why) in [
        (State::Closed, r#"[48, 1, {}, "a.b"]"#, "CALL before HELLO"),
        (State::Challenging, r#"[6, {}, "a.b"]"#, "GOODBYE in place of AUTHENTICATE"),
        (State::Established, HELLO, "HELLO in an established session"),
        (
            State::Established,
            r#"[8, 48, 9, {}, "a.b"]"#,
            "ERROR for Call; a client may answer INVOCATION only",
        ),
        (
            State::Established,
            r#"[32, 2, {}, "a.b"]"#,
            "request id 2 of SUBSCRIBE where 1 comes next",
        ),
    ] {
        let mut core = in_state(state);
        match core.receive(message(json)) {
            Step::Violation(said) => assert_eq!(said, why),
            other => panic!("{json} in {state:?}: {other:?}"),
        }
        for (json, _) in TABLE {
            assert_eq!(word(&core.receive(message(json))), "ignore", "{json}");
        }
    }
}

#[test]
fn core_request_ids_are_sequential_over_all_kinds_of_requests() {
    // Strict or not, ids of requests one after the other, and what comes of each.
    for (is_strict, ids, expected) in [
        (true, &[1_u64, 2, 3][..], &["route", "route", "route"][..]),
        (true, &[1, 1], &["route", "violation"]),
        (true, &[1, 3], &["route", "violation"]),
        (true, &[2], &["violation"]),
        (true, &[1, 2, 1], &["route", "route", "violation"]),
        (false, &[7, 7, 1, 9_007_199_254_740_992], &["route", "route", "route", "route"]),
    ] {
        let mut core = Core::default();
        core.welcomed(is_strict);
        for (place, (id, expected)) in ids.iter().zip(expected).enumerate() {
            let json = match place % 3 {
                0 => format!(r#"[32, {id}, {{}}, "a.b"]"#),
                1 => format!(r#"[16, {id}, {{}}, "a.b"]"#),
                _ => format!("[34, {id}, 7]"),
            };
            let step = core.receive(message(&json));
            assert_eq!(word(&step), *expected, "{ids:?} at {place}, strict: {is_strict}");
        }
    }
}

#[test]
fn core_call_with_a_used_id_is_a_chunk_where_ids_are_strict() {
    let call = |id: u64| message(&format!(r#"[48, {id}, {{"progress": true}}, "a.b"]"#));
    for (is_strict, expected) in
        [(true, ["route", "chunk", "route", "chunk", "violation"]), (false, ["route"; 5])]
    {
        let mut core = Core::default();
        core.welcomed(is_strict);
        for (id, expected) in [1, 1, 2, 1, 4].into_iter().zip(expected) {
            assert_eq!(word(&core.receive(call(id))), expected, "{id}, strict: {is_strict}");
        }
    }
}

#[test]
fn core_ids_begin_anew_with_each_session_of_a_connection() {
    let mut core = Core::default();
    for _ in 0..3 {
        assert_eq!(word(&core.receive(message(HELLO))), "hello");
        core.welcomed(true);
        assert_eq!(word(&core.receive(message(r#"[32, 1, {}, "a.b"]"#))), "route");
        assert_eq!(word(&core.receive(message(r#"[6, {}, "a.b"]"#))), "leave");
    }
    // The greatest id is followed by the first again.
    core.receive(message(HELLO));
    core.welcomed(true);
    core.last_request = ID_MAX;
    assert_eq!(word(&core.receive(message(r#"[32, 1, {}, "a.b"]"#))), "route");
}
