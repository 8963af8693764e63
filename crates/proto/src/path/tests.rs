use pilot_wire::path::Candidate as Named;

use super::*;

const RTT: Duration = Duration::from_millis(20);
const RELAY: Option<Via> = Some(Via::Relay);

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 4000))
}

fn direct(last: u8) -> Option<Via> {
    Some(Via::Direct(addr(last)))
}

fn to(via: Option<Via>, lost: bool) -> Option<Moved> {
    via.map(|to| Moved { to, lost })
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A path whose peer answers at one address.
fn answering(now: Instant) -> Path {
    let mut path = Path::default();
    path.learn(now, addr(1), CandidateSource::Registry);
    path.answered(now, Via::Direct(addr(1)), RTT);
    path
}

fn told(generation: u64, kind: Kind, addrs: &[SocketAddr]) -> Candidates {
    let list = addrs.iter().map(|&addr| Named { kind, addr }).collect();
    Candidates { generation, nat: Nat::default(), list }
}

#[test]
fn an_address_that_somebody_named_is_no_way_until_it_answers() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.learn(now, addr(1), CandidateSource::Registry);
    assert_eq!(path.route(), None);
    assert!(path.is_improvable() && !path.is_proven() && !path.has_answered(addr(1)));
    let reaction = path.answered(now, Via::Direct(addr(1)), RTT);
    assert_eq!(reaction.moved, to(direct(1), false));
    assert!(!path.is_improvable() && path.is_proven() && path.has_answered(addr(1)));
    assert_eq!(path.rtt(), Some(RTT));
}

#[test]
fn a_relayed_peer_moves_to_the_direct_way_when_that_answers_not_when_a_frame_comes() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.learn(now, addr(1), CandidateSource::Registry);
    assert_eq!(path.heard(now, Via::Relay, false).moved, to(RELAY, false));
    let reaction = path.heard(now, Via::Direct(addr(1)), false);
    assert_eq!(reaction, Reaction { probe: Some(addr(1)), ..Reaction::default() });
    assert_eq!(path.answered(now, Via::Direct(addr(1)), RTT).moved, to(direct(1), false));
    assert_eq!(path.heard(now, Via::Relay, false), Reaction::default());
}

#[test]
fn a_relay_that_was_only_assumed_is_used_and_left_for_sure_only_once_a_frame_came() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.exchanged(now, Via::Relay);
    assert_eq!(path.route(), RELAY);
    assert!(!path.is_proven(), "the exchange may be a recorded one");
    assert_eq!(path.heard(now, Via::Relay, false).moved, to(RELAY, false));
    assert!(path.is_proven());
}

#[test]
fn an_exchange_from_where_we_wrote_to_is_a_better_guess_than_one_from_elsewhere() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.exchanged(now, Via::Direct(addr(1)));
    path.exchanged(now, Via::Direct(addr(2)));
    assert_eq!(path.route(), direct(1));
    path.was_tried(now, addr(2));
    path.exchanged(now, Via::Direct(addr(2)));
    assert_eq!(path.route(), direct(2));
    path.exchanged(now, Via::Direct(addr(3)));
    path.exchanged(now, Via::Relay);
    assert_eq!(path.route(), direct(2));
}

#[test]
fn the_proof_of_a_new_key_from_where_ours_was_sent_is_an_answer() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.learn(now, addr(1), CandidateSource::Registry);
    path.was_tried(now, addr(1));
    let reaction = path.heard(now, Via::Direct(addr(1)), true);
    assert_eq!(reaction.moved, to(direct(1), false));
    assert_eq!(reaction.check, Some(addr(1)), "its round trip is not known yet");
}

#[test]
fn the_proof_of_a_new_key_from_where_nothing_was_sent_is_none() {
    let now = crate::testing::start();
    let mut path = Path::default();
    let reaction = path.heard(now, Via::Direct(addr(1)), true);
    assert_eq!(reaction, Reaction { probe: Some(addr(1)), ..Reaction::default() });
    assert!(!path.has_answered(addr(1)));
}

#[test]
fn another_address_must_answer_a_probe_before_it_is_used() {
    let start = crate::testing::start();
    let mut path = answering(start);
    let mut probes = Vec::new();
    for millis in (0..2000).step_by(50) {
        let now = start + ms(millis);
        path.answered(now, Via::Direct(addr(1)), RTT);
        if path.heard(now, Via::Direct(addr(2)), false).probe == Some(addr(2)) {
            path.was_tried(now, addr(2));
            probes.push(millis);
        }
        assert_eq!(path.route(), direct(1));
    }
    assert_eq!(probes, [0, 750, 1500], "the last question may be under way");
    let moved = path.answered(start + ms(2000), Via::Direct(addr(2)), ms(5)).moved;
    assert_eq!(moved, to(direct(2), false));
}

#[test]
fn frames_that_come_from_elsewhere_make_us_ask_whether_the_way_in_use_still_works() {
    let start = crate::testing::start();
    let mut path = answering(start);
    let reaction = path.heard(start + ms(500), Via::Direct(addr(2)), false);
    assert_eq!(reaction.check, Some(addr(1)));
    path.answered(start + ms(520), Via::Direct(addr(1)), RTT);
    assert_eq!(path.poll_timeout(), None, "it does");
    assert_eq!(path.expire(start + ms(5000)), None);
    assert_eq!(path.route(), direct(1), "whoever repeats our peer's frames from elsewhere moves nothing");
}

#[test]
fn an_answer_from_an_address_that_is_not_kept_moves_nothing() {
    let now = crate::testing::start();
    let mut path = answering(now);
    assert_eq!(path.answered(now, Via::Direct(addr(9)), ms(1)), Reaction::default());
    assert_eq!(path.confirmed(now, addr(9)), Reaction::default());
    assert_eq!(path.route(), direct(1));
}

#[test]
fn of_two_addresses_that_answer_the_clearly_nearer_one_is_used() {
    let now = crate::testing::start();
    for (other, taken) in [(ms(19), false), (ms(17), false), (ms(15), true), (ms(60), false)] {
        let mut path = answering(now);
        path.learn(now, addr(2), CandidateSource::PeerObserved);
        let moved = path.answered(now, Via::Direct(addr(2)), other).moved;
        assert_eq!(moved.is_some(), taken, "{other:?}");
    }
}

#[test]
fn a_round_trip_that_was_never_measured_is_no_reason_to_go() {
    let now = crate::testing::start();
    let mut path = answering(now);
    path.learn(now, addr(2), CandidateSource::PeerObserved);
    assert_eq!(path.confirmed(now, addr(2)).moved, None);
    assert_eq!(path.answered_unasked(now, addr(2)).moved, None);
}

#[test]
fn an_address_in_the_common_network_is_preferred_unless_it_is_known_to_be_clearly_farther() {
    let now = crate::testing::start();
    for (home, stays) in [(ms(1), true), (ms(22), true), (ms(44), true), (ms(60), false)] {
        let mut path = answering(now);
        path.learn(now, addr(2), CandidateSource::RegistryLan);
        let moved = |path: &mut Path, from, rtt| path.answered(now, Via::Direct(addr(from)), rtt).moved;
        // One slow answer may be that of a busy host.
        assert!(moved(&mut path, 2, home).is_some(), "{home:?}");
        assert_eq!(moved(&mut path, 2, home), None, "{home:?}");
        let third = moved(&mut path, 2, home);
        assert_eq!(third.is_none(), stays, "{home:?}");
        // It does not go to and fro.
        assert_eq!(moved(&mut path, 1, RTT), None, "{home:?}");
        assert_eq!(moved(&mut path, 2, home), None, "{home:?}");
    }
}

#[test]
fn a_direct_path_that_does_not_answer_gives_way_to_the_relay() {
    let start = crate::testing::start();
    let mut path = answering(start);
    let asked = start + ms(10_000);
    let reaction = path.heard(asked, Via::Relay, false);
    assert_eq!(reaction, Reaction { check: Some(addr(1)), ..Reaction::default() });
    let overdue = path.poll_timeout().unwrap();
    assert_eq!(overdue, asked + candidate_patience());
    assert_eq!(path.expire(overdue - ms(1)), None);
    assert_eq!(path.expire(overdue), to(RELAY, true));
    assert!(path.direct_lost && path.is_improvable());
    assert_eq!(path.since(), Some(overdue));
    let back = path.answered(start + ms(13_000), Via::Direct(addr(1)), RTT);
    assert_eq!(back.moved, to(direct(1), false));
    assert!(!path.direct_lost);
}

/// How long a check of an address at [`RTT`] is waited for.
fn candidate_patience() -> Duration {
    ms(100)
}

#[test]
fn a_peer_that_prefers_the_relay_does_not_move_us_off_a_working_direct_path() {
    let start = crate::testing::start();
    let mut path = answering(start);
    let mut checks = 0;
    for millis in (0..100_000).step_by(100) {
        let now = start + ms(millis);
        if path.heard(now, Via::Relay, false).check == Some(addr(1)) {
            checks += 1;
            path.confirmed(now + RTT, addr(1));
        }
        assert_eq!(path.expire(now), None);
        assert_eq!(path.route(), direct(1));
    }
    assert!((10..20).contains(&checks), "{checks}: at most one in eight seconds in the long run");
}

#[test]
fn a_peer_that_falls_silent_is_followed_to_the_relay_at_once() {
    let start = crate::testing::start();
    let mut path = answering(start);
    assert_eq!(path.doubt_direct(start + ms(250)), None);
    assert_eq!(path.route(), direct(1), "there is nothing better yet");
    assert_eq!(path.heard(start + ms(251), Via::Relay, false).moved, to(RELAY, true));
}

#[test]
fn a_peer_that_falls_silent_is_left_for_a_relay_that_worked_a_moment_ago() {
    let start = crate::testing::start();
    for (heard, expected) in [(ms(9000), to(RELAY, true)), (ms(1000), None)] {
        let mut path = answering(start);
        path.heard(start + heard, Via::Relay, false);
        path.answered(start + heard, Via::Direct(addr(1)), RTT);
        assert_eq!(path.doubt_direct(start + ms(10_000)), expected, "heard at {heard:?}");
    }
}

#[test]
fn a_doubted_way_gives_way_to_another_address_that_works() {
    let now = crate::testing::start();
    let mut path = answering(now);
    path.learn(now, addr(2), CandidateSource::PeerObserved);
    path.answered(now, Via::Direct(addr(2)), ms(60));
    path.answered(now, Via::Relay, ms(5));
    assert_eq!(path.route(), direct(1));
    assert_eq!(path.doubt_direct(now), to(direct(2), true));
    assert!(!path.direct_lost);
}

#[test]
fn after_a_change_of_our_network_every_address_shows_whether_it_still_works() {
    let start = crate::testing::start();
    let mut path = answering(start);
    path.learn(start, addr(2), CandidateSource::PeerObserved);
    path.answered(start, Via::Direct(addr(2)), ms(40));
    let changed = start + ms(5000);
    path.recheck(changed);
    path.answered(changed + ms(40), Via::Direct(addr(2)), ms(40));
    assert_eq!(path.expire(path.poll_timeout().unwrap()), to(direct(2), true));
    assert_eq!(path.targets(), [addr(1)], "what stopped working is tried again");
}

/// What a registry says without a record of the peer.
fn at(public: u8, lan: &[u8]) -> Location {
    Location {
        public: Some(addr(public)),
        lan: lan.iter().map(|&last| addr(last)).collect(),
        ..Location::default()
    }
}

#[test]
fn what_the_peer_signed_comes_first_and_what_only_the_registry_says_comes_last() {
    let now = crate::testing::start();
    let mut path = Path::default();
    let found = Location { signed: vec![addr(1), addr(2)], signed_lan: vec![addr(3)], ..at(4, &[3, 5]) };
    path.located(now, &found);
    path.learn(now, addr(6), CandidateSource::Remembered);
    assert_eq!(path.addresses(), [addr(1), addr(2), addr(3), addr(6), addr(5), addr(4)]);
    path.located(now, &Location { signed: vec![addr(2)], ..Location::default() });
    assert_eq!(path.addresses(), [addr(2), addr(6)]);
}

#[test]
fn what_the_registry_does_not_say_any_more_is_forgotten_unless_it_answered() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.located(now, &at(1, &[2, 3]));
    assert_eq!(path.addresses(), [addr(1), addr(2), addr(3)]);
    path.answered(now, Via::Direct(addr(2)), RTT);
    path.learn(now, addr(4), CandidateSource::Lan);
    path.located(now, &at(5, &[]));
    assert_eq!(path.addresses(), [addr(5), addr(2), addr(4)]);
}

#[test]
fn what_the_peer_does_not_say_any_more_is_forgotten_unless_it_answered() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.located(now, &at(1, &[]));
    assert!(path.told(now, &told(1, Kind::Host, &[addr(2), addr(3)]), |_| true));
    path.answered(now, Via::Direct(addr(3)), RTT);
    assert!(path.told(now, &told(2, Kind::Observed, &[addr(4)]), |_| true));
    let mut left = path.addresses();
    left.sort();
    assert_eq!(left, [addr(1), addr(3), addr(4)]);
}

#[test]
fn an_older_list_of_the_peer_is_no_news_unless_the_peer_has_another_life() {
    let now = crate::testing::start();
    let mut path = Path::default();
    assert!(path.told(now, &told(5, Kind::Host, &[addr(2)]), |_| true));
    for generation in [5, 4, 0] {
        assert!(!path.told(now, &told(generation, Kind::Host, &[addr(3)]), |_| true));
    }
    assert_eq!(path.addresses(), [addr(2)]);
    path.peer_restarted();
    assert!(path.told(now, &told(1, Kind::Host, &[addr(3)]), |_| true));
    assert_eq!(path.addresses(), [addr(3)]);
}

#[test]
fn addresses_that_cannot_be_the_peers_are_not_taken_from_its_list() {
    let now = crate::testing::start();
    let mut path = Path::default();
    assert!(path.told(now, &told(1, Kind::Host, &[addr(2), addr(3)]), |known| known != addr(2)));
    assert_eq!(path.addresses(), [addr(3)]);
}

#[test]
fn a_name_says_more_about_an_address_than_that_something_came_from_there() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.learn(now, addr(1), CandidateSource::Frames);
    path.learn(now, addr(1), CandidateSource::PeerHost);
    assert_eq!(path.candidates()[0].source, CandidateSource::PeerHost);
    path.learn(now, addr(1), CandidateSource::Frames);
    assert_eq!(path.candidates()[0].source, CandidateSource::PeerHost);
    assert_eq!(path.candidates().len(), 1);
}

#[test]
fn a_flood_of_addresses_displaces_neither_the_way_in_use_nor_grows_the_list() {
    let now = crate::testing::start();
    let mut path = answering(now);
    path.learn(now, addr(2), CandidateSource::PeerObserved);
    path.answered(now, Via::Direct(addr(2)), ms(40));
    for port in 1..5000 {
        path.learn(now, SocketAddr::from(([192, 0, 2, 1], port)), CandidateSource::Frames);
        assert!(path.candidates().len() <= CANDIDATES_MAX);
    }
    assert_eq!(path.known_addresses(), [addr(1), addr(2)], "what answered stays");
    assert_eq!(path.route(), direct(1));
    assert_eq!(path.targets().len(), SHOT_MAX);
}

#[test]
fn a_peer_that_wants_the_relay_only_is_not_tried_where_the_registry_has_it() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.located(now, &Location { relay_only: true, ..at(1, &[2]) });
    assert!(path.is_relay_only() && !path.has_candidates());
    assert_eq!(path.addresses(), []);
    assert_eq!(path.targets(), []);
    path.told(now, &told(1, Kind::Host, &[addr(3)]), |_| true);
    assert_eq!(path.targets(), [addr(3)], "what it names itself it wants tried");
}

#[test]
fn an_address_that_anybody_can_plant_is_tried_again_and_again_only_while_frames_come_from_there() {
    let start = crate::testing::start();
    let mut path = Path::default();
    path.learn(start, addr(1), CandidateSource::Registry);
    path.learn(start, addr(2), CandidateSource::Introduced);
    path.exchanged(start, Via::Direct(addr(3)));
    assert_eq!(path.wishes(start), [addr(1)]);
    assert_eq!(path.targets(), [addr(1), addr(2), addr(3)], "a first few packets it may have");
    path.heard(start, Via::Direct(addr(3)), false);
    assert_eq!(path.wishes(start + ms(2999)), [addr(1), addr(3)]);
    assert_eq!(path.wishes(start + ms(3000)), [addr(1)], "an old frame may be repeated by anybody");
}

#[test]
fn what_works_is_no_target() {
    let now = crate::testing::start();
    let mut path = answering(now);
    path.learn(now, addr(2), CandidateSource::PeerHost);
    assert_eq!(path.targets(), [addr(2)]);
    assert_eq!(path.known_addresses(), [addr(1)]);
}

#[test]
fn a_frame_through_the_beacon_refutes_that_the_beacon_does_not_know_the_peer() {
    let now = crate::testing::start();
    let mut path = Path::default();
    path.relay.unknown = Some(now);
    path.heard(now + ms(1), Via::Relay, false);
    assert_eq!(path.relay.unknown, None);
}
