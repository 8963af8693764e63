//! What this node says of itself under its own signature: made from its profile, and published whenever it changes.

use std::net::{IpAddr, SocketAddr};

use pilot_crypto::{Identity, sign_record};
use pilot_wire::NodeId;
use pilot_wire::record::{NodeRecord, RECORD_TAGS_MAX, RecordSeq};
use pilot_wire::registry::{PublishRecord, Request};

use super::profile::Profile;
use super::seals::Numbers;

/// What the registry of one connection has of our record.
#[derive(Debug, Default)]
pub(super) struct Publication {
    /// It does not know records.
    unknown: bool,
    /// The reply to one is awaited.
    under_way: bool,
    /// The last one, with its number left out.
    last: Option<NodeRecord>,
    /// Another node has this name there.
    refused_name: Option<String>,
    /// How often in a row it was refused for its number.
    renumbered: u32,
}

/// What a refusal of a record means for the node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The registry does not know records.
    Unknown,
    /// The name is another node's: the record goes without.
    Name,
    /// Its number was too low: it goes again with a higher one.
    Number,
    /// Something else.
    Other,
}

impl Publication {
    /// The registry does not grant this name.
    pub(super) fn name_refused(&mut self, name: &str) {
        self.refused_name = Some(name.to_owned());
    }

    /// The request that publishes the record, if there is one to publish now.
    pub(super) fn due(
        &mut self,
        node: NodeId,
        profile: &Profile,
        reached_from: Option<IpAddr>,
        identity: &Identity,
        numbers: &Numbers,
    ) -> Option<Request> {
        if self.unknown || self.under_way || profile.left {
            return None;
        }
        let mut record = record(node, profile, reached_from);
        if self.refused_name.as_ref() == Some(&record.hostname) {
            record.hostname.clear();
        }
        if self.last.as_ref() == Some(&record) {
            return None;
        }
        self.last = Some(record.clone());
        self.under_way = true;
        record.seq = numbers.next();
        let record = sign_record(identity, &record).to_text();
        Some(Request::PublishRecord(PublishRecord { node_id: node, record }))
    }

    /// The registry has it.
    pub(super) fn published(&mut self) {
        self.under_way = false;
        self.renumbered = 0;
    }

    /// The registry refused it, with these words.
    pub(super) fn refused(&mut self, words: &str, numbers: &Numbers) -> Refused {
        self.under_way = false;
        let name = self.last.as_ref().map(|record| record.hostname.clone()).unwrap_or_default();
        if words.contains("unknown message type") || words.contains("unknown type") {
            self.unknown = true;
            return Refused::Unknown;
        }
        if !name.is_empty() && words.contains("hostname") {
            self.refused_name = Some(name);
            self.last = None;
            return Refused::Name;
        }
        match higher_number(words) {
            Some(last) if self.renumbered == 0 => {
                self.renumbered += 1;
                numbers.at_least(last);
                self.last = None;
                Refused::Number
            }
            Some(_) | None => Refused::Other,
        }
    }

    /// Forgets what was published: the key or the registration is new.
    pub(super) fn start_over(&mut self) {
        *self = Self { unknown: self.unknown, ..Self::default() };
    }
}

/// Takes note of a number that a refusal says must be exceeded.
pub(super) fn raise(numbers: &Numbers, words: &str) {
    if let Some(last) = higher_number(words) {
        numbers.at_least(last);
    }
}

/// "... is not above 17, the last one ...": what a registry says to a number that does not rise.
fn higher_number(words: &str) -> Option<RecordSeq> {
    let (_, rest) = words.split_once("is not above ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().map(RecordSeq)
}

fn record(node: NodeId, profile: &Profile, reached_from: Option<IpAddr>) -> NodeRecord {
    let mut endpoints: Vec<SocketAddr> = Vec::new();
    if !profile.relay_only {
        let advertised = profile.advertised(reached_from).and_then(|text| text.parse().ok());
        for endpoint in advertised.into_iter().chain(profile.observed) {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
    }
    NodeRecord {
        node,
        seq: RecordSeq::default(),
        hostname: profile.hostname.clone(),
        public: profile.public,
        relay_only: profile.relay_only,
        task_exec: profile.task_exec,
        endpoints,
        lan: if profile.relay_only { Vec::new() } else { profile.lan(reached_from) },
        tags: profile
            .tags
            .iter()
            .map(|tag| tag.trim_start_matches('#').to_owned())
            .take(RECORD_TAGS_MAX)
            .collect(),
        recovery: profile.recovery,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot_crypto::open_record;
    use pilot_wire::record::SignedRecord;

    const NODE: NodeId = NodeId(7);

    fn identity() -> Identity {
        Identity::from_seed(&[7; 32])
    }

    fn profile() -> Profile {
        Profile {
            hostname: "agent-a".to_owned(),
            tags: vec!["#web".to_owned()],
            listen: Some("127.0.0.1:40".parse().unwrap()),
            ..Profile::default()
        }
    }

    fn due(publication: &mut Publication, profile: &Profile, numbers: &Numbers) -> Option<NodeRecord> {
        let request = publication.due(NODE, profile, None, &identity(), numbers)?;
        let Request::PublishRecord(request) = request else { panic!("{request:?}") };
        let signed = SignedRecord::from_text(&request.record).unwrap();
        Some(open_record(&signed, &identity().public()).unwrap())
    }

    #[test]
    fn a_record_is_published_once_and_again_when_something_of_it_changes() {
        let (mut publication, numbers, mut profile) = (Publication::default(), Numbers::default(), profile());
        let first = due(&mut publication, &profile, &numbers).unwrap();
        assert_eq!((first.hostname.as_str(), &first.tags[..]), ("agent-a", &["web".to_owned()][..]));
        assert_eq!(first.endpoints, ["127.0.0.1:40".parse().unwrap()]);
        profile.public = true;
        assert_eq!(due(&mut publication, &profile, &numbers), None, "one after the other");
        publication.published();
        let second = due(&mut publication, &profile, &numbers).unwrap();
        assert!(second.public && second.seq > first.seq);
        publication.published();
        assert_eq!(due(&mut publication, &profile, &numbers), None);
    }

    #[test]
    fn a_registry_that_does_not_know_records_is_sent_no_more() {
        let (mut publication, numbers) = (Publication::default(), Numbers::default());
        due(&mut publication, &profile(), &numbers).unwrap();
        let words = "unknown message type: \"publish_record\"";
        assert_eq!(publication.refused(words, &numbers), Refused::Unknown);
        publication.start_over();
        assert_eq!(due(&mut publication, &profile(), &numbers), None);
    }

    #[test]
    fn a_name_that_is_taken_is_left_out_and_a_new_one_is_tried() {
        let (mut publication, numbers) = (Publication::default(), Numbers::default());
        due(&mut publication, &profile(), &numbers).unwrap();
        let words = "hostname \"agent-a\" already in use by node 9";
        assert_eq!(publication.refused(words, &numbers), Refused::Name);
        assert_eq!(due(&mut publication, &profile(), &numbers).unwrap().hostname, "");
        publication.published();
        let other = Profile { hostname: "agent-c".to_owned(), ..profile() };
        assert_eq!(due(&mut publication, &other, &numbers).unwrap().hostname, "agent-c");
    }

    #[test]
    fn a_number_that_was_too_low_is_raised_above_what_the_registry_has_seen() {
        let (mut publication, numbers) = (Publication::default(), Numbers::default());
        let first = due(&mut publication, &profile(), &numbers).unwrap();
        let seen = first.seq.0 + 5000;
        let words = format!("invalid number: 1 is not above {seen}, the last one; was the clock put back?");
        assert_eq!(publication.refused(&words, &numbers), Refused::Number);
        assert!(due(&mut publication, &profile(), &numbers).unwrap().seq.0 > seen);
        assert_eq!(publication.refused(&words, &numbers), Refused::Other, "not for ever");
        assert_eq!(due(&mut publication, &profile(), &numbers), None);
    }
}
