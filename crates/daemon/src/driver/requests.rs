//! What local programs ask, and who does it.

use std::time::Instant;

use bytes::Bytes;
use pilot_wire::ipc::{
    ClientFrame, Code, Command, DIALECT, DaemonFrame, Deregistered, FIRST_BYTES, Features, INITIAL_CREDIT,
    Network, Reply, Request, RequestError, WebhookSet,
};
use pilot_wire::packet::MAX_PAYLOAD;
use pilot_wire::registry::{
    self, Envelope, Invite, InviteAnswer, JoinNetwork, Membership, NetworkQuery, SetHostname, SetTags,
    SetVisibility, Signed,
};
use pilot_wire::{Endpoint, NetworkId, Port, StreamId};

use super::clients::{ClientId, Dialect, PORTS_MAX, STREAMS_MAX};
use super::membership::{self, Change};
use super::names::{Form, Name};
use super::registry::Purpose;
use super::replies::{Refusal, ReplyTo, Slot};
use super::streams::{Attachment, Ending, Owner, Phase};
use super::{Driver, PortOwner};
use crate::ipc::budget::Charge;
use crate::ipc::io::Received;
use crate::webhook::Target;

impl Driver {
    /// A program sent a frame: carries it out, or keeps it while the program does not read what it was sent.
    pub(super) fn on_frame(&mut self, now: Instant, id: ClientId, received: Received) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if !client.deferred.is_empty() || !client.way.has_room() {
            client.deferred.push_back(received);
            return;
        }
        self.begin(now, id, received);
    }

    /// A program is gone: its ports are free, its streams end in order, its requests are forgotten.
    pub(super) fn on_gone(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        for port in &client.ports {
            self.ports.remove(port);
            self.node.unlisten(*port);
        }
        for stream in &client.streams {
            self.abandon(now, *stream);
        }
        self.relations.forget(id, &mut self.deadlines);
        self.inquiries.forget(id, &mut self.deadlines);
        self.checks.forget(id, &mut self.deadlines);
        self.end_capture(id);
    }

    pub(super) fn begin(&mut self, now: Instant, id: ClientId, received: Received) {
        let Received { frame, charge } = received;
        match ClientFrame::parse(&frame) {
            Ok(ClientFrame::Hello { version }) => self.on_hello(id, version),
            Ok(ClientFrame::Tagged { tag, request }) => match Request::parse(request) {
                Ok(request) => self.request(now, id, request, &frame, Slot::Tagged(tag), charge),
                Err(error) => self.refuse_malformed(id, Some(Slot::Tagged(tag)), &error),
            },
            Ok(ClientFrame::Credit { stream, bytes }) => {
                if let Some(attachment) = self.owned(id, stream) {
                    attachment.granted(bytes);
                    self.pump_out(now, stream);
                }
            }
            Ok(ClientFrame::Finish { stream }) => {
                if self.owned(id, stream).is_some() {
                    self.end(now, stream, Ending::Finish);
                }
            }
            Ok(ClientFrame::Reset { stream, failure }) => {
                if self.owned(id, stream).is_some() {
                    tracing::debug!(%stream, %failure, "reset by its program");
                    self.cut(now, stream);
                }
            }
            Ok(ClientFrame::Request(request)) => {
                let Some(client) = self.clients.get_mut(&id) else { return };
                // A request that is not answered takes no place among the replies.
                let slot =
                    if request.answered_by().is_some() { client.reserve() } else { Slot::InOrder(u64::MAX) };
                self.request(now, id, request, &frame, slot, charge);
            }
            Err(error) => self.refuse_malformed(id, None, &error),
        }
    }

    fn on_hello(&mut self, id: ClientId, version: u8) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.dialect = Dialect::Extended;
        let features =
            Features { version: env!("CARGO_PKG_VERSION").to_owned(), initial_credit: INITIAL_CREDIT };
        client.push(&DaemonFrame::HelloOk { version: version.min(DIALECT), features });
        self.unflushed.insert(id);
    }

    fn refuse_malformed(&mut self, id: ClientId, slot: Option<Slot>, error: &RequestError) {
        let code = match error {
            RequestError::Unanswered(_) => return,
            RequestError::UnknownCommand(_) | RequestError::UnknownSubcommand { .. } => Code::Unsupported,
            RequestError::Malformed(_) | RequestError::Json { .. } => Code::InvalidArgument,
        };
        let Some(client) = self.clients.get_mut(&id) else { return };
        let slot = slot.unwrap_or_else(|| client.reserve());
        client.refuse(slot, &Refusal::new(code, error.to_string()));
        self.unflushed.insert(id);
    }

    /// A stream of this very program.
    fn owned(&mut self, client: ClientId, stream: StreamId) -> Option<&mut Attachment> {
        self.streams.get_mut(&stream).filter(|attachment| attachment.owner == Owner::Client(client))
    }

    fn request(
        &mut self,
        now: Instant,
        client: ClientId,
        request: Request<'_>,
        frame: &Bytes,
        slot: Slot,
        charge: Charge,
    ) {
        let command = request.answered_by().unwrap_or(Command::Error);
        if let Request::Send { stream, data } = request {
            return self.on_send(now, client, stream, frame.slice_ref(data), Some(charge));
        }
        let to = ReplyTo { client, slot, _charge: Some(charge) };
        match request {
            Request::Send { .. } => {}
            Request::Bind { port } => self.on_bind(to, port),
            Request::Unbind { port } => self.on_unbind(to, port),
            Request::Dial { to: endpoint } => self.on_dial(now, to, endpoint, Bytes::new()),
            Request::DialWith { to: endpoint, data } => {
                self.on_dial(now, to, endpoint, frame.slice_ref(data));
            }
            Request::Cancel => self.on_cancel(now, client),
            Request::Close { stream } => {
                if self.owned(client, stream).is_some() {
                    self.abandon(now, stream);
                }
                self.reply(to, &Reply::Closed { stream });
            }
            Request::Drain { stream } => self.on_drain(to, stream),
            Request::SendTo { to: endpoint, data } => {
                if let Err(error) = self.node.send_datagram(now, endpoint, None, data) {
                    tracing::debug!(%endpoint, %error, "datagram not sent");
                }
            }
            Request::SendToConfirm { to: endpoint, data } => {
                self.on_datagram_out(now, to, endpoint, None, data)
            }
            Request::SendFrom { from, to: endpoint, data } => match self.ports.get(&from) {
                Some(PortOwner::Client(owner)) if *owner == client => {
                    self.on_datagram_out(now, to, endpoint, Some(from), data);
                }
                Some(_) | None => self.refuse(
                    to,
                    Refusal::new(Code::PermissionDenied, format!("port {from} is not bound by this program")),
                ),
            },
            Request::Info => {
                let info = self.info(now);
                self.answer(to, command, &info);
            }
            Request::Health => {
                let health = self.health();
                self.answer(to, command, &health);
            }
            Request::Handshake(request) => self.on_handshake(now, to, request),
            Request::ResolveHostname { name } => {
                self.ask_name(to, Name { name: name.to_owned(), form: Form::Reference });
            }
            Request::SetHostname { name } => {
                let request = SetHostname {
                    node_id: self.own_node(),
                    hostname: name.to_owned(),
                    ..SetHostname::default()
                };
                self.ask_registry(
                    to,
                    registry::Request::SetHostname(request),
                    Purpose::Hostname(name.to_owned()),
                );
            }
            Request::SetVisibility { public } => {
                let request = SetVisibility { node_id: self.own_node(), public, ..SetVisibility::default() };
                self.ask_registry(to, registry::Request::SetVisibility(request), Purpose::Visibility(public));
            }
            Request::SetTags { tags } => {
                let request = SetTags { node_id: self.own_node(), tags: tags.clone(), ..SetTags::default() };
                self.ask_registry(to, registry::Request::SetTags(request), Purpose::Tags(tags));
            }
            Request::Deregister => self.on_deregister(to, command),
            Request::SetWebhook { url } => self.on_set_webhook(to, command, url),
            Request::Network(request) => self.on_network(to, command, &request),
            Request::Managed(request) => self.on_managed(to, command, request),
            Request::RotateKey => self.on_rotate_key(to),
            Request::Broadcast { network, port, token, data } => {
                self.on_broadcast(to, network, port, token, data)
            }
            Request::PreferDirect { node } => self.on_prefer_direct(now, to, node),
            Request::SubmitBadge(_) => self.refuse(to, unsupported("submit_badge")),
            Request::EnrollRecovery(_) => self.refuse(to, unsupported("enroll_recovery")),
            Request::SignEnvelope(request) => self.on_sign_envelope(to, command, &request),
            Request::VerifyEnvelope(request) => self.on_verify_envelope(to, command, request),
            Request::Call(call) => self.on_call(now, to, call),
            Request::Packets { wait } => self.on_packets(to, wait),
        }
    }

    fn on_bind(&mut self, to: ReplyTo, port: Port) {
        let Some(client) = self.clients.get_mut(&to.client) else { return };
        if client.ports.len() >= PORTS_MAX {
            return self.refuse(to, Refusal::new(Code::Busy, "too many ports are bound by this program"));
        }
        if let Err(error) = self.node.listen(port) {
            return self.refuse(to, error);
        }
        client.ports.insert(port);
        self.ports.insert(port, PortOwner::Client(to.client));
        self.check_ready();
        self.reply(to, &Reply::Bound { port });
    }

    fn on_unbind(&mut self, to: ReplyTo, port: Port) {
        if self.ports.get(&port) != Some(&PortOwner::Client(to.client)) {
            let refusal = Refusal::new(Code::PermissionDenied, "unbind: port is not owned by this client");
            return self.refuse(to, refusal);
        }
        self.ports.remove(&port);
        self.node.unlisten(port);
        if let Some(client) = self.clients.get_mut(&to.client) {
            client.ports.remove(&port);
        }
        self.reply(to, &Reply::Unbound { port });
    }

    /// What is written with the dial rides in its first packet, because nothing is sent before the next drain.
    fn on_dial(&mut self, now: Instant, to: ReplyTo, endpoint: Endpoint, first: Bytes) {
        if first.len() > FIRST_BYTES {
            let message = format!("a dial brings {FIRST_BYTES} bytes at most");
            return self.refuse(to, Refusal::new(Code::InvalidArgument, message));
        }
        let Some(client) = self.clients.get_mut(&to.client) else { return };
        if client.streams.len() >= STREAMS_MAX {
            return self.refuse(to, Refusal::new(Code::Busy, "too many streams of this program are open"));
        }
        match self.node.dial(now, endpoint) {
            Ok(id) => {
                let len = first.len();
                if len > 0 && self.node.write(now, id, first) != Ok(len) {
                    self.node.reset(now, id);
                    return self.refuse(to, Refusal::new(Code::Internal, "a new stream has no room"));
                }
                client.streams.insert(id);
                let peer = endpoint.addr.node;
                let reached = || self.node.peers().any(|known| known.node == peer && known.encrypted);
                self.waits.dialed(now, id, endpoint, reached);
                let owner = Owner::Client(to.client);
                let attachment = Attachment::new(owner, client.dialect, Phase::Dialing(to));
                self.streams.insert(id, attachment);
            }
            Err(error) => {
                let refusal = self.dial_refusal(error);
                self.refuse(to, refusal);
            }
        }
    }

    /// Gives up the dials of a program. Nobody is answered: the program has stopped waiting.
    fn on_cancel(&mut self, now: Instant, client: ClientId) {
        let dialing = |attachment: &Attachment| {
            attachment.owner == Owner::Client(client) && matches!(attachment.phase, Phase::Dialing(_))
        };
        let ids: Vec<StreamId> =
            self.streams.iter().filter(|(_, attachment)| dialing(attachment)).map(|(id, _)| *id).collect();
        for id in ids {
            self.abandon(now, id);
        }
    }

    /// Lets the later replies pass one that will not come.
    pub(super) fn forgo(&mut self, to: ReplyTo) {
        if let Some(client) = self.clients.get_mut(&to.client) {
            client.forgo(to.slot);
            self.unflushed.insert(to.client);
        }
    }

    /// A datagram whose sender wants to know. The network tells nothing, but the registry knows whether the node exists.
    fn on_datagram_out(
        &mut self,
        now: Instant,
        to: ReplyTo,
        endpoint: Endpoint,
        from: Option<Port>,
        data: &[u8],
    ) {
        let node = endpoint.addr.node;
        let known =
            self.node.id() == Some(node) || self.node.peers().any(|peer| peer.node == node && peer.encrypted);
        if known || data.len() > MAX_PAYLOAD || self.node.id().is_none() {
            return self.send_datagram(now, to, endpoint, from, data);
        }
        let request = registry::Resolve {
            node_id: node,
            requester_id: self.own_node(),
            ..registry::Resolve::default()
        };
        let purpose = Purpose::Datagram { to: endpoint, from, data: data.to_vec() };
        self.ask_registry(to, registry::Request::Resolve(request), purpose);
    }

    pub(super) fn send_datagram(
        &mut self,
        now: Instant,
        to: ReplyTo,
        endpoint: Endpoint,
        from: Option<Port>,
        data: &[u8],
    ) {
        match self.node.send_datagram(now, endpoint, from, data) {
            Ok(()) => self.reply(to, &Reply::Sent),
            Err(error) => self.refuse(to, error),
        }
    }

    /// A datagram came. A port that a program has bound is its own; for the others every program may listen, since no
    /// request says which datagrams a program wants. Programs of the reference get every one, as they expect. Who does
    /// not read loses datagrams, as the network may.
    pub(super) fn on_datagram(&mut self, from: Endpoint, port: Port, data: &[u8]) {
        if self.policy.may_open(from.addr.node, port).is_err() {
            return;
        }
        let frame = DaemonFrame::RecvFrom { from, port, data };
        let owner = self.ports.get(&port).copied();
        for (id, client) in &mut self.clients {
            let wanted = match owner {
                Some(PortOwner::Client(owner)) => owner == *id || client.dialect == Dialect::Reference,
                Some(PortOwner::Echo) | None => true,
            };
            if wanted && client.way.has_room() {
                client.push(&frame);
                self.unflushed.insert(*id);
            }
        }
        self.notify(
            "data.datagram",
            Some(serde_json::json!({
                "src_addr": from.addr, "src_port": from.port, "dst_port": port, "size": data.len()
            })),
        );
    }

    fn on_deregister(&mut self, to: ReplyTo, command: Command) {
        if self.node.id().is_none() {
            return self.answer(to, command, &Deregistered {});
        }
        let request = Signed { node_id: self.own_node(), ..Signed::default() };
        self.ask_registry(to, registry::Request::Deregister(request), Purpose::Deregister);
    }

    fn on_set_webhook(&mut self, to: ReplyTo, command: Command, url: &str) {
        let target = match url {
            "" => None,
            url => match Target::parse(url) {
                Ok(target) => Some(target),
                Err(error) => return self.refuse(to, Refusal::new(Code::InvalidArgument, error.to_string())),
            },
        };
        self.memory.webhook = target.as_ref().map(|target| target.url().to_owned());
        self.memory_stale = true;
        self.webhook.set(target);
        self.answer(to, command, &WebhookSet { webhook: url.to_owned() });
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all others change nothing here")]
    fn on_network(&mut self, to: ReplyTo, command: Command, request: &Network<'_>) {
        let node_id = self.own_node();
        let (operation, request) = match *request {
            Network::List => ("list", registry::Request::ListNetworks {}),
            Network::Join { network, token } => (
                "join",
                registry::Request::JoinNetwork(JoinNetwork {
                    node_id,
                    network_id: network,
                    token: token.to_owned(),
                    ..JoinNetwork::default()
                }),
            ),
            Network::Leave { network } => (
                "leave",
                registry::Request::LeaveNetwork(Membership {
                    node_id,
                    network_id: network,
                    ..Membership::default()
                }),
            ),
            Network::Members { network } => {
                ("members", registry::Request::ListNodes(NetworkQuery { network_id: network }))
            }
            Network::Invite { network, node } => (
                "invite",
                registry::Request::InviteToNetwork(Invite {
                    inviter_id: node_id,
                    network_id: network,
                    target_node_id: node,
                    ..Invite::default()
                }),
            ),
            Network::PollInvites => {
                ("invites", registry::Request::PollInvites(Signed { node_id, ..Signed::default() }))
            }
            Network::Respond { network, accept } => (
                "respond",
                registry::Request::RespondInvite(InviteAnswer {
                    node_id,
                    network_id: network,
                    accept,
                    ..InviteAnswer::default()
                }),
            ),
        };
        // Whoever joins agrees to the members.
        let change = match &request {
            registry::Request::JoinNetwork(join) => Change::Joined(join.network_id, true),
            registry::Request::RespondInvite(answer) => Change::Joined(answer.network_id, true),
            registry::Request::LeaveNetwork(leave) => Change::Left(leave.network_id),
            _ => {
                return self.ask_registry(
                    to,
                    request,
                    Purpose::pass(command, format!("network {operation}")),
                );
            }
        };
        self.ask_for_network(to, request.into(), membership::Form::Reference(command), change, operation);
    }

    fn on_broadcast(&mut self, to: ReplyTo, network: NetworkId, port: Port, token: &str, data: &[u8]) {
        let request = registry::Request::ListNodes(NetworkQuery { network_id: network });
        let envelope = Envelope::with_token(request, token);
        self.ask_registry_as(to, envelope, Purpose::Broadcast { network, port, data: data.to_vec() });
    }
}

fn unsupported(operation: &str) -> Refusal {
    Refusal::new(Code::Unsupported, format!("{operation}: not supported by this daemon"))
}
