//! Byte cursor and varints shared by the encodings of this crate.
//!
//! Guarantees: reading never panics, never allocates and never looks past the slice; a varint has
//! exactly one accepted form (the shortest), so that equal values have equal bytes.
//! Refuses: to know what the bytes mean; versions, checksums and limits belong to the callers.

/// Appends `n` as an unsigned LEB128 varint in its shortest form.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    loop {
        let [low, ..] = n.to_le_bytes();
        n >>= 7;
        if n == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// A cursor over borrowed bytes. `None` from any method means that the bytes are malformed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is not read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes not read yet.
    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    #[inline]
    pub(crate) fn u64_be(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    /// Reads a varint; a form longer than needed, or beyond 64 bits, is malformed.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut n = u64::from(first & 0x7f);
        for shift in (7..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            n |= bits << shift;
            if byte < 0x80 {
                return (byte != 0).then_some(n);
            }
        }
        None
    }

    /// Reads a count of items that take at least `item_bytes_min` bytes each. A count that the
    /// remaining bytes cannot hold is malformed, so callers may reserve memory for it.
    #[inline]
    pub(crate) fn count(&mut self, item_bytes_min: usize) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.rest.len() / item_bytes_min).then_some(count)
    }

    /// Reads a varint length and that many bytes.
    #[inline]
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.bytes(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_round_trips_at_every_width() {
        let mut cases = vec![0, u64::MAX];
        for bits in 0..64 {
            cases.extend([1u64 << bits, (1u64 << bits) - 1, (1u64 << bits) | 1]);
        }
        for n in cases {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            let mut reader = Reader::new(&out);
            assert_eq!((reader.varint(), reader.remaining()), (Some(n), 0), "{n}");
            for cut in 0..out.len() {
                assert_eq!(Reader::new(&out[..cut]).varint(), None, "{n} cut at {cut}");
            }
        }
    }

    #[test]
    fn varint_other_forms_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0x00],
        ] {
            assert_eq!(Reader::new(bytes).varint(), None, "{bytes:x?}");
        }
    }

    #[test]
    fn count_beyond_the_bytes_is_refused() {
        assert_eq!(Reader::new(&[2, 0, 0, 0, 0]).count(2), Some(2));
        assert_eq!(Reader::new(&[3, 0, 0, 0, 0]).count(2), None);
        assert_eq!(Reader::new(&[4, 1, 2, 3]).sized(), None);
    }
}
