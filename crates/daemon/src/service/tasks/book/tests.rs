//! What may become of a task, with the time as the test says.

use pilot_wire::tasks::frame::{Acceptance, Answer, StatusExtension, StatusUpdate, Submit, SubmitExtension};
use pilot_wire::tasks::{Category, State, TaskId};
use pilot_wire::{Addr, NodeId, Signature};

use super::super::record::{Kept, Key, Moment, Outcome, PeerKind, Pending, Record, Report, Times};
use super::{Book, DAY, HOUR, OPEN_PER_PEER, Order, SECOND, Told, Wrong};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const STRANGER: NodeId = NodeId(3);
const START: Moment = Moment(1_795_000_000_000);

fn at(ms: u64) -> Moment {
    START.plus(ms)
}

fn id(name: &str) -> TaskId {
    name.parse().unwrap()
}

fn ours(name: &str) -> Key {
    Key { category: Category::Submitted, id: id(name) }
}

fn theirs(name: &str) -> Key {
    Key { category: Category::Received, id: id(name) }
}

fn order(name: &str, deadline_ms: Option<u64>) -> Order {
    Order {
        id: id(name),
        from: Addr::backbone(ME),
        to: Addr::backbone(PEER),
        description: "do it".to_owned(),
        deadline_ms,
    }
}

fn submit(name: &str, deadline_ms: Option<u64>) -> Submit {
    Submit {
        task_id: id(name),
        task_description: "do it".to_owned(),
        from_addr: Addr::backbone(PEER),
        to_addr: Addr::backbone(ME),
        pilot: Some(SubmitExtension { deadline_ms }),
    }
}

fn status(name: &str, status: State) -> StatusUpdate {
    StatusUpdate {
        task_id: id(name),
        status,
        justification: "because".to_owned(),
        pilot: Some(StatusExtension::default()),
    }
}

fn of_older(name: &str, state: State) -> StatusUpdate {
    StatusUpdate { pilot: None, ..status(name, state) }
}

fn ok() -> Told {
    Told::Answer(Book::reply(&id("x"), Answer::OK, "fine"))
}

fn told(book: &mut Book, now: Moment, key: &Key, told: &Told) {
    let record = book.set_out(key).unwrap();
    book.told(now, key, (record.pending.unwrap(), record.revision), told, None);
    book.keep();
}

/// A task of ours that the peer has taken in.
fn delivered(name: &str) -> Book {
    let mut book = Book::default();
    book.submit(START, order(name, None)).unwrap();
    told(&mut book, START, &ours(name), &ok());
    book
}

/// A task of the peer's.
fn received(name: &str) -> Book {
    let mut book = Book::default();
    assert_eq!(book.on_submit(START, PEER, submit(name, None)).status, Answer::OK);
    book.keep();
    book
}

fn state(book: &Book, key: &Key) -> State {
    book.get(key).unwrap().state
}

fn pending(book: &Book, key: &Key) -> Option<Pending> {
    book.get(key).unwrap().pending
}

#[test]
fn the_worker_takes_a_task_from_new_to_succeeded_and_its_waits_are_measured() {
    let mut book = received("t");
    book.accept(at(2 * SECOND), &id("t"), None).unwrap();
    assert_eq!(pending(&book, &theirs("t")), Some(Pending::Status));
    told(&mut book, at(2 * SECOND), &theirs("t"), &ok());
    assert_eq!(pending(&book, &theirs("t")), None);
    book.execute(at(5 * SECOND), None).unwrap();
    let finished = book.finishing(at(65 * SECOND), &id("t")).unwrap();
    assert_eq!(finished.times, Times { idle_ms: Some(2000), staged_ms: Some(3000), cpu_ms: Some(60_000) });
    book.complete(&finished, Outcome { text: Some("x".into()), ..Outcome::default() }).unwrap();
    assert_eq!(
        (state(&book, &theirs("t")), pending(&book, &theirs("t"))),
        (State::Completed, Some(Pending::Results))
    );
    told(&mut book, at(66 * SECOND), &theirs("t"), &ok());
    assert_eq!((state(&book, &theirs("t")), pending(&book, &theirs("t"))), (State::Succeeded, None));
}

#[test]
fn the_submitter_follows_the_workers_words_in_whatever_order_they_get_through() {
    let mut book = delivered("t");
    // ACCEPTED was superseded before it was delivered.
    assert_eq!(book.on_status(at(SECOND), PEER, status("t", State::Executing)).status, Answer::OK);
    // And comes after all, from an older connection.
    assert_eq!(book.on_status(at(SECOND), PEER, status("t", State::Accepted)).status, Answer::OK);
    assert_eq!(state(&book, &ours("t")), State::Executing);
    let done = |book: &mut Book| {
        book.on_results(at(SECOND), PEER, &id("t"), Times::default(), Outcome::default(), true)
    };
    assert_eq!(done(&mut book).status, Answer::OK);
    assert_eq!(state(&book, &ours("t")), State::Succeeded);
    assert_eq!(done(&mut book).status, Answer::OK, "the answer may have been lost");
    assert_eq!(book.on_status(at(SECOND), PEER, status("t", State::Failed)).status, Answer::REFUSED);
    assert_eq!(state(&book, &ours("t")), State::Succeeded);
}

#[test]
fn an_older_worker_ends_at_succeeded_too() {
    let mut book = delivered("t");
    book.on_results(at(1), PEER, &id("t"), Times::default(), Outcome::default(), false);
    assert_eq!(state(&book, &ours("t")), State::Completed);
    book.on_status(at(2), PEER, of_older("t", State::Succeeded));
    assert_eq!(state(&book, &ours("t")), State::Succeeded);
}

#[test]
fn only_the_peer_that_has_the_task_speaks_about_it() {
    let mut book = delivered("t");
    for from in [STRANGER, ME] {
        assert_eq!(book.on_status(START, from, status("t", State::Accepted)).status, Answer::UNKNOWN);
        let results = book.on_results(START, from, &id("t"), Times::default(), Outcome::default(), true);
        assert_eq!(results.status, Answer::UNKNOWN);
    }
    let unknown = book.on_results(START, PEER, &id("u"), Times::default(), Outcome::default(), true);
    assert_eq!(unknown.status, Answer::UNKNOWN);
    assert_eq!(state(&book, &ours("t")), State::New);

    let mut book = received("t");
    assert_eq!(book.on_status(START, STRANGER, status("t", State::Cancelled)).status, Answer::UNKNOWN);
    let done = book.on_results(START, PEER, &id("t"), Times::default(), Outcome::default(), true);
    assert_eq!(done.status, Answer::UNKNOWN, "the submitter does not hand in results of its own task");
    assert_eq!(book.on_status(START, PEER, status("t", State::Succeeded)).status, Answer::REFUSED);
    let forged = Submit { from_addr: Addr::backbone(STRANGER), ..submit("u", None) };
    assert_eq!(book.on_submit(START, PEER, forged).status, Answer::REFUSED);
    let taken =
        book.on_submit(START, STRANGER, Submit { from_addr: Addr::backbone(STRANGER), ..submit("t", None) });
    assert_eq!((taken.status, taken.message.as_str()), (Answer::REFUSED, "there is another task called t"));
}

#[test]
fn results_say_nothing_before_they_are_handed_in() {
    let mut book = delivered("t");
    for word in [State::Completed, State::Succeeded] {
        book.on_status(START, PEER, of_older("t", word));
        assert_eq!(state(&book, &ours("t")), State::New, "{word}");
    }
}

#[test]
fn a_task_that_nobody_accepts_is_cancelled_after_a_minute_on_both_sides() {
    let mut book = received("t");
    book.tick(at(60 * SECOND - 1));
    assert_eq!(state(&book, &theirs("t")), State::New);
    assert_eq!(book.next_due(), Some(at(60 * SECOND)));
    book.tick(at(60 * SECOND));
    assert_eq!(
        (state(&book, &theirs("t")), pending(&book, &theirs("t"))),
        (State::Cancelled, Some(Pending::Status))
    );

    let mut book = delivered("t");
    book.tick(at(70 * SECOND));
    assert_eq!(state(&book, &ours("t")), State::New, "the worker's word is to come first");
    book.tick(at(75 * SECOND));
    assert_eq!(state(&book, &ours("t")), State::Cancelled);
}

#[test]
fn a_deadline_is_kept_on_both_sides_whatever_the_task_is_at() {
    for deadline in [5 * SECOND, 3 * HOUR] {
        let mut book = Book::default();
        book.on_submit(START, PEER, submit("t", Some(deadline)));
        book.submit(START, Order { id: id("u"), ..order("u", Some(deadline)) }).unwrap();
        book.accept(at(1), &id("t"), None).unwrap();
        book.execute(at(2), None).unwrap();
        told(&mut book, at(2), &ours("u"), &ok());
        book.on_status(at(3), PEER, status("u", State::Executing));
        book.tick(at(deadline - 1));
        assert_eq!(
            (state(&book, &theirs("t")), state(&book, &ours("u"))),
            (State::Executing, State::Executing)
        );
        book.tick(at(deadline));
        assert_eq!(
            (state(&book, &theirs("t")), state(&book, &ours("u"))),
            (State::Cancelled, State::Cancelled)
        );
        assert_eq!(pending(&book, &ours("u")), Some(Pending::Status), "the worker is told in any case");
    }
}

#[test]
fn an_accepted_task_expires_after_an_hour_at_the_head_of_the_queue_and_no_earlier() {
    let mut book = received("first");
    book.on_submit(START, PEER, submit("second", None));
    book.accept(at(1000), &id("first"), None).unwrap();
    book.accept(at(2000), &id("second"), None).unwrap();
    book.tick(at(1000 + HOUR - 1));
    assert_eq!(state(&book, &theirs("first")), State::Accepted);
    book.tick(at(1000 + HOUR));
    assert_eq!(state(&book, &theirs("first")), State::Expired);
    assert_eq!(state(&book, &theirs("second")), State::Accepted, "it was not its turn");
    book.tick(at(1000 + 2 * HOUR));
    assert_eq!(state(&book, &theirs("second")), State::Expired);
}

#[test]
fn a_task_at_work_does_not_expire() {
    let mut book = received("t");
    book.accept(at(1000), &id("t"), None).unwrap();
    book.execute(at(2000), None).unwrap();
    book.tick(at(20 * DAY));
    assert_eq!(state(&book, &theirs("t")), State::Executing);
}

#[test]
fn an_expired_task_is_claimed_once_with_the_workers_signed_acceptance() {
    let mut book = delivered("t");
    let acceptance = Acceptance { at: START.seconds(), signature: Signature::from_bytes([7; 64]) };
    let accepted = StatusExtension { acceptance: Some(acceptance), ..StatusExtension::default() };
    book.on_status(START, PEER, StatusUpdate { pilot: Some(accepted), ..status("t", State::Accepted) });
    book.on_status(at(HOUR), PEER, status("t", State::Expired));
    assert!(book.claims(at(HOUR)).is_empty(), "the registry's clock may be behind");
    let due = book.next_claim().unwrap();
    assert_eq!(book.claims(due).len(), 1);
    book.set_report(&ours("t"), Report::Told("counted".into()));
    assert!(book.claims(due).is_empty() && book.next_claim().is_none());

    // Without one there is nothing to show.
    let mut book = delivered("t");
    book.on_status(START, PEER, status("t", State::Expired));
    assert_eq!(book.next_claim(), None);
}

#[test]
fn a_worker_that_accepted_and_fell_silent_is_waited_for_a_day() {
    let mut book = delivered("t");
    book.on_status(START, PEER, status("t", State::Accepted));
    book.tick(at(DAY - 1));
    assert_eq!(state(&book, &ours("t")), State::Accepted);
    book.tick(at(DAY));
    assert_eq!(state(&book, &ours("t")), State::Expired);
}

#[test]
fn a_task_is_carried_for_a_day_or_until_its_deadline() {
    let mut book = Book::default();
    book.submit(START, order("t", None)).unwrap();
    book.submit(START, order("u", Some(HOUR))).unwrap();
    book.tick(at(DAY - 1));
    assert_eq!((state(&book, &ours("t")), state(&book, &ours("u"))), (State::New, State::Cancelled));
    book.tick(at(DAY));
    assert_eq!(state(&book, &ours("t")), State::Cancelled);
    assert!(book.pending().is_empty(), "nobody has heard of them");
}

#[test]
fn a_submission_that_may_have_arrived_is_taken_back_in_words() {
    let mut book = Book::default();
    book.submit(START, order("t", None)).unwrap();
    book.set_out(&ours("t")).unwrap();
    book.cancel(at(1), &id("t"), "").unwrap();
    assert_eq!(pending(&book, &ours("t")), Some(Pending::Status));
    // The late answer to the submission does not bring it back.
    book.told(at(2), &ours("t"), (Pending::Submit, 0), &ok(), None);
    assert_eq!(
        (state(&book, &ours("t")), pending(&book, &ours("t"))),
        (State::Cancelled, Some(Pending::Status))
    );
}

#[test]
fn results_and_a_cancellation_that_cross_end_the_same_on_both_sides() {
    // The submitter's view: it cancelled, then the results come.
    let mut submitter = delivered("t");
    submitter.on_status(at(1), PEER, status("t", State::Executing));
    submitter.cancel(at(2), &id("t"), "").unwrap();
    let refused = submitter.on_results(at(3), PEER, &id("t"), Times::default(), Outcome::default(), true);
    assert_eq!(refused.status, Answer::REFUSED);
    // The worker's view: its results are refused, or the word of the cancellation comes first.
    for results_first in [true, false] {
        let mut worker = received("t");
        worker.accept(at(1), &id("t"), None).unwrap();
        worker.execute(at(1), None).unwrap();
        let finished = worker.finishing(at(2), &id("t")).unwrap();
        let outcome = Outcome { text: Some("x".into()), ..Outcome::default() };
        worker.complete(&finished, outcome).unwrap();
        if results_first {
            told(&mut worker, at(3), &theirs("t"), &Told::Answer(refused.clone()));
        } else {
            let answer = worker.on_status(at(3), PEER, status("t", State::Cancelled));
            assert_eq!(answer.status, Answer::OK);
        }
        assert_eq!(state(&worker, &theirs("t")), State::Cancelled);
        assert_eq!(pending(&worker, &theirs("t")), None);
        assert_eq!(worker.get(&theirs("t")).unwrap().outcome, None, "nobody wants them");
    }
}

#[test]
fn a_peer_without_tasks_is_given_a_few_chances() {
    let mut book = Book::default();
    book.submit(START, order("t", None)).unwrap();
    for _ in 0..3 {
        told(&mut book, at(1), &ours("t"), &Told::NoService);
        assert_eq!(state(&book, &ours("t")), State::New);
    }
    told(&mut book, at(1), &ours("t"), &Told::NoService);
    assert_eq!((state(&book, &ours("t")), pending(&book, &ours("t"))), (State::Declined, None));
}

#[test]
fn a_peer_of_ours_owes_an_answer_and_an_older_one_does_not() {
    for (peer, then) in [(PeerKind::Ours, Some(Pending::Status)), (PeerKind::Older, None)] {
        let mut book = Book::default();
        let word = submit("t", None);
        let word = if peer == PeerKind::Ours { word } else { Submit { pilot: None, ..word } };
        book.on_submit(START, PEER, word);
        book.accept(at(1), &id("t"), None).unwrap();
        told(&mut book, at(2), &theirs("t"), &Told::Silent);
        assert_eq!(pending(&book, &theirs("t")), then, "{peer:?}");
    }
    let mut book = Book::default();
    book.submit(START, order("t", None)).unwrap();
    told(&mut book, at(1), &ours("t"), &Told::Silent);
    assert_eq!(pending(&book, &ours("t")), Some(Pending::Submit), "a submission is answered by everybody");
    let later = Told::Answer(Book::reply(&id("t"), Answer::LATER, "busy"));
    told(&mut book, at(1), &ours("t"), &later);
    assert_eq!(pending(&book, &ours("t")), Some(Pending::Submit));
}

#[test]
fn an_older_submitter_gets_one_text_or_one_file() {
    let kept = |name: &str| Kept {
        name: name.to_owned(),
        file: name.to_owned(),
        size: 1,
        sha256: pilot_wire::tasks::frame::Digest([0; 32]),
    };
    let outcome = |text: bool, files: &[&str]| Outcome {
        text: text.then(|| "t".to_owned()),
        files: files.iter().map(|name| kept(name)).collect(),
        signature: None,
    };
    for (result, fits) in [
        (outcome(true, &[]), true),
        (outcome(false, &["a"]), true),
        (outcome(true, &["a"]), false),
        (outcome(false, &["a", "b"]), false),
    ] {
        let mut book = Book::default();
        book.on_submit(START, PEER, Submit { pilot: None, ..submit("t", None) });
        book.accept(at(1), &id("t"), None).unwrap();
        let finished = book.finishing(at(2), &id("t")).unwrap();
        assert_eq!(book.complete(&finished, result.clone()).is_ok(), fits, "{result:?}");
    }
}

#[test]
fn orders_that_make_no_sense_are_refused_with_the_state() {
    let mut book = received("t");
    assert_eq!(book.execute(START, None), Err(Wrong::NothingAccepted));
    assert!(matches!(book.execute(START, Some(&id("t"))), Err(Wrong::State(_, State::New, _))));
    assert!(matches!(book.cancel(START, &id("t"), ""), Err(Wrong::State(_, State::New, _))));
    assert!(book.finishing(START, &id("t")).is_err());
    assert_eq!(book.accept(START, &id("u"), None), Err(Wrong::NotFound(id("u"))));
    book.decline(START, &id("t"), "busy").unwrap();
    assert_eq!(book.accept(START, &id("t"), None), Err(Wrong::Already(id("t"), State::Declined)));
    assert_eq!(book.cancel(START, &id("t"), ""), Err(Wrong::Already(id("t"), State::Declined)));
    let text = Wrong::Already(id("t"), State::Accepted).to_string();
    assert_eq!(text, "task t is already ACCEPTED");
}

#[test]
fn the_same_submission_again_is_no_second_task() {
    let mut book = Book::default();
    let first = book.submit(START, order("t", None)).unwrap();
    assert_eq!(book.submit(at(1), order("t", None)).unwrap(), first);
    let other = Order { description: "else".to_owned(), ..order("t", None) };
    assert_eq!(book.submit(at(1), other), Err(Wrong::Taken(id("t"))));
    assert_eq!(book.all(None).len(), 1);
    let mut book = received("t");
    book.accept(at(1), &id("t"), None).unwrap();
    assert_eq!(book.on_submit(at(2), PEER, submit("t", None)).status, Answer::OK);
    assert_eq!(state(&book, &theirs("t")), State::Accepted);
}

#[test]
fn one_peer_cannot_fill_the_book() {
    let mut book = Book::default();
    for number in 0..OPEN_PER_PEER {
        let word = submit(&format!("t-{number}"), Some(DAY));
        assert_eq!(book.on_submit(START, PEER, word).status, Answer::OK);
    }
    assert_eq!(book.on_submit(START, PEER, submit("more", None)).status, Answer::REFUSED);
    let other = Submit { from_addr: Addr::backbone(STRANGER), ..submit("other", None) };
    assert_eq!(book.on_submit(START, STRANGER, other).status, Answer::OK);
    let long = Submit { task_description: "x".repeat(300 << 10), ..submit("long", None) };
    assert_eq!(book.on_submit(START, STRANGER, long).status, Answer::REFUSED);
    let empty = Submit { task_description: String::new(), ..submit("empty", None) };
    assert_eq!(book.on_submit(START, STRANGER, empty).status, Answer::REFUSED);
}

#[test]
fn finished_tasks_go_when_they_are_old_but_not_before_the_other_side_knows() {
    let mut book = received("known");
    book.decline(START, &id("known"), "no").unwrap();
    told(&mut book, START, &theirs("known"), &ok());
    book.on_submit(START, PEER, submit("unknown", None));
    book.decline(START, &id("unknown"), "no").unwrap();
    book.tick(at(6 * DAY));
    assert_eq!(pending(&book, &theirs("unknown")), Some(Pending::Status));
    assert!(book.get(&theirs("known")).is_some());
    book.tick(at(8 * DAY));
    assert_eq!(pending(&book, &theirs("unknown")), None, "nobody is told after a week");
    book.tick(at(31 * DAY));
    assert!(book.all(None).is_empty());
}

#[test]
fn what_could_not_be_written_has_not_happened() {
    let mut book = received("t");
    let before: Vec<Record> = book.all(None).into_iter().cloned().collect();
    book.accept(at(1), &id("t"), None).unwrap();
    book.submit(at(1), order("u", None)).unwrap();
    assert_eq!(book.changes().len(), 2);
    book.undo();
    assert_eq!(book.all(None).into_iter().cloned().collect::<Vec<_>>(), before);
    assert!(book.changes().is_empty());
}

#[test]
fn a_task_that_a_node_gives_itself_goes_through() {
    let mut book = Book::default();
    let own = Order { to: Addr::backbone(ME), ..order("t", None) };
    book.submit(START, own).unwrap();
    let word = Submit { from_addr: Addr::backbone(ME), ..submit("t", None) };
    assert_eq!(book.on_submit(START, ME, word).status, Answer::OK);
    book.accept(at(1), &id("t"), None).unwrap();
    assert_eq!(book.on_status(at(1), ME, status("t", State::Accepted)).status, Answer::OK);
    assert_eq!(state(&book, &ours("t")), State::Accepted);
    book.cancel(at(2), &id("t"), "").unwrap();
    assert_eq!(book.on_status(at(2), ME, status("t", State::Cancelled)).status, Answer::OK);
    assert_eq!((state(&book, &ours("t")), state(&book, &theirs("t"))), (State::Cancelled, State::Cancelled));
}
