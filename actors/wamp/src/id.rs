//! Ids: integers from 1 to 2^53, one type for each scope.

use std::fmt;
use std::num::NonZeroU64;

/// The largest id. JavaScript counts exactly up to one less: draw ids below it, accept it.
pub const ID_MAX: u64 = 1 << 53;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The id of that number, if it is from 1 to [`ID_MAX`].
            #[must_use]
            pub const fn new(number: u64) -> Option<Self> {
                match NonZeroU64::new(number) {
                    Some(number) if number.get() <= ID_MAX => Some(Self(number)),
                    _ => None,
                }
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0.get()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A session; global scope: random, unique.
    SessionId
}
id! {
    /// A publication; global scope: random.
    PublicationId
}
id! {
    /// A subscription; scope of the router, shared by all subscribers of one topic and match policy.
    SubscriptionId
}
id! {
    /// A registration; scope of the router, shared by all callees of one procedure and match policy.
    RegistrationId
}
id! {
    /// A request; scope of a session and direction: 1, 2, 3, ... and 1 again after [`ID_MAX`].
    RequestId
}

impl RequestId {
    /// The first request of a session.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The request after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        match Self::new(self.get() + 1) {
            Some(next) => next,
            None => Self::FIRST,
        }
    }
}
