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
