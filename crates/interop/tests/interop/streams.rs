//! Pings and streams between our node and the reference's, in both directions.

use pilot_interop::{Pair, until};

#[test]
fn each_pings_the_other() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let answer = from.ctl(&["ping", &to.address(), "--count", "3"]);
        let results = answer["results"].as_array().expect("there are results");
        assert_eq!(results.len(), 3, "{answer}");
        assert!(results.iter().all(|result| result["rtt_ms"].is_number()), "{answer}");
    }
    pair.assert_sealed();
}

#[test]
fn two_nodes_that_reach_each_other_do_without_the_relay() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        until("the path is direct", || {
            let peers = from.ctl(&["peers"]);
            let row = peers["peers"].as_array()?.iter().find(|row| row["node_id"] == to.id())?;
            (row["relay"] == false).then_some(())
        });
    }
}

#[test]
fn each_connects_to_a_listener_of_the_other() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let mut receiver = to.start_ctl(&["recv", "1000", "--count", "1", "--timeout", "30s"]);
        until("the listener is there and takes the message", || {
            // It answers nothing, so what the sending side makes of that is not the question here.
            let words =
                ["connect", &to.address(), "1000", "--message", "hello over there", "--timeout", "1s"];
            drop(from.try_ctl(&words));
            (!receiver.is_running()).then_some(())
        });
        let received = receiver.data();
        assert_eq!(received["messages"][0]["data"], "hello over there", "{received}");
    }
    pair.assert_sealed();
}

#[test]
fn each_connects_by_hostname_and_hears_the_echo() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let answer = from.ctl(&["connect", to.name(), "7", "--message", "who is there"]);
        assert_eq!(answer["response"], "who is there", "{answer}");
    }
}

#[test]
fn each_connects_with_standard_input() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let text = br#"{"action":"execute_query"}"#;
        let answer = from.start_ctl_with_input(&["connect", &to.address(), "7"], text).data();
        assert_eq!(answer["response"].as_str().map(str::as_bytes), Some(&text[..]), "{answer}");
    }
}

#[test]
fn each_moves_megabytes_through_the_echo_of_the_other() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let measured = from.ctl(&["bench", &to.address(), "8"]);
        assert_eq!(measured["recv_bytes"], 8 << 20, "{measured}");
    }
    pair.assert_sealed();
}

#[test]
fn each_sends_datagrams_to_the_other() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let mut listener = to.start_ctl(&["listen", "5000", "--count", "1", "--timeout", "30s"]);
        until("a datagram arrives", || {
            from.ctl(&["dgram", &to.address(), "5000", "--data", "a single datagram"]);
            (!listener.is_running()).then_some(())
        });
        let received = listener.data();
        assert_eq!(received["messages"][0]["data"], "a single datagram", "{received}");
    }
}

#[test]
fn a_closed_port_is_refused_at_once_in_both_directions() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let failed = from.try_ctl(&["connect", &to.address(), "4242", "--message", "anybody"]);
        let failed = failed.expect_err("nobody listens on that port");
        assert_ne!(failed.code(), "timeout", "{failed:?}");
    }
}
