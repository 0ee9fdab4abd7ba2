//! What a message may cost at most.

/// No decoder follows deeper nesting than this, whatever the configured limit: it recurses once per level.
pub const DEPTH_CAP: usize = 256;

/// Limits on one message, checked before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of an encoded message in bytes; also of the payload that a transcoding produces.
    pub message_bytes: usize,
    /// Levels of lists and maps inside each other, the message's own list counted; at most [`DEPTH_CAP`] take effect.
    pub depth: usize,
    /// Values in the whole message, keys and containers counted.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 16 << 20, // what RawSocket can frame
            depth: 64,               // guess
            elements: 1 << 20,       // guess: a list of a million readings still passes
        }
    }
}
