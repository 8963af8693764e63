//! The peer that a command is about: an address, a node number or a hostname, resolved by the daemon.

use std::fmt;

use pilot_client::Client;
use pilot_wire::ipc::Resolved;
use pilot_wire::{Addr, Endpoint, NodeId, Port};

use crate::failure::{Code, Failure};
use crate::settings::is_hostname;

/// What the user wrote, read as far as possible without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Address(Addr),
    Number(NodeId),
    Name(String),
}

/// A target with everything a command needs to name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) addr: Addr,
    /// Empty if not known.
    pub(crate) hostname: String,
}

impl Target {
    /// Reads `0:0000.0000.0002`, `2` or `agent-b`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if let Ok(addr) = text.parse() {
            return Ok(Target::Address(addr));
        }
        if let Ok(number) = text.parse() {
            return Ok(Target::Number(NodeId(number)));
        }
        if is_hostname(text) {
            return Ok(Target::Name(text.to_owned()));
        }
        let mut failure =
            Failure::usage(format!("`{text}` is neither an address, a node number nor a hostname"));
        let lower = text.to_lowercase();
        failure = if lower != text && is_hostname(&lower) {
            failure.hint(format!("hostnames are in lower case: `{lower}`"))
        } else {
            failure.hint("write 0:0000.0000.0002, 2 or agent-b")
        };
        Err(failure)
    }

    /// What the registry says of it, in any case asked.
    pub(crate) async fn look_up(&self, client: &Client) -> Result<Resolved, Failure> {
        let text = self.to_string();
        client.resolve(&text).await.map_err(|error| unknown(&text, error.into()))
    }

    /// Asks the daemon only when the answer is not in the text itself.
    pub(crate) async fn resolve(&self, client: &Client) -> Result<Peer, Failure> {
        match self {
            Target::Address(addr) => Ok(Peer { node: addr.node, addr: *addr, hostname: String::new() }),
            Target::Number(node) => {
                Ok(Peer { node: *node, addr: Addr::backbone(*node), hostname: String::new() })
            }
            Target::Name(name) => {
                let found = self.look_up(client).await?;
                Ok(Peer { node: found.node_id, addr: found.address, hostname: name.clone() })
            }
        }
    }
}

/// As it is written.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(addr) => addr.fmt(f),
            Target::Number(node) => node.fmt(f),
            Target::Name(name) => f.write_str(name),
        }
    }
}

fn unknown(name: &str, failure: Failure) -> Failure {
    if failure.code != Code::NotFound {
        return failure;
    }
    Failure::new(Code::NotFound, format!("no node `{name}` can be seen from here"))
        .hint("is the name right, and its daemon up? By its address: `pilotctl handshake ADDRESS`")
}

impl Peer {
    /// A port of this peer.
    pub(crate) fn port(&self, port: Port) -> Endpoint {
        Endpoint { addr: self.addr, port }
    }

    /// The name a person would use for it.
    pub(crate) fn name(&self) -> String {
        if self.hostname.is_empty() { self.addr.to_string() } else { self.hostname.clone() }
    }
}

/// Reads and resolves in one go.
pub(crate) async fn find(client: &Client, text: &str) -> Result<Peer, Failure> {
    Target::parse(text)?.resolve(client).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_numbers_and_names_are_told_apart() {
        assert_eq!(Target::parse("0:0000.0000.0002").unwrap(), Target::Address(Addr::backbone(NodeId(2))));
        assert_eq!(Target::parse("42").unwrap(), Target::Number(NodeId(42)));
        assert_eq!(Target::parse("agent-b").unwrap(), Target::Name("agent-b".into()));
    }

    #[test]
    fn a_name_in_upper_case_is_corrected() {
        assert_eq!(
            Target::parse("Agent-B").unwrap_err().hint.unwrap(),
            "hostnames are in lower case: `agent-b`"
        );
        assert_eq!(Target::parse("0:00").unwrap_err().code, Code::InvalidArgument);
    }
}
