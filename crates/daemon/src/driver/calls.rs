//! Our own calls: what the reference has no command for.

use std::time::{Duration, Instant};

use pilot_proto::PingId;
use pilot_proto::node::PathView;
use pilot_wire::ipc::{
    AutoApprove, Call, Code, Command, Done, Failure, Pong, Recovery, Reply, Resolved, TrustEntry, TrustList,
    TrustState,
};
use pilot_wire::registry::{self, Signed};
use pilot_wire::{Addr, NodeId, mailbox};
use tokio::sync::watch;

use super::clients::Client;
use super::deadlines::{self, Deadline};
use super::info::{RELATIONS_MAX, ROWS_MAX};
use super::names::{Form, Name};
use super::paths::Called;
use super::registry::Purpose;
use super::replies::{Refusal, ReplyTo};
use super::{Command as Inbox, Driver};
use crate::service::Caller;

/// A program that waits for a pong.
#[derive(Debug)]
pub(super) struct PendingPing {
    node: NodeId,
    to: ReplyTo,
    begun: Instant,
    waits: Duration,
    deadline: deadlines::Key,
}

/// What a built-in service says to a program.
#[derive(Debug)]
pub(crate) struct Answered {
    to: ReplyTo,
    answer: Result<serde_json::Value, Failure>,
}

impl Driver {
    pub(super) fn on_call(&mut self, now: Instant, to: ReplyTo, call: Call) {
        let ok = Command::CallOk;
        match call {
            Call::Status => {
                let status = self.status();
                self.answer(to, ok, &status);
            }
            Call::Shutdown => {
                tracing::info!("asked to stop");
                self.answer(to, ok, &Done {});
                self.stopping = true;
            }
            Call::Ping { node, size, timeout_ms } => self.on_ping(now, to, node, size, timeout_ms),
            Call::Why { node, timeout_ms } => self.on_why(now, to, node, Duration::from_millis(timeout_ms)),
            Call::Netcheck { timeout_ms } => {
                self.on_netcheck(now, to, Duration::from_millis(timeout_ms));
            }
            Call::Resolve { target } => self.on_resolve(to, &target),
            Call::Lookup { node } => {
                let request = registry::Request::Lookup(Signed { node_id: node, ..Signed::default() });
                self.ask_registry(to, request, Purpose::Lookup(node));
            }
            Call::Connections => {
                let mut list = self.conn_list();
                list.truncate(ROWS_MAX);
                self.answer(to, ok, &list);
            }
            Call::Disconnect { stream } => {
                if self.streams.contains_key(&stream) {
                    self.disconnect(now, stream);
                    self.answer(to, ok, &Done {});
                } else {
                    self.refuse(to, Refusal::no_stream(stream));
                }
            }
            Call::Peers => {
                let mut list = self.peer_list(now);
                list.truncate(ROWS_MAX);
                self.answer(to, ok, &list);
            }
            Call::TrustList => {
                let list = self.trust_list();
                self.answer(to, ok, &list);
            }
            Call::WaitTrust { node, timeout_ms } => {
                self.on_wait_trust(now, to, node, Duration::from_millis(timeout_ms));
            }
            Call::AutoApprove { enabled } => {
                if let Some(enabled) = enabled {
                    self.config.trust_auto_approve = enabled;
                    self.node.set_auto_approve(enabled);
                }
                self.answer(to, ok, &AutoApprove { enabled: self.config.trust_auto_approve });
            }
            Call::ClearAlarms { registry_keys } => {
                self.clear_alarms(registry_keys);
                self.answer(to, ok, &Done {});
            }
            Call::Recovery { change } => {
                self.change_recovery(change);
                self.answer(to, ok, &Recovery { key: self.profile.recovery });
            }
            Call::Config => {
                let settings = self.settings();
                self.answer(to, ok, &settings);
            }
            Call::Capture(filter) => self.on_capture(now, to, filter),
            Call::Networks(request) => self.on_networks_call(now, to, request),
            Call::Mailbox(_)
            | Call::Received(_)
            | Call::Outbox(_)
            | Call::Serving(_)
            | Call::Tasks(_)
            | Call::Hooks(_)
            | Call::Policy(_)
            | Call::Mailboxes(_)
            | Call::Events => self.ask_services(to, call),
        }
    }

    fn on_ping(&mut self, now: Instant, to: ReplyTo, node: NodeId, size: u16, timeout_ms: u64) {
        if self.node.id().is_none() {
            return self.refuse(to, Refusal::not_registered());
        }
        let waits = Duration::from_millis(timeout_ms).min(deadlines::LONGEST);
        let ping = self.node.ping(now, node, size.into());
        let deadline = self.deadlines.add(now + waits, Deadline::Ping(ping));
        self.pings.insert(ping, PendingPing { node, to, begun: now, waits, deadline });
    }

    pub(super) fn on_pong(&mut self, now: Instant, ping: PingId, rtt: Option<Duration>) {
        if self.on_inquiry_pong(now, ping, rtt) {
            return;
        }
        let Some(pending) = self.pings.remove(&ping) else { return };
        let PendingPing { node, to, begun, waits, deadline } = pending;
        self.deadlines.cancel(deadline);
        let Some(rtt) = rtt else {
            let refusal = self.no_pong(now, node, begun, waits);
            return self.refuse(to, refusal);
        };
        let path = self.node.peers().find(|peer| peer.node == node).map(|peer| peer.path);
        let pong = Pong {
            node_id: node,
            rtt_us: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
            relay: path == Some(PathView::Relayed),
            endpoint: match path {
                Some(PathView::Direct(address)) => address.to_string(),
                Some(PathView::Relayed) => self.beacon_in_use(),
                Some(PathView::Unknown) | None => String::new(),
            },
        };
        self.answer(to, Command::CallOk, &pong);
    }

    /// A ping was lost; or, if nothing else came from the peer either, the peer does not answer at all.
    fn no_pong(&self, now: Instant, node: NodeId, begun: Instant, waits: Duration) -> Refusal {
        let heard = self.node.peers().find(|peer| peer.node == node).and_then(|peer| peer.heard);
        if heard.is_none_or(|at| at < begun) {
            return self.unreachable(node, &self.node.silence(now, node));
        }
        let Called { name, target } = self.called(node);
        let message = format!("no answer from {name} in {} ms, though it is alive", waits.as_millis());
        Refusal::new(Code::Timeout, message).hint(format!("see why: pilotctl why {target}"))
    }

    fn on_resolve(&mut self, to: ReplyTo, target: &str) {
        if let Some(address) = numeric_target(target) {
            let resolved = Resolved {
                node_id: address.node,
                address,
                hostname: self.hostname_of(address.node),
                public: false,
            };
            return self.answer(to, Command::CallOk, &resolved);
        }
        if target == self.profile.hostname
            && let Some(node_id) = self.node.id()
        {
            let hostname = target.to_owned();
            let address = Addr::backbone(node_id);
            return self.answer(
                to,
                Command::CallOk,
                &Resolved { node_id, address, hostname, public: self.profile.public },
            );
        }
        self.resolve_name(to, Name { name: target.to_owned(), form: Form::Call });
    }

    fn trust_list(&self) -> TrustList {
        let book = self.node.trust();
        let entry = |node_id: NodeId, state, public_key, since, justification: &str| TrustEntry {
            node_id,
            address: Addr::backbone(node_id),
            hostname: self.hostname_of(node_id),
            state,
            public_key,
            since,
            justification: justification.to_owned(),
            networks: Vec::new(),
        };
        let members = book.members().filter(|(node, _)| book.agreed(*node).is_none()).take(RELATIONS_MAX);
        let members = members.map(|(node, member)| TrustEntry {
            networks: member.networks.iter().copied().collect(),
            ..entry(node, TrustState::Trusted, member.trusted.key, member.trusted.since, "")
        });
        let trusted = book.trusted().map(|(node, t)| entry(node, TrustState::Trusted, t.key, t.since, ""));
        let pending = book
            .pending()
            .map(|(node, p)| entry(node, TrustState::Pending, p.key, p.received, &p.justification));
        let asked = book
            .outgoing()
            .map(|(node, o)| entry(node, TrustState::Requested, None, o.sent, &o.justification));
        let revoked = book.revoked().map(|(node, at)| entry(node, TrustState::Revoked, None, at, ""));
        let mut nodes: Vec<TrustEntry> =
            trusted.chain(members).chain(pending).chain(asked).chain(revoked).collect();
        nodes.sort_by_key(|entry| entry.node_id);
        TrustList { nodes }
    }

    /// A service may wait, for a message or a disk: it does so in a task of its own.
    fn ask_services(&mut self, to: ReplyTo, call: Call) {
        let Some(services) = self.services.clone() else {
            return self.refuse(to, Refusal::new(Code::Busy, "the daemon's services have not started yet"));
        };
        let Some(client) = self.clients.get(&to.client) else { return };
        let caller = Caller::new(to.client, client.presence());
        let commands = self.commands.clone();
        let presence = self.clients.get(&to.client).map(Client::presence).filter(|_| is_wait(&call));
        self.tasks.spawn(async move {
            let answer = tokio::select! {
                answer = services.call(&caller, call) => answer,
                // Whoever waited is gone: what comes must not be given to nobody.
                () = gone(presence) => return,
            };
            let _ = commands.send(Inbox::Answered(Answered { to, answer })).await;
        });
    }

    pub(super) fn on_answered(&mut self, answered: Answered) {
        let Answered { to, answer } = answered;
        match answer {
            Ok(value) => self.reply(to, &Reply::json(Command::CallOk, &value)),
            Err(failure) => self.refuse(to, failure),
        }
    }
}

/// Ends when the program does; never, if that does not matter.
async fn gone(presence: Option<watch::Receiver<()>>) {
    match presence {
        Some(mut presence) => while presence.changed().await.is_ok() {},
        None => std::future::pending().await,
    }
}

/// Whether a call takes something from others that comes later.
fn is_wait(call: &Call) -> bool {
    // Few calls wait, and a new one says so here.
    matches!(call, Call::Mailbox(mailbox::Request::Wait(_)))
}

/// An address or a node number; everything else is a name.
fn numeric_target(target: &str) -> Option<Addr> {
    target.parse().ok().or_else(|| target.parse().ok().map(Addr::backbone))
}
