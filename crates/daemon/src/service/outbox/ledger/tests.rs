//! The state machine on a clock of its own.

mod leaving;

use super::super::lane::{Job, WINDOW_FRAMES};
use super::carrying::{End, HANG_UPS_MAX, Next};
use super::*;
use pilot_wire::Addr;
use pilot_wire::dataexchange::{Answer, Extension, FrameType, RawFrame};
use pilot_wire::outbox::Kind;

const PEER: NodeId = NodeId(2);
const KEY: LaneKey = (PEER, Track::Messages);
const HOUR: u64 = 3600 * 1000;

fn limits() -> Limits {
    Limits {
        all: Usage { count: 200, bytes: 1 << 20 },
        of_peer: Usage { count: 150, bytes: 1 << 19 },
        history: 20,
        ..LIMITS
    }
}

/// A ledger, and a clock that only the test moves.
struct Desk {
    ledger: Ledger,
    now: Now,
}

impl Desk {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(limits(), 7),
            now: Now { instant: Instant::now(), wall: 1_795_248_169_000 },
        }
    }

    fn record(&self, id: &str, to: NodeId, bytes: u64) -> Record {
        Record {
            id: id.parse().unwrap(),
            to: Addr::backbone(to),
            kind: Kind::Text,
            bytes,
            name: None,
            reply_to: None,
            extension: Extension::default(),
            place: Place::Database,
            state: State::Queued,
            created: self.now.wall,
            state_at: self.now.wall,
            expires: self.now.wall + HOUR,
            reason: None,
            ack: None,
            tagged: None,
            left: None,
        }
    }

    /// Handed over, and on disk.
    fn put(&mut self, id: &str) -> Seq {
        let (seq, is_new) =
            self.ledger.admit(self.record(id, PEER, 1), Some(Bytes::from_static(b"x"))).unwrap();
        assert!(is_new);
        self.commit();
        seq
    }

    fn commit(&mut self) -> BTreeMap<Seq, Change> {
        let changes = std::mem::take(&mut self.ledger.effects.changes);
        self.ledger.committed(&changes);
        changes
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += millis(time);
    }

    fn look(&mut self) -> Vec<LaneKey> {
        self.ledger.look(self.now)
    }

    /// What the carrier writes: the ids of messages, and the names of other things.
    fn writes(&mut self) -> Vec<String> {
        match self.ledger.next(KEY, self.now) {
            Next::Write(jobs) => jobs.iter().map(name).collect(),
            Next::Wait => vec!["wait".to_owned()],
            Next::Idle => vec!["idle".to_owned()],
            Next::Leave => vec!["leave".to_owned()],
        }
    }

    fn connect(&mut self) {
        assert_eq!(self.look(), [KEY]);
    }

    fn connect_to_one_of_ours(&mut self) {
        self.ledger.know(PEER, Known::Ours);
        self.connect();
    }

    fn hears(&mut self, text: &str) {
        let payload = Bytes::from(text.to_owned());
        if matches!(self.ledger.lanes[&KEY].run, Run::Dialing { .. }) {
            self.ledger.on_connected(KEY);
        }
        self.ledger.on_frame(KEY, &RawFrame { kind: FrameType::TEXT, payload }, self.now).unwrap();
    }

    fn ends(&mut self, end: End) {
        self.ledger.on_end(KEY, end, self.now);
    }

    fn state(&self, id: &str) -> State {
        self.item(id).state
    }

    fn item(&self, id: &str) -> Item {
        self.ledger.item(self.ledger.ids[&id.parse().unwrap()], self.now).unwrap()
    }
}

fn name(job: &Job) -> String {
    match job {
        Job::Message(letter) if letter.tagged => letter.id.to_string(),
        Job::Message(letter) => format!("plain {}", letter.id),
        Job::File(letter) => format!("file {}", letter.id),
        Job::Word { control: Control::Receipts { receipts }, .. } if receipts.is_empty() => {
            "probe".to_owned()
        }
        Job::Word { control: Control::Receipts { receipts }, .. } => format!("{} receipts", receipts.len()),
        Job::Word { .. } => "word".to_owned(),
        Job::Live(_) => "live".to_owned(),
    }
}

const STORED: &str = "ACK TEXT 1 bytes";
const OURS: &str = "ACK TEXT 0 bytes";
const NOT_OURS: &str = "ERR UNKNOWN(80) save failed: unsupported frame type 80";

#[test]
fn a_message_is_not_sent_before_it_is_on_disk() {
    let mut desk = Desk::new();
    desk.ledger.admit(desk.record("m-1", PEER, 1), None).unwrap();
    assert_eq!(desk.look(), []);
    assert_eq!(desk.ledger.find(&"m-1".parse().unwrap()), None);
    let changes = desk.commit();
    assert!(matches!(changes[&Seq(1)], Change::New(..)));
    assert_eq!(desk.look(), [KEY]);
}

#[test]
fn a_message_that_cannot_be_written_was_never_there() {
    let mut desk = Desk::new();
    desk.ledger.admit(desk.record("m-1", PEER, 1), None).unwrap();
    let changes = std::mem::take(&mut desk.ledger.effects.changes);
    desk.ledger.not_committed(changes);
    assert_eq!(desk.ledger.pending(), Usage::default());
    desk.put("m-1");
    assert_eq!(desk.ledger.pending(), Usage { count: 1, bytes: 1 });
}

#[test]
fn an_unknown_peer_gets_one_message_and_a_question_and_one_of_ours_a_window() {
    let mut desk = Desk::new();
    for number in 0..100 {
        desk.put(&format!("m-{number}"));
    }
    desk.connect();
    assert_eq!(desk.writes(), ["m-0", "probe"]);
    assert_eq!(desk.state("m-0"), State::Queued, "nobody is reached yet");
    desk.ledger.on_connected(KEY);
    assert_eq!(desk.state("m-0"), State::Sent);
    desk.hears(STORED);
    assert_eq!(desk.state("m-0"), State::Stored);
    assert_eq!(desk.writes(), ["m-1"]);
    desk.hears(OURS);
    let window = desk.writes();
    assert_eq!(window.len(), WINDOW_FRAMES - 1);
    assert_eq!((window[0].as_str(), window[62].as_str()), ("m-2", "m-64"));
    assert_eq!(desk.writes(), ["wait"]);
    desk.hears(STORED);
    assert_eq!(desk.writes(), ["m-65"]);
}

#[test]
fn after_a_break_everything_begins_again_at_the_first_unanswered_message() {
    let mut desk = Desk::new();
    for number in 0..10 {
        desk.put(&format!("m-{number}"));
    }
    desk.connect_to_one_of_ours();
    assert_eq!(desk.writes().len(), 10);
    desk.hears(STORED);
    desk.hears("ACK TEXT 1 bytes (duplicate)");
    desk.ends(End::Broken("pulled".to_owned()));
    assert_eq!(desk.state("m-2"), State::Queued);
    assert_eq!(desk.item("m-2").reason.as_deref(), Some("pulled"));
    assert_eq!(desk.look(), [], "a pause comes first");
    desk.pass(Duration::from_secs(1));
    desk.connect();
    let again = desk.writes();
    assert_eq!((again.len(), again[0].as_str(), again[7].as_str()), (8, "m-2", "m-9"));
}

#[test]
fn pauses_grow_to_half_a_minute_and_a_sign_of_the_peer_ends_them() {
    let mut desk = Desk::new();
    desk.put("m-1");
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        desk.connect();
        desk.writes();
        desk.ends(End::Unreachable("away".to_owned()));
        let at = desk.ledger.next_look(desk.now).unwrap();
        last = at - desk.now.instant;
        assert!(last >= Duration::from_millis(375) && last <= Duration::from_secs(30), "{last:?}");
        desk.pass(last);
    }
    assert!(last > Duration::from_secs(20), "{last:?}");
    desk.connect();
    desk.writes();
    desk.ends(End::Unreachable("away".to_owned()));
    assert!(desk.item("m-1").next_try_ms.unwrap() > 20_000);
    desk.ledger.on_sign(Some(NodeId(3)));
    assert_eq!(desk.look(), [], "somebody else's sign");
    desk.ledger.on_sign(Some(PEER));
    desk.connect();
    desk.writes();
    // A sign in the middle of a try is not lost either.
    desk.ledger.on_sign(None);
    desk.ends(End::Unreachable("away".to_owned()));
    assert_eq!(desk.look(), [KEY]);
}

#[test]
fn what_cannot_be_taken_now_is_tried_again_in_order() {
    let mut desk = Desk::new();
    for number in 0..3 {
        desk.put(&format!("m-{number}"));
    }
    desk.connect_to_one_of_ours();
    assert_eq!(desk.writes(), ["m-0", "m-1", "m-2"]);
    desk.hears(STORED);
    desk.hears("ERR TEXT save failed: inbox is full");
    assert_eq!(desk.writes(), ["wait"]);
    desk.hears("ERR TEXT save failed: inbox is full");
    assert_eq!(desk.writes(), ["leave"]);
    desk.ends(End::Left);
    assert_eq!(desk.item("m-1").reason.as_deref(), Some("inbox is full"));
    assert_eq!(desk.look(), []);
    desk.pass(Duration::from_secs(1));
    desk.connect();
    assert_eq!(desk.writes(), ["m-1", "m-2"]);
}

#[test]
fn a_receiver_that_refuses_for_now_and_hangs_up_gets_a_pause() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.connect_to_one_of_ours();
    desk.writes();
    desk.hears("ERR TEXT save failed: busy: too much at a time");
    desk.ends(End::HungUp);
    assert_eq!(desk.look(), []);
    assert_eq!(desk.item("m-0").reason.as_deref(), Some("busy: too much at a time"));
    desk.pass(Duration::from_secs(1));
    desk.connect();
    assert_eq!(desk.writes(), ["m-0"], "it is not under suspicion");
}

#[test]
fn a_message_whose_bytes_are_lost_holds_up_nobody() {
    let mut desk = Desk::new();
    let seq = desk.put("m-0");
    desk.put("m-1");
    desk.connect_to_one_of_ours();
    desk.writes();
    desk.ledger.on_lost(seq, "no such file".to_owned(), desk.now);
    desk.ends(End::Broken("no such file".to_owned()));
    assert_eq!(desk.state("m-0"), State::Refused);
    desk.pass(Duration::from_secs(1));
    desk.connect();
    assert_eq!(desk.writes(), ["m-1"]);
}

#[test]
fn what_the_receiver_will_never_take_is_refused_and_the_rest_goes_on() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.put("m-1");
    desk.connect_to_one_of_ours();
    desk.writes();
    desk.hears("ERR TEXT save failed: refused by policy: no messages of this node");
    desk.hears(STORED);
    assert_eq!(desk.item("m-0").reason.as_deref(), Some("refused by policy: no messages of this node"));
    assert_eq!((desk.state("m-0"), desk.state("m-1")), (State::Refused, State::Stored));
    assert_eq!(desk.writes(), ["idle"]);
}

#[test]
fn a_receiver_without_ids_gets_plain_messages_one_by_one_and_no_words() {
    for refusal in ["ACK UNKNOWN(10) 60 bytes", "ERR UNKNOWN(10) save failed: unsupported frame type 10"] {
        let mut desk = Desk::new();
        desk.put("m-0");
        desk.put("m-1");
        desk.connect();
        assert_eq!(desk.writes(), ["m-0", "probe"]);
        desk.hears(refusal);
        assert_eq!(desk.writes(), ["plain m-0"]);
        desk.hears("ACK UNKNOWN(80) 30 bytes");
        assert_eq!(desk.ledger.known(PEER), Some(Known::Untagged));
        desk.hears(STORED);
        assert_eq!(desk.item("m-0").tagged, Some(false));
        assert_eq!(desk.writes(), ["plain m-1"]);
        desk.hears(STORED);
        let control = Control::Cancel { id: "m-9".parse().unwrap() };
        desk.ledger.tell(Addr::backbone(PEER), control, Bytes::new(), desk.now);
        assert_eq!(desk.writes(), ["idle"]);
        let seq = desk.ledger.ids[&"m-1".parse().unwrap()];
        assert!(desk.ledger.has_reached(seq, State::Read), "it will never be told");
    }
}

#[test]
fn a_receiver_of_1_18_gets_its_messages_one_by_one_and_no_words() {
    let mut desk = Desk::new();
    for number in 0..3 {
        desk.put(&format!("m-{number}"));
    }
    desk.connect();
    assert_eq!(desk.writes(), ["m-0", "probe"]);
    desk.hears(STORED);
    desk.hears(NOT_OURS);
    assert_eq!(desk.ledger.known(PEER), Some(Known::Tagged));
    assert_eq!(desk.writes(), ["m-1"]);
    assert_eq!(desk.writes(), ["wait"]);
    desk.hears(STORED);
    assert_eq!(desk.writes(), ["m-2"]);
    assert_eq!(desk.item("m-1").tagged, Some(true));
    let seq = desk.ledger.ids[&"m-1".parse().unwrap()];
    assert!(desk.ledger.has_reached(seq, State::Read) && !desk.ledger.has_reached(seq, State::Answered));
}

#[test]
fn a_message_that_is_hung_up_on_time_after_time_is_refused_but_only_by_a_receiver_that_is_alive() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.put("m-1");
    desk.connect_to_one_of_ours();
    assert_eq!(desk.writes(), ["m-0", "m-1"]);
    desk.ends(End::HungUp);
    for _ in 0..20 {
        desk.pass(Duration::from_secs(60));
        desk.connect();
        assert_eq!(desk.writes(), ["probe"], "is it alive?");
        desk.ends(End::HungUp);
    }
    assert_eq!(
        desk.state("m-0"),
        State::Queued,
        "a receiver that answers nothing says nothing about the message"
    );
    for _ in 1..HANG_UPS_MAX {
        assert_eq!(desk.state("m-0"), State::Queued);
        desk.pass(Duration::from_secs(60));
        desk.connect();
        assert_eq!(desk.writes(), ["probe"]);
        desk.hears(OURS);
        assert_eq!(desk.writes(), ["m-0"], "alone");
        desk.ends(End::HungUp);
    }
    assert_eq!(desk.state("m-0"), State::Refused);
    assert!(desk.item("m-0").reason.unwrap().contains("too large"));
    desk.pass(Duration::from_secs(60));
    desk.connect();
    assert_eq!(desk.writes(), ["m-1"]);
}

#[test]
fn a_connection_that_breaks_under_a_message_any_number_of_times_does_not_refuse_it() {
    let mut desk = Desk::new();
    desk.put("m-0");
    for _ in 0..50 {
        desk.pass(Duration::from_secs(60));
        desk.connect();
        desk.writes();
        desk.ends(End::Broken("killed".to_owned()));
    }
    assert_eq!(desk.state("m-0"), State::Queued);
}

#[test]
fn a_message_expires_in_time_unless_it_is_under_way() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.put("m-1");
    desk.ledger.know(PEER, Known::Tagged);
    desk.connect();
    assert_eq!(desk.writes(), ["m-0"]);
    desk.ledger.on_connected(KEY);
    desk.pass(Duration::from_millis(HOUR));
    assert_eq!(desk.look(), []);
    assert_eq!((desk.state("m-0"), desk.state("m-1")), (State::Sent, State::Expired));
    desk.ends(End::Broken("gone".to_owned()));
    assert_eq!(desk.state("m-0"), State::Expired);
    assert_eq!(desk.ledger.pending(), Usage::default());
    assert_eq!(desk.ledger.next_look(desk.now), None);
}

#[test]
fn a_message_is_taken_back_unless_it_is_stored_already() {
    let mut desk = Desk::new();
    let seqs: Vec<Seq> = (0..4).map(|number| desk.put(&format!("m-{number}"))).collect();
    desk.ledger.cancel(seqs[3], desk.now);
    assert_eq!(desk.state("m-3"), State::Cancelled);
    desk.connect_to_one_of_ours();
    assert_eq!(desk.writes(), ["m-0", "m-1", "m-2"]);
    for seq in &seqs[..3] {
        desk.ledger.cancel(*seq, desk.now);
    }
    desk.hears(STORED);
    desk.ends(End::Broken("gone".to_owned()));
    assert_eq!(desk.state("m-0"), State::Stored, "it was too late");
    assert_eq!((desk.state("m-1"), desk.state("m-2")), (State::Cancelled, State::Cancelled));
    desk.ledger.cancel(seqs[0], desk.now);
    assert_eq!(desk.state("m-0"), State::Stored);
    assert_eq!(desk.look(), []);
}

#[test]
fn a_full_outbox_takes_nothing_more_until_something_is_settled() {
    let mut desk = Desk::new();
    for number in 0..150 {
        desk.put(&format!("m-{number}"));
    }
    let refused = desk.ledger.admit(desk.record("m-x", PEER, 1), None);
    assert!(matches!(refused, Err(NotAdmitted::Full { of_peer: true, usage: Usage { count: 150, .. } })));
    for number in 0..50 {
        desk.ledger.admit(desk.record(&format!("o-{number}"), NodeId(3), 1), None).unwrap();
    }
    let refused = desk.ledger.admit(desk.record("o-x", NodeId(4), 1), None);
    assert!(matches!(refused, Err(NotAdmitted::Full { of_peer: false, .. })));
    let seq = desk.ledger.ids[&"o-1".parse().unwrap()];
    desk.ledger.cancel(seq, desk.now);
    desk.ledger.admit(desk.record("o-x", NodeId(4), 1), None).unwrap();

    let mut desk = Desk::new();
    desk.ledger.admit(desk.record("m-0", PEER, 1 << 19), None).unwrap();
    assert!(desk.ledger.admit(desk.record("m-1", PEER, 1), None).is_err(), "bytes count, too");
}

#[test]
fn the_same_id_is_the_same_message_and_belongs_to_one_peer() {
    let mut desk = Desk::new();
    let seq = desk.put("m-0");
    assert_eq!(desk.ledger.admit(desk.record("m-0", PEER, 1), None), Ok((seq, false)));
    let other = desk.ledger.admit(desk.record("m-0", NodeId(3), 1), None);
    assert_eq!(other, Err(NotAdmitted::OtherPeer("m-0".parse().unwrap())));
    assert_eq!(desk.ledger.pending().count, 1);
}

#[test]
fn only_the_peer_itself_can_say_what_became_of_a_message() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.connect_to_one_of_ours();
    desk.writes();
    desk.hears(STORED);
    let read = [Receipt { id: "m-0".parse().unwrap(), state: ReceiptState::Read }];
    desk.ledger.on_receipts(NodeId(3), &read, desk.now);
    desk.ledger.on_answer(NodeId(3), &"m-0".parse().unwrap(), desk.now);
    assert_eq!(desk.state("m-0"), State::Stored);
    desk.ledger.on_receipts(PEER, &read, desk.now);
    assert_eq!(desk.state("m-0"), State::Read);
    let stored = [Receipt { id: "m-0".parse().unwrap(), state: ReceiptState::Stored }];
    desk.ledger.on_receipts(PEER, &stored, desk.now);
    assert_eq!(desk.state("m-0"), State::Read, "no way back");
    desk.ledger.on_answer(PEER, &"m-0".parse().unwrap(), desk.now);
    assert_eq!(desk.state("m-0"), State::Answered);
}

#[test]
fn an_answer_settles_a_message_whose_acknowledgement_was_lost() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.connect_to_one_of_ours();
    desk.writes();
    desk.ends(End::Broken("gone".to_owned()));
    desk.ledger.on_answer(PEER, &"m-0".parse().unwrap(), desk.now);
    assert_eq!(desk.state("m-0"), State::Answered);
    desk.pass(Duration::from_secs(60));
    assert_eq!(desk.look(), []);
}

#[test]
fn a_restart_knows_what_was_there_and_begins_with_the_oldest() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.put("m-1");
    desk.put("m-2");
    desk.connect_to_one_of_ours();
    desk.writes();
    desk.hears(STORED);
    let records: Vec<(Seq, Record)> =
        desk.ledger.entries.iter().map(|(seq, entry)| (*seq, entry.record.clone())).collect();
    let mut again = Desk { ledger: Ledger::new(limits(), 7), now: desk.now };
    for (seq, record) in records {
        again.ledger.load(seq, record);
    }
    assert_eq!((again.state("m-0"), again.state("m-1")), (State::Stored, State::Queued));
    assert_eq!(again.ledger.pending(), Usage { count: 2, bytes: 2 });
    assert_eq!(again.put("m-3"), Seq(4));
    again.connect_to_one_of_ours();
    assert_eq!(again.writes(), ["m-1", "m-2", "m-3"]);
}

#[test]
fn settled_messages_are_remembered_up_to_a_number_and_an_age() {
    let mut desk = Desk::new();
    for number in 0..30 {
        let seq = desk.put(&format!("m-{number}"));
        desk.ledger.cancel(seq, desk.now);
    }
    let changes = desk.commit();
    assert_eq!(desk.ledger.list(None, false, 100, desk.now).len(), limits().history);
    assert!(changes.values().any(|change| matches!(change, Change::Remove(_))));
    desk.pass(limits().history_age + Duration::from_secs(1));
    desk.look();
    assert_eq!(desk.ledger.list(None, false, 100, desk.now), []);
    assert!(desk.ledger.ids.is_empty() && desk.ledger.lanes.is_empty() && desk.ledger.usage.is_empty());
    assert_eq!(desk.ledger.cached, 0);
}

#[test]
fn receipts_are_gathered_and_survive_a_break_and_live_pieces_do_not() {
    let mut desk = Desk::new();
    let receipt =
        |number: u32| Receipt { id: format!("r-{number}").parse().unwrap(), state: ReceiptState::Read };
    for number in 0..3 {
        let control = Control::Receipts { receipts: vec![receipt(number)] };
        desk.ledger.tell(Addr::backbone(PEER), control, Bytes::new(), desk.now);
    }
    let piece = || Delivery {
        tag: None,
        sent_at_ns: None,
        content: pilot_wire::dataexchange::Content::Text(Bytes::new()),
    };
    assert_eq!(desk.ledger.live(Addr::backbone(PEER), piece()).0, Taken::Yes);
    desk.connect();
    assert_eq!(desk.writes(), ["live", "3 receipts"]);
    desk.ends(End::Broken("gone".to_owned()));
    assert_eq!(desk.ledger.live(Addr::backbone(PEER), piece()).0, Taken::Away);
    desk.pass(Duration::from_secs(1));
    desk.connect();
    assert_eq!(desk.writes(), ["3 receipts"]);
    desk.hears(OURS);
    assert_eq!(desk.writes(), ["idle"]);
    let full = (0..=LIVE_MAX).map(|_| desk.ledger.live(Addr::backbone(PEER), piece()).0).last();
    assert_eq!(full, Some(Taken::Full));
}

#[test]
fn a_word_is_of_use_for_an_hour() {
    let mut desk = Desk::new();
    let control = Control::Cancel { id: "m-9".parse().unwrap() };
    desk.ledger.tell(Addr::backbone(PEER), control, Bytes::new(), desk.now);
    desk.connect();
    assert_eq!(desk.writes(), ["word"]);
    desk.ends(End::Unreachable("away".to_owned()));
    desk.pass(WORD_LIFE);
    assert_eq!(desk.look(), []);
    assert!(desk.ledger.lanes.is_empty());
}

#[test]
fn words_for_a_node_that_turns_out_to_be_of_another_make_are_dropped_and_call_for_nobody() {
    let mut desk = Desk::new();
    let tell = |desk: &mut Desk| {
        let control = Control::Cancel { id: "m-9".parse().unwrap() };
        desk.ledger.tell(Addr::backbone(PEER), control, Bytes::new(), desk.now);
    };
    tell(&mut desk);
    desk.connect();
    assert_eq!(desk.writes(), ["word"]);
    tell(&mut desk);
    desk.hears(NOT_OURS);
    desk.ends(End::Broken("gone".to_owned()));
    desk.pass(Duration::from_secs(60));
    assert_eq!(desk.look(), []);
    assert!(desk.ledger.lanes.is_empty());
}

#[test]
fn a_file_holds_up_no_message() {
    let mut desk = Desk::new();
    let file = Record {
        kind: Kind::File,
        name: Some("a".into()),
        place: Place::File(1),
        ..desk.record("f-1", PEER, 9)
    };
    desk.ledger.admit(file, None).unwrap();
    desk.put("m-1");
    let mut lanes = desk.look();
    lanes.sort();
    assert_eq!(lanes, [KEY, (PEER, Track::Files)]);
    let Next::Write(jobs) = desk.ledger.next((PEER, Track::Files), desk.now) else { panic!() };
    assert_eq!(jobs.iter().map(name).collect::<Vec<_>>(), ["file f-1"]);
    assert_eq!(desk.writes(), ["m-1", "probe"]);
    desk.ledger.on_stored((PEER, Track::Files), Seq(1), None, "9 bytes".into(), desk.now);
    assert_eq!(desk.state("f-1"), State::Stored);
    assert_eq!(desk.ledger.files(), BTreeSet::new());
}

#[test]
fn carriers_are_few_and_those_that_failed_least_come_first() {
    let mut desk = Desk::new();
    desk.ledger.limits.carriers = 2;
    for node in 2..6 {
        desk.ledger.admit(desk.record(&format!("m-{node}"), NodeId(node), 1), None).unwrap();
    }
    desk.commit();
    let two = desk.look();
    assert_eq!(two, [(NodeId(2), Track::Messages), (NodeId(3), Track::Messages)]);
    assert_eq!(desk.look(), []);
    for key in two {
        desk.ledger.next(key, desk.now);
        desk.ledger.on_end(key, End::Unreachable("away".to_owned()), desk.now);
    }
    desk.pass(Duration::from_secs(10));
    assert_eq!(desk.look(), [(NodeId(4), Track::Messages), (NodeId(5), Track::Messages)]);
}

#[test]
fn an_answer_nobody_asked_for_ends_the_connection() {
    let mut desk = Desk::new();
    desk.put("m-0");
    desk.connect_to_one_of_ours();
    desk.writes();
    let frame =
        |text: &'static str| RawFrame { kind: FrameType::TEXT, payload: Bytes::from_static(text.as_bytes()) };
    assert_eq!(desk.ledger.on_frame(KEY, &frame("hello"), desk.now), None);
    assert_eq!(desk.ledger.on_frame(KEY, &frame(STORED), desk.now), Some(()));
    assert_eq!(desk.ledger.on_frame(KEY, &frame(STORED), desk.now), None);
    assert!(Answer::parse(&frame(STORED)).is_ok());
}
