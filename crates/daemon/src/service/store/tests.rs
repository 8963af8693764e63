#![allow(clippy::print_stderr, reason = "measured times are shown")]

use pilot_wire::NodeId;

use super::*;
use pilot_wire::Addr;

fn letter(body: &'static [u8], id: &str, reply_to: Option<&str>) -> Letter {
    Letter {
        kind: "TEXT".into(),
        binary: false,
        body: bytes::Bytes::from_static(body),
        from: Addr::backbone(NodeId(1)),
        from_hostname: None,
        from_key: None,
        message_id: Some(id.parse().unwrap()),
        reply_to: reply_to.map(|id| id.parse().unwrap()),
        extension: pilot_wire::dataexchange::Extension::default(),
        provenance: None,
        row: None,
    }
}

/// Only turns a hang into a failure.
const LONG: u64 = 30_000;

fn wait_for_reply(id: &str) -> Request {
    let filter = Filter { from: Some(NodeId(1)), since_ns: Some(0), ..Filter::default() };
    Request::Wait(Wait { filter, reply_to: Some(id.parse().unwrap()), timeout_ms: LONG, ..Wait::default() })
}

fn next_unread(timeout_ms: u64) -> Request {
    let filter = Filter { unread: true, ..Filter::default() };
    Request::Wait(Wait { filter, timeout_ms, ..Wait::default() })
}

fn body(reply: Reply) -> Vec<u8> {
    let Reply::Message { message: Some(message), .. } = reply else { panic!("{reply:?}") };
    message.body().unwrap()
}

#[tokio::test]
async fn a_waiting_application_gets_the_answer_the_moment_it_is_stored() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    let waiting = store.clone();
    let waiter = tokio::spawn(async move { waiting.mailbox(wait_for_reply("q")).await });
    store.put_message(letter(b"the answer", "m-1", Some("q"))).await.unwrap();
    assert_eq!(body(waiter.await.unwrap()), b"the answer");
}

#[tokio::test]
async fn nothing_to_wait_for_ends_in_time() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    assert_eq!(store.mailbox(next_unread(1)).await, Reply::TimedOut);
}

#[tokio::test]
async fn a_repeated_message_is_stored_once_even_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    assert_eq!(store.put_message(letter(b"x", "m-1", None)).await, Ok(Outcome::Stored(())));
    assert_eq!(store.put_message(letter(b"x", "m-1", None)).await, Ok(Outcome::Duplicate));
    // The old thread ends when it is done; the new one waits for that.
    drop(store);
    let store = Store::start(home.path()).unwrap();
    assert_eq!(store.put_message(letter(b"x", "m-1", None)).await, Ok(Outcome::Duplicate));
}

#[tokio::test]
async fn messages_handed_over_together_are_stored_in_order_and_each_is_answered() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    let mut underway = Vec::new();
    for number in 0..200 {
        underway.push(store.begin_message(letter(b"x", &format!("m-{number}"), None)).await);
    }
    for storing in underway {
        assert_eq!(storing.done().await, Ok(Outcome::Stored(())));
    }
    let list = Request::List(pilot_wire::mailbox::List::default());
    let Reply::Messages { messages, .. } = store.mailbox(list).await else { panic!() };
    let ids: Vec<String> =
        messages.into_iter().filter_map(|entry| entry.message_id).map(|id| id.to_string()).collect();
    let sent: Vec<String> = (0..200).map(|number| format!("m-{number}")).collect();
    assert_eq!(ids, sent);
}

#[tokio::test]
async fn two_who_wait_for_unread_messages_never_get_the_same_one() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    // One is there before anybody waits, one comes later.
    store.put_message(letter(b"one", "m-1", None)).await.unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.mailbox(next_unread(LONG)).await })
        })
        .collect();
    store.put_message(letter(b"two", "m-2", None)).await.unwrap();
    let mut bodies = Vec::new();
    for waiter in waiting {
        bodies.push(body(waiter.await.unwrap()));
    }
    bodies.sort();
    assert_eq!(bodies, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(store.mailbox(next_unread(1)).await, Reply::TimedOut, "nothing is unread");
}

#[tokio::test]
async fn who_gave_up_waiting_takes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    assert_eq!(store.mailbox(next_unread(1)).await, Reply::TimedOut);
    let waiting = store.clone();
    let waiter = tokio::spawn(async move { waiting.mailbox(next_unread(LONG)).await });
    tokio::task::yield_now().await;
    waiter.abort();
    let _ = waiter.await;
    store.put_message(letter(b"x", "m-1", None)).await.unwrap();
    assert_eq!(body(store.mailbox(next_unread(LONG)).await), b"x");
}

#[tokio::test]
async fn a_look_without_taking_leaves_a_message_unread() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    store.put_message(letter(b"x", "m-1", None)).await.unwrap();
    let Request::Wait(wait) = next_unread(LONG) else { panic!() };
    let peek = Request::Wait(Wait { peek: true, ..wait });
    assert_eq!(body(store.mailbox(peek).await), b"x");
    assert_eq!(body(store.mailbox(Request::Read { id: None, peek: true }).await), b"x");
    assert_eq!(body(store.mailbox(next_unread(LONG)).await), b"x");
    assert_eq!(store.mailbox(next_unread(1)).await, Reply::TimedOut);
}

#[tokio::test]
async fn a_question_of_whom_one_asked_is_not_taken_for_the_answer() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    let mut question = letter(b"and you?", "m-1", None);
    question.extension.request = Some(pilot_wire::dataexchange::RequestTag::default());
    store.put_message(question).await.unwrap();
    store.put_message(letter(b"fine", "m-2", None)).await.unwrap();
    assert_eq!(body(store.mailbox(wait_for_reply("q")).await), b"fine");
}

#[tokio::test]
async fn the_sender_of_a_message_that_is_taken_is_told_if_it_asked() {
    let home = tempfile::tempdir().unwrap();
    let (readings, mut told) = mpsc::channel(8);
    let store = Store::start_telling(home.path(), Some(readings)).unwrap();
    let mut asked = letter(b"x", "m-1", None);
    asked.extension.receipts = true;
    store.put_message(asked).await.unwrap();
    store.put_message(letter(b"y", "m-2", None)).await.unwrap();
    for _ in 0..2 {
        store.mailbox(next_unread(LONG)).await;
    }
    assert_eq!(told.recv().await, Some(ReadNotice { to: NodeId(1), id: "m-1".parse().unwrap() }));
    drop(store);
    assert_eq!(told.recv().await, None, "once, and only who asked");
}

#[tokio::test]
async fn a_message_that_another_program_puts_there_is_seen_at_the_next_look() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::start(home.path()).unwrap();
    let waiting = store.clone();
    store.mailbox(Request::Clear { before_ns: None, read: false }).await;
    let waiter = tokio::spawn(async move { waiting.mailbox(next_unread(LONG)).await });
    let file = r#"{"bytes":1,"data":"z","from":"0:0000.0000.0001","received_at":"2026-11-21T08:01:27Z","type":"TEXT"}"#;
    std::fs::write(home.path().join("inbox").join("TEXT-foreign.json"), file).unwrap();
    store.mailbox(Request::List(pilot_wire::mailbox::List::default())).await;
    assert_eq!(body(waiter.await.unwrap()), b"z");
}

/// How long each part takes is shown by `--no-capture`.
#[tokio::test]
async fn ten_thousand_messages_are_listed_and_taken_one_by_one() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("inbox")).unwrap();
    for number in 0..9_000 {
        let file = format!(
            r#"{{"bytes":4,"data":"{number:04}","from":"0:0000.0000.0001","message_id":"m-{number}","received_at":"2026-11-21T08:01:27.{number:09}Z","type":"TEXT"}}"#
        );
        std::fs::write(home.path().join("inbox").join(format!("TEXT-{number:05}.json")), file).unwrap();
    }
    let mut took = Vec::new();
    let begun = Instant::now();
    let store = Store::start(home.path()).unwrap();
    assert_eq!(body(store.mailbox(next_unread(LONG)).await), b"0000");
    took.push(("open with 9,000 and take the first", begun.elapsed()));

    let begun = Instant::now();
    let mut underway = Vec::new();
    for number in 9_000..10_000 {
        underway.push(store.begin_message(letter(b"more", &format!("m-{number}"), None)).await);
        if underway.len() == 64 || number == 9_999 {
            for storing in underway.drain(..) {
                assert_eq!(storing.done().await, Ok(Outcome::Stored(())));
            }
        }
    }
    took.push(("store 1,000, handed over 64 at a time", begun.elapsed()));
    let refused = store.put_message(letter(b"one too many", "m-10000", None)).await;
    assert_eq!(refused, Err(Refusal::InboxFull));
    assert_eq!(store.put_message(letter(b"known", "m-17", None)).await, Ok(Outcome::Duplicate));

    let begun = Instant::now();
    let mut list = pilot_wire::mailbox::List::newest(None, 500);
    let mut listed = 0;
    loop {
        let Reply::Messages { messages, more, total, .. } = store.mailbox(Request::List(list.clone())).await
        else {
            panic!()
        };
        assert_eq!(total, 10_000);
        listed += messages.len();
        list.before_ns = messages.first().map(|entry| entry.arrived_ns);
        if more == 0 {
            break;
        }
    }
    assert_eq!(listed, 10_000);
    took.push(("list all in 20 pages", begun.elapsed()));

    let begun = Instant::now();
    for number in 1..501 {
        assert_eq!(body(store.mailbox(next_unread(LONG)).await), format!("{number:04}").as_bytes());
    }
    took.push(("take 500, one by one", begun.elapsed()));

    let begun = Instant::now();
    let filter = Filter { text: Some("8765".into()), ..Filter::default() };
    let found = Request::Wait(Wait { filter, timeout_ms: LONG, ..Wait::default() });
    assert_eq!(body(store.mailbox(found).await), b"8765");
    took.push(("wait for one with a text", begun.elapsed()));
    for (what, time) in took {
        eprintln!("{what}: {time:?}");
    }
}
