//! What may be said about a target.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::PortSet;
use crate::Port;
use crate::events::Pattern;

/// Rules for one target. What is not set is decided by less specific targets, and by default in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Ports of this node that it may reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRules>,
    /// Topics about which it may publish here. No pattern: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Topics>,
    /// Topics whose events it may hear from here. No pattern: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Topics>,
    /// Messages and files a minute; so many may also come at once. More make it wait. 0: none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_min: Option<Limit>,
    /// Bytes of messages and files a minute; so many may also come at once. More make it wait. 0: none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_min: Option<Limit>,
    /// Longest message, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_message: Option<Limit>,
    /// Longest file, in bytes. 0: no files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file: Option<Limit>,
    /// Whether it may ask for answers with a deadline (requests).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<bool>,
    /// Whether it may give tasks to this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<bool>,
    /// Whether this node may keep messages for it or from it as a mailbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<bool>,
    /// Automatic answers in a row after which a message is not answered automatically any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hops: Option<u8>,
    /// Automatic answers to it a minute; twice as many may be given at once. More wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_answers_per_min: Option<Limit>,
}

/// One field of [`Rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the field of the same name")]
pub enum Field {
    Ports,
    Publish,
    Subscribe,
    MessagesPerMin,
    BytesPerMin,
    MaxMessage,
    MaxFile,
    Requests,
    Tasks,
    Mailbox,
    MaxHops,
    AutoAnswersPerMin,
}

impl Field {
    /// All of them with their names, in the order of [`Rules`].
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Ports, "ports"),
        (Self::Publish, "publish"),
        (Self::Subscribe, "subscribe"),
        (Self::MessagesPerMin, "messages_per_min"),
        (Self::BytesPerMin, "bytes_per_min"),
        (Self::MaxMessage, "max_message"),
        (Self::MaxFile, "max_file"),
        (Self::Requests, "requests"),
        (Self::Tasks, "tasks"),
        (Self::Mailbox, "mailbox"),
        (Self::MaxHops, "max_hops"),
        (Self::AutoAnswersPerMin, "auto_answers_per_min"),
    ];

    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(field, _)| *field)
    }
}

impl Rules {
    /// Whether they say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what the others say, and keeps the rest.
    pub fn merge(&mut self, others: Self) {
        fn take<T>(mine: &mut Option<T>, theirs: Option<T>) {
            if theirs.is_some() {
                *mine = theirs;
            }
        }
        take(&mut self.ports, others.ports);
        take(&mut self.publish, others.publish);
        take(&mut self.subscribe, others.subscribe);
        take(&mut self.messages_per_min, others.messages_per_min);
        take(&mut self.bytes_per_min, others.bytes_per_min);
        take(&mut self.max_message, others.max_message);
        take(&mut self.max_file, others.max_file);
        take(&mut self.requests, others.requests);
        take(&mut self.tasks, others.tasks);
        take(&mut self.mailbox, others.mailbox);
        take(&mut self.max_hops, others.max_hops);
        take(&mut self.auto_answers_per_min, others.auto_answers_per_min);
    }

    /// Says nothing about this field any more.
    pub fn clear(&mut self, field: Field) {
        match field {
            Field::Ports => self.ports = None,
            Field::Publish => self.publish = None,
            Field::Subscribe => self.subscribe = None,
            Field::MessagesPerMin => self.messages_per_min = None,
            Field::BytesPerMin => self.bytes_per_min = None,
            Field::MaxMessage => self.max_message = None,
            Field::MaxFile => self.max_file = None,
            Field::Requests => self.requests = None,
            Field::Tasks => self.tasks = None,
            Field::Mailbox => self.mailbox = None,
            Field::MaxHops => self.max_hops = None,
            Field::AutoAnswersPerMin => self.auto_answers_per_min = None,
        }
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// What a target's rules say of ports; less specific rules decide on those they do not speak of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortRules {
    /// Allowed.
    #[serde(skip_serializing_if = "PortSet::is_empty")]
    pub allow: PortSet,
    /// Denied, even if they are among the allowed.
    #[serde(skip_serializing_if = "PortSet::is_empty")]
    pub deny: PortSet,
    /// What holds for all other ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<Verdict>,
}

impl PortRules {
    /// These ports and no others.
    #[must_use]
    pub fn only(ports: PortSet) -> Self {
        Self { allow: ports, deny: PortSet::default(), others: Some(Verdict::Deny) }
    }

    /// What they say of a port.
    #[must_use]
    pub fn verdict(&self, port: Port) -> Option<Verdict> {
        if self.deny.contains(port) {
            Some(Verdict::Deny)
        } else if self.allow.contains(port) {
            Some(Verdict::Allow)
        } else {
            self.others
        }
    }

    /// Says something about these ports, whatever they said before.
    pub fn decide(&mut self, verdict: Verdict, ports: &PortSet) {
        self.forget(ports);
        match verdict {
            Verdict::Allow => self.allow.insert(ports),
            Verdict::Deny => self.deny.insert(ports),
        }
    }

    /// Says nothing in particular about these ports any more.
    pub fn forget(&mut self, ports: &PortSet) {
        self.allow.remove(ports);
        self.deny.remove(ports);
    }

    /// Whether they say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// For people: `only 80,443` or `not 22`.
impl fmt::Display for PortRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match (self.others, self.allow.is_empty()) {
            (Some(Verdict::Deny), _) => parts.push(format!("only {}", self.allow)),
            (Some(Verdict::Allow), _) => parts.push("all".to_owned()),
            (None, false) => parts.push(format!("allow {}", self.allow)),
            (None, true) => {}
        }
        if !self.deny.is_empty() {
            parts.push(format!("deny {}", self.deny));
        }
        f.write_str(&parts.join(", "))
    }
}

/// How much of something; in JSON a number or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// So much and no more.
    Of(u64),
    /// Any amount.
    Unlimited,
}

impl Limit {
    /// Whether so much is within the limit.
    #[must_use]
    pub const fn allows(self, amount: u64) -> bool {
        match self {
            Self::Of(most) => amount <= most,
            Self::Unlimited => true,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(most) => most.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// `600`, `64KB`, `10MB`, `1GB` (powers of 1024), `unlimited`.
impl FromStr for Limit {
    type Err = ParseLimitError;

    fn from_str(text: &str) -> Result<Self, ParseLimitError> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        let bad = || ParseLimitError(text.to_owned());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" => 10,
            "M" | "MB" => 20,
            "G" | "GB" => 30,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self::Of).ok_or_else(bad)
    }
}

/// Text that is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no limit: write a number, one with KB, MB or GB, or `unlimited`")]
pub struct ParseLimitError(String);

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(most) => serializer.serialize_u64(*most),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Self::Of(number)),
            Form::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// Patterns in one list.
pub const TOPICS_MAX: usize = 64;

/// Topic patterns; a topic is among them when one matches it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topics(Vec<Pattern>);

impl Topics {
    /// The patterns of these texts.
    ///
    /// # Errors
    /// When there are more than [`TOPICS_MAX`].
    pub fn new<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Result<Self, TooManyTopics> {
        let patterns: Vec<Pattern> = texts.into_iter().take(TOPICS_MAX + 1).map(Pattern::new).collect();
        if patterns.len() > TOPICS_MAX { Err(TooManyTopics) } else { Ok(Self(patterns)) }
    }

    /// Whether the topic is among them.
    #[must_use]
    pub fn allows(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether no topic is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A list of patterns is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {TOPICS_MAX} patterns in one list")]
pub struct TooManyTopics;

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(Pattern::as_str).collect();
        if texts.is_empty() { f.write_str("none") } else { f.write_str(&texts.join(",")) }
    }
}

impl Serialize for Topics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Pattern::as_str))
    }
}

impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<String>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_units() {
        for (text, limit) in [
            ("0", Limit::Of(0)),
            ("600", Limit::Of(600)),
            ("64KB", Limit::Of(64 << 10)),
            ("10mb", Limit::Of(10 << 20)),
            ("1G", Limit::Of(1 << 30)),
            ("unlimited", Limit::Unlimited),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for bad in ["", "-1", "x", "10TB", "99999999999999999999", "18446744073709551615KB", "KB"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&[Limit::Of(5), Limit::Unlimited]).unwrap(), r#"[5,"unlimited"]"#);
    }

    #[test]
    fn a_denied_port_is_denied_even_if_it_is_allowed_too() {
        let rules = PortRules { allow: "80-90".parse().unwrap(), deny: "85".parse().unwrap(), others: None };
        assert_eq!(rules.verdict(Port(80)), Some(Verdict::Allow));
        assert_eq!(rules.verdict(Port(85)), Some(Verdict::Deny));
        assert_eq!(rules.verdict(Port(91)), None);
        assert_eq!(PortRules::only("80".parse().unwrap()).verdict(Port(91)), Some(Verdict::Deny));
    }

    #[test]
    fn every_field_has_a_name_and_can_be_set_and_cleared() {
        let text = r#"{"ports":{"allow":"80","others":"deny"},"publish":["a.*"],"subscribe":[],"messages_per_min":60,
            "bytes_per_min":"unlimited","max_message":1024,"max_file":0,"requests":false,"tasks":false,
            "mailbox":true,"max_hops":2,"auto_answers_per_min":10}"#;
        let rules: Rules = serde_json::from_str(text).unwrap();
        let json = serde_json::to_value(&rules).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Field::ALL.len());
        let mut merged = Rules::default();
        merged.merge(rules.clone());
        assert_eq!(merged, rules);
        for (field, name) in Field::ALL {
            assert_eq!(Field::named(name), Some(field));
            assert!(json.get(name).is_some(), "{name}");
            assert_eq!(serde_json::to_value(field).unwrap(), name);
            merged.clear(field);
        }
        assert!(merged.is_empty());
        assert!(serde_json::from_str::<Rules>(r#"{"port":1}"#).is_err(), "unknown keys are not overlooked");
    }
}
