use std::time::Duration;

use super::*;

const ALICE: NodeId = NodeId(1);
const ONE: ClientId = ClientId(1);
const TWO: ClientId = ClientId(2);
const LIMIT: Duration = Duration::from_secs(30);

struct World {
    desk: Desk,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut desk = Desk::default();
        desk.register(ONE);
        desk.register(TWO);
        Self { desk, now: Instant::now() }
    }

    fn inquiry(&self, id: &str, key: Option<&str>) -> Inquiry {
        Inquiry {
            inbox: format!("TEXT-{id}"),
            from: Addr::backbone(ALICE),
            message: Some(id.parse().unwrap()),
            key: key.map(|key| key.parse().unwrap()),
            parts: false,
            hops: 0,
            plain: false,
            deadline: self.now + LIMIT,
        }
    }

    fn arrive(&mut self, id: &str) {
        let inquiry = self.inquiry(id, None);
        assert_eq!(self.desk.arrived(inquiry), [Action::Wake]);
    }

    fn arrive_under(&mut self, id: &str, key: &str) {
        let inquiry = self.inquiry(id, Some(key));
        assert_eq!(self.desk.arrived(inquiry), [Action::Wake]);
    }

    fn take(&mut self, by: ClientId) -> Option<String> {
        self.desk.take(by, None, false, self.now, 1000).map(|grant| grant.inquiry.inbox)
    }

    fn answer(&mut self, by: ClientId, id: &str) -> Vec<String> {
        self.desk.answering(Some(by), id).unwrap();
        let (same, _) = self.desk.finish(Some(by), id, true);
        same.into_iter().map(|inquiry| inquiry.inbox).collect()
    }
}

fn settled(actions: &[Action]) -> Vec<(&str, Outcome)> {
    let settle = |action| match action {
        &Action::Settle(ref inquiry, outcome, _) => Some((inquiry.inbox.as_str(), outcome)),
        Action::Wake => None,
    };
    actions.iter().filter_map(settle).collect()
}

#[test]
fn each_request_is_handed_out_once_in_the_order_of_arrival() {
    let mut world = World::new();
    world.arrive("a");
    world.arrive("b");
    assert_eq!(world.take(ONE).as_deref(), Some("TEXT-a"));
    assert_eq!(world.take(TWO).as_deref(), Some("TEXT-b"));
    assert_eq!(world.take(ONE), None);
    world.answer(ONE, "TEXT-a");
    assert_eq!(world.desk.counts(), (0, 1));
}

#[test]
fn what_a_killed_program_held_is_given_to_another_as_a_later_run() {
    let mut world = World::new();
    world.arrive("a");
    let first = world.desk.take(ONE, None, false, world.now, 1000).unwrap();
    assert_eq!(world.take(TWO), None);
    assert_eq!(world.desk.gone(ONE), [Action::Wake]);
    let second = world.desk.take(TWO, None, false, world.now, 1000).unwrap();
    assert!(second.run > first.run, "the clock stood still, the run is another one");
    assert_eq!(world.desk.holds(ONE, "TEXT-a"), Err(Why::Lost));
    assert!(world.desk.answering(Some(ONE), "TEXT-a").is_err());
    world.answer(TWO, "TEXT-a");
}

#[test]
fn an_answer_that_cannot_be_handed_over_leaves_the_request_with_its_program() {
    let mut world = World::new();
    world.arrive("a");
    world.take(ONE);
    world.desk.answering(Some(ONE), "TEXT-a").unwrap();
    assert_eq!(world.desk.answering(None, "TEXT-a"), Err(Refused::Busy), "nobody answers meanwhile");
    world.desk.unanswered("TEXT-a");
    assert_eq!(world.desk.holds(ONE, "TEXT-a"), Ok(()));
    world.desk.answering(Some(ONE), "TEXT-a").unwrap();
    world.desk.gone(ONE);
    world.desk.unanswered("TEXT-a");
    assert_eq!(world.take(TWO).as_deref(), Some("TEXT-a"), "its program is gone");
}

#[test]
fn a_request_that_is_taken_back_is_settled_and_its_program_told() {
    let mut world = World::new();
    world.arrive("a");
    world.arrive("b");
    world.take(ONE);
    let actions = world.desk.cancel(ALICE, &"a".parse().unwrap());
    assert_eq!(settled(&actions), [("TEXT-a", Outcome::Cancelled)]);
    assert_eq!(world.desk.holds(ONE, "TEXT-a"), Err(Why::Cancelled));
    let actions = world.desk.cancel(ALICE, &"b".parse().unwrap());
    assert_eq!(settled(&actions), [("TEXT-b", Outcome::Cancelled)]);
    assert_eq!(world.take(TWO), None);
}

#[test]
fn only_the_sender_takes_a_request_back_and_not_while_it_is_answered() {
    let mut world = World::new();
    world.arrive("a");
    assert_eq!(world.desk.cancel(NodeId(9), &"a".parse().unwrap()), []);
    world.take(ONE);
    world.desk.answering(Some(ONE), "TEXT-a").unwrap();
    assert_eq!(world.desk.cancel(ALICE, &"a".parse().unwrap()), []);
}

#[test]
fn a_request_that_is_taken_back_before_it_arrives_is_not_begun() {
    let mut world = World::new();
    world.desk.cancel(ALICE, &"a".parse().unwrap());
    let inquiry = world.inquiry("a", None);
    assert_eq!(settled(&world.desk.arrived(inquiry)), [("TEXT-a", Outcome::Cancelled)]);
    assert_eq!(world.take(ONE), None);
}

#[test]
fn work_is_stopped_at_its_deadline_and_not_begun_after_it() {
    let mut world = World::new();
    world.arrive("a");
    world.arrive("b");
    world.take(ONE);
    assert_eq!(world.desk.next_deadline(), Some(world.now + LIMIT));
    world.now += LIMIT - Duration::from_millis(1);
    assert_eq!(world.desk.on_time(world.now), []);
    world.now += Duration::from_millis(1);
    assert_eq!(world.take(TWO), None, "it is too late, whoever looks first");
    let actions = world.desk.on_time(world.now);
    assert_eq!(settled(&actions), [("TEXT-a", Outcome::Failed)], "nobody had begun `b`");
    assert_eq!(world.desk.holds(ONE, "TEXT-a"), Err(Why::Deadline));
    assert_eq!((world.desk.counts(), world.desk.next_deadline()), ((0, 0), None));
}

#[test]
fn requests_under_one_key_are_worked_at_once_and_all_get_the_answer() {
    let mut world = World::new();
    world.arrive_under("a", "k");
    world.arrive_under("b", "k");
    world.arrive_under("c", "other");
    assert_eq!(world.take(ONE).as_deref(), Some("TEXT-a"));
    assert_eq!(world.take(TWO).as_deref(), Some("TEXT-c"));
    assert_eq!(world.take(TWO), None);
    assert_eq!(world.answer(ONE, "TEXT-a"), ["TEXT-b"]);
}

#[test]
fn when_the_first_request_under_a_key_is_taken_back_the_next_one_is_carried_out() {
    let mut world = World::new();
    world.arrive_under("a", "k");
    world.arrive_under("b", "k");
    world.take(ONE);
    world.desk.cancel(ALICE, &"a".parse().unwrap());
    assert_eq!(world.take(TWO).as_deref(), Some("TEXT-b"));
}

#[test]
fn a_program_goes_on_with_its_work_after_the_daemon_was_restarted() {
    let mut world = World::new();
    world.arrive("a");
    let held = |id: &str| Held { id: id.to_owned(), run: 5000, sent: 3 };
    let lost = world.desk.resume(ONE, vec![held("TEXT-a"), held("TEXT-x")], world.now);
    assert_eq!(lost, [("TEXT-x".to_owned(), Why::Lost)]);
    assert_eq!(world.take(TWO), None);
    let (_, run, number) = world.desk.interim(ONE, "TEXT-a").unwrap();
    assert_eq!((run, number), (5000, 4), "numbers go on");
    world.desk.release(ONE, "TEXT-a");
    let again = world.desk.take(TWO, None, false, world.now, 1000).unwrap();
    assert!(again.run > 5000);
}

#[test]
fn anybody_of_this_node_may_answer_and_whoever_holds_it_is_told() {
    let mut world = World::new();
    world.arrive("a");
    world.take(ONE);
    world.desk.answering(None, "TEXT-a").unwrap();
    world.desk.finish(None, "TEXT-a", true);
    assert_eq!(world.desk.holds(ONE, "TEXT-a"), Err(Why::Answered));
    assert_eq!(world.desk.answering(None, "TEXT-a"), Err(Refused::Withdrawn(Why::Lost)));
}

#[test]
fn plain_messages_are_for_those_who_asked_for_them() {
    let mut world = World::new();
    let plain = |world: &World, id: &str| Inquiry { plain: true, ..world.inquiry(id, None) };
    let before = plain(&world, "a");
    assert_eq!(world.desk.arrived(before), [], "nobody takes plain messages");
    assert_eq!(world.desk.take(TWO, None, true, world.now, 1000), None);
    let after = plain(&world, "b");
    assert_eq!(world.desk.arrived(after), [Action::Wake]);
    assert_eq!(world.take(ONE), None);
    assert!(world.desk.take(TWO, None, true, world.now, 1000).is_some());
}

#[test]
fn what_the_rules_hold_back_is_handed_out_when_they_allow_it() {
    let mut world = World::new();
    world.arrive("a");
    world.arrive("b");
    assert_eq!(world.take(ONE).as_deref(), Some("TEXT-a"));
    let until = world.now + Duration::from_secs(5);
    world.desk.hold_back(ONE, "TEXT-a", until);
    assert_eq!(world.take(TWO).as_deref(), Some("TEXT-b"));
    assert_eq!(world.take(TWO), None);
    assert_eq!(world.desk.next_deadline(), Some(until));
    world.now = until;
    assert_eq!(world.desk.on_time(world.now), [Action::Wake]);
    assert_eq!(world.take(TWO).as_deref(), Some("TEXT-a"));
    assert_eq!(world.desk.refuse(TWO, "TEXT-a").map(|inquiry| inquiry.inbox).as_deref(), Some("TEXT-a"));
    assert_eq!(world.desk.counts(), (0, 1));
}

#[test]
fn work_can_be_limited_to_one_sender() {
    let mut world = World::new();
    world.arrive("a");
    assert_eq!(world.desk.take(ONE, Some(NodeId(9)), false, world.now, 1000), None);
    assert!(world.desk.take(ONE, Some(ALICE), false, world.now, 1000).is_some());
}

#[test]
fn one_program_cannot_take_everything() {
    let mut world = World::new();
    for at in 0..=HELD_MAX {
        world.arrive(&format!("m-{at}"));
    }
    for _ in 0..HELD_MAX {
        assert!(world.take(ONE).is_some());
    }
    assert_eq!(world.take(ONE), None);
    assert!(world.take(TWO).is_some());
    world.answer(ONE, "TEXT-m-0");
    world.arrive("more");
    assert!(world.take(ONE).is_some());
}

#[test]
fn one_request_too_many_is_declined() {
    let mut world = World::new();
    for at in 0..INQUIRIES_MAX {
        world.arrive(&format!("m-{at}"));
    }
    let more = world.inquiry("more", None);
    assert_eq!(settled(&world.desk.arrived(more)), [("TEXT-more", Outcome::Declined)]);
}
