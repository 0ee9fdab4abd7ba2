//! The URIs of errors and of ends of sessions (WAMP, predefined URIs).

/// A URI breaks the rules.
pub const INVALID_URI: &str = "wamp.error.invalid_uri";
/// Nothing is registered that matches.
pub const NO_SUCH_PROCEDURE: &str = "wamp.error.no_such_procedure";
/// The procedure is taken, or shared by another policy.
pub const PROCEDURE_ALREADY_EXISTS: &str = "wamp.error.procedure_already_exists";
/// The session is not on that registration.
pub const NO_SUCH_REGISTRATION: &str = "wamp.error.no_such_registration";
/// The session is not on that subscription.
pub const NO_SUCH_SUBSCRIPTION: &str = "wamp.error.no_such_subscription";
/// An argument or an option has a value that is not allowed.
pub const INVALID_ARGUMENT: &str = "wamp.error.invalid_argument";
/// The call was cancelled, or its callee is gone.
pub const CANCELED: &str = "wamp.error.canceled";
/// A message is larger than its receiver takes.
pub const PAYLOAD_SIZE_EXCEEDED: &str = "wamp.error.payload_size_exceeded";
/// The client broke the protocol.
pub const PROTOCOL_VIOLATION: &str = "wamp.error.protocol_violation";
/// It may not.
pub const NOT_AUTHORIZED: &str = "wamp.error.not_authorized";
/// Whether it may could not be decided.
pub const AUTHORIZATION_FAILED: &str = "wamp.error.authorization_failed";
/// There is no such realm.
pub const NO_SUCH_REALM: &str = "wamp.error.no_such_realm";
/// None of the offered methods is accepted.
pub const NO_MATCHING_AUTH_METHOD: &str = "wamp.error.no_matching_auth_method";
/// The client has to prove who it is.
pub const AUTHENTICATION_REQUIRED: &str = "wamp.error.authentication_required";
/// Joining failed for technical reasons.
pub const AUTHENTICATION_FAILED: &str = "wamp.error.authentication_failed";
/// The call took too long.
pub const TIMEOUT: &str = "wamp.error.timeout";
/// The router does not let sessions hide or disclose themselves.
pub const DISCLOSE_ME_DISALLOWED: &str = "wamp.error.option_disallowed.disclose_me";
/// A peer is out of reach.
pub const NETWORK_FAILURE: &str = "wamp.error.network_failure";
/// A callee has no time: try another.
pub const UNAVAILABLE: &str = "wamp.error.unavailable";
/// All callees have no time.
pub const NO_AVAILABLE_CALLEE: &str = "wamp.error.no_available_callee";
/// The callee cannot do what the call asks for.
pub const FEATURE_NOT_SUPPORTED: &str = "wamp.error.feature_not_supported";
/// There is no such session.
pub const NO_SUCH_SESSION: &str = "wamp.error.no_such_session";

/// A session has or asks for more than the realm allows it. The specification has no word for that.
pub const LIMIT_EXCEEDED: &str = "weald.error.limit_exceeded";

/// The node stops.
pub const SYSTEM_SHUTDOWN: &str = "wamp.close.system_shutdown";
/// The answer to a GOODBYE.
pub const GOODBYE_AND_OUT: &str = "wamp.close.goodbye_and_out";
/// A session was ended by another.
pub const KILLED: &str = "wamp.close.killed";
