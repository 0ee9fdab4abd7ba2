//! Options of requests, and the choices they name.

use bytestring::ByteString;

use crate::id::SessionId;

/// A choice that a client names by a string.
///
/// A name that is unknown here is kept, so that the router can answer as it sees fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice<T> {
    /// Not said: the default of the choice holds.
    #[default]
    Absent,
    /// A known one.
    Known(T),
    /// Some other name.
    Unknown(ByteString),
}

impl<T: Copy + Default> Choice<T> {
    /// What was chosen, the default where nothing was said.
    ///
    /// # Errors
    /// [`UnknownChoice`]: the name is unknown.
    pub fn get(&self) -> Result<T, UnknownChoice> {
        match self {
            Self::Absent => Ok(T::default()),
            Self::Known(choice) => Ok(*choice),
            Self::Unknown(name) => Err(UnknownChoice(name.clone())),
        }
    }
}

impl<T> From<T> for Choice<T> {
    fn from(choice: T) -> Self {
        Self::Known(choice)
    }
}

/// A choice with a name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown value {0:?}")]
pub struct UnknownChoice(pub ByteString);

/// A closed set of names.
pub(crate) trait Names: Copy + 'static {
    /// All choices with their names.
    const NAMES: &'static [(&'static str, Self)];
}

/// How a subscription's or registration's URI is compared (`match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum MatchPolicy {
    /// Equal.
    #[default]
    Exact,
    /// The URI begins with the pattern, as a string.
    Prefix,
    /// As many components, where an empty one of the pattern fits any.
    Wildcard,
}

impl Names for MatchPolicy {
    const NAMES: &'static [(&'static str, Self)] =
        &[("exact", Self::Exact), ("prefix", Self::Prefix), ("wildcard", Self::Wildcard)];
}

/// Which callee of a shared registration gets a call (`invoke`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum InvokePolicy {
    /// There is one callee only.
    #[default]
    Single,
    /// The one that has been there longest.
    First,
    /// The one that came last.
    Last,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

impl Names for InvokePolicy {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("single", Self::Single),
        ("first", Self::First),
        ("last", Self::Last),
        ("roundrobin", Self::RoundRobin),
        ("random", Self::Random),
    ];
}

/// How a call is given up (`mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum CancelMode {
    /// The callee is not told, the caller gets its ERROR at once.
    Skip,
    /// The callee is told, the caller gets what the callee answers.
    Kill,
    /// The callee is told, the caller gets its ERROR at once. The specification names no default; clients in the field
    /// expect this one.
    #[default]
    KillNoWait,
}

impl Names for CancelMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("skip", Self::Skip), ("kill", Self::Kill), ("killnowait", Self::KillNoWait)];
}

macro_rules! name {
    ($($type:ty),*) => {$(
        impl $type {
            /// The name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                Self::NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
            }

            /// The choice of a name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, choice)| *choice)
            }
        }
    )*};
}
name!(MatchPolicy, InvokePolicy, CancelMode);

/// Payload passthru mode: the payload is one octet string that the router does not look into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ppt {
    /// `ppt_scheme`; the mode is on when it is there.
    pub scheme: ByteString,
    /// `ppt_serializer`.
    pub serializer: Option<ByteString>,
    /// `ppt_cipher`.
    pub cipher: Option<ByteString>,
    /// `ppt_keyid`.
    pub keyid: Option<ByteString>,
}

/// Who of the subscribers gets an event: whoever is in every `eligible` list present and in no `exclude` list.
///
/// A list that is present and empty is not the same as one that is absent: eligible to none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receivers {
    /// `exclude`: these sessions not.
    pub exclude: Option<Vec<SessionId>>,
    /// `exclude_authid`.
    pub exclude_authid: Option<Vec<ByteString>>,
    /// `exclude_authrole`.
    pub exclude_authrole: Option<Vec<ByteString>>,
    /// `eligible`: these sessions only.
    pub eligible: Option<Vec<SessionId>>,
    /// `eligible_authid`.
    pub eligible_authid: Option<Vec<ByteString>>,
    /// `eligible_authrole`.
    pub eligible_authrole: Option<Vec<ByteString>>,
}

/// Options of PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishOptions {
    /// Answer with PUBLISHED or ERROR.
    pub acknowledge: bool,
    /// Not to the publisher itself; absent is true.
    pub exclude_me: Option<bool>,
    /// Tell subscribers who published.
    pub disclose_me: Option<bool>,
    /// Keep the event for those who subscribe later.
    pub retain: bool,
    /// Who gets it.
    pub receivers: Option<Box<Receivers>>,
    /// Payload passthru mode.
    pub ppt: Option<Box<Ppt>>,
}

/// Options of SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscribeOptions {
    /// How topics are compared.
    pub match_policy: Choice<MatchPolicy>,
    /// Send the retained event.
    pub get_retained: bool,
}

/// Options of REGISTER.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterOptions {
    /// How procedures are compared.
    pub match_policy: Choice<MatchPolicy>,
    /// Which callee gets a call.
    pub invoke: Choice<InvokePolicy>,
    /// Tell the callee who calls.
    pub disclose_caller: bool,
    /// The callee keeps time itself.
    pub forward_timeout: bool,
    /// Take the procedure from those who have it.
    pub force_reregister: bool,
    /// How many invocations the callee takes at a time.
    pub concurrency: Option<u64>,
}

/// Options of CALL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallOptions {
    /// `timeout` in milliseconds; 0 is none.
    pub timeout_ms: Option<u64>,
    /// Send progressive results.
    pub receive_progress: bool,
    /// More parts of this call follow.
    pub progress: bool,
    /// Tell the callee who calls.
    pub disclose_me: bool,
    /// Payload passthru mode.
    pub ppt: Option<Box<Ppt>>,
}

/// Options of CANCEL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CancelOptions {
    /// How.
    pub mode: Choice<CancelMode>,
}

/// Options of INTERRUPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterruptOptions {
    /// How.
    pub mode: Choice<CancelMode>,
    /// Why, as an error URI.
    pub reason: Option<ByteString>,
}

/// Options of YIELD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct YieldOptions {
    /// More results follow.
    pub progress: bool,
    /// Payload passthru mode.
    pub ppt: Option<Box<Ppt>>,
}
