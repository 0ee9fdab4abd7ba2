//! Realms that are open to everybody.

use bytestring::ByteString;
use futures::FutureExt;
use futures::future::BoxFuture;
use weald_wamp::message::MatchPolicy;

use super::{Action, Authenticator, Authorizer, Decision, Disclosure, Offer, Principal, Verdict};
use crate::error;

const METHOD: &str = "anonymous";

/// Takes everybody in who offers the method `anonymous` or none, under a name of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous {
    /// Whether clients of other machines are let in.
    pub remote: bool,
}

impl Authenticator for Anonymous {
    fn hello(&self, offer: &Offer<'_>) -> BoxFuture<'static, Verdict> {
        let methods = offer.details.authmethods.as_deref();
        let is_offered =
            methods.is_none_or(|methods| methods.iter().any(|method| *method == METHOD));
        let is_near = offer.peer.is_none_or(|peer| peer.to_canonical().is_loopback());
        let verdict = if !is_offered {
            Verdict::Refuse {
                reason: error::NO_MATCHING_AUTH_METHOD,
                message: format!("this realm takes {METHOD} only"),
            }
        } else if !is_near && !self.remote {
            Verdict::Refuse {
                reason: error::AUTHENTICATION_REQUIRED,
                message: "this realm is open to clients on the machine of the node only".to_owned(),
            }
        } else {
            Verdict::Welcome(Principal {
                // Unique in the cluster, and of no meaning.
                authid: ByteString::from(format!("anonymous-{:x}", offer.session.get())),
                authrole: ByteString::from_static(METHOD),
                authmethod: ByteString::from_static(METHOD),
                authprovider: ByteString::from_static("weald"),
                authextra: None,
            })
        };
        async move { verdict }.boxed()
    }
}

/// Allows everything.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// Who learns who calls and publishes.
    pub disclosure: Disclosure,
    /// How far clients are trusted, if that is said at all.
    pub trustlevel: Option<u64>,
}

impl Default for Open {
    fn default() -> Self {
        Self { disclosure: Disclosure::OnRequest, trustlevel: None }
    }
}

impl Authorizer for Open {
    fn decide(&self, _: &Principal, _: Action, _: &str, _: MatchPolicy) -> Decision {
        Decision::Allow { disclosure: self.disclosure, trustlevel: self.trustlevel }
    }

    fn gives_trustlevels(&self) -> bool {
        self.trustlevel.is_some()
    }

    fn discloses(&self) -> bool {
        self.disclosure != Disclosure::Never
    }
}
