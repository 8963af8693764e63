//! Opening, data, acknowledgements, loss and windows, packet by packet.

use std::time::Duration;

use bytes::Bytes;
use pilot_proto::stream::{Config, Read};

use crate::{
    pair::start,
    script::{Peer, Script},
};

fn config() -> Config {
    Config::default()
}

#[test]
fn a_dial_repeats_its_syn_and_gives_up_after_thirty_seconds() {
    let mut script = Script::dialing(config(), Peer::Legacy);
    script.run(
        "0 > S 0
         250 > S 0
         750 > S 0
         1750 > S 0
         3750 > S 0
         7750 > S 0
         11750 > S 0
         15750 > S 0
         19750 > S 0
         23750 > S 0
         27750 > S 0
         29000 state SYN_SENT
         30000 > R 1 ack *
         30001 event Closed(Silent { waited: 30s })
         30001 gone",
    );
    script.done();
}

#[test]
fn a_closed_port_refuses() {
    let mut script = Script::dialing(config(), Peer::Legacy);
    script.run(
        "0 > S 0
         10 < R 91 ack 301    # seq 0, ack 0 as the reference sends it
         10 event Closed(Refused)
         10 gone",
    );
    script.done();
}

#[test]
fn a_peer_with_an_older_connection_is_told_to_forget_it() {
    let mut script = Script::dialing(config(), Peer::Legacy);
    script.run(
        "0 > S 0
         10 < . 777 ack 5000
         10 > R 5000 ack *
         10 state SYN_SENT
         20 < S. 0 ack 1 win 512
         20 > . 1 ack 1",
    );
    script.done();
}

#[test]
fn both_may_dial_at_once() {
    let mut script = Script::dialing(config(), Peer::Extended);
    script.run(
        "0 > S 0
         5 < S 0 win 512
         5 > S. 0 ack 1
         5 event Established
         10 < S. 0 ack 1 win 512
         10 > . 1 ack 1
         10 state ESTABLISHED",
    );
    script.done();
}

#[test]
fn an_answered_syn_is_answered_again_when_it_comes_again() {
    let mut script = Script::listening(config(), Peer::Legacy);
    script.run(
        "0 < S 0 win 512
         0 > S. 0 ack 1
         0 event Established
         0 state SYN_RECV
         100 < S 0 win 512
         100 > S. 0 ack 1
         120 < . 1 ack 1 win 512
         120 state ESTABLISHED
         200 < S 0 win 512
         200 > . 1 ack 1",
    );
    script.done();
}

#[test]
fn a_syn_answer_is_repeated_until_confirmed_and_data_may_follow_at_once() {
    let mut script = Script::listening(config(), Peer::Legacy);
    script.run(
        "0 < S 0 win 512
         0 > S. 0 ack 1
         0 write 10
         0 > . 1(10) ack 1
         250 > S. 0 ack 1
         300 < . 1 ack 11 win 512
         300 state ESTABLISHED",
    );
    script.done();
}

#[test]
fn the_handshake_survives_data_that_overtakes_the_confirmation() {
    let mut script = Script::listening(config(), Peer::Extended);
    script.run(
        "0 < S 0 win 512
         0 > S. 0 ack 1
         10 < . 1(50) ack 1 win 512
         10 > . 1 ack 51
         10 state ESTABLISHED
         10 event Established
         10 event Readable
         10 read 50
         10 blocked",
    );
    script.done();
}

#[test]
fn a_lone_message_never_waits() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "5 write 1300
         5 > . 1(1152) ack 1
         5 > . 1153(148) ack 1
         15 < . 1 ack 1301 win 512
         15 event Drained
         15 event none",
    );
    script.done();
}

#[test]
fn a_short_segment_waits_only_behind_another_short_one() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "5 write 10
         5 > . 1(10) ack 1
         6 write 10
         7 write 10
         8 quiet
         15 < . 1 ack 11 win 512
         15 > . 11(20) ack 1
         16 write 1200
         16 > . 31(1152) ack 1
         25 < . 1 ack 1183 win 512
         25 > . 1183(48) ack 1",
    );
    script.done();
}

#[test]
fn lone_segments_are_acknowledged_at_once_then_delayed_and_batches_once() {
    let mut script = Script::open(config(), Peer::Extended);
    for i in 0..32 {
        let (at, seq) = (100 + i * 10, 1 + i * 10);
        script.run(&format!("{at} < . {seq}(10) ack 1 win 512\n{at} > . 1 ack {}", seq + 10));
    }
    script.run(
        "500 < . 321(10) ack 1 win 512
         505 > . 1 ack 331
         600 < . 331(10) ack 1 win 512    # the timer restored the budget
         600 > . 1 ack 341",
    );
    script.done();
}

#[test]
fn data_carries_the_acknowledgement() {
    let mut script = Script::open(config(), Peer::Extended);
    for i in 0..32 {
        let (at, seq) = (100 + i * 10, 1 + i * 10);
        script.run(&format!("{at} < . {seq}(10) ack 1 win 512\n{at} > . 1 ack {}", seq + 10));
    }
    script.run(
        "500 < . 321(10) ack 1 win 512
         502 write 10
         502 > . 1(10) ack 331
         510 < . 331 ack 11 win 512",
    );
    script.done();
}

#[test]
fn a_hole_is_reported_at_once_and_closed_with_one_acknowledgement() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "10 < . 101(100) ack 1 win 512
         10 > . 1 ack 1 sack 101-201
         11 < . 301(100) ack 1 win 512
         11 > . 1 ack 1 sack 101-201,301-401
         12 blocked
         20 < . 1(100) ack 1 win 512
         20 > . 1 ack 201 sack 301-401
         30 < . 201(100) ack 1 win 512
         30 > . 1 ack 401
         30 read 400",
    );
    script.done();
}

#[test]
fn the_extended_form_reports_the_latest_block_first_and_duplicates() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 < . 101(100) ack 1 win 512
         10 > . 1 ack 1 sack 101-201
         11 < . 301(100) ack 1 win 512
         11 > . 1 ack 1 sack 301-401,101-201
         20 < . 1(100) ack 1 win 512
         20 > . 1 ack 201 sack 301-401
         30 < . 1(100) ack 1 win 512
         30 > . 1 ack 201 sack 1-101,301-401",
    );
    script.done();
}

#[test]
fn an_overlapping_retransmission_gives_what_is_new_in_it() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 < . 1(100) ack 1 win 512
         10 > . 1 ack 101
         20 < . 51(100) ack 1 win 512
         20 > . 1 ack 151
         20 read 150",
    );
    script.done();
}

#[test]
fn a_lost_segment_is_repeated_with_its_boundaries_once_later_ones_arrived() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "5 write 5760
         5 > . 1(1152) ack 1
         5 > . 1153(1152) ack 1
         5 > . 2305(1152) ack 1
         5 > . 3457(1152) ack 1
         5 > . 4609(1152) ack 1
         15 < . 1 ack 1 win 512 sack 1153-2305
         15.1 < . 1 ack 1 win 512 sack 1153-3457
         15.2 < . 1 ack 1 win 512 sack 1153-4609
         15.2 > . 1(1152) ack 1
         25.2 < . 1 ack 5761 win 512
         25.2 quiet",
    );
    assert_eq!(script.stream().stats().fast_retransmits, 1);
}

#[test]
fn one_report_and_patience_suffice_where_there_are_not_three() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "5 write 2304
         5 > . 1(1152) ack 1
         5 > . 1153(1152) ack 1
         15 < . 1 ack 1 win 512 sack 1153-2305
         17.5 > . 1(1152) ack 1         # a quarter of the round trip later
         27.5 < . 1 ack 2305 win 512
         27.5 event Drained",
    );
    script.done();
}

#[test]
fn a_lost_tail_is_probed_after_two_round_trips() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "5 write 2304
         5 > . 1(1152) ack 1
         5 > . 1153(1152) ack 1
         25 > . 1153(1152) ack 1
         35 < . 1 ack 1 win 512 sack 1153-2305
         35 > . 1(1152) ack 1",
    );
    assert_eq!(script.stream().stats().timeouts, 0);
}

#[test]
fn time_outs_double_and_the_stream_ends_after_a_minute() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "0 write 100
         0 > . 1(100) ack 1
         27 > . 1(100) ack 1         # tail probe
         227 > . 1(100) ack 1
         627 > . 1(100) ack 1
         1427 > . 1(100) ack 1
         3027 > . 1(100) ack 1
         6227 > . 1(100) ack 1",
    );
    for i in 1..11 {
        script.run(&format!("{} > . 1(100) ack 1", 6227 + i * 5000));
    }
    script.run(
        "61227 > R 101 ack 1
         61228 event Closed(TimedOut { waited: 61.227s })
         61228 gone",
    );
    script.done();
}

#[test]
fn while_the_peer_is_heard_a_line_is_one_that_loses_and_is_tried_more_often() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "0 write 100
         0 > . 1(100) ack 1
         27 > . 1(100) ack 1         # tail probe
         227 > . 1(100) ack 1
         627 > . 1(100) ack 1
         1000 < . 1(50) ack 1 win 512
         1000 > . 101 ack 51
         1027 > . 1(100) ack 51      # not at 1427
         1200 < . 51(50) ack 1 win 512
         1200 > . 101 ack 101
         1427 > . 1(100) ack 101     # not at 2627
         4627 > . 1(100) ack 101     # heard no more",
    );
}

#[test]
fn a_peer_that_is_back_is_not_kept_waiting() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "0 write 100
         0 > . 1(100) ack 1
         27 > . 1(100) ack 1
         227 > . 1(100) ack 1
         627 > . 1(100) ack 1
         1427 > . 1(100) ack 1
         1500 call recovered
         1500 > . 1(100) ack 1
         1510 < . 1 ack 101 win 512
         1510 event Drained",
    );
    script.done();
}

#[test]
fn a_closed_window_is_probed_with_data_and_opens_at_once() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "5 write 1152
         5 > . 1(1152) ack 1
         15 < . 1 ack 1153 win 0
         16 write 2304
         216 > . 1153(1152) ack 1      # a time-out later
         226 < . 1 ack 1153 win 0
         416 > . 1153(1152) ack 1
         816 > . 1153(1152) ack 1
         900 < . 1 ack 1153 win 10
         900 > . 1153(1152) ack 1
         900 > . 2305(1152) ack 1
         910 < . 1 ack 3457 win 10",
    );
    let window = script.stream().stats().congestion_window;
    assert!(window >= 40 << 10, "a closed window is no congestion: {window}");
}

#[test]
fn a_window_closed_for_long_is_not_a_dead_peer() {
    let mut script = Script::open(Config { give_up: Duration::from_secs(10), ..config() }, Peer::Extended);
    script.run(
        "5 write 100
         5 > . 1(100) ack 1
         15 < . 1 ack 101 win 0
         16 write 100",
    );
    let mut probes = 0;
    for at in (20..60_000).step_by(7) {
        // Every probe is answered with the window still closed.
        probes += usize::from(script.answer_probe(at, "< . 1 ack 101 win 0"));
    }
    assert!((10..40).contains(&probes), "{probes}");
    script.run("60000 state ESTABLISHED");
}

#[test]
fn reading_reopens_a_closed_window() {
    let mut script = Script::open(Config { receive_buffer: 16 << 10, ..config() }, Peer::Legacy);
    // 14 slots of 1152 bytes.
    let mut seq = 1;
    for i in 0..14 {
        script.run(&format!("{} < . {seq}(1152) ack 1 win 512", 10 + i));
        seq += 1152;
        script.run(&format!("{} > . 1 ack {seq} win {}", 10 + i, (16384 - (i + 1) * 1152) / 1152));
    }
    script.run(
        "100 read 1152
         101 quiet
         102 read 4608
         102 > . 1 ack 16129 win 5",
    );
    script.done();
}

#[test]
fn a_question_about_a_small_window_is_answered_but_never_an_answer() {
    let mut script = Script::open(Config { receive_buffer: 16 << 10, ..config() }, Peer::Legacy);
    script.run("20 < . 1 ack 1 win 512\n21 quiet");
    let mut seq = 1;
    for i in 0..14 {
        script.run(&format!("{} < . {seq}(1152) ack 1 win 512", 30 + i));
        seq += 1152;
        script.run(&format!("{} > . 1 ack {seq}", 30 + i));
    }
    script.run(
        "500 < . 16129 ack 1 win 512
         500 > . 1 ack 16129 win 0",
    );
    script.done();
}

#[test]
fn more_than_the_reference_can_keep_is_never_outstanding() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run("0 write 400000");
    let mut acked = 1u64;
    let mut most = 0;
    for round in 1..40 {
        let at = round * 20;
        let sent = script.drain(at as f64);
        most = most.max(script.stream().stats().unacknowledged_segments);
        acked += sent;
        script.run(&format!("{at} < . 1 ack {acked} win 512"));
    }
    assert_eq!(most, 128);
}

#[test]
fn slots_count_segments_towards_the_reference() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "0 < . 1 ack 1 win 2
         0 write 5000
         0 > . 1(1152) ack 1
         0 > . 1153(1152) ack 1
         10 < . 1 ack 2305 win 1
         10 > . 2305(1152) ack 1",
    );
    script.done();
}

#[test]
fn data_that_looks_like_a_report_is_cut() {
    let mut script = Script::open(config(), Peer::Legacy);
    let text: &'static [u8] = b"SACK\x01\0\0\0\x0a\0\0\0\x14 and more";
    let now = start();
    let _ = script.stream().write(now, Bytes::from_static(text)).unwrap();
    let lens: Vec<usize> = script.payloads().iter().map(Vec::len).collect();
    assert_eq!(lens, [1, text.len() - 1]);
}

#[test]
fn a_report_that_makes_no_sense_is_data_of_the_reference() {
    let mut script = Script::open(config(), Peer::Legacy);
    let text = *b"SACK\x01\0\0\0\x0a\0\0\0\x14";
    script.inject_data(5, 1, &text);
    script.run("5 > . 1 ack 14");
    let now = start();
    assert_eq!(script.stream().read(now, 100), Ok(Read::Data(Bytes::copy_from_slice(&text))));
}

#[test]
fn a_report_that_everything_overtook_is_no_data() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "0 write 300
         0 > . 1(300) ack 1
         10 < . 1 ack 301 win 512
         11 < . 1 ack 1 win 512 sack 101-301
         11 quiet
         11 blocked",
    );
    script.done();
}

#[test]
fn the_reference_gets_an_acknowledgement_for_every_six_segments_of_a_batch() {
    let mut script = Script::open(config(), Peer::Legacy);
    for i in 0..15 {
        script.inject_pattern(10, 1 + i * 1000, 1000);
    }
    script.run(
        "10 > . 1 ack 6001
         10 > . 1 ack 12001
         10 > . 1 ack 15001",
    );
    script.done();
}

#[test]
fn a_reset_elsewhere_in_the_stream_is_ignored() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 < R 2000000000 ack 1
         10 state ESTABLISHED
         20 < R 1 ack 1
         20 event Closed(Reset)
         20 gone",
    );
    script.done();
}

#[test]
fn an_acknowledgement_of_the_future_is_answered_and_ignored() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "10 < . 1(10) ack 5000 win 512
         10 > . 1 ack 1
         10 blocked",
    );
    script.done();
}

#[test]
fn an_idle_peer_is_probed_and_missed_after_two_minutes() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "60000 > . 0 ack 1
         60010 < . 1 ack 1 win 512
         120010 > . 0 ack 1
         135010 > . 0 ack 1
         150010 > . 0 ack 1
         165010 > . 0 ack 1
         180010 > R 1 ack 1
         180011 event Closed(IdleTimeout { silent: 120s })
         180011 gone",
    );
    script.done();
}

#[test]
fn an_idle_reference_is_asked_with_an_old_byte() {
    let mut script = Script::open(config(), Peer::Legacy);
    script.run(
        "60000 > . 1 ack 1
         75000 > . 0(1) ack *",
    );
}

#[test]
fn a_keepalive_is_answered_and_the_answer_is_not() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run(
        "1000 < . 0 ack 1 win 512
         1000 > . 1 ack 1
         1010 < . 1 ack 1 win 512
         1020 quiet",
    );
    script.done();
}

#[test]
fn two_that_disagree_do_not_answer_each_other_for_ever() {
    let mut script = Script::open(config(), Peer::Extended);
    let mut answers = 0;
    for at in 100..1100 {
        answers += usize::from(script.answer_probe(at, "< . 0 ack 9 win 512"));
        script.run(&format!("{at} < . 0 ack 9 win 512"));
    }
    assert!((8..=12).contains(&answers), "{answers}");
}

#[test]
fn a_smaller_path_gets_smaller_segments_of_what_was_sent_already() {
    let mut script = Script::open(Config { path_segment: 3000, ..config() }, Peer::Extended);
    script.run(
        "0 write 6000
         0 > . 1(3000) ack 1
         0 > . 3001(3000) ack 1
         1 call segment 1500
         1 > . 1(1500) ack 1
         1 > . 1501(1500) ack 1
         1 > . 3001(1500) ack 1
         1 > . 4501(1500) ack 1
         11 < . 1 ack 3001 win 512
         11 < . 1 ack 6001 win 512
         11 event Drained
         12 write 3000
         12 > . 6001(1500) ack 1
         12 > . 7501(1500) ack 1",
    );
    script.done();
}

#[test]
fn a_reader_is_told_once_until_it_has_read_everything() {
    let mut script = Script::open(config(), Peer::Extended);
    for i in 0..10 {
        script.inject_pattern(10, 1 + i * 100, 100);
    }
    script.run(
        "10 > . 1 ack 1001
         10 event Readable
         10 event none
         10 read 600
         11 < . 1001(100) ack 1 win 512
         11 > . 1 ack 1101
         11 event none                  # it knows that there is more
         11 read 500
         12 < . 1101(100) ack 1 win 512
         12 > . 1 ack 1201
         12 event Readable",
    );
    script.done();
}

#[test]
fn an_hour_of_sleep_is_not_an_hour_of_silence() {
    let mut script = Script::open(config(), Peer::Extended);
    let at = script.wake_after(Duration::from_secs(3600));
    script.run(&format!(
        "{at} > . 0 ack 1
         {at} < . 1 ack 1 win 512
         {at} state ESTABLISHED",
    ));
    script.done();
}

#[test]
fn data_that_waited_through_an_hour_of_sleep_is_sent_again_first() {
    let mut script = Script::open(config(), Peer::Extended);
    script.run("0 write 10\n0 > . 1(10) ack 1");
    let at = script.wake_after(Duration::from_secs(3600));
    script.run(&format!(
        "{at} > . 1(10) ack 1
         {at} > . 10 ack 1              # and the keepalive that is due
         {at} < . 1 ack 11 win 512
         {at} event Drained",
    ));
}
