//! What the rules make of a peer: the most specific target that says something about a field decides it.

use pilot_wire::policy::{
    Book, Effective, GroupName, KeyPrint, Limit, PortSpan, Rules, Sourced, Target, Topics, Verdict, Who,
};
use pilot_wire::{NodeId, Port};

/// Messages and files a minute from one peer, and at once: ten thousand that were collected while this node was away
/// come in without a pause, and a peer that never stops gets a thousand a second, which disk and inbox can take.
const MESSAGES_PER_MIN: Limit = Limit::Of(60_000);

/// Automatic answers in a row. Agents that have something to say to each other get by with a few; those that
/// only thank each other for their thanks never stop by themselves.
const MAX_HOPS: u8 = 8;

/// Automatic answers to one peer a minute, for those whose messages do not count their hops.
const AUTO_ANSWERS_PER_MIN: Limit = Limit::Of(60);

/// Who is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) trusted: bool,
    /// The pinned key of a trusted node.
    pub(super) key: Option<KeyPrint>,
}

/// Whose rules: a [`Target`] that costs nothing.
#[derive(Debug, Clone, Copy)]
enum Layer<'a> {
    All,
    Strangers,
    Group(&'a GroupName),
    Peer(Who),
}

impl Layer<'_> {
    fn target(self) -> Target {
        match self {
            Self::All => Target::All,
            Self::Strangers => Target::Strangers,
            Self::Group(name) => Target::Group(name.clone()),
            Self::Peer(who) => Target::Peer(who),
        }
    }
}

/// Rules as specific as each other.
type Level<'a> = Vec<(Layer<'a>, &'a Rules)>;

/// Answers questions from the book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Engine {
    book: Book,
}

impl Engine {
    pub(super) fn new(book: Book) -> Self {
        Self { book }
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// The rules that concern a peer, the most specific level first.
    fn levels(&self, peer: &Peer) -> Vec<Level<'_>> {
        let own = [Some(Who::Node(peer.node)), peer.key.map(Who::Key)].into_iter().flatten();
        let peers =
            own.filter_map(|who| self.book.nodes.get(&who).map(|rules| (Layer::Peer(who), rules))).collect();
        let groups = self.book.groups.iter();
        let groups = groups
            .filter(|(_, group)| {
                // At most two look-ups, however many members there are.
                group.members.contains(&Who::Node(peer.node))
                    || peer.key.is_some_and(|print| group.members.contains(&Who::Key(print)))
            })
            .map(|(name, group)| (Layer::Group(name), &group.rules))
            .collect();
        let strangers =
            if peer.trusted { Vec::new() } else { vec![(Layer::Strangers, &self.book.strangers)] };
        vec![peers, groups, strangers, vec![(Layer::All, &self.book.all)]]
    }

    /// The value of the most specific level that has one. Rules as specific as each other that differ: the strictest
    /// counts, whatever their order.
    fn decide<T: PartialEq + Copy>(
        &self,
        peer: &Peer,
        default: T,
        field: impl Fn(&Rules) -> Option<T>,
        stricter: impl Fn(T, T) -> T,
    ) -> Sourced<T> {
        for level in self.levels(peer) {
            let said: Vec<(Layer<'_>, T)> =
                level.iter().filter_map(|(layer, rules)| Some((*layer, field(rules)?))).collect();
            if let Some(value) = said.iter().map(|(_, value)| *value).reduce(&stricter) {
                let from = said.iter().filter(|(_, said)| *said == value);
                return Sourced { value, from: from.map(|(layer, _)| layer.target()).collect() };
            }
        }
        Sourced { value: default, from: Vec::new() }
    }

    fn limit(&self, peer: &Peer, default: Limit, field: impl Fn(&Rules) -> Option<Limit>) -> Sourced<Limit> {
        self.decide(peer, default, field, Limit::min)
    }

    fn flag(&self, peer: &Peer, field: impl Fn(&Rules) -> Option<bool>) -> Sourced<bool> {
        self.decide(peer, true, field, |one, other| one && other)
    }

    pub(super) fn port(&self, peer: &Peer, port: Port) -> Sourced<bool> {
        self.decide(
            peer,
            true,
            |rules| Some(rules.ports.as_ref()?.verdict(port)? == Verdict::Allow),
            |one, other| one && other,
        )
    }

    /// The lists that a topic has to be in: those of the most specific level that has any.
    fn topics(&self, peer: &Peer, field: fn(&Rules) -> Option<&Topics>) -> Vec<(Layer<'_>, &Topics)> {
        let levels = self.levels(peer).into_iter();
        let mut lists = levels.map(|level| {
            level.iter().filter_map(|(layer, rules)| Some((*layer, field(rules)?))).collect::<Vec<_>>()
        });
        lists.find(|lists| !lists.is_empty()).unwrap_or_default()
    }

    fn topic(&self, peer: &Peer, topic: &str, field: fn(&Rules) -> Option<&Topics>) -> Sourced<bool> {
        let lists = self.topics(peer, field);
        let refusing: Vec<Target> = lists
            .iter()
            .filter(|(_, topics)| !topics.allows(topic))
            .map(|(layer, _)| layer.target())
            .collect();
        match refusing.is_empty() {
            true => Sourced { value: true, from: lists.iter().map(|(layer, _)| layer.target()).collect() },
            false => Sourced { value: false, from: refusing },
        }
    }

    pub(super) fn publish(&self, peer: &Peer, topic: &str) -> Sourced<bool> {
        self.topic(peer, topic, |rules| rules.publish.as_ref())
    }

    pub(super) fn hear(&self, peer: &Peer, topic: &str) -> Sourced<bool> {
        self.topic(peer, topic, |rules| rules.subscribe.as_ref())
    }

    /// Whether there is any topic that the peer may hear.
    pub(super) fn hears_something(&self, peer: &Peer) -> bool {
        self.topics(peer, |rules| rules.subscribe.as_ref()).iter().all(|(_, topics)| !topics.is_empty())
    }

    pub(super) fn messages_per_min(&self, peer: &Peer) -> Sourced<Limit> {
        self.limit(peer, MESSAGES_PER_MIN, |rules| rules.messages_per_min)
    }

    pub(super) fn bytes_per_min(&self, peer: &Peer) -> Sourced<Limit> {
        self.limit(peer, Limit::Unlimited, |rules| rules.bytes_per_min)
    }

    pub(super) fn max_message(&self, peer: &Peer) -> Sourced<Limit> {
        self.limit(peer, Limit::Unlimited, |rules| rules.max_message)
    }

    pub(super) fn max_file(&self, peer: &Peer) -> Sourced<Limit> {
        self.limit(peer, Limit::Unlimited, |rules| rules.max_file)
    }

    pub(super) fn requests(&self, peer: &Peer) -> Sourced<bool> {
        self.flag(peer, |rules| rules.requests)
    }

    pub(super) fn tasks(&self, peer: &Peer) -> Sourced<bool> {
        self.flag(peer, |rules| rules.tasks)
    }

    pub(super) fn mailbox(&self, peer: &Peer) -> Sourced<bool> {
        self.flag(peer, |rules| rules.mailbox)
    }

    pub(super) fn max_hops(&self, peer: &Peer) -> Sourced<u8> {
        self.decide(peer, MAX_HOPS, |rules| rules.max_hops, u8::min)
    }

    pub(super) fn auto_answers_per_min(&self, peer: &Peer) -> Sourced<Limit> {
        self.limit(peer, AUTO_ANSWERS_PER_MIN, |rules| rules.auto_answers_per_min)
    }

    /// Everything that holds for a peer.
    pub(super) fn effective(&self, peer: &Peer) -> Effective {
        let sourced = |field: fn(&Rules) -> Option<&Topics>| {
            let lists = self.topics(peer, field).into_iter();
            lists
                .map(|(layer, topics)| Sourced { value: topics.clone(), from: vec![layer.target()] })
                .collect()
        };
        Effective {
            ports: self.port_spans(peer),
            publish: sourced(|rules| rules.publish.as_ref()),
            subscribe: sourced(|rules| rules.subscribe.as_ref()),
            messages_per_min: self.messages_per_min(peer),
            bytes_per_min: self.bytes_per_min(peer),
            max_message: self.max_message(peer),
            max_file: self.max_file(peer),
            requests: self.requests(peer),
            tasks: self.tasks(peer),
            mailbox: self.mailbox(peer),
            max_hops: self.max_hops(peer),
            auto_answers_per_min: self.auto_answers_per_min(peer),
        }
    }

    /// Asks once for each stretch of ports that all rules treat alike.
    fn port_spans(&self, peer: &Peer) -> Vec<PortSpan> {
        let levels = self.levels(peer);
        let rules = levels.iter().flatten().filter_map(|(_, rules)| rules.ports.as_ref());
        let mut starts: Vec<u16> = rules
            .flat_map(|ports| ports.allow.ranges().chain(ports.deny.ranges()))
            .flat_map(|(first, last)| [Some(first.0), last.0.checked_add(1)])
            .flatten()
            .chain([0])
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        let mut spans: Vec<PortSpan> = Vec::new();
        for (first, last) in starts.iter().zip(ends) {
            let Sourced { value: allowed, from } = self.port(peer, Port(*first));
            match spans.last_mut() {
                Some(span) if span.allowed == allowed && span.from == from => span.last = Port(last),
                Some(_) | None => {
                    spans.push(PortSpan { first: Port(*first), last: Port(last), allowed, from });
                }
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests;
