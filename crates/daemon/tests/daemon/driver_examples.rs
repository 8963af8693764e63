//! The examples of the driver in `docs/messaging/`, line for line, between whole daemons. The last test compares.
#![allow(clippy::print_stdout, reason = "the examples show what comes")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pilot_client::mailbox::{Filter, List};
use pilot_client::policy::{Audience, Limit, PortRules, Question, Rules, Target, Verdict, Who};
use pilot_client::received::{Reply, Request};
use pilot_client::{
    Client, DeliveryState, FileOptions, NewTask, OutboxFilter, Outgoing, Overflow, Queued, RequestEvent,
    RequestOptions, ServeOptions, SubscribeOptions, TaskResult, TaskState,
};
use tokio::task::JoinHandle;

use crate::common::{Daemon, Home, PATIENCE, Rendezvous, befriend, within};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Two nodes with names that trust each other.
struct Agents {
    near: Daemon,
    far: Daemon,
    _homes: [Home; 2],
    _rendezvous: Rendezvous,
}

impl Agents {
    async fn named(near: &str, far: &str) -> Self {
        let rendezvous = Rendezvous::start().await;
        let homes = [Home::new(), Home::new()];
        let start = async |home: &Home, name: &str| {
            let mut config = home.config(&rendezvous);
            config.hostname = Some(name.to_owned());
            Daemon::start(config).await
        };
        let (near, far) = (start(&homes[0], near).await, start(&homes[1], far).await);
        befriend(&near, &far).await;
        Self { near, far, _homes: homes, _rendezvous: rendezvous }
    }

    /// A program at each.
    async fn clients(&self) -> Outcome<(Client, Client)> {
        let near = Client::connect_to(&self.near.config.socket).await?;
        let far = Client::connect_to(&self.far.config.socket).await?;
        Ok((near, far))
    }
}

/// What the other side does meanwhile; it ends with the test.
struct Meanwhile(JoinHandle<Outcome>);

impl Meanwhile {
    fn run(work: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    async fn ended(mut self) -> Outcome {
        within("the other side", &mut self.0).await?
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn queue_and_wait(client: Client, folder: &Path) -> Outcome {
    let peer = client.resolve("bob").await?;
    // On disk when this returns.
    let item = client.queue(Queued::new(peer.address, Outgoing::text("process this"))).await?;
    // Nothing is polled; the wait outlives a restart of the daemon.
    let item = client.outbox_wait(&item.id, DeliveryState::Stored, Duration::from_secs(60)).await?;
    let waiting = client.outbox(OutboxFilter { pending: true, ..OutboxFilter::default() }).await?;
    let shown = client.outbox_show(&item.id).await?;
    // What the peer has already stays as it is: `state` says what became of it.
    let taken_back = client.outbox_cancel(&item.id).await?;
    // The daemon takes a copy of the file before it acknowledges.
    let file = client.queue(Queued::file(peer.address, folder.join("report.pdf"), None)).await?;

    assert_eq!((waiting.pending, shown.state), (0, DeliveryState::Stored));
    assert_eq!(taken_back.state, DeliveryState::Stored, "it is too late");
    // The original is not needed any more.
    std::fs::remove_file(folder.join("report.pdf"))?;
    let file = client.outbox_wait(&file.id, DeliveryState::Stored, PATIENCE).await?;
    assert_eq!((file.state, file.name.as_deref()), (DeliveryState::Stored, Some("report.pdf")));
    Ok(())
}

#[tokio::test]
async fn the_example_of_the_outbox_runs() -> Outcome {
    let agents = Agents::named("alice", "bob").await;
    let (alice, bob) = agents.clients().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("report.pdf"), "all is well")?;
    within("the example", queue_and_wait(alice, folder.path())).await?;
    let inbox = bob.list_messages(List::newest(None, 20)).await?;
    let texts: Vec<_> = inbox.iter().filter_map(|entry| entry.preview.as_deref()).collect();
    assert_eq!(texts, ["process this"]);
    Ok(())
}

async fn read_and_take(client: Client) -> Outcome {
    // Each message as it arrives; it goes on by itself over restarts of the daemon.
    let mut inbox = client.inbox(Filter { unread: true, ..Filter::default() }).await?;
    let mail = inbox.next().await?;
    println!("{} says {:?}", mail.message.from, mail.message.data);
    assert_eq!(mail.message.body()?, b"hello");

    // One that is wanted, at once or when it comes; of several programs that wait, one gets it.
    let wanted = Filter { text: Some("done".to_owned()), ..Filter::default() };
    if let Some(mail) = client.take_message(wanted, Duration::from_secs(30)).await? {
        let bytes = mail.message.body()?;
        assert_eq!(bytes, b"all done");
        client.mark_messages(vec![mail.id.clone()], false).await?;
        client.remove_messages(vec![mail.id]).await?;
    }
    let newest = client.list_messages(List::newest(None, 20)).await?;
    let texts: Vec<_> = newest.iter().filter_map(|entry| entry.preview.as_deref()).collect();
    assert_eq!(texts, ["hello", "half way"], "what was wanted is gone");
    Ok(())
}

#[tokio::test]
async fn the_example_of_the_inbox_runs() -> Outcome {
    let agents = Agents::named("alice", "bob").await;
    let (alice, bob) = agents.clients().await?;
    let to = alice.resolve("bob").await?.address;
    for text in ["hello", "half way", "all done"] {
        alice.send_message(to, Outgoing::text(text)).await?;
    }
    within("the example", read_and_take(bob)).await
}

async fn ask(client: Client) -> Outcome {
    let peer = client.resolve("bob").await?;

    // The answer, or the worker's reason as an error.
    let options = RequestOptions { deadline: Duration::from_secs(30), ..RequestOptions::default() };
    let answer = client.request(peer.address, "what is 6 x 7?", options).await?.answer().await?;
    assert_eq!(&answer.body[..], b"forty two");

    // Piece by piece, once for all requests with this key.
    let key = Some("order-7".parse()?);
    let options = RequestOptions { parts: true, key, ..RequestOptions::default() };
    let mut pending = client.request(peer.address, "write a story", options).await?;
    let mut story = Vec::new();
    while let Some(event) = pending.next().await? {
        if let RequestEvent::Part(piece) = &event {
            story.extend_from_slice(piece);
        }
        match event {
            RequestEvent::State(state) => println!("{state:?}"),
            RequestEvent::Progress(word) => println!("{word:?}"),
            RequestEvent::Part(piece) => print!("{}", String::from_utf8_lossy(&piece)),
            RequestEvent::Restarted => println!("(the worker crashed, and another one begins anew)"),
            RequestEvent::Done(response) => println!("{:?}", response.outcome),
        }
    }
    assert_eq!(story, b"forty two");

    let refused = client.request(peer.address, "", RequestOptions::default()).await?.answer().await;
    assert_eq!(refused.unwrap_err().to_string(), "ask something");
    Ok(())
}

async fn serve(client: Client) -> Outcome {
    let mut server = client.serve(ServeOptions::default()).await?;
    loop {
        let mut incoming = server.next().await?;
        let question = String::from_utf8_lossy(&incoming.body()?).into_owned();
        if question.is_empty() {
            incoming.decline("ask something").await?;
            continue;
        }
        incoming.progress("thinking").await?;
        for token in ["for", "ty ", "two"] {
            if incoming.is_cancelled() {
                break;
            }
            incoming.part(token).await?;
        }
        // All parts, as the answer. Or `answer(Outgoing::text("42"))`, `fail("why")`, or `drop`: then another program gets it.
        incoming.finish().await?;
    }
}

#[tokio::test]
async fn the_examples_of_requests_run() -> Outcome {
    let agents = Agents::named("alice", "bob").await;
    let (alice, bob) = agents.clients().await?;
    let _worker = Meanwhile::run(serve(bob));
    within("the example", ask(alice)).await
}

async fn hear_and_tell(client: Client) -> Outcome {
    let mut events = client.open_event_stream().await?;
    let options = SubscribeOptions { policy: Overflow::Block, queue: Some(100), replay: 20 };
    // Resolves when the brokers of all trusted nodes that can be reached have it.
    let subscribed = events.subscribe_with("alice.>", options).await?;
    let event = events.next().await;
    println!("{} from {:?} at {:?}: {} lost", event.topic, event.hostname, event.time, event.lost);

    events.publish("bob.results", r#"{"id":1}"#).await?;
    // The broker's node has everything.
    events.settle().await?;

    let mut of_alice = client.open_event_stream_at(client.resolve("alice").await?.address);
    of_alice.subscribe("status").await?;
    let status = client.events_status().await?;

    assert_eq!((subscribed.policy, subscribed.confirmed), (Overflow::Block, true));
    assert_eq!((event.topic.as_str(), &event.payload[..]), ("alice.load", &b"0.7"[..]));
    assert_eq!((event.lost, event.replayed), (0, true));
    assert!(status.subscriptions.len() >= 2, "bob's own and alice's: {status:?}");
    Ok(())
}

#[tokio::test]
async fn the_example_of_events_runs() -> Outcome {
    let agents = Agents::named("bob", "alice").await;
    let (bob, alice) = agents.clients().await?;
    let mut of_alice = alice.open_event_stream().await?;
    of_alice.publish("alice.load", "0.7").await?;
    of_alice.settle().await?;
    within("the broker of bob", of_alice.subscribe("bob.>")).await?;
    within("the example", hear_and_tell(bob)).await?;
    let event = within("the event of bob", of_alice.next()).await;
    assert_eq!((event.topic.as_str(), &event.payload[..]), ("bob.results", &br#"{"id":1}"#[..]));
    Ok(())
}

async fn submit(client: Client) -> Outcome {
    // The submitter.
    let peer = client.resolve("bob").await?.address;
    let new = NewTask::new("count these words").deadline(Duration::from_secs(600));
    let task = client.submit_task(peer, new).await?;
    let done = client.wait_task(&task.task_id, Duration::from_secs(600)).await?;

    assert_eq!((done.status, done.result_text.as_deref()), (TaskState::Succeeded, Some("3")));
    assert_eq!(done.result_files.len(), 1, "{done:?}");
    Ok(())
}

async fn work(client: Client, folder: &Path) -> Outcome {
    // The worker.
    let task = client.accept_task(Duration::from_secs(3600)).await?;
    let task = client.execute_task(Some(&task.task_id), Duration::ZERO).await?;
    client.report_task_progress(&task.task_id, "half of it").await?;
    let result = TaskResult::text("3").with_file(folder.join("table.csv"));
    client.complete_task(&task.task_id, result).await?;
    Ok(())
}

#[tokio::test]
async fn the_examples_of_tasks_run() -> Outcome {
    let agents = Agents::named("alice", "bob").await;
    let (alice, bob) = agents.clients().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("table.csv"), "these,words\n1,2\n")?;
    let path = folder.path().to_owned();
    let worker = Meanwhile::run(async move { work(bob, &path).await });
    within("the example", submit(alice)).await?;
    worker.ended().await
}

async fn send_and_receive(client: Client, folder: &Path) -> Outcome {
    let peer = client.resolve("agent-b").await?.address;
    let model = folder.join("model.bin");
    client.send_file(peer, &model, |now| println!("{} of {}", now.done, now.total)).await?;
    client.send_file_as(peer, &folder.join("copy"), "model.bin", |_| {}).await?;
    let patient = FileOptions { patience: Duration::from_secs(3600), ..FileOptions::default() };
    client.send_file_with(peer, &folder.join("project"), patient, |_| {}).await?;

    let start = SystemTime::now() - Duration::from_secs(60);
    let file = client.wait_file(Some(peer.node), start, Duration::from_secs(60)).await?;
    if let Some(file) = file {
        assert_eq!((file.announced.as_deref(), file.bytes), (Some("answer.txt"), 2));
        client.received_files(Request::Remove { name: file.name }).await?;
    }
    Ok(())
}

async fn received(client: &Client) -> Outcome<Vec<String>> {
    match client.received_files(Request::List { from: None, since_ns: None, limit: None }).await? {
        Reply::Files { files, .. } => Ok(files.into_iter().filter_map(|file| file.announced).collect()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_example_of_files_runs() -> Outcome {
    let agents = Agents::named("agent-a", "agent-b").await;
    let (a, b) = agents.clients().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("model.bin"), [7; 100_000])?;
    std::fs::write(folder.path().join("copy"), [8; 1000])?;
    std::fs::create_dir(folder.path().join("project"))?;
    std::fs::write(folder.path().join("project/main.rs"), "fn main() {}")?;
    std::fs::write(folder.path().join("answer.txt"), "42")?;
    let to_a = b.resolve("agent-a").await?.address;
    b.send_file(to_a, &folder.path().join("answer.txt"), |_| {}).await?;
    assert_eq!(received(&a).await?, ["answer.txt"]);
    within("the example", send_and_receive(a.clone(), folder.path())).await?;
    assert_eq!(received(&b).await?, ["model.bin", "model.bin", "project"]);
    assert!(received(&a).await?.is_empty(), "it was removed");
    Ok(())
}

async fn rule(client: Client) -> Outcome {
    let worker = client.resolve("worker-node").await?.node_id;
    let target = Target::Peer(Who::Node(worker));
    let rules = Rules {
        ports: Some(PortRules::only("1001,1002".parse()?)),
        max_message: Some(Limit::Of(1 << 20)),
        ..Rules::default()
    };
    client.set_policy(target.clone(), rules).await?;
    client.decide_ports(target.clone(), Verdict::Allow, "80".parse()?).await?;
    client.set_audience("1003".parse()?, Audience::Only(vec![target.clone()])).await?;
    assert!(!client.test_policy(worker, Question::Message { bytes: 2 << 20 }).await?.allowed);
    client.add_to_group("workers".parse()?, Who::Node(worker)).await?;
    let effective = client.policy_of(worker).await?;
    let everything = client.policy().await?;
    client.remove_from_group("workers".parse()?, None).await?;
    client.unset_policy(target, Vec::new()).await?;
    client.reload_policy().await?;
    client.reset_policy().await?;

    assert_eq!(effective.max_message.value, Limit::Of(1 << 20));
    assert_eq!(everything.broken, None);
    assert!(everything.book.groups.contains_key(&"workers".parse()?));
    assert!(client.test_policy(worker, Question::Message { bytes: 2 << 20 }).await?.allowed);
    Ok(())
}

#[tokio::test]
async fn the_example_of_rules_runs() -> Outcome {
    let agents = Agents::named("owner", "worker-node").await;
    let (owner, _worker) = agents.clients().await?;
    within("the example", rule(owner)).await
}

async fn keep_for_bob(on_carol: Client, on_bob: Client) -> Outcome {
    // Carol keeps messages for bob.
    let bob = on_carol.resolve("bob").await?.node_id;
    on_carol.allow_mailbox(bob, Some(16 << 20), Some(200)).await?;
    // Bob has carol keep his.
    let carol = on_bob.resolve("carol").await?.node_id;
    let state = on_bob.use_mailbox(carol).await?;
    println!("{} peers know", state.told);
    assert_eq!(state.mine.iter().map(|mine| mine.node.node).collect::<Vec<_>>(), [carol]);
    assert_eq!(on_carol.mailboxes().await?.kept.len(), 1);
    // What is there.
    for kept in on_carol.mailboxes().await?.kept {
        println!("{}: {} messages, {} bytes", kept.owner.address, kept.messages, kept.bytes);
        assert_eq!((kept.owner.node, kept.allowed, kept.messages), (bob, true, 0));
        assert_eq!((kept.max_bytes, kept.max_messages), (16 << 20, 200));
    }
    // Each of them can end it; with `true` what is there is thrown away.
    on_bob.stop_mailbox(carol).await?;
    on_carol.deny_mailbox(bob, true).await?;
    assert_eq!(on_bob.mailboxes().await?.mine, []);
    assert_eq!(on_carol.mailboxes().await?.kept, []);
    Ok(())
}

#[tokio::test]
async fn the_example_of_mailboxes_runs() -> Outcome {
    let agents = Agents::named("carol", "bob").await;
    let (carol, bob) = agents.clients().await?;
    within("the example", keep_for_bob(carol, bob)).await
}

/// What stands around an example, and is done by its test.
fn is_set_up(line: &str) -> bool {
    let is_import = line.starts_with("use ") && line.ends_with(';');
    let given = ["let client = Client::connect().await?;", r#"let folder = Path::new("/data");"#];
    line.is_empty() || line.starts_with("//") || is_import || given.contains(&line)
}

/// The lines of code of the Rust blocks of a document.
fn examples(document: &str) -> Vec<&str> {
    let (mut lines, mut inside) = (Vec::new(), false);
    for line in document.lines().map(str::trim) {
        if line.starts_with("```") {
            inside = !inside && line.starts_with("```rust");
        } else if inside && !is_set_up(line) {
            lines.push(line);
        }
    }
    lines
}

#[test]
fn every_line_of_the_examples_in_the_documents_is_run_above_in_the_same_order() -> Outcome {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/messaging");
    let code = include_str!("driver_examples.rs");
    let mut with_examples = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let document = std::fs::read_to_string(&path)?;
        let lines = examples(&document);
        with_examples += usize::from(!lines.is_empty());
        let mut code = code.lines().map(str::trim);
        for line in lines {
            assert!(
                code.any(|run| run == line),
                "{}: no test runs this, after the lines before it:\n{line}",
                path.display()
            );
        }
    }
    assert_eq!(with_examples, 8, "documents with examples");
    Ok(())
}
