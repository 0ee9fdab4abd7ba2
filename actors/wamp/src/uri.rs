//! The rules of URIs, and how patterns match them.
//!
//! What it is: URIs are components between dots. The loose rule keeps blanks, `#` and dots out of components; the strict
//! one admits lower-case letters, digits and `_` only. Patterns of prefixes may end in an empty component, those of
//! wildcards may have empty components anywhere.
//!
//! What it guarantees: [`matches()`] is the definition of matching; a faster structure has to agree with it.
//!
//! What it refuses: to know who may use which URI.

use std::cmp::Ordering;

use crate::message::MatchPolicy;

/// Which URIs are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strictness {
    /// What every router has to accept.
    #[default]
    Loose,
    /// What the specification recommends.
    Strict,
}

/// Why a string is no URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// A component is empty where none may be.
    #[error("empty component at byte {at}")]
    EmptyComponent {
        /// Where it would be.
        at: usize,
    },
    /// A character that components do not have.
    #[error("character not allowed at byte {at}")]
    Character {
        /// Where it is.
        at: usize,
    },
}

/// Checks a URI, or a pattern, by the rule of its match policy.
///
/// # Errors
/// [`UriError`]: it breaks the rule.
pub fn check(uri: &str, strictness: Strictness, policy: MatchPolicy) -> Result<(), UriError> {
    let bad = match strictness {
        Strictness::Strict => {
            uri.bytes().position(|octet| !matches!(octet, b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z'))
        }
        Strictness::Loose => uri.find(|c: char| c == '#' || c.is_whitespace()),
    };
    if let Some(at) = bad {
        return Err(UriError::Character { at });
    }
    let octets = uri.as_bytes();
    let ends_empty = octets.last().is_none_or(|last| *last == b'.');
    let empty = match policy {
        MatchPolicy::Wildcard => None,
        MatchPolicy::Exact if ends_empty => Some(octets.len()),
        MatchPolicy::Exact | MatchPolicy::Prefix => {
            if octets.first() == Some(&b'.') {
                Some(0)
            } else {
                octets.windows(2).position(|pair| pair == b"..").map(|at| at + 1)
            }
        }
    };
    empty.map_or(Ok(()), |at| Err(UriError::EmptyComponent { at }))
}

/// Whether the first component is `wamp`, which is the router's own.
#[must_use]
pub fn is_reserved(uri: &str) -> bool {
    uri.strip_prefix("wamp").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a subscription's or registration's pattern matches a URI.
#[must_use]
pub fn matches(policy: MatchPolicy, pattern: &str, uri: &str) -> bool {
    match policy {
        MatchPolicy::Exact => pattern == uri,
        // As a string: `com.a.b` matches `com.a.bc`, too.
        MatchPolicy::Prefix => uri.starts_with(pattern),
        MatchPolicy::Wildcard => {
            let mut components = uri.split('.');
            let fits = pattern.split('.').all(|wanted| {
                components.next().is_some_and(|found| wanted.is_empty() || wanted == found)
            });
            fits && components.next().is_none()
        }
    }
}

/// Orders wildcard patterns that match the same URI: the less one is the one to be called.
///
/// At the first component that only one of them names, the one that names it wins.
#[must_use]
pub fn wildcard_precedence(a: &str, b: &str) -> Ordering {
    let empty = |pattern| str::split(pattern, '.').map(str::is_empty);
    empty(a).cmp(empty(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use MatchPolicy::{Exact, Prefix, Wildcard};
    use Strictness::{Loose, Strict};

    #[test]
    fn check_table() {
        // Per row: the URI, then whether it passes loosely and strictly as exact, prefix, wildcard.
        for (uri, loose, strict) in [
            ("com.myapp.topic1", [true; 3], [true; 3]),
            ("com", [true; 3], [true; 3]),
            ("", [false, true, true], [false, true, true]),
            (".", [false, false, true], [false, false, true]),
            ("com.", [false, true, true], [false, true, true]),
            ("com..", [false, false, true], [false, false, true]),
            (".com", [false, false, true], [false, false, true]),
            ("com..topic", [false, false, true], [false, false, true]),
            ("com.My-App.Tüv", [true; 3], [false; 3]),
            ("com.my app", [false; 3], [false; 3]),
            ("com.my#app", [false; 3], [false; 3]),
            ("com.my\u{a0}app", [false; 3], [false; 3]),
            ("com.\u{3000}", [false; 3], [false; 3]),
            ("com.tab\t", [false; 3], [false; 3]),
        ] {
            let pass = |strictness| {
                [Exact, Prefix, Wildcard].map(|policy| check(uri, strictness, policy).is_ok())
            };
            assert_eq!(pass(Loose), loose, "{uri:?} loose");
            assert_eq!(pass(Strict), strict, "{uri:?} strict");
        }
    }

    #[test]
    fn check_says_where() {
        let check = |uri| check(uri, Loose, Exact).unwrap_err();
        assert_eq!(check("a..b"), UriError::EmptyComponent { at: 2 });
        assert_eq!(check("a.b."), UriError::EmptyComponent { at: 4 });
        assert_eq!(check(".a"), UriError::EmptyComponent { at: 0 });
        assert_eq!(check("a.b c"), UriError::Character { at: 3 });
    }

    #[test]
    fn reserved_first_component_only() {
        for uri in ["wamp", "wamp.", "wamp.session.count"] {
            assert!(is_reserved(uri), "{uri}");
        }
        for uri in ["", "wampum.a", "com.wamp.a", "WAMP.a", "wam"] {
            assert!(!is_reserved(uri), "{uri}");
        }
    }

    #[test]
    fn matches_table() {
        for (policy, pattern, uri, fits) in [
            (Exact, "a.b", "a.b", true),
            (Exact, "a.b", "a.bc", false),
            (Prefix, "a.b", "a.bc.d", true),
            (Prefix, "", "x", true),
            (Prefix, "a.b.", "a.b", false),
            (Wildcard, "a..c", "a.b.c", true),
            (Wildcard, "a..c", "a.b.b.c", false),
            (Wildcard, "a..c", "a.c", false),
            (Wildcard, "a.b.", "a.b.c", true),
            (Wildcard, "a.b.", "a.b", false),
            (Wildcard, ".", "a.b", true),
            (Wildcard, "", "a", true),
            (Wildcard, "", "a.b", false),
        ] {
            assert_eq!(matches(policy, pattern, uri), fits, "{policy:?} {pattern:?} {uri:?}");
        }
    }

    #[test]
    fn precedence_of_literals_left_to_right() {
        let mut patterns = ["..c.d", "a...d", "a.b..", "a..c.d", "a.b..d"];
        patterns.sort_by(|a, b| wildcard_precedence(a, b));
        assert_eq!(patterns, ["a.b..d", "a.b..", "a..c.d", "a...d", "..c.d"]);
    }

    proptest! {
        /// What passes as exact passes as every policy, and matches itself by every one.
        #[test]
        fn exact_uris_are_patterns_of_themselves(uri in "[a-c.#A ]{0,8}") {
            for strictness in [Loose, Strict] {
                if check(&uri, strictness, Exact).is_ok() {
                    for policy in [Exact, Prefix, Wildcard] {
                        prop_assert_eq!(check(&uri, strictness, policy), Ok(()));
                        prop_assert!(matches(policy, &uri, &uri));
                    }
                    prop_assert_eq!(check(&uri, Loose, Exact), Ok(()));
                }
            }
        }
    }
}
