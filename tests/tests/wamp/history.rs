//! Events of the past (`event_history`).

use crate::net::{Net, none};
use crate::run::{Over, Run};
use serde_json::json;

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, history_of_a_topic_without_one_is_refused);
}

fn history_of_a_topic_without_one_is_refused(net: &mut Net) {
    let (mut asker, mut subscriber) = net.pair();
    let topic = net.uri("forgotten");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    subscriber.publish_acked(&topic, &none(), &json!([1]));
    let request = asker.call("wamp.subscription.get_events", &none(), &json!([subscription]));
    let answer = asker.receive();
    // No events, or none that are kept: not somebody else's.
    let fit = answer == json!([50, request, {}]) || answer == json!([50, request, {}, []]);
    let refused = answer[0] == 8 && answer[4] == "wamp.error.no_such_subscription";
    assert!(fit || refused, "{answer}");
}
