//! Networks: whom of them this node trusts, requests about them, and their directories of service agents.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer that does not belong to the question is an error, whichever it is"
)]

use pilot_wire::NetworkId;
use pilot_wire::ipc::Call;
use pilot_wire::networks::{FoundCard, Membership, Reply, Request};
use pilot_wire::registry::CardQuery;
use serde_json::Value;

use crate::{Client, Error};

/// Networks.
impl Client {
    /// The networks of this node.
    ///
    /// # Errors
    /// When the connection fails, or the daemon is of another make.
    pub async fn memberships(&self) -> Result<Vec<Membership>, Error> {
        match self.call(Call::Networks(Request::Show)).await? {
            Reply::Networks { networks } => Ok(networks),
            other => Err(unexpected(&other)),
        }
    }

    /// Becomes a member; `token` is empty where none is asked for. With `trust`, the members are trusted for as long as
    /// they and this node are in the network. The answer is the registry's own JSON.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn join_network(&self, network: NetworkId, token: &str, trust: bool) -> Result<Value, Error> {
        self.about_networks(Request::Join { network, token: token.to_owned(), trust }).await
    }

    /// Whether the members of a network are trusted from now on. Switched off, the keys that were pinned are forgotten.
    ///
    /// # Errors
    /// When this node is not in the network.
    pub async fn trust_network(&self, network: NetworkId, on: bool) -> Result<Vec<Membership>, Error> {
        match self.call(Call::Networks(Request::Trust { network, on })).await? {
            Reply::Networks { networks } => Ok(networks),
            other => Err(unexpected(&other)),
        }
    }

    /// A request to the registry about networks, in the name of this node: an object as the registry reads it. A `token` of
    /// the operator or of the network stands for every role; without one the role of this node counts.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn ask_about_network(&self, request: Value, token: &str) -> Result<Value, Error> {
        self.about_networks(Request::Ask { request, token: token.to_owned() }).await
    }

    /// Searches the directory of a network. Cards whose signature is not that of their node are left out; their number is
    /// the last of the results, after that of all that match.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn find_cards(
        &self,
        query: &CardQuery,
        token: &str,
    ) -> Result<(Vec<FoundCard>, u32, u32), Error> {
        let query = serde_json::to_value(query).map_err(|error| Error::Protocol(error.to_string()))?;
        match self.call(Call::Networks(Request::Cards { query, token: token.to_owned() })).await? {
            Reply::Cards { cards, total, refused } => Ok((cards, total, refused)),
            other => Err(unexpected(&other)),
        }
    }

    async fn about_networks(&self, request: Request) -> Result<Value, Error> {
        match self.call(Call::Networks(request)).await? {
            Reply::Registry { answer } => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!("an answer to another question about networks: {reply:?}"))
}
