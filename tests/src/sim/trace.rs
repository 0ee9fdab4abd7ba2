//! A hash of everything that happened, in order: two runs of one seed must agree in every bit of it.

use std::fmt;

/// The hash so far. Not cryptographic; any difference in order or content changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    notes: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0x9e37_79b9_7f4a_7c15, notes: 0 }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.hash, self.notes)
    }
}

impl Trace {
    /// Takes in a number.
    pub fn number(&mut self, number: u64) {
        // The finisher of splitmix64.
        let mut x = self.hash.rotate_left(5) ^ number;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.hash = x ^ (x >> 31);
        self.notes += 1;
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.number(u64::from_be_bytes(*chunk));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.number(u64::from_be_bytes(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_matter() {
        let of = |parts: &[&[u8]]| {
            let mut trace = Trace::default();
            parts.iter().for_each(|part| trace.bytes(part));
            trace
        };
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
        for other in [&[&b"a"[..], b"bc"][..], &[b"c", b"ab"], &[b"abc"], &[b"ab", b"d"]] {
            assert_ne!(of(&[b"ab", b"c"]), of(other));
        }
    }
}
