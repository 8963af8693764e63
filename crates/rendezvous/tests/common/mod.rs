//! A registry, its clients and a clock that only moves when told.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod client;
pub(crate) mod pages;
pub(crate) mod postgres;
pub(crate) mod victim;

use pilot_crypto::Identity;
use pilot_rendezvous::{
    Clock,
    registry::{Change, Config, ConnId, Key, Record, State},
};
use pilot_wire::{
    NetworkId, NodeId,
    registry::{
        AwaitNotices, CreateNetwork, Envelope, Handshake, HandshakeAnswer, Handshakes, Notices, Pair, Punch,
        Register, Request, Resolve, ResolveHostname, Response, RotateKey, SetHostname, SetVisibility, Signed,
    },
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, UNIX_EPOCH},
};

/// When the clock starts, in seconds since 1970.
pub(crate) const START: u64 = 1_795_000_000;
pub(crate) const ADMIN: &str = "adm";

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Instant,
    pub(crate) disk: BTreeMap<Key, Record>,
    pub(crate) notices: Vec<NodeId>,
    replies: Vec<(ConnId, Response)>,
    next_conn: u64,
}

/// A client with an identity and a connection.
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) conn: ConnId,
    pub(crate) id: NodeId,
}

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

/// One of as many as there are numbers.
pub(crate) fn numbered(number: u32) -> Identity {
    let mut seed = [0xA5; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

pub(crate) fn config() -> Config {
    Config { admin_token: Some(ADMIN.to_owned()), ..Config::default() }
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let clock = Clock::new(now, UNIX_EPOCH + Duration::from_secs(START));
        Self {
            state: State::new(config(), clock),
            now,
            disk: BTreeMap::new(),
            notices: Vec::new(),
            replies: Vec::new(),
            next_conn: 0,
        }
    }

    /// The machine loses power and starts again: what was not on disk is gone.
    pub(crate) fn restart(&mut self) {
        let clock = Clock::new(self.now, UNIX_EPOCH + Duration::from_secs(START));
        self.state = State::restore(config(), clock, self.disk.clone()).unwrap();
    }

    pub(crate) fn connect(&mut self, from: &str) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let local = "192.0.2.100".parse().unwrap();
        self.state.open(conn, from.parse().unwrap(), Some(local));
        conn
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.state.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.state.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.state.handle_timeout(self.now);
        self.settle();
    }

    /// As the shell does it: first to disk, then out.
    pub(crate) fn settle(&mut self) {
        let changes: Vec<Change> = self.state.take_changes();
        for (key, record) in changes {
            match record {
                Some(record) => self.disk.insert(key, record),
                None => self.disk.remove(&key),
            };
        }
        while let Some(reply) = self.state.poll_reply() {
            self.replies.push(reply);
        }
        while let Some(node) = self.state.poll_notice() {
            self.notices.push(node);
        }
    }

    pub(crate) fn send(&mut self, conn: ConnId, envelope: impl Into<Envelope>) {
        self.state.handle(self.now, conn, envelope.into());
        self.settle();
    }

    pub(crate) fn reply(&mut self, conn: ConnId) -> Option<Response> {
        let at = self.replies.iter().position(|(to, _)| *to == conn)?;
        Some(self.replies.remove(at).1)
    }

    pub(crate) fn ask(&mut self, conn: ConnId, envelope: impl Into<Envelope>) -> Response {
        self.send(conn, envelope);
        self.reply(conn).expect("this request is answered at once")
    }

    pub(crate) fn as_admin(&mut self, conn: ConnId, request: Request) -> Response {
        self.ask(conn, Envelope::with_token(request, ADMIN))
    }

    /// Registers the identity of the seed, from an address of its own, with a port of 4000 and the seed.
    pub(crate) fn agent(&mut self, seed: u8) -> Agent {
        let conn = self.connect(&format!("198.51.100.{seed}:50000"));
        let mut agent = Agent { identity: identity(seed), conn, id: NodeId::UNSET };
        agent.id = self.register(&agent);
        agent
    }

    pub(crate) fn register(&mut self, agent: &Agent) -> NodeId {
        let listen_addr = format!("0.0.0.0:{}", 4000 + u16::from(agent.identity.public().as_bytes()[0]));
        match self.ask(agent.conn, agent.signed(register(&agent.identity, &listen_addr))) {
            Response::Register(registered) => registered.node_id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn reconnect(&mut self, agent: &mut Agent, from: &str) {
        self.state.close(agent.conn);
        self.settle();
        agent.conn = self.connect(from);
    }

    pub(crate) fn by(&mut self, agent: &Agent, request: Request) -> Response {
        self.ask(agent.conn, agent.signed(request))
    }

    pub(crate) fn resolve(&mut self, asker: &Agent, target: NodeId) -> Response {
        let (requester_id, node_id) = (asker.id, target);
        self.by(asker, Request::Resolve(Resolve { node_id, requester_id, ..Resolve::default() }))
    }

    pub(crate) fn may_resolve(&mut self, asker: &Agent, target: NodeId) -> bool {
        matches!(self.resolve(asker, target), Response::Resolve(_))
    }

    pub(crate) fn request_trust(&mut self, from: &Agent, to: NodeId) -> Response {
        let justification = "please".to_owned();
        let (from_node_id, to_node_id) = (from.id, to);
        let request = Handshake { from_node_id, to_node_id, justification, ..Handshake::default() };
        self.by(from, Request::RequestHandshake(request))
    }

    pub(crate) fn answer_trust(&mut self, from: &Agent, to: NodeId, accept: bool) -> Response {
        let answer = HandshakeAnswer { node_id: from.id, peer_id: to, accept, ..HandshakeAnswer::default() };
        self.by(from, Request::RespondHandshake(answer))
    }

    pub(crate) fn report_trust(&mut self, from: &Agent, peer: NodeId) -> Response {
        self.by(from, Request::ReportTrust(pair(from.id, peer)))
    }

    pub(crate) fn revoke_trust(&mut self, from: &Agent, peer: NodeId) -> Response {
        self.by(from, Request::RevokeTrust(pair(from.id, peer)))
    }

    pub(crate) fn poll(&mut self, agent: &Agent) -> Handshakes {
        match self.by(agent, Request::PollHandshakes(about(agent.id))) {
            Response::PollHandshakes(inbox) => inbox,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn name(&mut self, agent: &Agent, hostname: &str) -> Response {
        let request =
            SetHostname { node_id: agent.id, hostname: hostname.to_owned(), ..SetHostname::default() };
        self.by(agent, Request::SetHostname(request))
    }

    pub(crate) fn publish(&mut self, agent: &Agent) {
        let request = SetVisibility { node_id: agent.id, public: true, ..SetVisibility::default() };
        assert!(matches!(self.by(agent, Request::SetVisibility(request)), Response::SetVisibility { .. }));
    }

    pub(crate) fn find(&mut self, conn: ConnId, hostname: &str) -> Option<NodeId> {
        match self.ask(conn, Request::ResolveHostname(ResolveHostname { hostname: hostname.to_owned() })) {
            Response::ResolveHostname(found) => Some(found.node_id),
            Response::Error { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn wait(&mut self, agent: &Agent, conn: ConnId, timeout: Duration) {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap();
        let request = AwaitNotices { node_id: agent.id, timeout_ms, ..AwaitNotices::default() };
        self.send(conn, agent.signed(Request::AwaitNotices(request)));
    }

    /// The same with details.
    pub(crate) fn listen(&mut self, agent: &Agent, conn: ConnId) {
        let request =
            AwaitNotices { node_id: agent.id, timeout_ms: 60_000, detailed: true, ..AwaitNotices::default() };
        self.send(conn, agent.signed(Request::AwaitNotices(request)));
    }

    /// What the agent is told.
    pub(crate) fn told(&mut self, conn: ConnId) -> Option<Notices> {
        match self.reply(conn)? {
            Response::AwaitNotices(notices) => Some(notices),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create_network(&mut self, founder: &Agent, name: &str, join_rule: &str) -> NetworkId {
        let request = CreateNetwork {
            node_id: founder.id,
            name: name.to_owned(),
            join_rule: join_rule.to_owned(),
            token: "sekrit".to_owned(),
            enterprise: true,
            ..CreateNetwork::default()
        };
        match self.as_admin(founder.conn, Request::CreateNetwork(request)) {
            Response::CreateNetwork { network_id, .. } => network_id,
            other => panic!("{other:?}"),
        }
    }
}

impl Agent {
    pub(crate) fn signed(&self, request: Request) -> Envelope {
        request.sign_with(|text| self.identity.sign(text)).into()
    }
}

/// What a node is told that did not ask for details.
pub(crate) fn notices(waiting: bool) -> Response {
    Response::AwaitNotices(Notices { waiting, ..Notices::default() })
}

pub(crate) fn register(identity: &Identity, listen_addr: &str) -> Request {
    let public_key = identity.public().into();
    Request::Register(Register { public_key, listen_addr: listen_addr.to_owned(), ..Register::default() })
}

pub(crate) fn about(node_id: NodeId) -> Signed {
    Signed { node_id, ..Signed::default() }
}

pub(crate) fn pair(node_id: NodeId, peer_id: NodeId) -> Pair {
    Pair { node_id, peer_id, ..Pair::default() }
}

pub(crate) fn rotate(node_id: NodeId, to: &Identity) -> Request {
    Request::RotateKey(RotateKey { node_id, new_public_key: to.public().into(), ..RotateKey::default() })
}

pub(crate) fn punch(requester_id: NodeId, node_a: NodeId, node_b: NodeId) -> Request {
    Request::Punch(Punch { requester_id, node_a, node_b, ..Punch::default() })
}

pub(crate) fn refusal(response: &Response) -> &str {
    match response {
        Response::Error { error } => error,
        other => panic!("not refused: {other:?}"),
    }
}
