//! What a case expects of a message.
//!
//! A pattern is a value. Lists must be of equal length; of a dict every key of the pattern must match, others may be there.
//! Instead of a value there may be [`ANY`], [`ID`], [`TEXT`]; instead of a value in a dict [`ABSENT`].

use serde_json::Value;

/// Matches everything.
pub const ANY: &str = "<any>";
/// Matches an id of WAMP: an integer from 1 to 2^53.
pub const ID: &str = "<id>";
/// Matches a text that is not empty.
pub const TEXT: &str = "<text>";
/// In a dict: the key must not be there.
pub const ABSENT: &str = "<absent>";

/// Whether a value is as expected.
#[must_use]
pub fn matches(pattern: &Value, value: &Value) -> bool {
    match (pattern, value) {
        (Value::String(any), _) if any == ANY => true,
        (Value::String(id), value) if id == ID => {
            value.as_u64().is_some_and(|id| (1..=1 << 53).contains(&id))
        }
        (Value::String(text), value) if text == TEXT => {
            value.as_str().is_some_and(|text| !text.is_empty())
        }
        (Value::Array(patterns), Value::Array(values)) => {
            patterns.len() == values.len()
                && patterns.iter().zip(values).all(|(pattern, value)| matches(pattern, value))
        }
        (Value::Object(patterns), Value::Object(values)) => {
            patterns.iter().all(|(key, pattern)| match values.get(key) {
                None => pattern == ABSENT,
                Some(value) => pattern != ABSENT && matches(pattern, value),
            })
        }
        _ => pattern == value,
    }
}

/// Whether a message is as expected. Where an error of the router itself is, it may explain itself in arguments.
#[must_use]
pub(super) fn fits(pattern: &Value, message: &Value) -> bool {
    let (pattern, mut message) = (trimmed(pattern), trimmed(message));
    let fields = match pattern[0].as_u64() {
        Some(3) => 3,
        Some(8) => 5,
        _ => usize::MAX,
    };
    let is_bare = pattern.as_array().is_some_and(|items| items.len() == fields);
    let is_routers =
        is_bare && pattern[fields - 1].as_str().is_some_and(|uri| uri.starts_with("wamp."));
    if let Some(items) = message.as_array_mut()
        && is_routers
    {
        items.truncate(fields);
    }
    matches(&pattern, &message)
}

/// A message without trailing arguments that are empty: `[]` and `{}` say the same as their absence.
#[must_use]
pub(super) fn trimmed(message: &Value) -> Value {
    let mut message = message.clone();
    let Some(items) = message.as_array_mut() else { return message };
    let fields = items.first().and_then(Value::as_u64).and_then(fields_before_payload);
    if let Some(fields) = fields {
        if items.len() == fields + 2 && items[fields + 1].as_object().is_some_and(|m| m.is_empty())
        {
            items.pop();
        }
        if items.len() == fields + 1 && items[fields].as_array().is_some_and(Vec::is_empty) {
            items.pop();
        }
    }
    message
}

/// Length without payload of the messages that may have one.
const fn fields_before_payload(code: u64) -> Option<usize> {
    match code {
        50 | 70 => Some(3),
        3 => Some(3),
        16 | 36 | 48 | 68 => Some(4),
        8 => Some(5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patterns_match_what_they_say() {
        let good = [
            (json!([ANY, ID, TEXT]), json!([{}, 1, "a"])),
            (json!({ "a": 1, "b": ABSENT }), json!({ "a": 1, "c": 2 })),
            (json!([{}]), json!([{ "a": 1 }])),
        ];
        let bad = [
            (json!([ID]), json!([0])),
            (json!([ID]), json!([(1_u64 << 53) + 1])),
            (json!([ID]), json!([1.0])),
            (json!([TEXT]), json!([""])),
            (json!([1]), json!([1, 2])),
            (json!({ "a": ABSENT }), json!({ "a": 1 })),
            (json!({ "a": ANY }), json!({})),
        ];
        for (pattern, value) in good {
            assert!(matches(&pattern, &value), "{pattern} {value}");
        }
        for (pattern, value) in bad {
            assert!(!matches(&pattern, &value), "{pattern} {value}");
        }
    }

    #[test]
    fn empty_payload_is_as_none() {
        assert_eq!(trimmed(&json!([50, 1, {}, [], {}])), json!([50, 1, {}]));
        assert_eq!(
            trimmed(&json!([50, 1, {}, [], { "a": 1 }])),
            json!([50, 1, {}, [], { "a": 1 }])
        );
        assert_eq!(trimmed(&json!([8, 48, 1, {}, "e", []])), json!([8, 48, 1, {}, "e"]));
        assert_eq!(trimmed(&json!([2, 1, {}])), json!([2, 1, {}]));
    }
}
