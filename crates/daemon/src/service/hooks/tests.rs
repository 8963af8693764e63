#![expect(clippy::wildcard_enum_match_arm, reason = "what is not expected is a failure")]
use pilot_wire::dataexchange::Extension;
use pilot_wire::hooks::Matching;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::inbox::Letter;
use super::*;

/// Only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    home: tempfile::TempDir,
    store: Store,
    hooks: Hooks,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    fn over(home: tempfile::TempDir) -> Self {
        let store = Store::start(home.path()).unwrap();
        let policy = Policy::load(home.path());
        policy.set_nodes(NodeId(9), std::iter::empty());
        let own = Box::new(|| NodeId(9));
        let (hooks, task) = Hooks::new(home.path(), &home.path().join("sock"), store.clone(), policy, own);
        Self { home, store, hooks, task: tokio::spawn(task) }
    }

    /// `kill -9`, and the next start.
    async fn again(self) -> Self {
        self.task.abort();
        let _ = self.task.await;
        let home = self.home;
        drop((self.store, self.hooks));
        Self::over(home)
    }

    async fn add(&self, action: Action, matching: Matching, secret: Option<&str>) -> Hook {
        let secret = secret.map(str::to_owned);
        match self.hooks.call(Request::Add { action, matching, secret }).await.unwrap() {
            Reply::Hook(hook) => *hook,
            other => panic!("{other:?}"),
        }
    }

    async fn exec(&self, command: &str) -> Hook {
        let command = command.replace("HOME", &self.home.path().display().to_string());
        self.add(Action::Exec { command, timeout_ms: None }, Matching::default(), None).await
    }

    async fn hook(&self) -> Hook {
        match self.hooks.call(Request::List).await.unwrap() {
            Reply::Hooks { hooks } => hooks.into_iter().next().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn arrive(&self, body: &'static str, id: &str) {
        self.arrive_after(0, body, id).await;
    }

    /// A message that so many automatic answers led to.
    async fn arrive_after(&self, hops: u8, body: &'static str, id: &str) {
        let letter = Letter {
            kind: "TEXT".into(),
            binary: false,
            body: bytes::Bytes::from_static(body.as_bytes()),
            from: Addr::backbone(NodeId(1)),
            from_hostname: Some("bob".into()),
            from_key: None,
            message_id: Some(id.parse().unwrap()),
            reply_to: None,
            extension: Extension { hops, ..Extension::default() },
            provenance: None,
            row: None,
        };
        self.store.put_message(letter).await.unwrap();
    }

    /// Asks until it is so: a program of the test tells nobody that it has ended.
    async fn until(&self, what: &str, fits: impl Fn(&Hook) -> bool) -> Hook {
        let asking = async {
            loop {
                let hook = self.hook().await;
                if fits(&hook) {
                    return hook;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }

    async fn unread(&self) -> usize {
        let filter = Filter { unread: true, ..Filter::default() };
        self.store.scan(filter).await.unwrap().entries.len()
    }
}

#[tokio::test]
async fn a_program_runs_for_each_message_and_what_it_took_is_read() {
    let world = World::new();
    world.arrive("before the hook", "m-0").await;
    world
        .exec("cat >> HOME/got; echo \" $PILOT_FROM_HOSTNAME $PILOT_MESSAGE_ID $PILOT_TYPE\" >> HOME/got")
        .await;
    world.arrive("hello", "m-1").await;
    let hook = world.until("the first", |hook| hook.done == 1).await;
    assert_eq!((hook.failed, hook.pending, hook.last_error), (0, 0, None));
    let got = world.file("got");
    let (document, names) = got.trim_end().rsplit_once("} ").unwrap();
    assert_eq!(names, "bob m-1 TEXT");
    let arrival: Arrival = serde_json::from_str(&format!("{document}}}")).unwrap();
    assert_eq!(arrival.message.body().unwrap(), b"hello");
    assert_eq!(arrival.event, "message.received");
    assert_eq!(world.unread().await, 1, "only what came before the hook is unread");
}

#[tokio::test]
async fn only_messages_that_match_are_handed_over() {
    let world = World::new();
    let command = format!("echo $PILOT_MESSAGE_ID >> {}/got", world.home.path().display());
    let matching = Matching { from: Some(NodeId(1)), kind: Some("text".into()), text: Some("order".into()) };
    world.add(Action::Exec { command, timeout_ms: None }, matching, None).await;
    world.arrive("no", "m-1").await;
    world.arrive("an order", "m-2").await;
    world.arrive("no", "m-3").await;
    world.arrive("order", "m-4").await;
    world.until("both", |hook| hook.done == 2).await;
    let got = world.file("got");
    let mut lines: Vec<&str> = got.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["m-2", "m-4"]);
    assert_eq!(world.unread().await, 2);
}

#[tokio::test]
async fn a_program_that_fails_is_run_again_and_the_message_stays_unread_until_it_succeeds() {
    let world = World::new();
    world.exec("echo try >> HOME/got; test -e HOME/ready").await;
    world.arrive("hello", "m-1").await;
    let hook = world.until("a failure", |hook| hook.last_error.is_some()).await;
    assert_eq!((hook.done, hook.pending, hook.last_error.as_deref()), (0, 1, Some("exit status 1")));
    assert_eq!(world.unread().await, 1);
    std::fs::write(world.home.path().join("ready"), b"").unwrap();
    let hook = world.until("the success", |hook| hook.done == 1).await;
    assert_eq!((hook.pending, hook.last_error), (0, None));
    assert!(world.file("got").lines().count() >= 2);
    assert_eq!(world.unread().await, 0);
}

#[tokio::test]
async fn what_waits_survives_a_kill_and_nothing_else_is_handed_over_again() {
    let world = World::new();
    world
        .exec("echo $PILOT_MESSAGE_ID >> HOME/got; test $PILOT_MESSAGE_ID = m-1 || test -e HOME/ready")
        .await;
    world.arrive("done before", "m-1").await;
    world.until("the first", |hook| hook.done == 1).await;
    world.arrive("fails", "m-2").await;
    world.until("a failure", |hook| hook.last_error.is_some()).await;
    std::fs::write(world.home.path().join("ready"), b"").unwrap();
    let world = world.again().await;
    world.arrive("after", "m-3").await;
    let hook = world.until("the rest", |hook| hook.done == 3).await;
    assert_eq!((hook.failed, hook.pending), (0, 0));
    let got = world.file("got");
    assert_eq!(got.lines().filter(|line| *line == "m-1").count(), 1);
    assert!(got.lines().any(|line| line == "m-3"));
}

#[tokio::test]
async fn what_arrived_while_no_hook_could_run_is_found_in_the_inbox() {
    let world = World::new();
    world.exec("echo $PILOT_MESSAGE_ID >> HOME/got").await;
    world.task.abort();
    world.arrive("nobody looks", "m-1").await;
    let world = world.again().await;
    world.until("it", |hook| hook.done == 1).await;
    assert_eq!(world.file("got"), "m-1\n");
}

#[tokio::test]
async fn a_message_that_was_removed_is_given_up_and_said_to_be() {
    let world = World::new();
    world.exec("false").await;
    world.arrive("x", "m-1").await;
    world.until("a failure", |hook| hook.last_error.is_some()).await;
    world.store.mailbox(MailboxRequest::Clear { before_ns: None, read: false }).await;
    let hook = world.until("the end", |hook| hook.failed == 1).await;
    assert_eq!(hook.pending, 0);
    assert!(hook.last_error.unwrap().contains("removed"), "and not an exit status");
}

#[tokio::test]
async fn nothing_of_a_message_is_understood_by_the_shell() {
    let world = World::new();
    world.exec("cat > /dev/null; env | grep ^PILOT_ > HOME/got").await;
    world.arrive("'; touch pwned; $(touch pwned) `touch pwned`", "m-1").await;
    world.until("the run", |hook| hook.done == 1).await;
    assert!(!world.home.path().join("pwned").exists());
    assert!(!world.file("got").contains("touch"), "the text is not in the environment");
}

#[tokio::test]
async fn a_program_is_told_the_hops_and_not_run_beyond_the_limit_while_a_url_is_posted_to() {
    let world = World::new();
    world.exec("echo $PILOT_MESSAGE_ID $PILOT_HOPS >> HOME/got").await;
    let (url, mut posted) = server(vec!["200 OK", "200 OK", "200 OK"]).await;
    world.add(Action::Post { url, signed: false }, Matching::default(), None).await;
    world.arrive_after(7, "the last that is answered", "m-1").await;
    world.arrive_after(8, "too far", "m-2").await;
    let hook = world.until("both", |hook| hook.done == 2).await;
    assert_eq!((hook.skipped, hook.failed, hook.pending, hook.last_error), (1, 0, 0, None));
    assert!(hook.last_skip.unwrap().contains(": refused by policy: "), "and says why");
    world.arrive("a new one", "m-3").await;
    let hook = world.until("the one behind it", |hook| hook.done == 3).await;
    assert_eq!(hook.skipped, 1);
    assert_eq!(world.file("got"), "m-1 7\nm-3 0\n");
    assert_eq!(world.unread().await, 1, "what no program took is left to people");
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, posted.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_the_rate_of_answers_holds_back_is_handed_over_later_also_after_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let rules = |rate: u32| format!(r#"{{"version":1,"all":{{"auto_answers_per_min":{rate}}}}}"#);
    std::fs::write(home.path().join("policy.json"), rules(1)).unwrap();
    let world = World::over(home);
    world.exec("echo $PILOT_MESSAGE_ID >> HOME/got").await;
    for id in ["m-1", "m-2", "m-3", "m-4", "m-5"] {
        world.arrive("hello", id).await;
    }
    let hook = world.until("one held back", |hook| hook.held.is_some() && hook.done > 0).await;
    assert!(hook.held.as_deref().unwrap().starts_with("busy: "), "{hook:?}");
    assert!(hook.done < 5 && hook.pending == 5 - hook.done, "{hook:?}");
    std::fs::write(world.home.path().join("policy.json"), rules(600)).unwrap();
    let world = world.again().await;
    let hook = world.until("all of them", |hook| hook.done == 5).await;
    assert_eq!((hook.skipped, hook.failed, hook.pending, hook.held), (0, 0, 0, None));
    let got = world.file("got");
    let mut ids: Vec<&str> = got.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, ["m-1", "m-2", "m-3", "m-4", "m-5"]);
}

/// A server that answers each request with the next status, and hands out what it was sent.
async fn server(statuses: Vec<&'static str>) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, got) = mpsc::channel(8);
    tokio::spawn(async move {
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let (head, body) = loop {
                stream.read_buf(&mut bytes).await.unwrap();
                let text = String::from_utf8(bytes.clone()).unwrap();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length =
                    head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
                if body.len() == length.parse::<usize>().unwrap() {
                    break (head.to_owned(), body.to_owned());
                }
            };
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            sender.send((head, body)).await.unwrap();
        }
    });
    (url, got)
}

#[tokio::test]
async fn a_url_gets_the_message_signed_and_again_after_an_error_with_the_same_event_id() {
    let world = World::new();
    let (url, mut got) =
        server(vec!["503 Busy", "302 Found\r\nLocation: http://127.0.0.1:1/", "204 No Content"]).await;
    let hook = world.add(Action::Post { url, signed: false }, Matching::default(), Some("secret")).await;
    assert!(matches!(hook.action, Action::Post { signed: true, .. }));
    world.arrive("hello", "m-1").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (head, body) = tokio::time::timeout(PATIENCE, got.recv()).await.unwrap().unwrap();
        let tag = hex::encode(pilot_crypto::hmac_sha256(b"secret", body.as_bytes()));
        assert!(head.contains(&format!("X-Pilot-Signature-256: {tag}")), "{head}");
        let arrival: Arrival = serde_json::from_str(&body).unwrap();
        assert!(head.contains(&format!("X-Pilot-Event-Id: {}", arrival.event_id)), "{head}");
        assert_eq!((arrival.message.body().unwrap(), arrival.path), (b"hello".to_vec(), None));
        ids.push(arrival.event_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    world.until("the success", |hook| hook.done == 1).await;
    assert_eq!(world.unread().await, 1, "who is told by a URL has not read it");
}

#[tokio::test]
async fn a_test_runs_once_and_tells_how_it_went() {
    let world = World::new();
    let hook = world.exec("grep -q 'a test of this hook' && echo seen; exit 4").await;
    let Reply::Tested { ok, outcome, output, .. } =
        world.hooks.call(Request::Test { id: hook.id }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((ok, outcome.as_str(), output.as_str()), (false, "exit status 4", "seen"));
    assert_eq!(world.hook().await.pending, 0);
    assert_eq!(world.hooks.call(Request::Test { id: 77 }).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_hook_that_is_removed_does_nothing_more() {
    let world = World::new();
    let hook = world.exec("echo x >> HOME/got; false").await;
    world.arrive("x", "m-1").await;
    world.until("a failure", |hook| hook.last_error.is_some()).await;
    world.hooks.call(Request::Remove { id: hook.id }).await.unwrap();
    let Reply::Hooks { hooks } = world.hooks.call(Request::List).await.unwrap() else { panic!() };
    assert!(hooks.is_empty());
    let refused = world.hooks.call(Request::Remove { id: hook.id }).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    let world = world.again().await;
    let Reply::Hooks { hooks } = world.hooks.call(Request::List).await.unwrap() else { panic!() };
    assert!(hooks.is_empty());
}

#[tokio::test]
async fn metadata_services_are_no_targets() {
    let world = World::new();
    for url in ["http://169.254.169.254/", "https://[fe80::1]/x", "http://[fd00:ec2::254]/"] {
        let action = Action::Post { url: url.to_owned(), signed: false };
        let add = Request::Add { action, matching: Matching::default(), secret: None };
        let refused = world.hooks.call(add).await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument, "{url}");
    }
}
