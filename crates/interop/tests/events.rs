//! Events between our node and the reference's, in both directions.
#![cfg(feature = "reference")]

use pilot_interop::{Pair, until};

#[test]
fn each_subscribes_at_the_other_and_hears_what_is_published_there() {
    let pair = Pair::trusting();
    for (subscriber, broker) in pair.directions() {
        let words = ["subscribe", &broker.address(), "tasks.results", "--count", "1", "--timeout", "30s"];
        let mut listening = subscriber.start_ctl(&words);
        // The protocol does not confirm a subscription, so the event is repeated until somebody has heard it.
        until("an event is heard", || {
            broker.ctl(&["publish", &broker.address(), "tasks.results", "--data", r#"{"id":1}"#]);
            (!listening.is_running()).then_some(())
        });
        let heard = listening.data();
        assert_eq!(heard["events"][0]["topic"], "tasks.results", "{heard}");
        assert_eq!(heard["events"][0]["data"], r#"{"id":1}"#, "{heard}");
    }
}

#[test]
fn each_publishes_at_the_other() {
    let pair = Pair::trusting();
    for (publisher, broker) in pair.directions() {
        let words = ["subscribe", &broker.address(), "alerts", "--count", "1", "--timeout", "30s"];
        let mut listening = broker.start_ctl(&words);
        until("an event is heard", || {
            publisher.ctl(&["publish", &broker.address(), "alerts", "--data", "look here"]);
            (!listening.is_running()).then_some(())
        });
        let heard = listening.data();
        assert_eq!(heard["events"][0]["data"], "look here", "{heard}");
    }
    pair.assert_sealed();
}
