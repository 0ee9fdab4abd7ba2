//! What clients do, in one line each.

use super::pattern::{ANY, ID};
use super::peer::Peer;
use serde_json::{Value, json};

/// A call that reached its callee.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// Number of the request.
    pub request: u64,
    /// Details.
    pub details: Value,
    /// Arguments; null when there are none.
    pub args: Value,
    /// Named arguments; null when there are none.
    pub kwargs: Value,
}

/// A message with a payload, where there is one.
fn with_payload(mut message: Value, args: &Value, kwargs: &Value) -> Value {
    if let Some(items) = message.as_array_mut() {
        match (args.is_null(), kwargs.is_null()) {
            (true, true) => {}
            (false, true) => items.push(args.clone()),
            (true, false) => items.extend([json!([]), kwargs.clone()]),
            (false, false) => items.extend([args.clone(), kwargs.clone()]),
        }
    }
    message
}

fn id(message: &Value, place: usize) -> u64 {
    message[place].as_u64().unwrap_or_else(|| panic!("{message} has no id at {place}"))
}

impl Peer {
    /// Subscribes; the subscription.
    #[track_caller]
    pub fn subscribe(&mut self, topic: &str, options: &Value) -> u64 {
        let request = self.next_request();
        self.send(&json!([32, request, options, topic]));
        id(&self.expect(&json!([33, request, ID])), 2)
    }

    /// Subscribes among events that others bring about, which are skipped; the subscription.
    #[track_caller]
    pub fn subscribe_amid_events(&mut self, topic: &str) -> u64 {
        let request = self.next_request();
        self.send(&json!([32, request, {}, topic]));
        loop {
            let message = self.receive();
            if message[0] != 36 {
                assert_eq!((&message[0], &message[1]), (&json!(33), &json!(request)), "{message}");
                return id(&message, 2);
            }
        }
    }

    /// Tries to subscribe; how it is refused.
    #[track_caller]
    pub fn subscribe_fails(&mut self, topic: &str, options: &Value) -> String {
        let request = self.next_request();
        self.send(&json!([32, request, options, topic]));
        self.refusal(32, request)
    }

    /// Ends a subscription.
    #[track_caller]
    pub fn unsubscribe(&mut self, subscription: u64) {
        let request = self.next_request();
        self.send(&json!([34, request, subscription]));
        self.expect(&json!([35, request]));
    }

    /// Publishes without an acknowledgement.
    pub fn publish(&mut self, topic: &str, options: &Value, args: &Value) {
        self.publish_with(topic, options, args, &Value::Null);
    }

    /// The same, with named arguments.
    pub fn publish_with(&mut self, topic: &str, options: &Value, args: &Value, kwargs: &Value) {
        let request = self.next_request();
        self.send(&with_payload(json!([16, request, options, topic]), args, kwargs));
    }

    /// Publishes and waits for the acknowledgement; the publication.
    #[track_caller]
    pub fn publish_acked(&mut self, topic: &str, options: &Value, args: &Value) -> u64 {
        let mut options = options.clone();
        options["acknowledge"] = true.into();
        self.publish(topic, &options, args);
        let request = self.last_request();
        id(&self.expect(&json!([17, request, ID])), 2)
    }

    /// Tries to publish with an acknowledgement; how it is refused.
    #[track_caller]
    pub fn publish_fails(&mut self, topic: &str, options: &Value) -> String {
        let mut options = options.clone();
        options["acknowledge"] = true.into();
        self.publish(topic, &options, &Value::Null);
        let request = self.last_request();
        self.refusal(16, request)
    }

    /// An event with these arguments; its details.
    #[track_caller]
    pub fn event(&mut self, subscription: u64, args: &Value) -> Value {
        let pattern = with_payload(json!([36, subscription, ID, {}]), args, &Value::Null);
        self.expect(&pattern)[3].clone()
    }

    /// Registers; the registration.
    #[track_caller]
    pub fn register(&mut self, procedure: &str, options: &Value) -> u64 {
        let request = self.next_request();
        self.send(&json!([64, request, options, procedure]));
        id(&self.expect(&json!([65, request, ID])), 2)
    }

    /// Tries to register; how it is refused.
    #[track_caller]
    pub fn register_fails(&mut self, procedure: &str, options: &Value) -> String {
        let request = self.next_request();
        self.send(&json!([64, request, options, procedure]));
        self.refusal(64, request)
    }

    /// Ends a registration.
    #[track_caller]
    pub fn unregister(&mut self, registration: u64) {
        let request = self.next_request();
        self.send(&json!([66, request, registration]));
        self.expect(&json!([67, request]));
    }

    /// Calls and waits for nothing; the request.
    pub fn call(&mut self, procedure: &str, options: &Value, args: &Value) -> u64 {
        self.call_with(procedure, options, args, &Value::Null)
    }

    /// The same, with named arguments.
    pub fn call_with(
        &mut self,
        procedure: &str,
        options: &Value,
        args: &Value,
        kwargs: &Value,
    ) -> u64 {
        let request = self.next_request();
        self.send(&with_payload(json!([48, request, options, procedure]), args, kwargs));
        request
    }

    /// Calls a procedure that the router answers; arguments of the result.
    #[track_caller]
    pub fn ask(&mut self, procedure: &str, args: &Value, kwargs: &Value) -> Value {
        let request = self.call_with(procedure, &json!({}), args, kwargs);
        let answer = self.receive();
        let is_result = answer[0] == 50 && answer[1] == request;
        assert!(is_result, "asked {procedure} {args} {kwargs}, got {answer}");
        answer[3].clone()
    }

    /// Calls; the URI of the error that comes back.
    #[track_caller]
    pub fn call_fails(&mut self, procedure: &str, options: &Value, args: &Value) -> String {
        let request = self.call(procedure, options, args);
        self.refusal(48, request)
    }

    /// An error for this request; its URI.
    #[track_caller]
    pub fn refusal(&mut self, kind: u64, request: u64) -> String {
        let error = self.receive();
        let good = error[0] == 8 && error[1] == kind && error[2] == request && error[3].is_object();
        let uri = error[4].as_str().filter(|_| good);
        uri.unwrap_or_else(|| panic!("expected an error for {kind}/{request}, got {error}"))
            .to_owned()
    }

    /// A call that must arrive now.
    #[track_caller]
    pub fn invoked(&mut self, registration: u64) -> Invocation {
        let message = self.receive();
        let good = message[0] == 68 && message[2] == registration && message[3].is_object();
        assert!(good, "expected an invocation of {registration}, got {message}");
        Invocation {
            request: id(&message, 1),
            details: message[3].clone(),
            args: message[4].clone(),
            kwargs: message[5].clone(),
        }
    }

    /// Answers a call.
    pub fn yields(&mut self, invocation: u64, options: &Value, args: &Value) {
        self.send(&with_payload(json!([70, invocation, options]), args, &Value::Null));
    }

    /// Refuses a call.
    pub fn fails(&mut self, invocation: u64, uri: &str) {
        self.send(&json!([8, 68, invocation, {}, uri]));
    }

    /// The result of a call with these arguments; its details.
    #[track_caller]
    pub fn result(&mut self, request: u64, args: &Value) -> Value {
        let pattern = with_payload(json!([50, request, {}]), args, &Value::Null);
        self.expect(&pattern)[2].clone()
    }

    /// Gives a call up.
    pub fn cancel(&mut self, request: u64, mode: &str) {
        self.send(&json!([49, request, { "mode": mode }]));
    }

    /// The router gives an invocation up; its options.
    #[track_caller]
    pub fn interrupted(&mut self, invocation: u64) -> Value {
        self.expect(&json!([69, invocation, {}]))[2].clone()
    }

    /// Says goodbye and hears it.
    #[track_caller]
    pub fn goodbye(&mut self) {
        self.send(&json!([6, {}, "wamp.close.close_realm"]));
        self.expect(&json!([6, ANY, "wamp.close.goodbye_and_out"]));
    }
}
