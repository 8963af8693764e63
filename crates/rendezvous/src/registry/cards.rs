//! The directory of service agents: cards that nodes sign and publish in a network, found by label and by words.

use super::{ConnId, Key, Refusal, State, names, record};
use pilot_crypto::verify;
use pilot_wire::{
    NetworkId, NodeId, PublicKey, Signature,
    registry::{Card, CardQuery, PublishCard, PublishedCard, RemoveCard, Response, signed_card},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Cards of one node, in all networks together.
const NODE_MAX: usize = 16;
/// Cards in one network.
const NETWORK_MAX: usize = 10_000;
/// Methods on a card.
const METHODS_MAX: usize = 64;
/// Cards told at once, and if nobody says how many.
const LIMIT_MAX: u32 = 100;
const LIMIT_DEFAULT: u32 = 20;
/// Bytes of cards told at once, so that the reply fits a frame with its quotes escaped.
const REPLY_MAX: usize = 400 * 1024;
/// Longest search, in bytes and words.
const TEXT_MAX: usize = 512;
const WORDS_MAX: usize = 16;

/// All cards.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_network: BTreeMap<NetworkId, BTreeMap<(NodeId, String), Entry>>,
    by_node: BTreeMap<NodeId, Own>,
}

/// What the directory knows of a node.
#[derive(Debug, Default)]
struct Own {
    cards: BTreeSet<(NetworkId, String)>,
    last: BTreeMap<NetworkId, u64>,
}

#[derive(Debug)]
struct Entry {
    text: String,
    signature: Signature,
    key: PublicKey,
    words: Words,
}

/// A card in lowercase.
#[derive(Debug)]
struct Words {
    tags: Vec<String>,
    description: String,
    methods: Vec<String>,
    explanations: String,
}

impl Words {
    fn of(card: &Card) -> Self {
        let explanations: Vec<String> =
            card.methods.iter().map(|method| method.description.to_lowercase()).collect();
        Self {
            tags: card.tags.clone(),
            description: card.description.to_lowercase(),
            methods: card.methods.iter().map(|method| method.name.to_lowercase()).collect(),
            explanations: explanations.join("\n"),
        }
    }

    /// How well a word fits; 0 if it does not occur.
    fn fits(&self, name: &str, word: &str) -> u32 {
        if name == word {
            32
        } else if name.contains(word) {
            16
        } else if self.tags.iter().any(|tag| tag == word) {
            8
        } else if self.tags.iter().any(|tag| tag.contains(word)) {
            4
        } else if self.description.contains(word) || self.methods.iter().any(|name| name.contains(word)) {
            2
        } else {
            u32::from(self.explanations.contains(word))
        }
    }
}

impl Directory {
    /// Puts back the cards of a node.
    pub(super) fn restore(&mut self, node: NodeId, stored: record::Cards) {
        self.by_node.entry(node).or_default().last = stored.last;
        for record::Card { network, text, signature, key } in stored.cards {
            // It was checked when it came.
            if let Ok(card) = Card::parse(&text) {
                self.insert(node, network, &card, text, signature, key);
            }
        }
    }

    pub(super) fn record(&self, node: NodeId) -> Option<record::Cards> {
        let own = self.by_node.get(&node)?;
        let cards = own.cards.iter().filter_map(|(network, name)| {
            let entry = self.by_network.get(network)?.get(&(node, name.clone()))?;
            let Entry { text, signature, key, .. } = entry;
            Some(record::Card { network: *network, text: text.clone(), signature: *signature, key: *key })
        });
        Some(record::Cards { cards: cards.collect(), last: own.last.clone() })
    }

    fn insert(
        &mut self,
        node: NodeId,
        network: NetworkId,
        card: &Card,
        text: String,
        signature: Signature,
        key: PublicKey,
    ) {
        let own = self.by_node.entry(node).or_default();
        own.cards.insert((network, card.name.clone()));
        let last = own.last.entry(network).or_default();
        *last = card.seq.max(*last);
        let entry = Entry { text, signature, key, words: Words::of(card) };
        self.by_network.entry(network).or_default().insert((node, card.name.clone()), entry);
    }

    /// The newest number that a node has used in a network.
    fn last(&self, node: NodeId, network: NetworkId) -> u64 {
        self.by_node.get(&node).and_then(|own| own.last.get(&network)).copied().unwrap_or_default()
    }

    fn has_room(&self, node: NodeId, network: NetworkId, name: &str) -> Result<(), Refusal> {
        let cards = self.by_node.get(&node).map(|own| &own.cards);
        if cards.is_some_and(|cards| cards.contains(&(network, name.to_owned()))) {
            return Ok(());
        }
        if cards.is_some_and(|cards| cards.len() >= NODE_MAX) {
            return Err(Refusal::TooManyCards(node, NODE_MAX));
        }
        if self.by_network.get(&network).is_some_and(|cards| cards.len() >= NETWORK_MAX) {
            return Err(Refusal::DirectoryFull(network, NETWORK_MAX));
        }
        Ok(())
    }

    fn remove(&mut self, node: NodeId, network: NetworkId, name: &str, seq: u64) -> bool {
        let Some(own) = self.by_node.get_mut(&node) else { return false };
        if !own.cards.remove(&(network, name.to_owned())) {
            return false;
        }
        own.last.insert(network, seq);
        self.drop_entry(node, network, name);
        true
    }

    fn drop_entry(&mut self, node: NodeId, network: NetworkId, name: &str) {
        if let Some(cards) = self.by_network.get_mut(&network) {
            cards.remove(&(node, name.to_owned()));
            if cards.is_empty() {
                self.by_network.remove(&network);
            }
        }
    }

    /// Drops the cards of a node, in one network or in all. True if there were some.
    pub(super) fn forget(&mut self, node: NodeId, network: Option<NetworkId>) -> bool {
        let Some(own) = self.by_node.get_mut(&node) else { return false };
        let goes = |card: &(NetworkId, String)| network.is_none_or(|network| card.0 == network);
        let gone: Vec<_> = own.cards.iter().filter(|card| goes(card)).cloned().collect();
        own.cards.retain(|card| !goes(card));
        for (network, name) in &gone {
            self.drop_entry(node, *network, name);
        }
        !gone.is_empty()
    }

    /// Drops the cards of a network, and says whose they were.
    pub(super) fn forget_network(&mut self, network: NetworkId) -> BTreeSet<NodeId> {
        let cards = self.by_network.remove(&network).unwrap_or_default();
        let nodes: BTreeSet<NodeId> = cards.into_keys().map(|(node, _)| node).collect();
        for node in &nodes {
            if let Some(own) = self.by_node.get_mut(node) {
                own.cards.retain(|(other, _)| *other != network);
            }
        }
        nodes
    }

    /// Cards that fit, the best first: those in which more of the words occur, then those in which they stand in a more
    /// telling place.
    fn search(&self, query: &CardQuery) -> Vec<(&(NodeId, String), &Entry)> {
        let tag = query.tag.strip_prefix('#').unwrap_or(&query.tag).to_lowercase();
        let words: Vec<String> = query
            .text
            .split(|c: char| !c.is_alphanumeric() && c != '-')
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .take(WORDS_MAX)
            .collect();
        let cards = self.by_network.get(&query.network_id).into_iter().flatten();
        let mut found: Vec<_> = cards
            .filter(|((node, _), _)| query.node_id == NodeId::UNSET || query.node_id == *node)
            .filter(|(_, entry)| tag.is_empty() || entry.words.tags.contains(&tag))
            .filter_map(|(id, entry)| {
                let fits = words.iter().map(|word| entry.words.fits(&id.1, word));
                let (hits, score) =
                    fits.fold((0, 0), |(hits, score), fit| (hits + usize::from(fit > 0), score + fit));
                let is_found = hits == words.len() || (query.any && hits > 0);
                is_found.then_some((Reverse((hits, score)), &id.1, id.0, id, entry))
            })
            .collect();
        found.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        found.into_iter().map(|(.., id, entry)| (id, entry)).collect()
    }
}

impl State {
    /// The request is signed by the node, and so is the card: it is the same signature.
    pub(super) fn publish_card(&mut self, request: PublishCard) -> Result<Response, Refusal> {
        let (node, network) = (request.node_id, request.network_id);
        self.member(network, node)?;
        let card = Card::parse(&request.card).map_err(|error| Refusal::Card(error.to_string()))?;
        if card.node != node || card.network != network {
            return Err(Refusal::CardElsewhere(card.node, card.network));
        }
        names::check_hostname(&card.name).map_err(|fault| Refusal::Card(format!("name: {fault}")))?;
        if names::check_tags(&card.tags)? != card.tags {
            return Err(Refusal::Card("tags without # and without repetition".to_owned()));
        }
        if card.methods.len() > METHODS_MAX {
            return Err(Refusal::Card(format!("too many methods (max {METHODS_MAX})")));
        }
        let last = self.directory.last(node, network);
        if card.seq <= last {
            return Err(Refusal::CardOld(card.seq, last));
        }
        self.directory.has_room(node, network, &card.name)?;
        let key = self.known(node)?.key;
        let Some(signature) = request.signature.given().copied() else {
            return Err(Refusal::SignatureRequired);
        };
        // It was checked as the signature of the request; the text it covers is the same.
        debug_assert!(verify(&key, signed_card(&request.card).as_bytes(), &signature));
        self.directory.insert(node, network, &card, request.card, signature, key);
        self.touch(Key::Cards(node));
        Ok(Response::PublishCard { network_id: network, name: card.name, seq: card.seq })
    }

    pub(super) fn remove_card(&mut self, request: &RemoveCard) -> Result<Response, Refusal> {
        let RemoveCard { node_id: node, network_id: network, ref name, seq, .. } = *request;
        self.networks.get(network).ok_or(Refusal::UnknownNetwork(network))?;
        let last = self.directory.last(node, network);
        if seq <= last {
            return Err(Refusal::CardOld(seq, last));
        }
        if !self.directory.remove(node, network, name, seq) {
            return Err(Refusal::NoCard(name.chars().take(64).collect(), node, network));
        }
        self.touch(Key::Cards(node));
        Ok(Response::RemoveCard { network_id: network, name: name.clone() })
    }

    /// Cards are for members and the operator.
    pub(super) fn list_cards(
        &self,
        conn: ConnId,
        query: &CardQuery,
        token: &str,
    ) -> Result<Response, Refusal> {
        let id = query.network_id;
        self.may_list(conn, id, token)?;
        if query.text.len() > TEXT_MAX {
            return Err(Refusal::SearchTooLong(TEXT_MAX));
        }
        let limit = if query.limit == 0 { LIMIT_DEFAULT } else { query.limit.min(LIMIT_MAX) };
        let found = self.directory.search(query);
        let total = u32::try_from(found.len()).unwrap_or(u32::MAX);
        let mut bytes = 0;
        let page = found.into_iter().skip(query.offset as usize).take(limit as usize);
        let page = page.take_while(|(_, entry)| {
            bytes += entry.text.len();
            bytes <= REPLY_MAX
        });
        let cards = page.map(|((node, _), entry)| PublishedCard {
            node_id: *node,
            card: entry.text.clone(),
            signature: entry.signature,
            public_key: entry.key,
            online: self.presence(*node).is_some(),
        });
        Ok(Response::ListCards { network_id: id, total, cards: cards.collect() })
    }
}
