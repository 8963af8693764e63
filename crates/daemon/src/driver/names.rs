//! Which node has a name. The registry says so; of nodes that are trusted, their own records do.

use std::time::Instant;

use pilot_wire::ipc::{Command, Reply, Resolved};
use pilot_wire::registry::{self, ResolveHostname, ResolvedHostname, Response, Signed};
use pilot_wire::{Addr, NodeId};

use super::Driver;
use super::registry::{Purpose, another_reply};
use super::replies::{Refusal, ReplyTo};
use crate::belief::Belief;
use crate::registry::{CallError, Witness};

/// A name that a program asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) form: Form,
}

/// In which form the program is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Our own call's.
    Call,
    /// The registry's, as the reference passes it on.
    Reference,
}

/// The registry says that another node than the trusted one has its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contest {
    name: Name,
    trusted: NodeId,
    said: Resolved,
}

impl Driver {
    /// Answers from memory while the registry is away, which is no use to the reference's programs: they ask again.
    pub(super) fn resolve_name(&mut self, to: ReplyTo, name: Name) {
        if self.registry.is_away()
            && let Some(resolved) = self.remembered(&name.name)
        {
            return self.answer_name(to, name.form, &resolved);
        }
        self.ask_name(to, name);
    }

    pub(super) fn ask_name(&mut self, to: ReplyTo, name: Name) {
        let request = registry::Request::ResolveHostname(ResolveHostname { hostname: name.name.clone() });
        self.ask_registry(to, request, Purpose::Resolve(name));
    }

    /// A peer that was called so when it was last heard of, for when the registry cannot be asked.
    fn remembered(&self, hostname: &str) -> Option<Resolved> {
        let named = self.memory.peers.iter().filter(|(_, peer)| peer.hostname == hostname);
        let node = named.map(|(node, _)| *node).max_by_key(|node| self.node.trust().get(*node).is_some())?;
        Some(resolved(node, hostname))
    }

    /// A name may be remembered where the registry cannot be asked.
    pub(super) fn resolved_without(&self, name: &Name, error: &CallError) -> Option<Resolved> {
        match (error, name.form) {
            (CallError::Unreachable(_), Form::Call) => self.remembered(&name.name),
            (CallError::Unreachable(_), Form::Reference) | (CallError::Refused(_), _) => None,
        }
    }

    pub(super) fn answer_name(&mut self, to: ReplyTo, form: Form, resolved: &Resolved) {
        match form {
            Form::Call => self.answer(to, Command::CallOk, resolved),
            Form::Reference => {
                let found = Response::ResolveHostname(ResolvedHostname {
                    node_id: resolved.node_id,
                    address: resolved.address.to_string(),
                    hostname: resolved.hostname.clone(),
                    public: resolved.public,
                });
                let body = found.to_json();
                self.reply(
                    to,
                    &Reply::Json { command: Command::ResolveHostnameOk, body: (&body[..]).into() },
                );
            }
        }
    }

    /// The registry says which node has the name.
    pub(super) fn on_name_resolved(&mut self, to: ReplyTo, name: Name, reply: &[u8], witness: &Witness) {
        let Ok(Response::ResolveHostname(found)) = Response::parse(reply) else {
            return self.refuse(to, another_reply());
        };
        let trusted = self.trusted_named(&name.name);
        if let Err(why) = self.vouched(witness) {
            return match trusted {
                Some(node) => self.answer_name(to, name.form, &resolved(node, &name.name)),
                None => self.refuse(to, Refusal::from(CallError::Refused(why)).within("resolve_hostname")),
            };
        }
        let said = Resolved {
            node_id: found.node_id,
            address: found.address.parse().unwrap_or(Addr::backbone(found.node_id)),
            hostname: name.name.clone(),
            public: found.public,
        };
        match trusted.filter(|trusted| *trusted != said.node_id) {
            None => self.found_name(to, &name, &said),
            // It may have been renamed. Then it says so.
            Some(trusted) => {
                let lookup = registry::Request::Lookup(Signed { node_id: trusted, ..Signed::default() });
                self.ask_registry(to, lookup, Purpose::Contested(Contest { name, trusted, said }));
            }
        }
    }

    /// What the registry says of the trusted node, asked because another is said to have its name.
    pub(super) fn on_contested(
        &mut self,
        now: Instant,
        to: ReplyTo,
        contest: Contest,
        reply: &[u8],
        witness: &Witness,
    ) {
        let Some(said) = crate::registry::said(reply).filter(|said| said.node == contest.trusted) else {
            return self.answer_trusted(to, contest);
        };
        match self.weigh(now, &said, witness) {
            // Its own word, not older than what was known: it has the name no longer.
            Ok(Belief { record: Some(record), .. }) if record.hostname != contest.name.name => {
                self.found_name(to, &contest.name, &contest.said);
            }
            Ok(_) | Err(_) => self.answer_trusted(to, contest),
        }
    }

    /// The trusted node is preferred.
    pub(super) fn answer_trusted(&mut self, to: ReplyTo, contest: Contest) {
        let Contest { name: Name { name, form }, trusted, said } = contest;
        let text = format!(
            "the registry {} says that the name {name} is node {}'s; not believed, it is that of the trusted node \
             {trusted} ({})",
            self.registry.address,
            said.node_id,
            Addr::backbone(trusted)
        );
        self.alarm(Some(trusted), "name", text);
        self.answer_name(to, form, &resolved(trusted, &name));
    }

    fn found_name(&mut self, to: ReplyTo, name: &Name, said: &Resolved) {
        // Only our own user's look-ups come here, so strangers cannot fill the table.
        self.set_name(said.node_id, &name.name);
        self.answer_name(to, name.form, said);
    }

    /// The trusted node of this name, if one is remembered.
    fn trusted_named(&self, name: &str) -> Option<NodeId> {
        let named = self.memory.peers.iter().filter(|(_, peer)| peer.hostname == name);
        named.map(|(node, _)| *node).find(|node| self.node.is_trusted(*node))
    }

    /// Remembers the name of a node.
    pub(super) fn set_name(&mut self, node: NodeId, name: &str) {
        let peer = self.memory.peer_mut(node);
        if peer.hostname != name {
            name.clone_into(&mut peer.hostname);
            self.keeper.learned(true);
        }
    }
}

fn resolved(node: NodeId, name: &str) -> Resolved {
    Resolved { node_id: node, address: Addr::backbone(node), hostname: name.to_owned(), public: false }
}
