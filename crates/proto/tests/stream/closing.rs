//! Ending a stream: orderly in either order, half-way, at once, with our nodes and with the reference.

use std::time::Duration;

use pilot_proto::stream::{CloseReason, Config, StreamEvent};

use crate::{
    pair::{App, Link, Pair, start},
    script::{Peer, Script},
};

fn config() -> Config {
    Config { time_wait: Duration::from_secs(3), ..Config::default() }
}

#[test]
fn one_direction_may_end_before_the_other() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "0 write 10
         0 > . 1(10) ack 1
         0 call finish
         0 > F. 11 ack 1
         0 state FIN_WAIT
         10 < . 1 ack 12 win 512
         10 event Drained
         20 < . 1(100) ack 12 win 512
         20 > . 12 ack 101
         20 event Readable
         20 read 100
         30 < F. 101 ack 12 win 512
         30 > . 12 ack 102
         30 end
         30 event PeerFinished
         30 event Closed(Finished)
         30 state TIME_WAIT
         40 < F. 101 ack 12 win 512     # our acknowledgement was lost
         40 > . 12 ack 102
         3041 state CLOSED
         3041 gone",
    );
    script.done();
}

#[test]
fn the_one_who_ends_last_does_not_linger() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 < F. 1 ack 1 win 512
         10 > . 1 ack 2
         10 event PeerFinished
         10 state CLOSE_WAIT
         20 write 10
         20 > . 1(10) ack 2
         20 call close
         20 > F. 11 ack 2
         30 < . 2 ack 12 win 512
         30 event Drained
         30 event Closed(Finished)
         30 gone",
    );
    script.done();
}

#[test]
fn a_fin_waits_for_what_is_missing_before_it() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 < F. 101 ack 1 win 512
         10 > . 1 ack 1
         10 blocked
         20 < . 1(100) ack 1 win 512
         20 > . 1 ack 102
         20 read 100
         20 end",
    );
    script.done();
}

#[test]
fn both_may_end_at_once() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 call close
         10 > F. 1 ack 1
         12 < F. 1 ack 1 win 512
         12 > . 2 ack 2
         20 < . 2 ack 2 win 512
         20 event Closed(Finished)",
    );
    script.done();
}

#[test]
fn nobody_answers_for_an_application_that_is_gone() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 call close
         10 > F. 1 ack 1
         20 < . 1 ack 2 win 512
         30 < . 1(100) ack 2 win 512
         30 > R 2 ack 1
         30 event Closed(Finished)
         30 gone",
    );
    script.done();
}

#[test]
fn a_peer_that_never_ends_its_side_does_not_keep_a_closed_stream() {
    let mut script =
        Script::open(Config { finish_timeout: Duration::from_secs(20), ..config() }, Peer::Extended);
    script.run(
        "10 call close
         10 > F. 1 ack 1
         20 < . 1 ack 2 win 512
         20020 > R 2 ack 1
         20021 event Closed(Finished)
         20021 gone",
    );
    script.done();
}

#[test]
fn the_reference_is_closed_after_it_took_everything() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "0 write 10
         0 > . 1(10) ack 1
         0 call finish                 # it would close at the first FIN
         5 quiet
         10 < . 1 ack 11 win 512
         10 event Drained
         20 < . 1(100) ack 11 win 512
         20 > . 11 ack 101
         20 event Readable
         20 read 100
         20 call close
         20 > F 11 ack 91 win 0         # that is, zero
         20 state FIN_WAIT
         30 < F. 101 ack 12 win 0
         30 state TIME_WAIT
         30 event Closed(Finished)
         40 < F. 101 ack 12 win 0
         41 quiet
         3031 gone",
    );
    script.done();
}

#[test]
fn a_fin_of_the_reference_is_answered_once_in_order() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "10 < F 101 ack 301
         10 > . 1 ack 1
         20 < . 1(100) ack 1 win 512
         20 > F. 1 ack 102 win 0
         20 read 100
         20 end
         220 < F 101 ack 301           # it did not hear: again, but not for ever
         220 > F. 1 ack 102 win 0
         420 < F 101 ack 301
         420 > F. 1 ack 102 win 0
         620 < F 101 ack 301
         621 quiet",
    );
    script.done();
}

#[test]
fn a_fin_of_the_reference_ends_both_directions() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "10 < . 1(100) ack 1 win 512
         10 > . 1 ack 101
         10 event Readable
         20 < F 101 ack 301
         20 > F. 1 ack 102 win 0
         20 state TIME_WAIT
         20 event PeerFinished
         20 event Closed(Finished)
         20 read 100
         20 end
         25 < F. 102 ack 2 win 0        # its answer to ours: no answer
         26 quiet
         3021 gone",
    );
    script.done();
}

#[test]
fn what_the_reference_did_not_take_is_reported() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "10 write 100
         10 > . 1(100) ack 1
         12 < F 1 ack 301
         12 > F. 101 ack 2
         12 event PeerFinished
         12 event Closed(Discarded { unacknowledged: 100 })",
    );
    script.done();
}

#[test]
fn a_fin_that_the_reference_never_answers_is_enough() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run("0 call close\n0 > F 1 ack *");
    let mut copies = 1;
    for at in (1..60_000).step_by(10) {
        copies += script.drain_packets(at);
    }
    assert_eq!(script.stream().close_reason(), Some(CloseReason::Finished));
    assert!(copies <= 7, "{copies}");
    while script.stream().poll_event().is_some() {}
    assert!(script.stream().is_gone());
}

#[test]
fn an_abort_tells_the_peer() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "0 write 10
         0 > . 1(10) ack 1
         5 call abort
         5 > R 11 ack 1
         5 event Closed(Aborted)
         5 gone",
    );
    script.done();
}

#[test]
fn what_arrived_before_a_reset_can_be_read() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 < . 1(100) ack 1 win 512
         10 > . 1 ack 101
         20 < R 101 ack 1
         20 event Readable
         20 event Closed(Reset)
         20 read 100",
    );
    let now = start();
    assert!(script.stream().read(now, 1).is_err());
    script.run("20 gone");
    script.done();
}

/// After both have ended, a handful of packets at most, whatever gets lost.
#[test]
fn two_closed_streams_are_silent() {
    for options in [true, false] {
        for seed in 0..200 {
            let link = Link {
                loss: 0.2,
                duplicate: 0.2,
                jitter: Duration::from_millis(20),
                ..Link::perfect(Duration::from_millis(5))
            };
            let apps = [
                App { closes_after: Some(0), ..App::sender(1 + 1000 * (seed % 5)) },
                App { closes_after: Some(if seed % 2 == 0 { 0 } else { u64::MAX }), ..App::reader() },
            ];
            let config = Config { options, ..Config::default() };
            let mut pair = Pair::new(seed, [link; 2], apps, [config; 2]);
            assert!(
                pair.run_until(Duration::from_secs(300), Pair::both_gone),
                "options {options}, seed {seed} after {:?}: {}",
                pair.elapsed(),
                pair.show()
            );
            let emitted: u64 = pair.sides.iter().map(|side| side.emitted).sum();
            assert!(emitted < 120, "options {options}, seed {seed}: {emitted} packets");
            let after = emitted;
            pair.run_until(Duration::from_secs(4000), |_| false);
            assert_eq!(after, pair.sides.iter().map(|side| side.emitted).sum::<u64>());
        }
    }
}

#[test]
fn drained_is_told_when_the_peer_has_everything() {
    let link = Link { loss: 0.1, ..Link::perfect(Duration::from_millis(5)) };
    let mut pair = Pair::new(
        1,
        [link; 2],
        [App { closes_after: None, finishes: false, ..App::sender(50_000) }, App::reader()],
        [config(); 2],
    );
    assert!(
        pair.run_until(Duration::from_secs(60), |pair| pair.sides[0].events.contains(&StreamEvent::Drained))
    );
    assert_eq!(pair.sides[1].received, 50_000);
}
