//! Roles of peers and the features they announce.

use crate::value::{Dict, Value};

/// Features of one role, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u32);

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $wire:literal;)*) => {
        impl Features {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// All features with their names.
            pub const NAMES: &'static [(&'static str, Self)] = &[$(($wire, Self::$name)),*];
        }
    };
}

features! {
    /// A call may have many results.
    PROGRESSIVE_CALL_RESULTS = 0, "progressive_call_results";
    /// A call may have many parts.
    PROGRESSIVE_CALL_INVOCATIONS = 1, "progressive_call_invocations";
    /// Calls may have a time limit.
    CALL_TIMEOUT = 2, "call_timeout";
    /// Calls may be given up.
    CALL_CANCELING = 3, "call_canceling";
    /// Callees may learn who calls.
    CALLER_IDENTIFICATION = 4, "caller_identification";
    /// Invocations say how far the caller is trusted.
    CALL_TRUSTLEVELS = 5, "call_trustlevels";
    /// Events and procedures about registrations.
    REGISTRATION_META_API = 6, "registration_meta_api";
    /// Registrations of prefixes and wildcards.
    PATTERN_BASED_REGISTRATION = 7, "pattern_based_registration";
    /// Many callees of one procedure.
    SHARED_REGISTRATION = 8, "shared_registration";
    /// Calls go to parts of a procedure.
    SHARDED_REGISTRATION = 9, "sharded_registration";
    /// The router may take registrations away.
    REGISTRATION_REVOCATION = 10, "registration_revocation";
    /// A callee may send a call elsewhere.
    CALL_REROUTE = 11, "call_reroute";
    /// Publications left behind by a session that ends.
    TESTAMENT_META_API = 12, "testament_meta_api";
    /// Events and procedures about sessions.
    SESSION_META_API = 13, "session_meta_api";
    /// Publishers say who gets an event.
    SUBSCRIBER_BLACKWHITE_LISTING = 14, "subscriber_blackwhite_listing";
    /// Publishers may get their own events.
    PUBLISHER_EXCLUSION = 15, "publisher_exclusion";
    /// Subscribers may learn who publishes.
    PUBLISHER_IDENTIFICATION = 16, "publisher_identification";
    /// Events say how far the publisher is trusted.
    PUBLICATION_TRUSTLEVELS = 17, "publication_trustlevels";
    /// Events and procedures about subscriptions.
    SUBSCRIPTION_META_API = 18, "subscription_meta_api";
    /// Subscriptions to prefixes and wildcards.
    PATTERN_BASED_SUBSCRIPTION = 19, "pattern_based_subscription";
    /// Events go to parts of the subscribers.
    SHARDED_SUBSCRIPTION = 20, "sharded_subscription";
    /// Past events can be asked for.
    EVENT_HISTORY = 21, "event_history";
    /// The last event of a topic is kept.
    EVENT_RETENTION = 22, "event_retention";
    /// The router may take subscriptions away.
    SUBSCRIPTION_REVOCATION = 23, "subscription_revocation";
    /// Payloads the router does not look into.
    PAYLOAD_PASSTHRU_MODE = 24, "payload_passthru_mode";
}

impl Features {
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether all of `others` are in the set.
    #[must_use]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The set with `others` added.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The set without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The feature of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        // The chapter on progressive invocations spells it with two l once.
        let name = if name == "call_cancelling" { "call_canceling" } else { name };
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, feature)| *feature)
    }

    /// The names of the features in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(_, one)| self.contains(*one)).map(|(name, _)| *name)
    }
}

/// The roles of a peer, each with its features; `None` where it does not have the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Calls procedures.
    pub caller: Option<Features>,
    /// Offers procedures.
    pub callee: Option<Features>,
    /// Publishes events.
    pub publisher: Option<Features>,
    /// Receives events.
    pub subscriber: Option<Features>,
    /// Routes events.
    pub broker: Option<Features>,
    /// Routes calls.
    pub dealer: Option<Features>,
}

impl Roles {
    /// Whether a client's role is among them.
    #[must_use]
    pub fn has_client(&self) -> bool {
        [self.caller, self.callee, self.publisher, self.subscriber].iter().any(Option::is_some)
    }

    /// The roles that are there, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Features)> {
        let all = [
            ("subscriber", self.subscriber),
            ("publisher", self.publisher),
            ("callee", self.callee),
            ("caller", self.caller),
            ("broker", self.broker),
            ("dealer", self.dealer),
        ];
        all.into_iter().filter_map(|(name, features)| Some((name, features?)))
    }

    /// The role of a name, to be read or set.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Option<Features>> {
        match name {
            "caller" => Some(&mut self.caller),
            "callee" => Some(&mut self.callee),
            "publisher" => Some(&mut self.publisher),
            "subscriber" => Some(&mut self.subscriber),
            "broker" => Some(&mut self.broker),
            "dealer" => Some(&mut self.dealer),
            _ => None,
        }
    }

    /// The roles as they stand in `Details.roles`.
    #[must_use]
    pub fn to_dict(&self) -> Dict {
        let role = |features: Features| {
            let names: Dict = features.names().map(|name| (name, Value::Bool(true))).collect();
            if names.is_empty() { Dict::new() } else { Dict::new().with("features", names) }
        };
        self.iter().map(|(name, features)| (name, role(features))).collect()
    }
}
