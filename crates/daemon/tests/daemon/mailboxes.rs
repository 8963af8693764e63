//! Three daemons: a sender, an owner, and a mailbox between them.

use std::path::Path;

use pilot_client::Client;
use pilot_wire::NodeId;
use pilot_wire::ipc::{Call, Code};
use pilot_wire::mailbox::StoredMessage;
use pilot_wire::mailboxes::State as Mailboxes;
use pilot_wire::outbox::{Body, Item, Kind, Reply, Request, Send, State};

use crate::common::{Daemon, Home, Rendezvous, befriend, within};

const SECRET: &[u8] = b"the quick brown fox is a secret";

/// A sender, an owner and a mailbox, each trusted by each.
struct Three {
    sender: Daemon,
    owner: Daemon,
    mailbox: Daemon,
    _rendezvous: Rendezvous,
    homes: [Home; 3],
}

async fn client(of: &Daemon) -> Client {
    Client::connect_to(&of.config.socket).await.unwrap()
}

impl Three {
    async fn strangers() -> Self {
        let rendezvous = Rendezvous::start().await;
        let homes = [Home::new(), Home::new(), Home::new()];
        let sender = Daemon::start(homes[0].config(&rendezvous)).await;
        let owner = Daemon::start(homes[1].config(&rendezvous)).await;
        let mailbox = Daemon::start(homes[2].config(&rendezvous)).await;
        Self { sender, owner, mailbox, _rendezvous: rendezvous, homes }
    }

    /// The owner uses the mailbox, and the sender knows.
    async fn ready() -> Self {
        let three = Self::strangers().await;
        befriend(&three.sender, &three.owner).await;
        befriend(&three.sender, &three.mailbox).await;
        befriend(&three.owner, &three.mailbox).await;
        client(&three.mailbox).await.allow_mailbox(three.owner.node(), None, None).await.unwrap();
        client(&three.owner).await.use_mailbox(three.mailbox.node()).await.unwrap();
        let mailbox = three.mailbox.node();
        until(&three.sender, |state| {
            state.peers.iter().any(|peer| peer.mailboxes.iter().any(|node| node.node == mailbox))
        })
        .await;
        three
    }

    fn inbox(&self) -> Vec<StoredMessage> {
        inbox(&self.homes[1].path())
    }
}

/// Waits until the mailboxes, as a daemon sees them, are as they should be.
async fn until(daemon: &Daemon, is_so: impl Fn(&Mailboxes) -> bool) -> Mailboxes {
    let client = client(daemon).await;
    within("the mailboxes", async {
        loop {
            let state = client.mailboxes().await.unwrap();
            if is_so(&state) {
                return state;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Waits until the mailbox keeps so many messages.
async fn until_kept(mailbox: &Daemon, messages: u32) {
    until(mailbox, |state| state.kept.iter().map(|kept| kept.messages).sum::<u32>() == messages).await;
}

fn inbox(home: &Path) -> Vec<StoredMessage> {
    let mut files: Vec<_> = std::fs::read_dir(home.join("inbox"))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let mut messages: Vec<StoredMessage> =
        files.iter().filter_map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).ok()).collect();
    messages.sort_by(|a, b| a.received_at.cmp(&b.received_at));
    messages
}

async fn until_in_inbox(home: &Path, count: usize) -> Vec<StoredMessage> {
    within("the messages", async {
        loop {
            let messages = inbox(home);
            if messages.len() >= count {
                return messages;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

async fn outbox(client: &Client, request: Request) -> Item {
    let reply: Reply = within("the outbox", client.call(Call::Outbox(request))).await.unwrap();
    match reply {
        Reply::Item(item) => *item,
        other => panic!("{other:?}"),
    }
}

/// Hands a message over and returns what the outbox knows of it at once.
async fn send(from: &Daemon, to: NodeId, id: &str, body: &[u8]) -> Item {
    use base64::Engine as _;
    let send = Send {
        to: pilot_wire::Addr::backbone(to),
        kind: Kind::Text,
        body: Body::Inline(base64::engine::general_purpose::STANDARD.encode(body)),
        name: None,
        message_id: Some(id.parse().unwrap()),
        reply_to: None,
        extension: pilot_wire::dataexchange::Extension::default(),
        ttl_ms: None,
        until: None,
        wait_ms: 0,
    };
    outbox(&client(from).await, Request::Send(Box::new(send))).await
}

async fn wait_for(from: &Daemon, id: &str, until: State) -> Item {
    let request = Request::Wait { id: id.parse().unwrap(), until, timeout_ms: 60_000 };
    outbox(&client(from).await, request).await
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn a_message_reaches_an_owner_that_was_never_there_together_with_its_sender() {
    let Three { sender, owner, mailbox, _rendezvous, homes } = Three::ready().await;
    let (owner_config, mailbox_config, sender_config) =
        (owner.config.clone(), mailbox.config.clone(), sender.config.clone());
    let (owner_node, sender_node, mailbox_node) = (owner.node(), sender.node(), mailbox.node());
    owner.stop().await;

    for number in 0..3 {
        send(&sender, owner_node, &format!("m-{number}"), &[SECRET, &[b'0' + number]].concat()).await;
    }
    let item = wait_for(&sender, "m-2", State::Sent).await;
    assert_eq!(item.state, State::Sent);
    assert_eq!(item.via.map(|via| via.node), Some(mailbox_node));
    until_kept(&mailbox, 3).await;
    sender.stop().await;

    // What the mailbox has survives it, and says nothing.
    mailbox.kill().await;
    let kept = files_below(&homes[2].path().join("mailbox"));
    assert_eq!(kept.len(), 3);
    for file in files_below(&homes[2].path()) {
        let content = std::fs::read(&file).unwrap();
        let found = content.windows(SECRET.len()).any(|window| window == SECRET);
        assert!(!found, "{} can be read", file.display());
    }
    let mailbox = Daemon::start(mailbox_config).await;

    let owner = Daemon::start(owner_config).await;
    let messages = until_in_inbox(&homes[1].path(), 3).await;
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(message.body().unwrap(), [SECRET, &[b'0' + number as u8]].concat());
        assert_eq!(message.from.node, sender_node);
        assert!(message.from_key.is_some());
        let provenance = serde_json::to_value(message).unwrap();
        assert_eq!(provenance["provenance"]["path"], "mailbox", "{provenance}");
        assert_eq!(provenance["provenance"]["via"], pilot_wire::Addr::backbone(mailbox_node).to_string());
    }
    until_kept(&mailbox, 0).await;

    // The sender hears of it when it is back, and nothing comes twice.
    let sender = Daemon::start(sender_config).await;
    for number in 0..3 {
        assert!(wait_for(&sender, &format!("m-{number}"), State::Stored).await.state >= State::Stored);
    }
    send(&sender, owner_node, "last", b"afterwards").await;
    wait_for(&sender, "last", State::Stored).await;
    let ids: Vec<String> =
        inbox(&homes[1].path()).iter().map(|m| m.message_id.as_ref().unwrap().to_string()).collect();
    assert_eq!(ids, ["m-0", "m-1", "m-2", "last"]);
    drop(owner);
}

#[tokio::test]
async fn a_sender_with_a_mailbox_of_its_own_hears_that_it_is_stored_though_they_never_meet() {
    let Three { sender, owner, mailbox, _rendezvous, homes } = Three::ready().await;
    client(&mailbox).await.allow_mailbox(sender.node(), None, None).await.unwrap();
    client(&sender).await.use_mailbox(mailbox.node()).await.unwrap();
    let mailbox_node = mailbox.node();
    until(&owner, |state| {
        state.peers.iter().any(|peer| peer.mailboxes.iter().any(|node| node.node == mailbox_node))
    })
    .await;
    let (owner_config, sender_config, owner_node) =
        (owner.config.clone(), sender.config.clone(), owner.node());
    owner.stop().await;
    send(&sender, owner_node, "m-1", SECRET).await;
    wait_for(&sender, "m-1", State::Sent).await;
    until_kept(&mailbox, 1).await;
    sender.stop().await;

    let owner = Daemon::start(owner_config).await;
    until_in_inbox(&homes[1].path(), 1).await;
    // The letter went, and a receipt for its sender came.
    until(&mailbox, |state| {
        state.kept.iter().any(|kept| kept.owner.node != owner_node && kept.messages == 1)
            && state.kept.iter().all(|kept| kept.owner.node != owner_node || kept.messages == 0)
    })
    .await;
    owner.stop().await;

    let sender = Daemon::start(sender_config).await;
    assert_eq!(wait_for(&sender, "m-1", State::Stored).await.state, State::Stored);
}

#[tokio::test]
async fn a_letter_that_was_tampered_with_is_refused_and_dropped() {
    let Three { sender, owner, mailbox, _rendezvous, homes } = Three::ready().await;
    let (owner_config, mailbox_config, owner_node) =
        (owner.config.clone(), mailbox.config.clone(), owner.node());
    owner.stop().await;
    for id in ["tampered", "renamed", "whole"] {
        send(&sender, owner_node, id, SECRET).await;
    }
    wait_for(&sender, "whole", State::Sent).await;
    until_kept(&mailbox, 3).await;
    mailbox.kill().await;
    // So that only the letters can bring anything.
    sender.stop().await;

    let mut files = files_below(&homes[2].path().join("mailbox"));
    files.sort();
    let mut content = std::fs::read(&files[0]).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    std::fs::write(&files[0], content).unwrap();
    let content = std::fs::read(&files[1]).unwrap();
    let name = content.windows(7).position(|window| window == b"renamed").unwrap();
    let renamed = [&content[..name], b"another", &content[name + 7..]].concat();
    std::fs::write(&files[1], renamed).unwrap();

    let mailbox = Daemon::start(mailbox_config).await;
    let _owner = Daemon::start(owner_config).await;
    until_kept(&mailbox, 0).await;
    let ids: Vec<String> =
        inbox(&homes[1].path()).iter().map(|m| m.message_id.as_ref().unwrap().to_string()).collect();
    assert_eq!(ids, ["whole"]);
}

#[tokio::test]
async fn a_node_that_was_not_told_to_keeps_nothing() {
    let three = Three::strangers().await;
    befriend(&three.owner, &three.mailbox).await;
    let owner = client(&three.owner).await;
    let refused = owner.use_mailbox(three.mailbox.node()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(owner.mailboxes().await.unwrap().mine, []);
    let itself = owner.use_mailbox(three.owner.node()).await.unwrap_err();
    assert_eq!(itself.code(), Code::InvalidArgument, "{itself}");

    let mailbox = client(&three.mailbox).await;
    mailbox.allow_mailbox(three.owner.node(), Some(1 << 20), None).await.unwrap();
    let state = owner.use_mailbox(three.mailbox.node()).await.unwrap();
    assert_eq!(state.mine[0].agrees, Some(true));
    let state = mailbox.deny_mailbox(three.owner.node(), true).await.unwrap();
    assert_eq!(state.kept, []);
    let state = owner.stop_mailbox(three.mailbox.node()).await.unwrap();
    assert_eq!(state.mine, []);
    let twice = owner.stop_mailbox(three.mailbox.node()).await.unwrap_err();
    assert_eq!(twice.code(), Code::NotFound, "{twice}");
    drop(three.homes);
}

#[tokio::test]
async fn peers_hear_who_keeps_messages_and_when_nobody_does_any_more() {
    let three = Three::ready().await;
    client(&three.owner).await.stop_mailbox(three.mailbox.node()).await.unwrap();
    until(&three.sender, |state| state.peers.is_empty()).await;
    assert_eq!(three.inbox(), []);
}

#[tokio::test]
async fn hostile_words_about_mailboxes_are_refused() {
    use bytes::Bytes;
    use pilot_wire::dataexchange::{Answer, Control, Decoder};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let three = Three::ready().await;
    let sender = client(&three.sender).await;
    let port = pilot_wire::Port::DATA_EXCHANGE;
    let mut stream = sender.dial(three.mailbox.at(port)).await.unwrap();
    let owner = three.owner.node();
    let id = || "m-1".parse().unwrap();
    for (word, body, why) in [
        (Control::Keeps, vec![], "this node has not been told to keep messages for you"),
        (
            Control::Deposit { to: NodeId(77), id: id(), ttl_ms: 1000 },
            vec![0; 500],
            "this node keeps no messages for",
        ),
        (
            Control::Deposit { to: owner, id: id(), ttl_ms: 1000 },
            b"in clear".to_vec(),
            "that is no sealed message",
        ),
        (Control::Deposit { to: owner, id: id(), ttl_ms: 1000 }, vec![0; 33 << 20], "the message is over"),
        (Control::Mailboxes { nodes: (1..=4).map(NodeId).collect() }, vec![], "at most 3 mailboxes"),
        (Control::Forward { from: owner, id: id() }, vec![1; 500], "not wanted: the seal does not open"),
        (
            Control::Forward { from: NodeId(77), id: id() },
            vec![1; 500],
            "not wanted: its sender is not trusted",
        ),
    ] {
        let mut frame = Vec::new();
        word.emit(&Bytes::from(body), &mut frame);
        stream.write_all(&frame).await.unwrap();
        let mut decoder = Decoder::new(4096);
        let answer = within("the answer", async {
            loop {
                if let Some(frame) = decoder.next_frame().unwrap() {
                    return Answer::parse(&frame).unwrap();
                }
                assert_ne!(stream.read_buf(decoder.buffer_mut()).await.unwrap(), 0, "{word:?}");
            }
        })
        .await;
        let Answer::Failed { reason, .. } = answer else { panic!("{word:?} {answer:?}") };
        assert!(reason.contains(why), "{word:?}: {reason}");
    }
    assert!(files_below(&three.homes[2].path().join("mailbox")).is_empty());
}
