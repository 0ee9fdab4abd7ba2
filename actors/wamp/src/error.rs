//! Why octets are no message, and why a value has no encoding.

use crate::serializer::Serializer;

/// Octets are no acceptable message. A session that sent them ends with `wamp.error.protocol_violation`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message is larger than the limit.
    #[error("message of {bytes} bytes exceeds {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Lists and maps are nested deeper than the limit.
    #[error("nested deeper than {max} levels at byte {at}")]
    TooDeep {
        /// Where it happened.
        at: usize,
        /// The limit.
        max: usize,
    },
    /// The message has more values than the limit.
    #[error("more than {max} values at byte {at}")]
    TooManyElements {
        /// Where it happened.
        at: usize,
        /// The limit.
        max: usize,
    },
    /// The octets end inside a value, or a length claims more than there is.
    #[error("truncated at byte {at}")]
    Truncated {
        /// Where the value begins that is not whole.
        at: usize,
    },
    /// Octets that the encoding does not allow there.
    #[error("malformed at byte {at}: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Octets follow the message.
    #[error("trailing octets at byte {at}")]
    Trailing {
        /// Where they begin.
        at: usize,
    },
    /// A value of the encoding that messages have no use for: an extension type, an integer beyond 64 bits.
    #[error("unsupported value at byte {at}: {what}")]
    Unsupported {
        /// Where.
        at: usize,
        /// What it is.
        what: &'static str,
    },
    /// A value of another type than expected.
    #[error("expected {expected} at byte {at}")]
    Expected {
        /// Where.
        at: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// The list begins with the number of no message.
    #[error("unknown message type {code}")]
    UnknownType {
        /// The number.
        code: u64,
    },
    /// The list has too few or too many elements for its type.
    #[error("{message} has a wrong number of elements")]
    Arity {
        /// The message's name.
        message: &'static str,
    },
    /// An element of the message has the wrong type or is out of range.
    #[error("{message}.{field} must be {expected}")]
    Field {
        /// The message's name.
        message: &'static str,
        /// The element's name, or `Options.key` with the key that was wrong.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A known key of options or details has a value of the wrong type.
    #[error("{message} option {key} must be {expected}")]
    Option {
        /// The message's name.
        message: &'static str,
        /// The key.
        key: &'static str,
        /// What its value must be.
        expected: &'static str,
    },
}

/// A message cannot be encoded. What was written of it must be thrown away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload is of another serializer: transcode it first.
    #[error("payload is {found}, not {wanted}")]
    PayloadSerializer {
        /// What the payload is encoded with.
        found: Serializer,
        /// What the message is encoded with.
        wanted: Serializer,
    },
    /// JSON has no infinities and no NaN.
    #[error("number is not finite")]
    NotFinite,
    /// An integer is below -2^63 or above 2^64-1.
    #[error("integer is beyond 64 bits")]
    IntegerRange,
    /// JSON takes a text that starts with U+0000 for octets.
    #[error("text starts with U+0000, which JSON keeps for octets")]
    LeadingNul,
    /// More octets in one string, or values in one container, than the encoding can count.
    #[error("value is too long for its encoding")]
    TooLong,
}

/// A payload has no equivalent in another encoding, or none within the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TranscodeError {
    /// The payload itself is not well-formed, or beyond the limits.
    #[error("read payload")]
    Decode(#[from] DecodeError),
    /// A value cannot be written.
    #[error("write payload")]
    Encode(#[from] EncodeError),
    /// A key of a map is not a string.
    #[error("map key at byte {at} is not a string")]
    KeyNotText {
        /// Where the key is in the payload.
        at: usize,
    },
    /// The result is larger than the limit.
    #[error("payload of more than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
}
