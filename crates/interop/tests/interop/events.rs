//! Events between our node and the reference's, in both directions.

use pilot_interop::{Node, Pair, until};
use serde_json::Value;

/// Runs `publish` until `subscribe` has heard something, as the protocol confirms no subscription.
fn heard(subscribe: (&Node, &[&str]), publish: (&Node, &[&str])) -> Value {
    let mut listening = subscribe.0.start_ctl(subscribe.1);
    until("an event is heard", || {
        publish.0.ctl(publish.1);
        (!listening.is_running()).then_some(())
    });
    listening.data()
}

#[test]
fn each_subscribes_and_publishes_at_the_broker_of_the_other() {
    let pair = Pair::trusting();
    for (agent, broker) in pair.directions() {
        let subscribe = ["subscribe", &broker.address(), "tasks.results", "--count", "1", "--timeout", "30s"];
        let publish = ["publish", &broker.address(), "tasks.results", "--data", r#"{"id":1}"#];
        let heard = heard((agent, &subscribe), (agent, &publish));
        assert_eq!(heard["events"][0]["topic"], "tasks.results", "{heard}");
        assert_eq!(heard["events"][0]["data"], r#"{"id":1}"#, "{heard}");
    }
    pair.assert_sealed();
}

#[test]
fn each_hears_what_the_other_publishes_at_home() {
    let pair = Pair::trusting();
    // A private reference node cannot reach its own broker.
    pair.theirs.ctl(&["set-public"]);
    for (subscriber, broker) in pair.directions() {
        let subscribe = ["subscribe", &broker.address(), "alerts", "--count", "1", "--timeout", "30s"];
        let publish = ["publish", &broker.address(), "alerts", "--data", "look here"];
        let heard = heard((subscriber, &subscribe), (broker, &publish));
        assert_eq!(heard["events"][0]["data"], "look here", "{heard}");
    }
}

#[test]
fn each_publishes_to_a_subscriber_at_home_on_the_other_side() {
    let pair = Pair::trusting();
    pair.theirs.ctl(&["set-public"]);
    for (publisher, broker) in pair.directions() {
        let subscribe = ["subscribe", &broker.address(), "tasks", "--count", "1", "--timeout", "30s"];
        let publish = ["publish", &broker.address(), "tasks", "--data", "do this"];
        let heard = heard((broker, &subscribe), (publisher, &publish));
        assert_eq!(heard["events"][0]["data"], "do this", "{heard}");
    }
}

#[test]
fn our_topic_without_a_target_reaches_from_and_to_the_reference() {
    let pair = Pair::trusting();
    pair.theirs.ctl(&["set-public"]);
    // Ours pulls from the brokers of everybody it trusts.
    let publish = ["publish", &pair.theirs.address(), "agent-b.results", "--data", "done"];
    let subscribe = ["subscribe", "agent-b.results", "--count", "1", "--timeout", "30s"];
    let pulled = heard((&pair.ours, &subscribe), (&pair.theirs, &publish));
    assert_eq!(pulled["events"][0]["data"], "done", "{pulled}");
    // Ours publishes at home, where the reference has subscribed.
    let subscribe = ["subscribe", &pair.ours.address(), "agent-a.tasks", "--count", "1", "--timeout", "30s"];
    let pushed =
        heard((&pair.theirs, &subscribe), (&pair.ours, &["publish", "agent-a.tasks", r#"{"id":1}"#]));
    assert_eq!(pushed["events"][0]["data"], r#"{"id":1}"#, "{pushed}");
}
