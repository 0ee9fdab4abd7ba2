//! Rows of the table of names.
//!
//! # Shape
//! Key: the name, a zero byte (no name has one), the node's id. Each row has one writer, the node it names, so that rows of
//! two nodes for one name are never siblings. Value: version byte 1, then the postcard of a [`Claim`].

use super::directory::Claim;
use weald_storage::{Key, NodeId};

/// The table of names: in memory, replicated as any, written by nodes only.
pub(super) const TABLE: &str = "weald.names";
const VERSION: u8 = 1;
const NODE_BYTES: usize = 16;

/// The key of a node's row for a name; none for a name that is none.
pub(super) fn key(name: &str, node: NodeId) -> Option<Key> {
    let mut bytes = Vec::with_capacity(name.len() + 1 + NODE_BYTES);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&node.0);
    Key::new(&bytes).ok()
}

/// Name and node of a row.
pub(super) fn read_key(key: &Key) -> Option<(&str, NodeId)> {
    let (rest, node) = key.as_bytes().split_last_chunk::<NODE_BYTES>()?;
    let (zero, name) = rest.split_last()?;
    let name = std::str::from_utf8(name).ok()?;
    (*zero == 0 && super::core::is_name(name)).then_some((name, NodeId(*node)))
}

pub(super) fn value(claim: &Claim) -> Vec<u8> {
    // Writing to a Vec fails only for types without a known length, of which there is none here.
    postcard::to_extend(claim, vec![VERSION]).unwrap_or_default()
}

/// What a row says; none when it is not to be read, as one of a later release.
pub(super) fn read_value(bytes: &[u8]) -> Option<Claim> {
    let (&VERSION, body) = bytes.split_first()? else { return None };
    match postcard::take_from_bytes::<Claim>(body) {
        Ok((claim, [])) => Some(claim),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_keep_their_bytes() {
        let node = NodeId([7; 16]);
        let row = key("pump", node).unwrap();
        assert_eq!(row.as_bytes(), [b"pump\0".as_slice(), &[7; 16]].concat());
        assert_eq!(read_key(&row), Some(("pump", node)));
        let claim = Claim { incarnation: 2, life: 3, owner: "app".into(), since_ms: 300 };
        assert_eq!(value(&claim), [1, 2, 3, 3, b'a', b'p', b'p', 0xAC, 2]);
        assert_eq!(read_value(&value(&claim)), Some(claim));
        for bad in [
            &b"short"[..],
            &[b"\0".as_slice(), &[7; 16]].concat(),
            &[b"x1".as_slice(), &[7; 16]].concat(),
        ] {
            assert_eq!(read_key(&Key::new(bad).unwrap()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_rows_never_panics(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            let _nothing_or_something = (read_value(&bytes), read_key(&Key::new(&bytes).unwrap()).is_some());
        }
    }
}
