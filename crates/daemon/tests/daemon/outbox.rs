//! What is handed over arrives: later, in order, once; or it is said why not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use pilot_client::ipc::Code;
use pilot_client::mailbox::{List, Reply, Request, StoredMessage};
use pilot_client::{
    Addr, Client, DeliveryState as State, MessageId, MessageKind, OutboxFilter, OutboxItem, Outgoing, Queued,
};
use pilot_daemon::Config;
use pilot_wire::dataexchange::{Answer, Control, Decoder, Frame, FrameType, RawFrame, Receipt, ReceiptState};
use pilot_wire::{Port, received};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Daemon, Home, PATIENCE, Rendezvous, befriend, within};
use crate::streams::Pair;

async fn client(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

fn addr(daemon: &Daemon) -> Addr {
    Addr::backbone(daemon.node())
}

/// The same home, socket and UDP port, as a service manager restarts a daemon.
fn again(daemon: &Daemon) -> Config {
    let mut config = daemon.config.clone();
    config.listen = daemon.running.listen;
    config
}

fn text(to: Addr, text: &str) -> Queued {
    Queued::new(to, Outgoing::text(text))
}

/// The texts in the inbox, oldest first.
async fn inbox(daemon: &Daemon) -> Vec<String> {
    let list = Request::List(List::newest(None, 1000));
    let Reply::Messages { messages, .. } = client(daemon).await.mailbox(list).await.unwrap() else {
        panic!()
    };
    messages.into_iter().map(|entry| entry.preview.unwrap_or_default()).collect()
}

async fn reaches(client: &Client, id: &MessageId, until: State) -> OutboxItem {
    within("the message to come further", client.outbox_wait(id, until, PATIENCE)).await.unwrap()
}

#[tokio::test]
async fn what_is_handed_over_for_a_peer_that_is_away_arrives_in_order_when_it_is_back() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let (to, config) = (addr(&b), again(&b));
    b.kill().await;
    let sender = client(&a).await;
    let mut ids = Vec::new();
    for number in 0..200 {
        let item = sender.queue(text(to, &format!("message {number}"))).await.unwrap();
        assert!(matches!(item.state, State::Queued | State::Sent), "{item:?}");
        ids.push(item.id);
    }
    let listed = sender.outbox(OutboxFilter { to: Some(to.node), pending: true, limit: None }).await.unwrap();
    assert_eq!((listed.pending, listed.items.len()), (200, 200));
    assert_eq!(listed.items.iter().map(|item| &item.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    let b = Daemon::start(config).await;
    let last = reaches(&sender, &ids[199], State::Stored).await;
    assert_eq!((last.state, last.tagged), (State::Stored, Some(true)));
    assert_eq!(inbox(&b).await, (0..200).map(|number| format!("message {number}")).collect::<Vec<_>>());
    assert_eq!(sender.outbox(OutboxFilter::default()).await.unwrap().pending, 0);
}

#[tokio::test]
async fn what_is_handed_over_for_a_peer_that_has_not_agreed_yet_arrives_when_it_does() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    let sender = client(&a).await;
    let item = sender.queue(text(addr(&b), "hello, stranger")).await.unwrap();
    let refused = within("the first try to fail", async {
        loop {
            let item = sender.outbox_show(&item.id).await.unwrap();
            if let Some(reason) = item.reason {
                break reason;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(!refused.await.is_empty());
    befriend(&a, &b).await;
    assert_eq!(reaches(&sender, &item.id, State::Stored).await.state, State::Stored);
    assert_eq!(inbox(&b).await, ["hello, stranger"]);
}

#[tokio::test]
async fn restarts_of_either_side_lose_nothing_and_repeat_nothing() {
    const COUNT: usize = 300;
    let Pair { mut a, mut b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let to = addr(&b);
    let mut last = None;
    let mut sender = client(&a).await;
    for number in 0..COUNT {
        if number % 60 == 30 {
            let config = again(&a);
            a.kill().await;
            a = Daemon::start(config).await;
            sender = client(&a).await;
        }
        if number % 60 == 50 {
            let config = again(&b);
            b.kill().await;
            b = Daemon::start(config).await;
        }
        last = Some(sender.queue(text(to, &number.to_string())).await.unwrap().id);
    }
    reaches(&sender, &last.unwrap(), State::Stored).await;
    assert_eq!(inbox(&b).await, (0..COUNT).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_whose_time_is_over_expires_and_one_that_is_taken_back_is_not_sent() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let (to, config) = (addr(&b), again(&b));
    b.kill().await;
    let sender = client(&a).await;
    let short = Queued { ttl: Some(Duration::from_millis(50)), ..text(to, "short") };
    let short = sender.queue(short.until(State::Stored, PATIENCE)).await.unwrap();
    assert_eq!(short.state, State::Expired);
    let back = sender.queue(text(to, "taken back")).await.unwrap();
    let kept = sender.queue(text(to, "kept")).await.unwrap();
    let taken = sender.outbox_cancel(&back.id).await.unwrap();
    // One that is being tried at this moment is taken back when the try has failed.
    assert!(matches!(taken.state, State::Cancelled | State::Queued | State::Sent), "{taken:?}");
    assert_eq!(reaches(&sender, &back.id, State::Stored).await.state, State::Cancelled);
    let b = Daemon::start(config).await;
    reaches(&sender, &kept.id, State::Stored).await;
    assert_eq!(inbox(&b).await, ["kept"]);
    assert_eq!(sender.outbox_cancel(&kept.id).await.unwrap().state, State::Stored, "too late");
}

#[tokio::test]
async fn the_same_id_again_is_the_same_message_also_after_a_restart() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let message = Queued { message_id: Some("m-1".parse().unwrap()), ..text(addr(&b), "once") };
    let message = message.until(State::Stored, PATIENCE);
    let first = client(&a).await.queue(message.clone()).await.unwrap();
    let config = again(&a);
    a.kill().await;
    let a = Daemon::start(config).await;
    let second = client(&a).await.queue(message).await.unwrap();
    assert_eq!((first.state, first.created_at), (second.state, second.created_at));
    assert_eq!(inbox(&b).await, ["once"]);
    let other = Queued { message_id: Some("m-1".parse().unwrap()), ..text(addr(&a), "for somebody else") };
    assert_eq!(client(&a).await.queue(other).await.unwrap_err().code(), Code::AlreadyExists);
}

#[tokio::test]
async fn a_full_outbox_says_so_and_what_to_do() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let path = a.config.home.join("large.bin");
    std::fs::File::create(&path).unwrap().set_len((256 << 20) + 1).unwrap();
    let refused = client(a).await.queue(Queued::file(addr(b), &path, None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Busy);
    assert!(refused.to_string().contains("full") && refused.hint().unwrap().contains("pilotctl outbox"));
    let missing = client(a).await.queue(Queued::file(addr(b), a.config.home.join("none"), None)).await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
    let folder = client(a).await.queue(Queued::file(addr(b), &a.config.home, None)).await.unwrap_err();
    assert_eq!(folder.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn long_messages_and_files_survive_a_restart_and_leave_nothing_behind() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let (to, config) = (addr(&b), again(&b));
    b.kill().await;
    let bodies: Vec<Vec<u8>> =
        [0, 1, 70_000, 2 << 20].map(|length| (0..length).map(|at| (at % 251) as u8).collect()).into();
    let path: PathBuf = a.config.home.join("report.bin");
    std::fs::write(&path, &bodies[3]).unwrap();
    let mut ids = Vec::new();
    for body in &bodies {
        let message = Outgoing::new(MessageKind::Binary, body.clone());
        ids.push(client(&a).await.queue(Queued::new(to, message)).await.unwrap().id);
    }
    let file = Queued::file(to, &path, Some("renamed.bin".to_owned()));
    ids.push(client(&a).await.queue(file).await.unwrap().id);
    std::fs::remove_file(&path).unwrap();
    let kept = |home: &std::path::Path| std::fs::read_dir(home.join("outbox")).unwrap().count();
    assert_eq!(kept(&a.config.home), 3);
    let config_of_a = again(&a);
    a.kill().await;
    let a = Daemon::start(config_of_a).await;
    let b = Daemon::start(config).await;
    for id in &ids {
        assert_eq!(reaches(&client(&a).await, id, State::Stored).await.state, State::Stored);
    }
    let list = Request::List(List::newest(None, 1000));
    let receiver = client(&b).await;
    let Reply::Messages { messages, .. } = receiver.mailbox(list).await.unwrap() else { panic!() };
    let mut stored: Vec<StoredMessage> = Vec::new();
    for entry in messages {
        stored.push(receiver.read_message(Some(entry.id)).await.unwrap().message);
    }
    let arrived: Vec<Vec<u8>> = stored.iter().map(|message| message.body().unwrap()).collect();
    assert!(arrived == bodies);
    let every = received::Request::List { from: None, since_ns: None, limit: None };
    let received::Reply::Files { files, .. } = receiver.received_files(every).await.unwrap() else {
        panic!()
    };
    assert_eq!(files.len(), 1);
    assert!(files[0].name.starts_with("renamed"), "{}", files[0].name);
    assert!(std::fs::read(&files[0].path).unwrap() == bodies[3]);
    within("the copies to go", async {
        while kept(&a.config.home) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Says a word of our nodes to a peer's data exchange.
async fn say(from: &Daemon, to: Addr, control: Control) {
    let mut frame = Vec::new();
    control.emit(b"", &mut frame);
    let mut stream = client(from).await.dial_with(to.port(Port::DATA_EXCHANGE), &frame).await.unwrap();
    let mut answer = [0; 8];
    within("the answer", stream.read_exact(&mut answer)).await.unwrap();
}

#[tokio::test]
async fn a_message_is_read_and_answered_when_its_receiver_says_so_and_nobody_else() {
    let Pair { a, b, rendezvous, homes: _homes } = Pair::of_friends().await;
    let home = Home::new();
    let c = Daemon::start(home.config(&rendezvous)).await;
    befriend(&c, &a).await;
    let sender = client(&a).await;
    let question = text(addr(&b), "2 + 2?").until(State::Stored, PATIENCE);
    let id = sender.queue(question).await.unwrap().id;
    let read = Control::Receipts { receipts: vec![Receipt { id: id.clone(), state: ReceiptState::Read }] };
    say(&c, addr(&a), read.clone()).await;
    assert_eq!(sender.outbox_show(&id).await.unwrap().state, State::Stored);
    say(&b, addr(&a), read).await;
    assert_eq!(sender.outbox_show(&id).await.unwrap().state, State::Read);
    let answer = Queued::new(addr(&a), Outgoing::text("4").in_reply_to(id.clone()));
    client(&b).await.queue(answer).await.unwrap();
    assert_eq!(reaches(&sender, &id, State::Answered).await.state, State::Answered);
}

/// A receiver of early 2026: it knows neither ids nor words, and hangs up after a number of frames.
async fn old_receiver(client: Client, refusal: &'static str) -> Vec<RawFrame> {
    let mut listener = client.listen(Port::DATA_EXCHANGE).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let mut stream = listener.accept().await.unwrap();
        let mut decoder = Decoder::new(1 << 20);
        while stream.read_buf(decoder.buffer_mut()).await.unwrap_or(0) > 0 {
            while let Some(frame) = decoder.next_frame().unwrap() {
                let answer = match frame.kind {
                    FrameType::TEXT => format!("ACK TEXT {} bytes", frame.payload.len()),
                    other => refusal.replace('#', &other.0.to_string()),
                };
                seen.push(frame);
                let mut bytes = Vec::new();
                RawFrame { kind: FrameType::TEXT, payload: answer.into() }.emit(&mut bytes);
                stream.write_all(&bytes).await.unwrap();
            }
            if seen.iter().filter(|frame| frame.kind == FrameType::TEXT).count() == 3 {
                return seen;
            }
        }
    }
}

#[tokio::test]
async fn a_receiver_that_knows_no_ids_gets_plain_messages_in_order() {
    for refusal in ["ACK UNKNOWN(#) 60 bytes", "ERR UNKNOWN(#) save failed: unsupported frame type #"] {
        let rendezvous = Rendezvous::start().await;
        let homes = [Home::new(), Home::new()];
        let a = Daemon::start(homes[0].config(&rendezvous)).await;
        let mut config = homes[1].config(&rendezvous);
        config.services.data_exchange = false;
        let b = Daemon::start(config).await;
        befriend(&a, &b).await;
        let receiver = tokio::spawn(old_receiver(client(&b).await, refusal));
        let sender = client(&a).await;
        let mut ids = Vec::new();
        for number in 0..3 {
            ids.push(sender.queue(text(addr(&b), &format!("m{number}"))).await.unwrap().id);
        }
        for id in &ids {
            let item = reaches(&sender, id, State::Read).await;
            assert_eq!((item.state, item.tagged), (State::Stored, Some(false)), "it will never say `read`");
        }
        let seen = within("the messages", receiver).await.unwrap();
        let plain: Vec<&[u8]> = seen
            .iter()
            .filter(|frame| frame.kind == FrameType::TEXT)
            .map(|frame| &frame.payload[..])
            .collect();
        assert_eq!(plain, [b"m0", b"m1", b"m2"]);
        let kinds: BTreeSet<u32> = seen.iter().map(|frame| frame.kind.0).collect();
        assert_eq!(kinds, BTreeSet::from([1, 10, 80]));
        let words = seen.iter().filter(|frame| frame.kind == FrameType::CONTROL).count();
        assert_eq!(words, 1, "it was asked once");
    }
}

#[tokio::test]
async fn messages_behind_one_that_a_full_receiver_refused_do_not_pass_it() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let message = |id: &str, ordered| {
        let message = Outgoing { message_id: Some(id.parse().unwrap()), ..Outgoing::text(id) };
        let extension = pilot_wire::dataexchange::Extension { ordered, ..Default::default() };
        let tag = pilot_wire::dataexchange::Tag {
            message_id: message.message_id,
            reply_to: None,
            pilot: Some(Box::new(extension)),
        };
        let content = pilot_wire::dataexchange::Content::Text(message.data);
        Frame::Delivery(pilot_wire::dataexchange::Delivery { tag: Some(tag), sent_at_ns: None, content })
    };
    // What is in the way keeps root, too, from writing.
    let inbox = b.config.home.join("inbox");
    std::fs::remove_dir_all(&inbox).unwrap();
    std::fs::write(&inbox, b"in the way").unwrap();
    let mut stream = client(a).await.dial(addr(b).port(Port::DATA_EXCHANGE)).await.unwrap();
    let mut decoder = Decoder::new(1 << 16);
    let mut ask = async |frame: Frame| {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        stream.write_all(&bytes).await.unwrap();
        loop {
            if let Some(frame) = decoder.next_frame().unwrap() {
                return Answer::parse(&frame).unwrap();
            }
            assert_ne!(within("an answer", stream.read_buf(decoder.buffer_mut())).await.unwrap(), 0);
        }
    };
    assert!(matches!(ask(message("m-1", true)).await, Answer::Failed { .. }));
    std::fs::remove_file(&inbox).unwrap();
    std::fs::create_dir(&inbox).unwrap();
    assert!(matches!(ask(message("m-2", true)).await, Answer::Failed { .. }), "it was written behind m-1");
    assert!(matches!(ask(message("m-3", false)).await, Answer::Stored { .. }));
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_the_outbox_goes_on() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    client(&a).await.queue(text(addr(&b), "before").until(State::Stored, PATIENCE)).await.unwrap();
    let config = again(&a);
    a.kill().await;
    let file = config.home.join("outbox.redb");
    // Another file: the one that the killed daemon's thread may still have open is not it.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, b"this is no database").unwrap();
    let a = Daemon::start(config).await;
    let after = client(&a).await.queue(text(addr(&b), "after").until(State::Stored, PATIENCE)).await.unwrap();
    assert_eq!(after.state, State::Stored);
    assert_eq!(inbox(&b).await, ["before", "after"]);
    let aside = std::fs::read_dir(&a.config.home).unwrap().flatten();
    let aside: Vec<_> =
        aside.filter(|file| file.file_name().to_string_lossy().starts_with("outbox.redb.damaged-")).collect();
    assert_eq!(std::fs::read(aside[0].path()).unwrap(), b"this is no database");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
