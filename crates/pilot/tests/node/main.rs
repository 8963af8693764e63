//! Nodes inside this process, with a real rendezvous and real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::large_futures, reason = "the futures of tests are made once")]

mod common;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    unfulfilled_lint_expectations,
    reason = "an example has a main of its own"
)]
#[path = "../../examples/two_nodes.rs"]
mod two_nodes;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use common::{PATIENCE, Rendezvous, start, stop, trust, within};
use pilot::mailbox::Filter;
use pilot::{Addr, Client, Error, Node, NodeId, Outgoing, Port, RunError, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: Port = Port(5000);

async fn status(client: &Client) -> pilot::ipc::Status {
    client.call(pilot::ipc::Call::Status).await.unwrap()
}

/// What any two programs do with each other, however each came to its client.
async fn work_together(a: &Client, b: &Client, b_address: Addr, scratch: &Path) {
    // A stream, with more in it than any queue on the way holds.
    let mut listener = b.listen(PORT).await.unwrap();
    let (dialled, accepted) = tokio::join!(a.dial(b_address.port(PORT)), listener.accept());
    let (mut back, mut forth) = dialled.unwrap().into_split();
    let (mut reader, mut writer) = accepted.unwrap().into_split();
    let sent: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    let sending = async {
        forth.write_all(&sent).await.unwrap();
        forth.finish().await.unwrap();
    };
    let echoing = async {
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.finish().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, _, read) = tokio::join!(sending, echoing, back.read_to_end(&mut got));
    read.unwrap();
    assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());

    // A message in the inbox.
    a.send_message(b_address, Outgoing::text("process this")).await.unwrap();
    let mail = b.take_message(Filter::default(), PATIENCE).await.unwrap().unwrap();
    assert_eq!(mail.message.data.as_deref(), Some("process this"));

    // A file.
    let path = scratch.join("report.txt");
    std::fs::write(&path, "all is well").unwrap();
    let before = SystemTime::UNIX_EPOCH;
    a.send_file(b_address, &path, |_| {}).await.unwrap();
    let file = b.wait_file(None, before, PATIENCE).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(&file.path).unwrap(), "all is well");

    // An event.
    let mut theirs = b.open_event_stream().await.unwrap();
    let mut ours = a.open_event_stream().await.unwrap();
    theirs.subscribe("progress").await.unwrap();
    ours.publish("progress", "half").await.unwrap();
    let event = theirs.next().await;
    assert_eq!((&event.topic[..], &event.payload[..]), ("progress", &b"half"[..]));
}

#[tokio::test]
async fn two_nodes_in_one_process_do_what_two_daemons_do() {
    let rendezvous = Rendezvous::start().await;
    let [a, b] = rendezvous.pair().await;
    let scratch = tempfile::tempdir().unwrap();
    within("the work", work_together(&a.client(), &b.client(), b.address(), scratch.path())).await;
    stop(a).await;
    stop(b).await;
}

#[tokio::test]
async fn the_same_program_works_with_a_daemon_and_with_a_node_inside() {
    let rendezvous = Rendezvous::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut config = pilot_daemon::Config::at(home.path().join("daemon"));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.registries = vec![rendezvous.registry.clone()];
    config.beacons = vec![rendezvous.beacon.clone()];
    let socket = config.socket.clone();
    let (ready, running) = tokio::sync::oneshot::channel();
    let daemon = tokio::spawn(pilot_daemon::run(
        config,
        move |running| drop(ready.send(running)),
        std::future::pending(),
    ));
    let running = within("the daemon", running).await.unwrap();

    let outside = Client::connect_to(&socket).await.unwrap();
    let node = start(rendezvous.node().approve([running.node_id])).await;
    let inside = node.client();
    trust(&outside, node.id()).await;
    within("there", work_together(&outside, &inside, node.address(), home.path())).await;
    within("and back", work_together(&inside, &outside, running.address, home.path())).await;
    daemon.abort();
}

#[tokio::test]
async fn a_node_that_starts_again_with_its_identity_has_its_address_and_its_friends() {
    let rendezvous = Rendezvous::start().await;
    let home = tempfile::tempdir().unwrap();
    let identity = home.path().join("agent").join("identity.json");
    let friend = start(rendezvous.node().approve_all()).await;
    let node = start(rendezvous.node().identity(&identity)).await;
    trust(&node.client(), friend.id()).await;
    let (address, listen) = (node.address(), node.listen());
    assert_eq!(std::fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = rendezvous.node().identity(&identity).start().await;
    assert!(matches!(taken, Err(StartError::Run(RunError::AlreadyRunning { .. }))), "{taken:?}");
    stop(node).await;

    let node = start(rendezvous.node().identity(&identity)).await;
    assert_eq!((node.address(), node.listen()), (address, listen));
    let trusted = node.client().trusted().await.unwrap();
    assert_eq!(trusted.iter().map(|peer| peer.node_id).collect::<Vec<NodeId>>(), [friend.id()]);
}

#[test]
fn a_node_that_is_dropped_leaves_no_task_and_no_folder_behind() {
    let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let rendezvous = outside.block_on(Rendezvous::start());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let metrics = tokio::runtime::Handle::current().metrics();
        assert_eq!(metrics.num_alive_tasks(), 0);
        let node = start(rendezvous.node()).await;
        let home = status(&node.client()).await.home;
        let echo = node.client().dial(node.address().port(Port::ECHO)).await.unwrap();
        let mut events = node.client().open_event_stream().await.unwrap();
        events.subscribe("anything").await.unwrap();
        let client = node.client();
        assert!(metrics.num_alive_tasks() > 0 && Path::new(&home).exists());
        drop(node);
        within("the end of its tasks", async {
            while metrics.num_alive_tasks() > 0 || Path::new(&home).exists() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(client.info().await.unwrap_err(), Error::Ended);
        drop((echo, events));
    });
}

#[tokio::test]
async fn clients_of_a_node_that_has_ended_are_told_so_and_do_not_wait_for_another() {
    let rendezvous = Rendezvous::start().await;
    let node = start(rendezvous.node()).await;
    let client = node.client();
    let mut stream = client.dial(node.address().port(Port::ECHO)).await.unwrap();
    let mut inbox = client.inbox(Filter::default()).await.unwrap();
    let mut listener = client.listen(PORT).await.unwrap();
    let (stopped, mail, accepted) = tokio::join!(node.shutdown(), inbox.next(), listener.accept());
    stopped.unwrap();
    assert_eq!((mail.unwrap_err(), accepted.unwrap_err()), (Error::Ended, Error::Ended));
    let (read, written) = (stream.read(&mut [0]).await, stream.write_all(b"x").await);
    assert_eq!((read.unwrap_err().into(), written.unwrap_err().into()), (Error::Ended, Error::Ended));
    assert_eq!(client.dial(Addr::backbone(NodeId(9)).port(PORT)).await.unwrap_err(), Error::Ended);
    assert!(client.reconnect().await.is_err());
}

#[tokio::test]
async fn what_was_written_arrives_though_the_node_is_shut_down_at_once() {
    let rendezvous = Rendezvous::start().await;
    let [a, b] = rendezvous.pair().await;
    let receiver = b.client();
    let mut listener = receiver.listen(PORT).await.unwrap();
    let sender = a.client();
    let (dialled, accepted) = tokio::join!(sender.dial(b.address().port(PORT)), listener.accept());
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    let sent = vec![7; 800_000];
    dialled.write_all(&sent).await.unwrap();
    let mut got = Vec::new();
    let (stopped, read) =
        within("the last bytes", async { tokio::join!(a.shutdown(), accepted.read_to_end(&mut got)) }).await;
    stopped.unwrap();
    read.unwrap();
    assert!(got == sent, "{} of {} bytes arrived", got.len(), sent.len());
}

#[tokio::test]
async fn a_node_trusts_those_on_its_list_and_asks_its_program_about_others() {
    let rendezvous = Rendezvous::start().await;
    let listed = start(rendezvous.node()).await;
    let stranger = start(rendezvous.node()).await;
    let node = start(rendezvous.node().approve([listed.id()])).await;
    let client = node.client();
    trust(&listed.client(), node.id()).await;
    stranger.client().handshake(node.id(), "let me in").await.unwrap();
    let pending = within("the request", async {
        loop {
            let pending = client.pending().await.unwrap();
            if !pending.is_empty() {
                break pending;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((pending.len(), pending[0].node_id), (1, stranger.id()));
    client.approve(stranger.id()).await.unwrap();
    let answer = stranger.client().wait_trust(node.id(), PATIENCE).await.unwrap();
    assert_eq!(answer.state, pilot::ipc::TrustState::Trusted);
}

#[tokio::test]
async fn other_programs_reach_a_node_only_if_it_has_a_socket() {
    let rendezvous = Rendezvous::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pilot.sock");
    let closed = start(rendezvous.node().home(folder.path().join("closed"))).await;
    let files: Vec<_> =
        std::fs::read_dir(folder.path().join("closed")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name == "pilot.sock" || name == "pilot.pid"), "{files:?}");
    let open = start(rendezvous.node().socket(&socket)).await;
    let other = Client::connect_to(&socket).await.unwrap();
    assert_eq!(status(&other).await.node_id, open.id());
    stop(open).await;
    assert!(!socket.exists());
    stop(closed).await;
}

#[test]
fn a_node_on_a_thread_of_its_own_works_while_the_program_does_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let rendezvous = outside.block_on(Rendezvous::start());
    let (node, peer) = runtime.block_on(async {
        let node = start(rendezvous.node().own_thread().approve_all()).await;
        let peer = outside.spawn(start(rendezvous.node())).await.unwrap();
        trust(&peer.client(), node.id()).await;
        (node, peer)
    });
    // Nobody drives the runtime on which the node was started.
    let echoed = outside.block_on(async {
        let mut stream = peer.client().dial(node.address().port(Port::ECHO)).await.unwrap();
        stream.write_all(b"are you there").await.unwrap();
        let mut echoed = [0; 13];
        within("the echo", stream.read_exact(&mut echoed)).await.unwrap();
        echoed
    });
    assert_eq!(&echoed, b"are you there");
    outside.block_on(stop(node));
    outside.block_on(stop(peer));
}

#[tokio::test]
async fn a_node_without_services_has_the_ports_of_its_program_only() {
    let rendezvous = Rendezvous::start().await;
    let a = start(rendezvous.node().without_services().approve_all()).await;
    let b = start(rendezvous.node().without_services()).await;
    trust(&b.client(), a.id()).await;
    let dialled = within("the refusal", b.client().dial(a.address().port(Port::ECHO))).await;
    assert_eq!(dialled.unwrap_err().code(), pilot::ipc::Code::Refused);
    let client = a.client();
    let mut listener = client.listen(Port::ECHO).await.unwrap();
    let b = b.client();
    let (dialled, accepted) = tokio::join!(b.dial(a.address().port(Port::ECHO)), listener.accept());
    dialled.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn a_node_without_a_registry_starts_at_once_and_says_that_it_has_no_number() {
    let node = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    assert!(!node.is_registered());
    assert_eq!(node.id(), NodeId::default());
    stop(node).await;
}

#[tokio::test]
async fn the_example_does_what_it_shows() {
    let rendezvous = Rendezvous::start().await;
    // The example takes the beacon to be one port above the registry; on loopback nobody has to be found.
    let folder = tempfile::tempdir().unwrap();
    let told = two_nodes::tell(&rendezvous.registry, folder.path());
    let said = within("the example", told).await.unwrap();
    assert_eq!(said, ["stream: HELLO", "message: process this", r#"event: alice.progress {"done":1}"#]);
}

#[test]
fn the_rust_of_the_document_is_that_of_the_example() {
    let lines = |text: &str| text.lines().map(|line| format!("{}\n", line.trim())).collect::<String>();
    let example = lines(include_str!("../../examples/two_nodes.rs"));
    let document = include_str!("../../../../docs/library.md");
    let blocks: Vec<&str> =
        document.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 5);
    for block in blocks {
        assert!(example.contains(&lines(block)), "the example has no\n{block}");
    }
}
