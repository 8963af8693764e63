//! The directory of service agents: a card for each, signed by the node that publishes it.
//!
//! A card travels as the text that was signed, never as the object that it says, so that nobody has to agree on how JSON
//! is written. Whoever reads it checks the signature with the key that it knows of the node; the registry only keeps it.

use super::{Sent, lenient};
use crate::{Addr, NetworkId, NodeId, PublicKey, Signature};
use serde::{Deserialize, Serialize};

/// Longest card as text, in bytes.
pub const CARD_MAX: usize = 8 * 1024;

/// Stands in front of a card where it is signed.
const DOMAIN: &str = "pilot-card-v1\n";

/// What a service agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// Its name: lowercase letters, digits and hyphens, at most 63; one of each name per node and network.
    pub name: String,
    /// For people and models to read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Labels to be found by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What it can be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// The node that it runs on.
    pub node: NodeId,
    /// The address of the node in the network.
    pub address: Addr,
    /// The network.
    pub network: NetworkId,
    /// Rises with each card of this name; milliseconds since 1970 do.
    pub seq: u64,
}

/// Something that an agent can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it takes, in words or as an example or a schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// What it gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
}

/// Why a text is no card, or not this node's.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// It does not say a card.
    #[error("not a card: {0}")]
    Malformed(String),
    /// It is longer than [`CARD_MAX`].
    #[error("a card of {0} bytes (max {CARD_MAX})")]
    TooLong(usize),
    /// The signature is not that of the node for this text.
    #[error("the card of node {0} is not signed with its key")]
    NotSigned(NodeId),
    /// It is signed, but for another node or network than where it was found.
    #[error("the card is of node {0} in network {1}")]
    Elsewhere(NodeId, NetworkId),
}

/// The text of a card that is signed.
#[must_use]
pub fn signed_card(card: &str) -> String {
    format!("{DOMAIN}{card}")
}

impl Card {
    /// Reads a card that was signed.
    ///
    /// # Errors
    /// [`CardError::TooLong`] and [`CardError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, CardError> {
        if text.len() > CARD_MAX {
            return Err(CardError::TooLong(text.len()));
        }
        serde_json::from_str(text).map_err(|error| CardError::Malformed(error.to_string()))
    }

    /// The text to sign and publish.
    #[must_use]
    pub fn to_text(&self) -> String {
        #[expect(clippy::expect_used, reason = "no map has keys other than text, and no number is infinite")]
        serde_json::to_string(self).expect("cards are plain JSON")
    }
}

/// Puts a card into the directory of a network, in the place of an older one of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishCard {
    /// Who publishes.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// Where.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// The [`Card`] as text.
    #[serde(deserialize_with = "lenient::text")]
    pub card: String,
    /// By the node, over [`signed_card`]; it is kept and shown with the card.
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Takes a card out of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoveCard {
    /// Whose.
    #[serde(deserialize_with = "lenient::node")]
    pub node_id: NodeId,
    /// Where.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// Its name.
    #[serde(deserialize_with = "lenient::text")]
    pub name: String,
    /// Higher than the card's, so that an old request removes no new card.
    #[serde(deserialize_with = "lenient::or_default")]
    pub seq: u64,
    /// By the node, over the text of [`signed_text`](super::signed_text).
    #[serde(skip_serializing_if = "Sent::is_missing")]
    pub signature: Sent<Signature>,
}

/// Searches the directory of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CardQuery {
    /// Where.
    #[serde(deserialize_with = "lenient::network")]
    pub network_id: NetworkId,
    /// Only cards with this label; empty for all.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// Words to be found in name, labels, description or methods, in any case; empty for all cards.
    #[serde(deserialize_with = "lenient::text", skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// True if one of the words is enough.
    #[serde(deserialize_with = "lenient::flag", skip_serializing_if = "is_false")]
    pub any: bool,
    /// Only of this node; 0 for all.
    #[serde(deserialize_with = "lenient::node", skip_serializing_if = "is_unset")]
    pub node_id: NodeId,
    /// At most so many: 100; 20 if 0.
    #[serde(deserialize_with = "lenient::number", skip_serializing_if = "is_zero")]
    pub limit: u32,
    /// After so many.
    #[serde(deserialize_with = "lenient::number", skip_serializing_if = "is_zero")]
    pub offset: u32,
}

/// A card as it was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedCard {
    /// Whose.
    pub node_id: NodeId,
    /// The [`Card`] as text.
    pub card: String,
    /// Over [`signed_card`].
    pub signature: Signature,
    /// The key of the node, as the registry says; who knows better uses what it knows.
    pub public_key: PublicKey,
    /// Whether the node is registered now.
    #[serde(default)]
    pub online: bool,
}

impl PublishedCard {
    /// The card, if `verify` finds the signature good for the text and it is of this node in `network`.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn open(
        &self,
        network: NetworkId,
        verify: impl FnOnce(&[u8], &Signature) -> bool,
    ) -> Result<Card, CardError> {
        if !verify(signed_card(&self.card).as_bytes(), &self.signature) {
            return Err(CardError::NotSigned(self.node_id));
        }
        let card = Card::parse(&self.card)?;
        if card.node != self.node_id || card.network != network {
            return Err(CardError::Elsewhere(card.node, card.network));
        }
        Ok(card)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unset(node: &NodeId) -> bool {
    *node == NodeId::UNSET
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
