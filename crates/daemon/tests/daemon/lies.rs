//! A registry that lies, made for the test: it stands in front of a real one and alters what that replies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilot_crypto::Identity;
use pilot_daemon::TlsMode;
use pilot_wire::ipc::paths::Why;
use pilot_wire::ipc::{Alarm, Call, Done, Handshake, Request, Resolved, Status, TrustedList};
use pilot_wire::registry::{Decoder, frame, seal};
use pilot_wire::{NodeId, Port};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::common::{Daemon, Home, Program, Rendezvous, befriend, within};

/// Alters a reply; `true` if it did.
type Lie = Box<dyn FnMut(&mut Value) -> bool + Send>;

/// The registry that lies.
pub(crate) struct Liar {
    pub(crate) address: String,
    lie: Arc<Mutex<Lie>>,
    told: Arc<AtomicUsize>,
    /// Signs what it says, if it does.
    signer: Arc<Mutex<Option<Identity>>>,
    task: JoinHandle<()>,
}

impl Liar {
    /// One that says the truth for now.
    pub(crate) async fn before(rendezvous: &Rendezvous) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(Box::new(|_| false)));
        let (told, signer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (target, shared) = (rendezvous.registry, (lie.clone(), told.clone(), signer.clone()));
        let task = tokio::spawn(async move {
            while let Ok((daemon, _)) = listener.accept().await {
                let Ok(registry) = TcpStream::connect(target).await else { continue };
                let (lie, told, signer) = shared.clone();
                tokio::spawn(between(daemon, registry, lie, told, signer));
            }
        });
        Self { address, lie, told, signer, task }
    }

    /// Tells this lie from now on.
    fn tell(&self, lie: impl FnMut(&mut Value) -> bool + Send + 'static) {
        self.told.store(0, Ordering::SeqCst);
        *self.lie.lock().unwrap() = Box::new(lie);
    }

    /// Signs as this one from now on.
    fn sign_as(&self, signer: Option<Identity>) {
        *self.signer.lock().unwrap() = signer;
    }

    async fn was_told(&self) {
        within("the lie", async {
            while self.told.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn between(
    daemon: TcpStream,
    registry: TcpStream,
    lie: Arc<Mutex<Lie>>,
    told: Arc<AtomicUsize>,
    signer: Arc<Mutex<Option<Identity>>>,
) {
    let (mut from_daemon, mut to_daemon) = daemon.into_split();
    let (mut from_registry, mut to_registry) = registry.into_split();
    let requests = async { tokio::io::copy(&mut from_daemon, &mut to_registry).await.map(drop) };
    let replies = async {
        let (mut decoder, mut bytes) = (Decoder::new(), vec![0; 8192]);
        loop {
            match from_registry.read(&mut bytes).await? {
                0 => return Ok::<_, std::io::Error>(()),
                count => decoder.feed(&bytes[..count]),
            }
            while let Some(reply) = decoder.next().unwrap() {
                let mut reply: Value = serde_json::from_slice(&reply).unwrap();
                if lie.lock().unwrap()(&mut reply) {
                    told.fetch_add(1, Ordering::SeqCst);
                }
                // The word of the real one is not for what this one says.
                reply.as_object_mut().unwrap().remove("attested");
                let mut reply = serde_json::to_vec(&reply).unwrap();
                if let Some(signer) = &*signer.lock().unwrap() {
                    reply = seal::attest(&reply, signer.public(), 1, |bytes| signer.sign(bytes)).unwrap();
                }
                to_daemon.write_all(&frame(&reply).unwrap()).await?;
            }
        }
    };
    tokio::select! {
        _ = requests => {}
        _ = replies => {}
    }
}

/// Two friends, one of whom knows the registry through the liar only, and a third one.
struct Stage {
    rendezvous: Rendezvous,
    liar: Liar,
    a: Daemon,
    b: Daemon,
    c: Daemon,
    _homes: [Home; 3],
}

impl Stage {
    async fn new() -> Self {
        let rendezvous = Rendezvous::start().await;
        let liar = Liar::before(&rendezvous).await;
        // It stands by its lies.
        liar.sign_as(Some(Identity::from_seed(&[1; 32])));
        let homes = [Home::new(), Home::new(), Home::new()];
        let mut config = homes[0].config(&rendezvous);
        config.registries = vec![liar.address.clone()];
        // It reads what it alters.
        config.registry_tls.mode = TlsMode::Off;
        // What could help besides what is remembered.
        config.beacons.clear();
        let a = Daemon::start(config).await;
        let mut config = homes[1].config(&rendezvous);
        config.hostname = Some("worker".to_owned());
        let b = Daemon::start(config).await;
        let mut config = homes[2].config(&rendezvous);
        config.public = Some(true);
        let c = Daemon::start(config).await;
        befriend(&a, &b).await;
        let stage = Self { rendezvous, liar, a, b, c, _homes: homes };
        stage.a_has_seen(|_| true).await;
        stage
    }

    /// Waits until A has seen a record of B that is as wished, and gives its text.
    async fn a_has_seen(&self, wished: impl Fn(&str) -> bool) -> String {
        let mut program = self.a.program().await;
        within("the record", async {
            loop {
                // A question to the registry is a reason to look at what it says.
                let why = Call::Why { node: self.b.node(), timeout_ms: 200 };
                let _: Why = program.json(Request::Call(why)).await;
                if let Some(seen) = remembered(&self.a, self.b.node()).filter(|seen| wished(seen)) {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// A starts anew, with what it has on disk, and talks to B, who hears it. C is not bothered.
    async fn a_reaches_b_again(self) -> Self {
        let config = self.a.config.clone();
        self.a.kill().await;
        let a = Daemon::start(config).await;
        assert!(a.running.registered, "the registry is there, and lies");
        let [mut at_b, mut at_c] = [self.b.program().await, self.c.program().await];
        at_b.bind(Port(5000)).await;
        at_c.bind(Port(5000)).await;
        let mut at_a = a.program().await;
        let out = at_a.dial(self.b.at(Port(5000))).await.expect("what is remembered leads to the friend");
        at_a.send(out, b"for B").await;
        let (incoming, from) = at_b.accept().await;
        assert_eq!((from.addr.node, at_b.read(incoming, 5).await), (a.node(), b"for B".to_vec()));
        Self { a, ..self }
    }

    /// Waits until A alarms because of B; only for this reason. What the registry says may come after what is remembered has
    /// led to the friend.
    async fn is_alarmed(&self, kind: &str) {
        let told = within("the alarm", async {
            loop {
                let told = self.alarms().await;
                if !told.is_empty() {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(told.await, [kind]);
    }

    /// The kinds of alarms that A tells of B, in `status` and in `why`; they are cleared.
    async fn alarms(&self) -> Vec<String> {
        let mut program = self.a.program().await;
        let kinds = alarms(&mut program).await.into_iter();
        let of_b: Vec<Alarm> = kinds.filter(|alarm| alarm.node_id == Some(self.b.node())).collect();
        let why: Why = program.json(Request::Call(Call::Why { node: self.b.node(), timeout_ms: 0 })).await;
        assert_eq!(why.alarms.len(), of_b.len());
        let _: Done = program.json(Request::Call(Call::ClearAlarms { registry_keys: false })).await;
        let mut kinds: Vec<String> = of_b.into_iter().map(|alarm| alarm.kind).collect();
        kinds.sort();
        kinds
    }
}

async fn alarms(program: &mut Program) -> Vec<Alarm> {
    let status: Status = program.json(Request::Call(Call::Status)).await;
    status.alarms
}

fn remembered(a: &Daemon, b: NodeId) -> Option<String> {
    let memory: Value = serde_json::from_slice(&std::fs::read(a.config.home.join("node.json")).ok()?).ok()?;
    memory["peers"][b.to_string()]["record"].as_str().map(str::to_owned)
}

/// A lie about where node `b` is.
fn of_place(b: NodeId, lie: impl Fn(&mut Value) + Send + 'static) -> impl FnMut(&mut Value) -> bool + Send {
    move |reply| {
        let is_about_b = reply["type"] == "resolve_ok" && reply["node_id"] == b.0;
        if is_about_b {
            lie(reply);
        }
        is_about_b
    }
}

#[tokio::test]
async fn no_lie_about_a_friend_leads_to_somebody_else_and_each_is_told() {
    let mut stage = Stage::new().await;
    let b = stage.b.node();
    let first = remembered(&stage.a, b).unwrap();
    let impostor = stage.c.running.listen.to_string();
    let key: Value = {
        let identity = std::fs::read(&stage.c.config.identity).unwrap();
        serde_json::from_slice::<Value>(&identity).unwrap()["public_key"].clone()
    };

    // Another key, at the place of whoever has it.
    let (at, its_key) = (impostor.clone(), key.clone());
    stage.liar.tell(of_place(b, move |reply| {
        reply["public_key"] = its_key.clone();
        reply["real_addr"] = json!(at);
        reply.as_object_mut().unwrap().remove("record");
    }));
    stage = stage.a_reaches_b_again().await;
    stage.is_alarmed("key").await;

    // Another place under the right key: the record says better, and nothing of it is a lie that can be shown.
    let at = impostor.clone();
    stage.liar.tell(of_place(b, move |reply| reply["real_addr"] = json!(at)));
    stage = stage.a_reaches_b_again().await;
    assert_eq!(stage.alarms().await, Vec::<String>::new());

    // No record, and another place.
    let at = impostor.clone();
    stage.liar.tell(of_place(b, move |reply| {
        reply["real_addr"] = json!(at);
        reply.as_object_mut().unwrap().remove("record");
    }));
    stage = stage.a_reaches_b_again().await;
    stage.is_alarmed("no_record").await;

    // A record in which a letter is another one.
    stage.liar.tell(of_place(b, move |reply| {
        let record = reply["record"].as_str().unwrap();
        let other = if record.ends_with("AAAA") { "BBBB" } else { "AAAA" };
        reply["record"] = json!(format!("{}{other}", &record[..record.len() - 4]));
    }));
    stage = stage.a_reaches_b_again().await;
    stage.is_alarmed("record").await;

    // The record of before.
    stage.liar.tell(|_| false);
    let mut at_b = stage.b.program().await;
    at_b.call(Request::SetTags { tags: vec!["new".to_owned()] }).await.unwrap();
    let before = first.clone();
    stage.a_has_seen(move |seen| *seen != *before).await;
    stage.liar.tell(of_place(b, move |reply| reply["record"] = json!(first)));
    stage = stage.a_reaches_b_again().await;
    stage.is_alarmed("old_record").await;
    drop(stage.rendezvous);
}

#[tokio::test]
async fn a_name_given_to_another_node_stays_the_friends_until_the_friend_gives_it_up() {
    let stage = Stage::new().await;
    let (b, c) = (stage.b.node(), stage.c.node());
    stage.liar.tell(move |reply| {
        let is_name = reply["type"] == "resolve_hostname_ok";
        if is_name {
            reply["node_id"] = json!(c.0);
        }
        is_name
    });
    let mut program = stage.a.program().await;
    let resolve = || Request::Call(Call::Resolve { target: "worker".to_owned() });
    let found: Resolved = program.json(resolve()).await;
    assert_eq!(found.node_id, b);
    stage.is_alarmed("name").await;

    stage.liar.tell(|_| false);
    stage.b.program().await.call(Request::SetHostname { name: "" }).await.unwrap();
    stage.c.program().await.call(Request::SetHostname { name: "worker" }).await.unwrap();
    within("the name to be the other's", async {
        loop {
            let found: Resolved = program.json(resolve()).await;
            if found.node_id == c {
                return;
            }
            // The friend's record follows its change of name.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn answers_to_requests_that_were_never_made_bring_nobody_trust() {
    let stage = Stage::new().await;
    let c = stage.c.node();
    stage.liar.tell(move |reply| {
        let is_inbox = reply["type"] == "poll_handshakes_ok";
        if is_inbox {
            reply["responses"] = json!([{"from_node_id": c.0, "accept": true, "timestamp": 1}]);
        }
        is_inbox
    });
    let config = stage.a.config.clone();
    stage.a.kill().await;
    let a = Daemon::start(config).await;
    stage.liar.was_told().await;
    let mut program = a.program().await;
    // Behind the inbox on the same connection.
    program.call(Request::Call(Call::Lookup { node: c })).await.unwrap();
    let list: TrustedList = program.json(Request::Handshake(Handshake::Trusted)).await;
    let nodes: Vec<NodeId> = list.trusted.iter().map(|trusted| trusted.node_id).collect();
    assert_eq!(nodes, [stage.b.node()]);
}

#[tokio::test]
async fn a_registry_that_signs_with_another_key_or_no_more_is_told_and_not_believed_for_strangers() {
    let rendezvous = Rendezvous::start().await;
    let liar = Liar::before(&rendezvous).await;
    let homes = [Home::new(), Home::new()];
    let mut config = homes[0].config(&rendezvous);
    config.registries = vec![liar.address.clone()];
    // It reads what it alters.
    config.registry_tls.mode = TlsMode::Off;
    let a = Daemon::start(config).await;
    let mut config = homes[1].config(&rendezvous);
    config.hostname = Some("worker".to_owned());
    config.public = Some(true);
    let b = Daemon::start(config).await;
    let mut program = a.program().await;
    let resolve = || Request::Call(Call::Resolve { target: "worker".to_owned() });

    liar.sign_as(Some(Identity::from_seed(&[1; 32])));
    let found: Resolved = program.json(resolve()).await;
    assert_eq!(found.node_id, b.node());
    assert_eq!(alarms(&mut program).await, []);

    for signer in [None, Some(Identity::from_seed(&[2; 32]))] {
        liar.sign_as(signer);
        program.call(resolve()).await.unwrap_err();
        program.call(Request::Call(Call::Lookup { node: b.node() })).await.unwrap_err();
        let kinds: Vec<String> = alarms(&mut program).await.into_iter().map(|alarm| alarm.kind).collect();
        assert_eq!(kinds, ["registry_key"], "one alarm, however often it happens");
        let _: Done = program.json(Request::Call(Call::ClearAlarms { registry_keys: false })).await;
    }
    let _: Done = program.json(Request::Call(Call::ClearAlarms { registry_keys: true })).await;
    let found: Resolved = program.json(resolve()).await;
    assert_eq!(found.node_id, b.node(), "its owner takes the new key for the registry's");
}
