//! The inbox through the driver: provenance, taking, following, and each message once over kills.

use std::time::Duration;

use pilot_client::ipc::TrustState;
use pilot_client::mailbox::{Filter, List, Path};
use pilot_client::{Addr, Client, Outgoing};

use crate::common::{Daemon, PATIENCE, within};
use crate::streams::Pair;

async fn client(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

fn addr(daemon: &Daemon) -> Addr {
    Addr::backbone(daemon.node())
}

#[tokio::test]
async fn a_message_is_kept_with_how_it_came() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    client(&a).await.send_message(addr(&b), Outgoing::text("hello")).await.unwrap();
    let receiver = client(&b).await;
    let mail = receiver.take_message(Filter::default(), PATIENCE).await.unwrap().unwrap();
    let provenance = mail.message.provenance.unwrap();
    assert_eq!(provenance.trust, TrustState::Trusted);
    assert!(matches!(provenance.path, Path::Direct { .. } | Path::Relayed), "{provenance:?}");
    assert!(mail.message.from_key.is_some());
    client(&b).await.send_message(addr(&b), Outgoing::text("note to self")).await.unwrap();
    let mail = receiver.take_message(Filter::default(), PATIENCE).await.unwrap().unwrap();
    assert_eq!(mail.message.provenance.unwrap().path, Path::Own);
}

#[tokio::test]
async fn messages_are_followed_over_a_kill_of_the_daemon_and_each_comes_once() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let (sender, to) = (client(&a).await, addr(&b));
    sender.send_message(to, Outgoing::text("before")).await.unwrap();
    let mut inbox = client(&b).await.inbox(Filter { unread: true, ..Filter::default() }).await.unwrap();
    assert_eq!(within("the first", inbox.next()).await.unwrap().message.body().unwrap(), b"before");
    let question = Outgoing { message_id: Some("m-1".parse().unwrap()), ..Outgoing::text("once") };
    sender.send_message(to, question.clone()).await.unwrap();
    let mut config = b.config.clone();
    config.listen = b.running.listen;
    b.kill().await;
    let b = Daemon::start(config).await;
    assert!(within("the repetition", sender.send_message(to, question)).await.unwrap().duplicate);
    sender.send_message(to, Outgoing::text("after")).await.unwrap();
    let mut followed = Vec::new();
    for _ in 0..2 {
        followed.push(within("a message", inbox.next()).await.unwrap().message.body().unwrap());
    }
    assert_eq!(followed, [b"once".to_vec(), b"after".to_vec()]);
    let nothing = client(&b).await.take_message(Filter::default(), Duration::from_millis(1)).await.unwrap();
    assert_eq!(nothing, None, "what was followed is read");
}

#[tokio::test]
async fn messages_are_listed_marked_and_removed() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let sender = client(&a).await;
    for text in ["one", "two"] {
        sender.send_message(addr(&b), Outgoing::text(text)).await.unwrap();
    }
    let receiver = client(&b).await;
    let entries = receiver.list_messages(List::newest(Some(a.node()), 10)).await.unwrap();
    let previews: Vec<_> = entries.iter().filter_map(|entry| entry.preview.as_deref()).collect();
    assert_eq!(previews, ["one", "two"]);
    let first = vec![entries[0].id.clone()];
    assert_eq!(receiver.mark_messages(first.clone(), true).await.unwrap(), 1);
    let next = receiver.take_message(Filter::default(), PATIENCE).await.unwrap().unwrap();
    assert_eq!(next.message.body().unwrap(), b"two");
    assert_eq!(receiver.remove_messages(first).await.unwrap(), 1);
    assert_eq!(receiver.list_messages(List::default()).await.unwrap().len(), 1);
}
