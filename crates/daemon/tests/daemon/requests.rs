//! Requests between two daemons: answers, failures, pieces, cancel, deadlines, and what is left of them when a program or
//! either daemon is killed.

use std::time::Duration;

use bytes::Bytes;
use pilot_client::{
    Addr, Client, DeliveryState, Incoming, MessageKind, Outgoing, PendingRequest, RequestEvent,
    RequestOptions, ServeOptions, Server,
};
use pilot_wire::dataexchange::Outcome;
use pilot_wire::ipc::Code;
use pilot_wire::serving::Why;

use crate::common::{Daemon, PATIENCE, within};
use crate::streams::Pair;

async fn client(of: &Daemon) -> Client {
    Client::connect_to(&of.config.socket).await.unwrap()
}

async fn server(of: &Daemon) -> Server {
    client(of).await.serve(ServeOptions::default()).await.unwrap()
}

fn options() -> RequestOptions {
    RequestOptions { deadline: PATIENCE, ..RequestOptions::default() }
}

fn streaming() -> RequestOptions {
    RequestOptions { parts: true, ..options() }
}

async fn ask(from: &Daemon, to: &Daemon, text: &'static str, options: RequestOptions) -> PendingRequest {
    let to = Addr::backbone(to.node());
    client(from).await.request(to, text, options).await.unwrap()
}

async fn next(server: &mut Server) -> Incoming {
    within("a request", server.next()).await.unwrap()
}

async fn event(pending: &mut PendingRequest) -> RequestEvent {
    loop {
        match within("news of a request", pending.next()).await.unwrap().expect("it is not over") {
            RequestEvent::State(_) => {}
            event => return event,
        }
    }
}

async fn answer_of(pending: &mut PendingRequest) -> Bytes {
    within("the answer", pending.answer()).await.unwrap().body
}

fn part(text: &'static str) -> RequestEvent {
    RequestEvent::Part(Bytes::from_static(text.as_bytes()))
}

fn inbox_of(daemon: &Daemon) -> usize {
    let files = std::fs::read_dir(daemon.config.home.join("inbox")).unwrap();
    files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().ends_with(".json")).count()
}

#[tokio::test]
async fn a_request_is_answered_and_both_sides_know_by_whom() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let json = RequestOptions { kind: MessageKind::Json, ..options() };
    let mut pending = ask(&a, &b, r#"{"n":6}"#, json).await;
    let incoming = next(&mut server).await;
    assert_eq!((incoming.sender().node, incoming.body().unwrap()), (a.node(), br#"{"n":6}"#.to_vec()));
    assert_eq!((incoming.message().kind.as_str(), incoming.hops()), ("JSON", 0));
    assert!(!incoming.wants_parts());
    incoming.answer(Outgoing::new(MessageKind::Json, "42")).await.unwrap();
    let response = within("the answer", pending.answer()).await.unwrap();
    assert_eq!((response.outcome, &response.body[..]), (Outcome::Done, &b"42"[..]));
    let message = &response.mail.message;
    assert_eq!((message.from.node, message.reply_to.as_ref()), (b.node(), Some(pending.id())));
    assert_eq!(message.pilot.as_ref().unwrap().hops, 1, "an answer of a program is one hop further");
    assert!(pending.item().unwrap().state >= DeliveryState::Queued);
}

#[tokio::test]
async fn a_failure_and_a_refusal_come_with_the_words_of_the_worker() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let mut pending = ask(&a, &b, "try", options()).await;
    next(&mut server).await.fail("the disk is full").await.unwrap();
    let error = within("the answer", pending.answer()).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Code::Failed, "the disk is full"));
    let mut pending = ask(&a, &b, "try", options()).await;
    next(&mut server).await.decline("not today").await.unwrap();
    let error = within("the answer", pending.answer()).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Code::Refused, "not today"));
}

#[tokio::test]
async fn parts_and_progress_come_in_order_and_the_answer_is_all_parts() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let mut pending = ask(&a, &b, "tell me", streaming()).await;
    let mut incoming = next(&mut server).await;
    assert!(incoming.wants_parts());
    incoming.part("one ").await.unwrap();
    assert_eq!(event(&mut pending).await, part("one "), "a part comes before the answer is there");
    incoming.progress("half").await.unwrap();
    assert_eq!(event(&mut pending).await, RequestEvent::Progress(Bytes::from_static(b"half")));
    incoming.part("two").await.unwrap();
    assert_eq!(event(&mut pending).await, part("two"));
    incoming.finish().await.unwrap();
    let RequestEvent::Done(response) = event(&mut pending).await else { panic!("no answer") };
    assert_eq!(&response.body[..], b"one two");
    assert_eq!(within("the end", pending.next()).await.unwrap(), None);
    assert_eq!(inbox_of(&a), 1, "parts are not kept");
}

#[tokio::test]
async fn many_parts_written_at_once_are_the_answer_exactly() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let mut pending = ask(&a, &b, "count", streaming()).await;
    let mut incoming = next(&mut server).await;
    let counting = tokio::spawn(async move {
        for at in 0..500 {
            incoming.part(format!("{at} ")).await.unwrap();
        }
        incoming.finish().await.unwrap();
    });
    let mut got = Vec::new();
    let response = loop {
        match event(&mut pending).await {
            RequestEvent::Part(data) => got.extend_from_slice(&data),
            RequestEvent::Done(response) => break response,
            other => panic!("{other:?}"),
        }
    };
    counting.await.unwrap();
    let expected: String = (0..500).map(|at| format!("{at} ")).collect();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
    assert_eq!(response.body, expected);
}

#[tokio::test]
async fn a_request_that_is_taken_back_stops_its_worker_and_ends_as_cancelled() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let mut pending = ask(&a, &b, "dig a hole", options()).await;
    let incoming = next(&mut server).await;
    assert!(!incoming.is_cancelled());
    pending.cancel().await.unwrap();
    assert_eq!(within("the word", incoming.cancelled()).await, Why::Cancelled);
    assert!(incoming.is_cancelled());
    let late = incoming.answer(Outgoing::text("done")).await.unwrap_err();
    assert_eq!(late.code(), Code::Cancelled);
    let error = within("the end", pending.answer()).await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    assert_eq!(inbox_of(&a), 1, "there is one answer, whatever the worker does");
}

#[tokio::test]
async fn work_is_stopped_at_the_deadline_and_the_requester_knows_how_far_it_came() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let short = RequestOptions { deadline: Duration::from_millis(400), ..options() };
    let mut pending = ask(&a, &b, "think", short).await;
    let incoming = next(&mut server).await;
    let error = within("the deadline", pending.answer()).await.unwrap_err();
    assert_eq!(error.code(), Code::Timeout);
    assert!(pending.item().unwrap().state >= DeliveryState::Stored, "{:?}", pending.item());
    assert_eq!(within("the word", incoming.cancelled()).await, Why::Deadline);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_not_begun() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let short = RequestOptions { deadline: Duration::from_millis(400), ..options() };
    let limit = short.deadline;
    let mut pending = ask(&a, &b, "late", short).await;
    assert_eq!(within("the deadline", pending.answer()).await.unwrap_err().code(), Code::Timeout);
    // It arrived before the deadline here, so its time there is over after as long again.
    assert_eq!(pending.item().unwrap().state, DeliveryState::Stored);
    tokio::time::sleep(limit).await;
    let mut pending = ask(&a, &b, "in time", options()).await;
    let mut server = server(&b).await;
    let incoming = next(&mut server).await;
    assert_eq!(incoming.body().unwrap(), b"in time");
    incoming.answer(Outgoing::text("yes")).await.unwrap();
    assert_eq!(answer_of(&mut pending).await, "yes");
}

#[tokio::test]
async fn when_a_worker_is_killed_another_takes_over_and_the_answer_begins_anew() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut pending = ask(&a, &b, "write", streaming()).await;
    // A program whose runtime ends is as dead as one that was killed: its connection ends without a word.
    let socket = b.config.socket.clone();
    let (written, killed) = tokio::sync::oneshot::channel();
    let first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect_to(socket).await.unwrap();
            let mut server = client.serve(ServeOptions::default()).await.unwrap();
            let mut incoming = next(&mut server).await;
            incoming.part("once upon").await.unwrap();
            killed.await.unwrap();
            std::mem::forget(incoming);
        });
    });
    assert_eq!(event(&mut pending).await, part("once upon"));
    written.send(()).unwrap();
    let mut second = server(&b).await;
    let mut incoming = next(&mut second).await;
    first.join().unwrap();
    incoming.part("it was ").await.unwrap();
    assert_eq!(event(&mut pending).await, RequestEvent::Restarted);
    assert_eq!(event(&mut pending).await, part("it was "));
    incoming.part("a dark night").await.unwrap();
    incoming.finish().await.unwrap();
    assert_eq!(event(&mut pending).await, part("a dark night"));
    let RequestEvent::Done(response) = event(&mut pending).await else { panic!("no answer") };
    assert_eq!(&response.body[..], b"it was a dark night");
}

#[tokio::test]
async fn a_request_that_is_dropped_is_given_to_the_next() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let (mut first, mut second) = (server(&b).await, server(&b).await);
    let mut pending = ask(&a, &b, "who?", options()).await;
    drop(next(&mut first).await);
    drop(first);
    next(&mut second).await.answer(Outgoing::text("me")).await.unwrap();
    assert_eq!(answer_of(&mut pending).await, "me");
}

#[tokio::test]
async fn a_server_that_was_asked_in_vain_loses_nothing() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    for _ in 0..3 {
        let nothing = tokio::time::timeout(Duration::from_millis(5), server.next()).await;
        assert!(nothing.is_err(), "nobody has asked");
    }
    let mut pending = ask(&a, &b, "now", options()).await;
    next(&mut server).await.answer(Outgoing::text("here")).await.unwrap();
    assert_eq!(answer_of(&mut pending).await, "here");
}

#[tokio::test]
async fn the_workers_daemon_may_be_killed_while_a_request_is_worked_at() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let mut held = ask(&a, &b, "held", streaming()).await;
    let mut incoming = next(&mut server).await;
    let mut waiting = ask(&a, &b, "waiting", options()).await;
    // It is in the inbox, taken by nobody.
    while waiting.item().is_none_or(|item| item.state < DeliveryState::Stored) {
        within("word of the delivery", waiting.next()).await.unwrap();
    }
    let config = b.config.clone();
    b.kill().await;
    let b = Daemon::start(config).await;
    incoming.part("still ").await.unwrap();
    let other = next(&mut server).await;
    assert_eq!(other.body().unwrap(), b"waiting", "what this program works at is not handed out again");
    other.answer(Outgoing::text("was")).await.unwrap();
    incoming.part("here").await.unwrap();
    incoming.finish().await.unwrap();
    assert_eq!(answer_of(&mut waiting).await, "was");
    assert_eq!(answer_of(&mut held).await, "still here");
    assert_eq!(inbox_of(&a), 2);
    // Nor is it after another restart: the answers are remembered.
    let config = b.config.clone();
    b.kill().await;
    let b = Daemon::start(config).await;
    let mut last = ask(&a, &b, "last", options()).await;
    let incoming = next(&mut server).await;
    assert_eq!(incoming.body().unwrap(), b"last");
    incoming.answer(Outgoing::text("bye")).await.unwrap();
    assert_eq!(answer_of(&mut last).await, "bye");
}

#[tokio::test]
async fn the_requesters_daemon_may_be_killed_and_what_was_lost_comes_with_the_answer() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let mut pending = ask(&a, &b, "tell", streaming()).await;
    let mut incoming = next(&mut server).await;
    incoming.part("one ").await.unwrap();
    assert_eq!(event(&mut pending).await, part("one "));
    let config = a.config.clone();
    a.kill().await;
    // Nobody is there to hear this.
    incoming.part("two ").await.unwrap();
    let _a = Daemon::start(config).await;
    incoming.part("three").await.unwrap();
    incoming.finish().await.unwrap();
    let mut got = b"one ".to_vec();
    let response = loop {
        match event(&mut pending).await {
            RequestEvent::Part(data) => got.extend_from_slice(&data),
            RequestEvent::Done(response) => break response,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (String::from_utf8(got).unwrap().as_str(), &response.body[..]),
        ("one two three", &b"one two three"[..])
    );
}

#[tokio::test]
async fn requests_under_one_key_are_carried_out_once() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let keyed = || RequestOptions { key: Some("order-7".parse().unwrap()), ..options() };
    let mut first = ask(&a, &b, "pay", keyed()).await;
    let incoming = next(&mut server).await;
    // While it is worked at, after it was answered, and after a restart.
    let mut second = ask(&a, &b, "pay", keyed()).await;
    while second.item().is_none_or(|item| item.state < DeliveryState::Stored) {
        within("word of the delivery", second.next()).await.unwrap();
    }
    incoming.answer(Outgoing::text("paid")).await.unwrap();
    assert_eq!(answer_of(&mut first).await, "paid");
    assert_eq!(answer_of(&mut second).await, "paid");
    let mut third = ask(&a, &b, "pay", keyed()).await;
    assert_eq!(answer_of(&mut third).await, "paid");
    let config = b.config.clone();
    b.kill().await;
    let b = Daemon::start(config).await;
    let mut fourth = ask(&a, &b, "pay", keyed()).await;
    assert_eq!(answer_of(&mut fourth).await, "paid");
    // Another key is another request, and the only one that is handed out.
    let mut other = ask(&a, &b, "pay more", options()).await;
    let incoming = next(&mut server).await;
    assert_eq!(incoming.body().unwrap(), b"pay more");
    incoming.answer(Outgoing::text("no")).await.unwrap();
    assert_eq!(answer_of(&mut other).await, "no");
}

#[tokio::test]
async fn a_node_that_is_away_gets_the_request_when_it_is_back() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let (config, to) = (b.config.clone(), Addr::backbone(b.node()));
    b.kill().await;
    let mut pending = client(&a).await.request(to, "wake up", options()).await.unwrap();
    let b = Daemon::start(config).await;
    let mut server = server(&b).await;
    next(&mut server).await.answer(Outgoing::text("I am")).await.unwrap();
    assert_eq!(answer_of(&mut pending).await, "I am");
}

#[tokio::test]
async fn programs_do_not_answer_each_other_for_ever() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let mut server = server(&b).await;
    let mut pending = ask(&a, &b, "ping", RequestOptions { hops: 9, ..options() }).await;
    tokio::select! {
        ended = within("the answer", pending.answer()) => {
            let error = ended.unwrap_err();
            assert_eq!(error.code(), Code::Refused, "{error}");
        }
        taken = server.next() => panic!("{taken:?}"),
    }
}

#[tokio::test]
async fn a_plain_message_is_answered_by_programs_that_want_such() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let all = ServeOptions { all: true, ..ServeOptions::default() };
    let mut server = client(&b).await.serve(all).await.unwrap();
    let at_a = client(&a).await;
    // The program is known to take plain messages from its first call on.
    assert!(tokio::time::timeout(Duration::from_millis(50), server.next()).await.is_err());
    let sent_at = std::time::SystemTime::now();
    let receipt = at_a.send_message(Addr::backbone(b.node()), Outgoing::text("6 x 7?")).await.unwrap();
    let incoming = next(&mut server).await;
    assert_eq!(incoming.message().message_id.as_ref(), Some(&receipt.message_id));
    incoming.answer(Outgoing::text("42")).await.unwrap();
    let reply = at_a.wait_reply(b.node(), &receipt.message_id, sent_at, PATIENCE).await.unwrap();
    assert_eq!(reply.unwrap().message.body().unwrap(), b"42");
}

#[tokio::test]
async fn a_person_answers_a_request_that_nobody_serves_by_any_of_its_names() {
    let Pair { a, b, homes: _homes, rendezvous: _rendezvous } = Pair::of_friends().await;
    let at_b = client(&b).await;
    let mut pending = ask(&a, &b, "lunch?", streaming()).await;
    while pending.item().is_none_or(|item| item.state < DeliveryState::Stored) {
        within("word of the delivery", pending.next()).await.unwrap();
    }
    let beginning = &pending.id().as_str()[..8].to_owned();
    at_b.remark(beginning, false, b"let me see").await.unwrap();
    assert_eq!(event(&mut pending).await, RequestEvent::Progress(Bytes::from_static(b"let me see")));
    let yes = || Outgoing::text("yes");
    at_b.reply(beginning, pilot_client::Reaction::Answer, yes(), 0).await.unwrap();
    assert_eq!(answer_of(&mut pending).await, "yes");
    let again = at_b.reply("last", pilot_client::Reaction::Answer, yes(), 0).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let unknown = at_b.reply("nothing", pilot_client::Reaction::Answer, yes(), 0).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}
