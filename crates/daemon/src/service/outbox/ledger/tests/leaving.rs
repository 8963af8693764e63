//! Messages left with mailboxes.

use super::super::leaving::LeftOff;
use super::*;

const M1: NodeId = NodeId(11);
const M2: NodeId = NodeId(12);

impl Desk {
    /// The peer is tried and cannot be reached.
    fn miss(&mut self) {
        self.connect();
        self.ends(End::Unreachable("away".to_owned()));
    }

    /// What is brought to a mailbox that takes so many.
    fn leave_with(&mut self, mailbox: NodeId, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count
            && let Some((letter, _)) = self.ledger.next_to_leave(PEER, mailbox, self.now)
        {
            ids.push(letter.id.to_string());
            self.ledger.on_left(PEER, letter.seq, mailbox, self.now);
        }
        ids
    }

    fn left_off(&mut self, left_off: LeftOff) {
        self.ledger.on_left_off(PEER, left_off, self.now);
    }

    fn leave_due(&mut self) -> Vec<NodeId> {
        self.ledger.leave_due(self.now)
    }
}

#[test]
fn messages_are_left_when_the_peer_cannot_be_reached_and_not_before() {
    let mut desk = Desk::new();
    desk.put("m-1");
    assert_eq!(desk.leave_due(), []);
    desk.miss();
    assert_eq!(desk.leave_due(), [PEER]);
    assert_eq!(desk.leave_due(), [], "somebody is on the way");
    assert_eq!(desk.leave_with(M1, 9), ["m-1"]);
    desk.left_off(LeftOff::Done);
    assert_eq!(desk.leave_due(), []);
    let item = desk.item("m-1");
    assert_eq!((item.state, item.via), (State::Sent, Some(Addr::backbone(M1))));
    desk.put("m-2");
    assert_eq!(desk.leave_due(), [PEER]);
    assert_eq!(desk.leave_with(M1, 9), ["m-2"]);
}

#[test]
fn a_message_left_with_a_mailbox_is_still_tried_directly_and_settled_by_either() {
    let mut desk = Desk::new();
    desk.put("m-1");
    desk.put("m-2");
    desk.miss();
    desk.leave_due();
    desk.leave_with(M1, 9);
    desk.left_off(LeftOff::Done);
    let receipts = [Receipt { id: "m-1".parse().unwrap(), state: ReceiptState::Stored }];
    desk.ledger.on_receipts(PEER, &receipts, desk.now);
    assert_eq!((desk.state("m-1"), desk.state("m-2")), (State::Stored, State::Sent));
    desk.pass(Duration::from_secs(1));
    desk.connect();
    assert_eq!(desk.writes(), ["m-2"]);
    desk.hears("ACK TEXT 1 bytes (duplicate)");
    assert_eq!(desk.state("m-2"), State::Stored);
}

#[test]
fn a_mailbox_that_has_messages_is_given_those_behind_and_another_one_all() {
    let mut desk = Desk::new();
    for id in ["m-1", "m-2", "m-3"] {
        desk.put(id);
    }
    desk.miss();
    desk.leave_due();
    assert_eq!(desk.leave_with(M2, 2), ["m-1", "m-2"]);
    desk.left_off(LeftOff::Stuck(vec![M2]));
    assert_eq!(desk.ledger.in_order(PEER, vec![M1, M2], desk.now), [M2, M1]);
    assert_eq!(desk.leave_with(M1, 9), ["m-1", "m-2", "m-3"]);
    assert_eq!(desk.leave_with(M1, 9), [] as [String; 0]);
}

#[test]
fn what_was_left_is_known_after_a_restart() {
    let mut desk = Desk::new();
    desk.put("m-1");
    desk.put("m-2");
    desk.miss();
    desk.leave_due();
    desk.leave_with(M1, 1);
    let Change::Update(record) = desk.commit().remove(&Seq(1)).unwrap() else { panic!() };
    let mut again = Desk::new();
    again.ledger.load(Seq(1), *record);
    let second = again.record("m-2", PEER, 1);
    again.ledger.load(Seq(2), second);
    assert_eq!(again.state("m-1"), State::Sent);
    again.miss();
    assert_eq!(again.leave_due(), [PEER]);
    assert_eq!(again.leave_with(M1, 9), ["m-2"]);
}

#[test]
fn mailboxes_that_take_nothing_are_tried_after_pauses_or_when_they_are_heard_of() {
    let mut desk = Desk::new();
    desk.put("m-1");
    desk.miss();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert_eq!(desk.leave_due(), [PEER]);
        desk.left_off(LeftOff::Stuck(vec![M1]));
        assert_eq!(desk.leave_due(), []);
        let at = desk.ledger.next_leaving(desk.now).unwrap();
        pauses.push((at - desk.now.instant).as_secs());
        desk.pass(at - desk.now.instant);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    desk.leave_due();
    desk.left_off(LeftOff::Stuck(vec![M1]));
    desk.ledger.on_sign(Some(M2));
    assert_eq!(desk.leave_due(), []);
    desk.ledger.on_sign(Some(M1));
    assert_eq!(desk.leave_due(), [PEER]);
}

#[test]
fn nothing_is_left_while_the_peer_is_there_or_for_a_peer_of_another_make() {
    let mut desk = Desk::new();
    desk.put("m-1");
    desk.miss();
    desk.leave_due();
    desk.pass(Duration::from_secs(1));
    desk.connect();
    desk.ledger.on_connected(KEY);
    assert_eq!(desk.leave_with(M1, 9), [] as [String; 0]);
    desk.left_off(LeftOff::Done);
    assert_eq!(desk.leave_due(), []);
    desk.ends(End::Left);
    desk.ledger.know(PEER, Known::Tagged);
    desk.miss();
    assert_eq!(desk.leave_due(), []);
}

#[test]
fn a_message_of_which_nothing_is_heard_for_a_day_is_left_once_more() {
    let mut desk = Desk::new();
    let mut record = desk.record("m-1", PEER, 1);
    record.expires = desk.now.wall + 100 * HOUR;
    desk.ledger.admit(record, None).unwrap();
    desk.commit();
    desk.miss();
    desk.leave_due();
    desk.leave_with(M1, 9);
    desk.left_off(LeftOff::Done);
    let at = desk.ledger.next_leaving(desk.now).unwrap();
    desk.pass(at - desk.now.instant);
    assert_eq!(desk.leave_due(), [PEER]);
    desk.ledger.in_order(PEER, vec![M1], desk.now);
    assert_eq!(desk.leave_with(M1, 9), ["m-1"]);
    desk.left_off(LeftOff::Done);
    assert_eq!(desk.leave_due(), []);
}

#[test]
fn a_message_that_may_have_arrived_says_so_when_its_time_is_over() {
    let mut desk = Desk::new();
    desk.put("m-1");
    desk.miss();
    desk.leave_due();
    desk.leave_with(M1, 9);
    desk.left_off(LeftOff::Done);
    desk.pass(Duration::from_millis(HOUR));
    desk.look();
    let item = desk.item("m-1");
    assert_eq!(item.state, State::Expired);
    assert!(item.reason.unwrap().contains("left with mailbox 0:0000.0000.000B"));
}
