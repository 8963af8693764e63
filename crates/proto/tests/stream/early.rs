//! Data in the SYN: taken at once by those who know it, sent again to those who do not.

use std::time::Duration;

use bytes::Bytes;
use pilot_proto::stream::{CloseReason, Config, Read, Stream};
use pilot_wire::{Seq, packet::Packet};
use proptest::prelude::*;

use crate::{
    pair::{App, Link, Pair, Pattern, bytes_at, endpoint, start},
    script::{Peer, Script},
};

/// What fits into a SYN of the default segment beside the options.
const MOST: u64 = 1118;

fn config() -> Config {
    Config { time_wait: Duration::from_secs(3), ..Config::default() }
}

#[test]
fn what_was_written_before_the_syn_rides_in_it_and_is_not_sent_again() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(100);
    script.run(
        "0 > S 0 early 100
         10 < S. 0 ack 101 win 512
         10 > . 101 ack 1
         10 event Established
         10 event Drained
         10 state ESTABLISHED
         20 write 10
         20 > . 101(10) ack 1
         30 < . 1 ack 111 win 512
         30 event Drained",
    );
    assert_eq!(script.stream().stats().bytes_sent, 110);
    assert_eq!(script.stream().stats().retransmits, 0);
    script.done();
}

#[test]
fn the_dialled_can_read_at_once_and_acknowledges_with_its_syn() {
    let mut script = Script::listening(config(), Peer::Extended);
    script.run(
        "0 < S 0 win 512 early 100
         0 > S. 0 ack 101 early 0
         0 event Established
         0 event Readable
         0 read 100
         0 write 100
         0 > . 1(100) ack 101          # the answer does not wait for the confirmation
         10 < . 101 ack 101 win 512
         10 state ESTABLISHED",
    );
    script.done();
}

#[test]
fn the_reference_ignores_it_and_gets_it_in_segments() {
    let mut script = Script::dialing(config(), Peer::Legacy);
    script.written_before_dialing(1300);
    script.run(
        "0 > S 0
         10 < S. 0 ack 1 win 512
         10 > . 1(1152) ack 1
         10 > . 1153(148) ack 1
         10 event Established
         20 < . 1 ack 1301 win 512
         20 event Drained",
    );
    script.done();
}

#[test]
fn one_of_ours_that_does_not_take_it_gets_it_in_segments() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(100);
    script.run(
        "0 > S 0 early 100
         10 < S. 0 ack 1 win 512
         10 > . 1(100) ack 1
         20 < . 1 ack 101 win 512
         20 event Established
         20 event Drained",
    );
    script.done();
}

#[test]
fn the_dialled_leaves_it_when_it_was_told_to_or_speaks_as_the_reference() {
    for config in [Config { early_data: false, ..config() }, Config { options: false, ..config() }] {
        let mut script = Script::listening(config, Peer::Extended);
        script.run(
            "0 < S 0 win 512 early 100
             0 > S. 0 ack 1
             0 event Established
             0 blocked
             10 < . 1(100) ack 1 win 512
             10 > . 1 ack 101
             10 event Readable
             10 read 100
             20 < S 0 win 512 early 100
             20 > . 1 ack 101
             20 blocked",
        );
        script.done();
    }
}

#[test]
fn nothing_rides_in_the_syn_when_it_is_off_or_nothing_was_written() {
    let mut script = Script::dialing(Config { early_data: false, ..config() }, Peer::Extended);
    script.written_before_dialing(100);
    script.run("0 > S 0 early 0");
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(0);
    script.run("0 > S 0 early 0");
}

#[test]
fn of_more_than_fits_the_rest_follows_the_answer() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(3000);
    script.run(
        "0 > S 0 early 3000
         10 < S. 0 ack 1119 win 512
         10 > . 1119(1152) ack 1
         10 > . 2271(730) ack 1
         20 < . 1 ack 3001 win 512
         20 event Established
         20 event Drained",
    );
    script.done();
}

#[test]
fn a_peer_may_take_a_part() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(100);
    script.run(
        "0 > S 0 early 100
         10 < S. 0 ack 41 win 512
         10 > . 41(60) ack 1
         20 < . 1 ack 101 win 512",
    );
    script.run("20 event Established\n20 event Drained");
    script.done();
}

#[test]
fn a_peer_that_acknowledges_more_than_the_syn_had_is_not_believed() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(100);
    script.run(
        "0 > S 0 early 100
         10 < S. 0 ack 102 win 512
         10 > R 102 ack *
         10 state SYN_SENT",
    );
    script.done();
}

#[test]
fn the_first_copies_carry_what_is_there_by_then_and_later_ones_nothing() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.run(
        "0 > S 0 early 0
         100 write 50
         250 > S 0 early 50
         300 write 50
         750 > S 0 early 100
         1750 > S 0 early 0
         1760 < S. 0 ack 51 win 512     # of the second copy
         1760 > . 51(50) ack 1
         1761 < S. 0 ack 101 win 512    # of the third
         1761 > . 101 ack 1
         1761 event Established
         1761 event Drained",
    );
    script.done();
}

#[test]
fn a_copy_with_more_brings_what_is_new_in_it() {
    let mut script = Script::listening(config(), Peer::Extended);
    script.run(
        "0 < S 0 win 512
         0 > S. 0 ack 1
         10 < S 0 win 512 early 50
         10 > S. 0 ack 51
         20 < S 0 win 512 early 100
         20 > S. 0 ack 101
         30 < S 0 win 512 early 100
         30 > S. 0 ack 101
         40 < . 101(10) ack 1 win 512
         40 > . 1 ack 111
         50 < S 0 win 512 early 100     # late, and nothing new
         50 > . 1 ack 111
         50 read 110
         50 blocked",
    );
    script.done();
}

#[test]
fn a_late_copy_may_still_bring_what_segments_lost() {
    let mut script = Script::listening(config(), Peer::Extended);
    script.run(
        "0 < S 0 win 512
         0 > S. 0 ack 1
         10 < . 1 ack 1 win 512
         20 < S 0 win 512 early 100
         20 > . 1 ack 101
         30 < . 1(100) ack 1 win 512
         30 > . 1 ack 101 sack 1-101
         30 read 100
         30 blocked",
    );
    script.done();
}

#[test]
fn a_late_answer_acknowledges_what_was_sent_in_segments_meanwhile() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.run(
        "0 > S 0 early 0
         100 write 100
         250 > S 0 early 100
         260 < S. 0 ack 1 win 512
         260 > . 1(100) ack 1
         270 < S. 0 ack 101 win 512
         270 > . 101 ack 1
         270 event Established
         270 event Drained
         280 < . 1 ack 101 win 512",
    );
    script.done();
}

#[test]
fn an_acknowledgement_that_overtakes_the_answer_of_a_simultaneous_dial_counts() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(100);
    script.run(
        "0 > S 0 early 100
         5 < S 0 win 512 early 30
         5 > S. 0 ack 31
         5 > . 1(100) ack 31
         5 event Established
         5 event Readable
         5 read 30
         10 < . 31(20) ack 101 win 512
         10 > . 101 ack 51
         11 < S. 0 ack 101 win 512
         11 > . 101 ack 51
         11 state ESTABLISHED
         11 event Readable
         11 event Drained",
    );
    script.done();
}

#[test]
fn closing_right_after_writing_loses_nothing() {
    for closed_before_the_syn in [true, false] {
        let mut script = Script::dialing(config(), Peer::Extended);
        script.written_before_dialing(100);
        if closed_before_the_syn {
            let now = start();
            script.stream().close(now);
        }
        script.run("0 > S 0 early 100");
        if !closed_before_the_syn {
            script.run("0 call close");
        }
        script.run(
            "10 < S. 0 ack 101 win 512
             10 > F. 101 ack 1
             20 < F. 1 ack 102 win 512
             20 > . 102 ack 2
             20 event Established
             20 event Drained
             20 event Closed(Finished)",
        );
        script.done();
    }
}

#[test]
fn a_closed_port_refuses_a_syn_with_data_as_any() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(100);
    script.run(
        "0 > S 0 early 100
         10 < R 91 ack 301
         10 event Closed(Refused)
         10 gone",
    );
    script.done();
}

#[test]
fn a_peer_that_took_the_data_and_then_refuses_is_believed_at_once() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.written_before_dialing(100);
    script.run(
        "0 > S 0 early 100
         10 < R 1 ack 102      # of another connection
         10 state SYN_SENT
         20 < R 1 ack 101
         20 event Closed(Refused)
         20 gone",
    );
    script.done();
}

/// What one of ours sends to one of ours at once, as packets.
fn packets(stream: &mut Stream) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut out = Vec::new();
        if stream.poll_segment(start(), &mut out).is_none() {
            return all;
        }
        all.push(out);
    }
}

#[test]
fn data_that_looks_like_a_report_is_data_in_a_syn_too() {
    let now = start();
    let text = Bytes::from_static(b"SACK\x01\0\0\0\x0a\0\0\0\x14");
    let mut ours = Stream::connect(&config(), now, endpoint(1, 50_000), endpoint(2, 7), Seq(9));
    assert_eq!(ours.write(now, text.clone()), Ok(text.len()));
    let syn = packets(&mut ours).remove(0);
    let syn = Packet::parse(&syn).unwrap();
    let mut theirs = Stream::accept(&config(), now, &syn.header, syn.payload, Seq(1));
    assert_eq!(theirs.read(now, 100), Ok(Read::Data(text)));
}

#[test]
fn small_paths_get_small_syns() {
    let now = start();
    for path_segment in [1, 30, 34, 300, 600, 1152, 9000] {
        let config = Config { path_segment, ..config() };
        let mut ours = Stream::connect(&config, now, endpoint(1, 50_000), endpoint(2, 7), Seq(9));
        assert_eq!(ours.write(now, bytes_at(0, 5000)), Ok(5000));
        let syn = packets(&mut ours).remove(0);
        let syn = Packet::parse(&syn).unwrap();
        let bare = 24;
        assert!(syn.payload.len() <= usize::from(path_segment.min(1152)).max(bare), "{path_segment}");
        let theirs = Stream::accept(&config, now, &syn.header, syn.payload, Seq(1));
        let expected = if path_segment < 27 { 0..=0 } else { 1..=MOST as usize };
        assert!(expected.contains(&theirs.unread()), "{} of {path_segment}", theirs.unread());
    }
}

#[test]
fn a_byte_and_its_echo_take_one_round_trip() {
    let delay = Duration::from_millis(20);
    let mut asks = App::sender(100);
    asks.finishes = false;
    asks.closes_after = Some(100);
    let mut answers = App::sender(100);
    answers.closes_after = Some(100);
    let mut pair = Pair::new(3, [Link::perfect(delay); 2], [asks, answers], [config(); 2]);
    let heard = pair.run_until(Duration::from_secs(1), |pair| pair.sides[1].received == 100);
    assert!(heard && pair.elapsed() == delay, "first byte after {:?}", pair.elapsed());
    let echoed = pair.run_until(Duration::from_secs(1), |pair| pair.sides[0].received == 100);
    assert!(echoed && pair.elapsed() == 2 * delay, "echo after {:?}", pair.elapsed());
}

fn link() -> impl Strategy<Value = Link> {
    (0.0..0.6f64, 0.0..0.4f64, 0u64..40, 0u64..600).prop_map(|(loss, duplicate, delay, jitter)| Link {
        loss,
        duplicate,
        jitter: Duration::from_millis(jitter),
        ..Link::perfect(Duration::from_millis(delay))
    })
}

proptest! {
    /// Short conversations in bad worlds, where SYNs, their copies, their answers and the first segments overtake each
    /// other; both, one or none of the two know of data in SYNs or of options.
    #[test]
    fn the_first_bytes_arrive_once_and_in_order(
        seed: u64,
        links in (link(), link()),
        sizes in (0u64..4000, 0u64..4000),
        chunks in (1usize..2000, 1usize..2000),
        options: [bool; 2],
        early_data: [bool; 2],
        lists: bool,
        later in proptest::option::of((1u64..2000, 1usize..1500)),
    ) {
        let pattern = if lists { Pattern::Lists } else { Pattern::Mixed };
        let app = |sends, chunk, reads| App {
            pattern, sends, chunk, finishes: true, closes_after: Some(reads), reads_per_ms: None,
        };
        let apps = [app(sizes.0, chunks.0, sizes.1), app(sizes.1, chunks.1, sizes.0)];
        let config = |i: usize| Config { options: options[i], early_data: early_data[i], ..Config::default() };
        let mut pair = Pair::new(seed, [links.0, links.1], apps, [config(0), config(1)]);
        if let Some((at, more)) = later {
            // More is written while the SYN is under way.
            pair.sides[0].app.finishes = false;
            pair.sides[0].app.closes_after = None;
            pair.sides[1].app.closes_after = Some(sizes.0 + more as u64);
            pair.run_until(Duration::from_millis(at), |_| false);
            pair.sides[0].app = app(sizes.0 + more as u64, chunks.0, sizes.1);
            pair.pump(0);
            pair.pump(1);
        }
        let gone = pair.run_until(Duration::from_secs(600), Pair::both_gone);
        // Whoever was never dialled, because every SYN got lost, has no stream.
        if let (Some(_), Some(_)) = (pair.sides[0].reason, pair.sides[1].reason) {
            prop_assert!(gone, "not over after {:?}: {}", pair.elapsed(), pair.show());
        }
        let [a, b] = &pair.sides;
        if a.reason == Some(CloseReason::Finished) && options[0] && options[1] {
            prop_assert_eq!(b.received, a.app.sends);
        }
        if b.reason == Some(CloseReason::Finished) && options[0] && options[1] {
            prop_assert_eq!(a.received, b.app.sends);
        }
    }

    /// Whatever a SYN says it carries.
    #[test]
    fn any_payload_of_a_syn_is_harmless(payload in proptest::collection::vec(any::<u8>(), 0..3000), cut: usize) {
        let now = start();
        let mut ours = Stream::connect(&config(), now, endpoint(1, 50_000), endpoint(2, 7), Seq(9));
        let _ = ours.write(now, Bytes::from(payload.clone()));
        let syn = packets(&mut ours).remove(0);
        let syn = Packet::parse(&syn).unwrap();
        let mut theirs = Stream::accept(&config(), now, &syn.header, &syn.payload[..cut % (syn.payload.len() + 1)], Seq(1));
        let mut got = Vec::new();
        while let Ok(Read::Data(data)) = theirs.read(now, 5000) {
            got.extend_from_slice(&data);
        }
        prop_assert!(payload.starts_with(&got));
        let _ = Stream::accept(&config(), now, &syn.header, &payload, Seq(1));
    }
}
