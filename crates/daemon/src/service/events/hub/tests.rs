//! The hub without tasks and streams.

use super::*;
use pilot_wire::events::{Decoder, Reached};

const ADDR: Addr = Addr::backbone(NodeId(2));
const PEER: NodeId = NodeId(3);
const EPOCH: u64 = 7;

struct Reader {
    id: SubscriberId,
    token: NoteToken,
}

/// What a subscriber read, in short.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Event(String),
    Past(String),
    Answer(u64, String),
    Lost(u64, bool),
    At(Option<NodeId>, u64),
    End(Option<u64>, u64),
    Subscribed(Overflow, u32),
    Demoted,
}

fn hub() -> Hub {
    Hub::new(EPOCH, Box::new(|_, _| true))
}

fn at(seq: u64) -> Position {
    Position { epoch: EPOCH, seq }
}

fn event(topic: &str, payload: &str) -> Event {
    Event::new(topic, payload.to_owned()).unwrap()
}

fn join(hub: &mut Hub, side: Side, topic: &str, wishes: Wishes, may_block: bool) -> Reader {
    let token = NoteToken::from_random([hub.len() as u8; 16]);
    let asked = Some((token.clone(), wishes));
    let topic = topic.to_owned();
    let id = hub.subscribe(Subscription { side, addr: ADDR, hostname: None, topic, asked, may_block });
    Reader { id, token }
}

fn own(hub: &mut Hub, topic: &str) -> Reader {
    join(hub, Side::Own, topic, Wishes::default(), true)
}

fn other(hub: &mut Hub, topic: &str) -> Reader {
    join(hub, Side::Other, topic, Wishes::default(), false)
}

fn with(overflow: Overflow, queue: u32) -> Wishes {
    Wishes { overflow, queue: Some(queue), ..Wishes::default() }
}

fn publish(hub: &mut Hub, publisher: &Reader, topic: &str, payload: &str) -> Result<(), Held> {
    hub.publish(publisher.id, &event(topic, payload), 1, Instant::now())
}

fn from_peer(payload: &str, seq: u64) -> Delivered {
    let source = Source { at: Some(at(seq)), time: Some(seq), ..Source::default() };
    Delivered { event: event("t", payload), source, received: 99 }
}

fn key(topic: &str) -> LinkKey {
    LinkKey { node: PEER, ask: LinkTopic { topic: topic.to_owned(), blocks: false } }
}

/// Everything that waits for a subscriber.
fn read(hub: &mut Hub, reader: &Reader) -> Vec<Read> {
    let mut decoder = Decoder::new();
    while let Some(batch) = hub.take(reader.id, Instant::now()) {
        decoder.feed(&batch);
        hub.writer_idle(reader.id);
    }
    let mut found = Vec::new();
    let mut source = Source::default();
    while let Some(event) = decoder.next_event().unwrap() {
        let text = String::from_utf8(event.payload.to_vec()).unwrap();
        found.push(match reader.token.read(&event) {
            Some(Note::From(from)) => {
                source = from;
                continue;
            }
            Some(Note::Lost { events, at_least, .. }) => Read::Lost(events, at_least),
            Some(Note::At { broker, at }) => Read::At(broker.map(|addr| addr.node), at.seq),
            Some(Note::Replayed { answer, at }) => Read::End(answer, at.seq),
            Some(Note::Subscribed { overflow, queue, .. }) => Read::Subscribed(overflow, queue),
            Some(Note::Demoted) => Read::Demoted,
            Some(Note::Refused { reason }) => panic!("{reason}"),
            None => match (source.answer, source.replayed) {
                (Some(ask), _) => Read::Answer(ask, text),
                (None, true) => Read::Past(text),
                (None, false) => Read::Event(text),
            },
        });
    }
    assert!(decoder.is_empty());
    found
}

fn live(payloads: &[&str]) -> Vec<Read> {
    payloads.iter().map(|payload| Read::Event((*payload).to_owned())).collect()
}

fn past(payloads: &[&str]) -> Vec<Read> {
    payloads.iter().map(|payload| Read::Past((*payload).to_owned())).collect()
}

#[test]
fn other_nodes_match_literally_and_the_owner_by_pattern() {
    let mut hub = hub();
    let publisher = other(&mut hub, "a.b");
    let literal = other(&mut hub, "a.b");
    let everything = other(&mut hub, "*");
    let wild = other(&mut hub, "a.*");
    let mine = own(&mut hub, "a.*");
    let narrowed = Wishes { pattern: Some("a.*".into()), ..Wishes::default() };
    let narrowed = join(&mut hub, Side::Other, "*", narrowed, false);
    publish(&mut hub, &publisher, "a.b", "1").unwrap();
    publish(&mut hub, &publisher, "a.*", "2").unwrap();
    publish(&mut hub, &publisher, "b", "3").unwrap();
    assert_eq!(read(&mut hub, &publisher), live(&[]), "not one's own");
    assert_eq!(read(&mut hub, &literal), live(&["1"]));
    assert_eq!(read(&mut hub, &everything), live(&["1", "2", "3"]));
    assert_eq!(read(&mut hub, &wild), live(&["2"]));
    assert_eq!(read(&mut hub, &mine), live(&["1", "2"]));
    assert_eq!(read(&mut hub, &narrowed), live(&["1", "2"]));
}

#[test]
fn what_a_peers_broker_delivered_goes_to_the_owner_only_and_once() {
    let mut hub = hub();
    let theirs = other(&mut hub, "*");
    let literal = own(&mut hub, "t");
    let everything = own(&mut hub, "*");
    for topic in ["t", "*"] {
        hub.link_up(&key(topic), false, None);
        hub.delivered(&key(topic), &from_peer(topic, 1), false, Instant::now()).unwrap();
    }
    assert_eq!(read(&mut hub, &literal), live(&["t"]));
    assert_eq!(read(&mut hub, &everything), live(&["*"]));
    assert_eq!(read(&mut hub, &theirs), live(&[]));
    assert_eq!(hub.history().events, 0, "the history is that of this broker");
}

#[test]
fn a_slow_subscriber_loses_its_oldest_events_and_learns_how_many() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    let slow = join(&mut hub, Side::Own, "*", with(Overflow::DropOldest, 3), true);
    for number in 0..5 {
        publish(&mut hub, &publisher, "n", &number.to_string()).unwrap();
    }
    let mut expected = vec![Read::Lost(2, false)];
    expected.extend(live(&["2", "3", "4"]));
    assert_eq!(read(&mut hub, &slow), expected);
    let status = &hub.subscriptions(Instant::now())[0];
    assert_eq!((status.delivered, status.dropped, status.queued), (3, 2, 0));
}

#[test]
fn one_that_drops_the_newest_keeps_what_it_has_and_learns_where_it_lost() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    let slow = join(&mut hub, Side::Own, "*", with(Overflow::DropNewest, 2), true);
    for number in 0..5 {
        publish(&mut hub, &publisher, "n", &number.to_string()).unwrap();
    }
    let mut expected = live(&["0", "1"]);
    expected.push(Read::Lost(3, false));
    assert_eq!(read(&mut hub, &slow), expected);
    publish(&mut hub, &publisher, "n", "5").unwrap();
    assert_eq!(read(&mut hub, &slow), live(&["5"]));
}

#[test]
fn publishers_wait_for_a_blocking_subscriber_and_it_loses_nothing() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    let blocking = join(&mut hub, Side::Own, "a", with(Overflow::Block, 2), true);
    let free = own(&mut hub, "*");
    publish(&mut hub, &publisher, "a", "0").unwrap();
    publish(&mut hub, &publisher, "a", "1").unwrap();
    assert_eq!(publish(&mut hub, &publisher, "a", "2"), Err(Held));
    publish(&mut hub, &publisher, "b", "other topics go on").unwrap();
    assert_eq!(hub.history().newest, 3, "what was not taken has no number");
    assert!(!hub.take_room());
    assert_eq!(read(&mut hub, &blocking), live(&["0", "1"]));
    assert!(hub.take_room());
    publish(&mut hub, &publisher, "a", "2").unwrap();
    assert_eq!(read(&mut hub, &blocking), live(&["2"]));
    assert_eq!(read(&mut hub, &free), live(&["0", "1", "other topics go on", "2"]));
}

#[test]
fn one_event_fits_however_long_it_is() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    let blocking = join(&mut hub, Side::Own, "*", with(Overflow::Block, 0), true);
    publish(&mut hub, &publisher, "a", &"x".repeat(1 << 20)).unwrap();
    assert_eq!(publish(&mut hub, &publisher, "a", ""), Err(Held));
    assert_eq!(read(&mut hub, &blocking).len(), 1);
    publish(&mut hub, &publisher, "a", "").unwrap();
}

#[test]
fn who_may_not_block_gets_the_default_and_is_told_so() {
    let mut hub = hub();
    let stranger = join(&mut hub, Side::Other, "*", with(Overflow::Block, 1 << 30), false);
    let friend = join(&mut hub, Side::Other, "*", with(Overflow::Block, 10), true);
    hub.confirm(stranger.id, 0);
    hub.confirm(friend.id, 0);
    let granted = Read::Subscribed(Overflow::DropOldest, QUEUE_MAX_OTHER as u32);
    assert_eq!(read(&mut hub, &stranger), [Read::At(None, 0), granted]);
    assert_eq!(read(&mut hub, &friend)[1], Read::Subscribed(Overflow::Block, 10));
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_nothing_blocks_nobody_after_its_time_and_one_that_reads_slowly_does() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    let stuck = join(&mut hub, Side::Own, "*", with(Overflow::Block, 1), true);
    let slow = join(&mut hub, Side::Own, "*", with(Overflow::Block, 1), true);
    publish(&mut hub, &publisher, "t", "0").unwrap();
    assert_eq!(publish(&mut hub, &publisher, "t", "1"), Err(Held));
    let limit = hub.next_stall().unwrap();
    assert_eq!(limit - Instant::now(), STALL_OWN);
    tokio::time::advance(STALL_OWN / 2).await;
    assert_eq!(read(&mut hub, &slow), live(&["0"]));
    hub.demote_stalled(Instant::now());
    assert_eq!(publish(&mut hub, &publisher, "t", "1"), Err(Held));
    tokio::time::advance(STALL_OWN / 2).await;
    hub.demote_stalled(Instant::now());
    assert!(hub.take_room());
    publish(&mut hub, &publisher, "t", "1").unwrap();
    assert_eq!(publish(&mut hub, &publisher, "t", "2"), Err(Held), "the slow one still blocks");
    assert_eq!(read(&mut hub, &slow), live(&["1"]));
    publish(&mut hub, &publisher, "t", "2").unwrap();
    let mut expected = vec![Read::Demoted, Read::Lost(2, false)];
    expected.extend(live(&["2"]));
    assert_eq!(read(&mut hub, &stuck), expected);
    let status = hub.subscriptions(Instant::now());
    assert!(status[0].demoted && status[0].policy == Overflow::DropOldest && !status[1].demoted);
    assert_eq!(status[0].blocked_ms, 30_000);
    assert_eq!(hub.counters().demoted, 1);
}

#[test]
fn small_events_are_written_together_and_a_long_one_is_not_copied() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    let reader = other(&mut hub, "t");
    for payload in ["1", "2", "3"] {
        publish(&mut hub, &publisher, "t", payload).unwrap();
    }
    let batch = hub.take(reader.id, Instant::now()).unwrap();
    assert!(batch.windows(4).filter(|at| at == b"\x00\x01t\x00").count() == 3);
    assert_eq!(hub.take_ready(), [publisher.id], "its writer is busy");
    publish(&mut hub, &publisher, "t", &"x".repeat(1 << 20)).unwrap();
    hub.writer_idle(reader.id);
    assert!(hub.take(reader.id, Instant::now()).unwrap().len() < 1000, "the note alone");
    assert_eq!(hub.take(reader.id, Instant::now()).unwrap().len(), (1 << 20) + 7);
    assert_eq!(hub.take(reader.id, Instant::now()), None);
}

#[test]
fn many_topics_are_asked_for_together() {
    let mut hub = hub();
    for number in 0..100 {
        own(&mut hub, &format!("topic-{number}"));
        join(&mut hub, Side::Own, &format!("topic-{number}"), with(Overflow::Block, 9), true);
    }
    own(&mut hub, NOTHING);
    assert_eq!(hub.link_topics().len(), LINK_TOPICS + 2, "those, and everything with and without waiting");
}

#[test]
fn reserved_topics_reach_nobody() {
    let mut hub = hub();
    let publisher = own(&mut hub, "*");
    let reader = other(&mut hub, "*");
    publish(&mut hub, &publisher, "\0pilot.governed.v1", "x").unwrap();
    assert_eq!((read(&mut hub, &reader), hub.history().newest), (vec![], 0));
}

#[test]
fn topics_that_a_node_may_not_hear_do_not_reach_it_now_or_later() {
    let mut hub = Hub::new(EPOCH, Box::new(|_, topic| topic != "secret"));
    let publisher = own(&mut hub, NOTHING);
    let mine = own(&mut hub, "*");
    let theirs = other(&mut hub, "*");
    publish(&mut hub, &publisher, "secret", "1").unwrap();
    publish(&mut hub, &publisher, "open", "2").unwrap();
    assert_eq!(read(&mut hub, &mine), live(&["1", "2"]));
    assert_eq!(read(&mut hub, &theirs), live(&["2"]));
    let resumed = Wishes { resume: vec![Reached { broker: None, at: at(0) }], ..Wishes::default() };
    let again = join(&mut hub, Side::Other, "*", resumed, false);
    assert_eq!(read(&mut hub, &again)[..1], past(&["2"]));
    let replayed = Wishes { replay: 9, ..Wishes::default() };
    let late = join(&mut hub, Side::Other, "*", replayed, false);
    hub.confirm(late.id, 0);
    assert_eq!(read(&mut hub, &late)[1..2], past(&["2"]));
}

#[test]
fn the_last_events_come_first_and_join_the_next_without_gap_or_repetition() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    for payload in ["1", "2", "3"] {
        publish(&mut hub, &publisher, "t", payload).unwrap();
        publish(&mut hub, &publisher, "noise", "no").unwrap();
    }
    let reader = join(&mut hub, Side::Own, "t", Wishes { replay: 2, ..Wishes::default() }, true);
    publish(&mut hub, &publisher, "t", "between").unwrap();
    hub.confirm(reader.id, 0);
    publish(&mut hub, &publisher, "t", "after").unwrap();
    let mut expected = vec![Read::Subscribed(Overflow::DropOldest, QUEUE_EVENTS as u32)];
    expected.extend(past(&["3", "between"]));
    expected.push(Read::At(None, 7));
    expected.extend(live(&["after"]));
    assert_eq!(read(&mut hub, &reader), expected);
}

#[test]
fn the_past_of_all_brokers_is_put_in_order_before_what_happens_now() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    hub.publish(publisher.id, &event("t", "own 20"), 20, Instant::now()).unwrap();
    hub.publish(publisher.id, &event("t", "own 40"), 40, Instant::now()).unwrap();
    let reader = join(&mut hub, Side::Own, "t", Wishes { replay: 3, ..Wishes::default() }, true);
    hub.link_up(&key("t"), true, Some(at(50)));
    hub.confirm(reader.id, 1);
    let asks = hub.take_asks();
    assert_eq!(asks.len(), 1);
    assert_eq!((&asks[0].0, asks[0].1.past), (&key("t"), Past::Last(3)));
    let ask = asks[0].1.id;
    // Of these, the first two have come live already when the answer is made.
    for seq in [51, 52] {
        hub.delivered(&key("t"), &from_peer(&format!("peer {seq}"), seq), false, Instant::now()).unwrap();
    }
    for seq in [30, 51, 52] {
        hub.answered_with(&key("t"), ask, &from_peer(&format!("peer {seq}"), seq));
    }
    hub.delivered(&key("t"), &from_peer("peer 53", 53), false, Instant::now()).unwrap();
    assert!(hub.is_gathering(reader.id));
    hub.answered(&key("t"), ask, at(52));
    let read = read(&mut hub, &reader);
    let mut expected = past(&["own 40", "peer 51", "peer 52"]);
    expected.extend([Read::At(None, 2), Read::At(Some(PEER), 52)]);
    expected.extend(live(&["peer 53"]));
    assert_eq!(read[1..], expected);
}

#[test]
fn a_broker_that_does_not_answer_keeps_nobody_waiting() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    publish(&mut hub, &publisher, "t", "1").unwrap();
    let reader = join(&mut hub, Side::Own, "t", Wishes { replay: 3, ..Wishes::default() }, true);
    hub.link_up(&key("t"), true, Some(at(50)));
    hub.confirm(reader.id, 1);
    let ask = hub.take_asks()[0].1.id;
    hub.answered_with(&key("t"), ask, &from_peer("half an answer", 2));
    hub.link_down(&key("t"));
    assert_eq!(read(&mut hub, &reader)[1..2], past(&["1"]));
}

#[test]
fn a_subscription_goes_on_where_it_stopped_at_every_broker() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    for payload in ["1", "2", "3"] {
        publish(&mut hub, &publisher, "t", payload).unwrap();
    }
    let resume =
        vec![Reached { broker: None, at: at(1) }, Reached { broker: Some(Addr::backbone(PEER)), at: at(40) }];
    let reader = join(&mut hub, Side::Own, "t", Wishes { resume, replay: 99, ..Wishes::default() }, true);
    let mut expected = past(&["2", "3"]);
    expected.push(Read::End(None, 3));
    assert_eq!(read(&mut hub, &reader), expected, "at once, without waiting for the peer");
    publish(&mut hub, &publisher, "t", "4").unwrap();
    assert_eq!(read(&mut hub, &reader), live(&["4"]));

    hub.link_up(&key("t"), true, Some(at(42)));
    let asks = hub.take_asks();
    assert_eq!(asks[0].1.past, Past::After(at(40)));
    hub.delivered(&key("t"), &from_peer("peer 43", 43), false, Instant::now()).unwrap();
    assert_eq!(read(&mut hub, &reader), live(&[]), "what was missed comes first");
    for seq in [41, 42, 43] {
        hub.answered_with(&key("t"), asks[0].1.id, &from_peer(&format!("peer {seq}"), seq));
    }
    hub.answered(&key("t"), asks[0].1.id, at(43));
    hub.delivered(&key("t"), &from_peer("peer 44", 44), false, Instant::now()).unwrap();
    let mut expected = past(&["peer 41", "peer 42", "peer 43"]);
    expected.push(Read::At(Some(PEER), 43));
    expected.extend(live(&["peer 44"]));
    assert_eq!(read(&mut hub, &reader), expected);
}

#[test]
fn what_the_history_does_not_hold_any_more_is_told_as_lost() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    for number in 0..1003 {
        publish(&mut hub, &publisher, "t", &number.to_string()).unwrap();
    }
    let resume = || Wishes { resume: vec![Reached { broker: None, at: at(1) }], ..Wishes::default() };
    let everything = join(&mut hub, Side::Own, "*", resume(), true);
    assert_eq!(read(&mut hub, &everything)[0], Read::Lost(2, false));
    let literal = join(&mut hub, Side::Own, "t", resume(), true);
    assert_eq!(read(&mut hub, &literal)[0], Read::Lost(1, true), "they may have been of other topics");
}

#[test]
fn what_was_missed_on_a_link_goes_to_who_was_there_when_it_broke() {
    let mut hub = hub();
    let before = own(&mut hub, "t");
    hub.confirm(before.id, 0);
    assert_eq!(read(&mut hub, &before).len(), 2);
    hub.link_up(&key("t"), true, Some(at(1)));
    assert_eq!(read(&mut hub, &before), [Read::At(Some(PEER), 1)]);
    hub.link_down(&key("t"));
    let meanwhile = own(&mut hub, "t");
    hub.link_up(&key("t"), true, Some(at(1)));
    hub.delivered(&key("t"), &from_peer("missed", 2), true, Instant::now()).unwrap();
    hub.delivered(&key("t"), &from_peer("now", 3), false, Instant::now()).unwrap();
    let mut expected = past(&["missed"]);
    expected.extend(live(&["now"]));
    assert_eq!(read(&mut hub, &before), expected);
    assert_eq!(read(&mut hub, &meanwhile), live(&["now"]));
}

#[test]
fn a_question_on_a_connection_is_answered_with_its_number() {
    let mut hub = hub();
    let publisher = own(&mut hub, NOTHING);
    for topic in ["a.1", "b", "a.2"] {
        publish(&mut hub, &publisher, topic, topic).unwrap();
    }
    let link = other(&mut hub, "*");
    hub.answer(link.id, &Ask { id: 5, past: Past::Last(9), pattern: "a.*".into() });
    let answer = |text: &str| Read::Answer(5, text.to_owned());
    assert_eq!(read(&mut hub, &link), [answer("a.1"), answer("a.2"), Read::End(Some(5), 3)]);
}

#[test]
fn losses_on_a_link_are_told_to_its_subscribers() {
    let mut hub = hub();
    let literal = own(&mut hub, "t");
    let elsewhere = own(&mut hub, "u");
    hub.link_up(&key("t"), true, None);
    hub.lost(&key("t"), 4, false, None);
    hub.delivered(&key("t"), &from_peer("x", 9), false, Instant::now()).unwrap();
    assert_eq!(read(&mut hub, &literal)[0], Read::Lost(4, false));
    assert_eq!(read(&mut hub, &elsewhere), live(&[]));
    assert_eq!(hub.link_counters(&key("t")).lost, 4);
}
