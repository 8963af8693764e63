//! `key=value` of `pilotctl policy set`.

use pilot_client::policy::{Field, Limit, PortRules, PortSet, Rules, Topics};

use crate::failure::Failure;

/// A length in bytes, with a unit if one likes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    match text.parse::<Limit>().map_err(|error| error.to_string())? {
        Limit::Of(bytes) => Ok(bytes),
        Limit::Unlimited => Ok(u64::MAX),
    }
}

/// A key by its name.
pub(super) fn field(name: &str) -> Result<Field, Failure> {
    Field::named(name).ok_or_else(|| {
        let all: Vec<&str> = Field::ALL.iter().map(|(_, name)| *name).collect();
        Failure::usage(format!("there is no rule `{name}`")).hint(format!("there are: {}", all.join(", ")))
    })
}

/// All pairs of a line.
pub(super) fn rules(pairs: &[String]) -> Result<Rules, Failure> {
    let mut rules = Rules::default();
    for pair in pairs {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Failure::usage(format!("`{pair}` is not key=value")).hint("such as max_message=1MB")
        })?;
        set(&mut rules, field(key)?, key, value)?;
    }
    Ok(rules)
}

fn set(rules: &mut Rules, field: Field, key: &str, value: &str) -> Result<(), Failure> {
    match field {
        Field::Ports => rules.ports = Some(ports(key, value)?),
        Field::Publish => rules.publish = Some(topics(key, value)?),
        Field::Subscribe => rules.subscribe = Some(topics(key, value)?),
        Field::MessagesPerMin => rules.messages_per_min = Some(limit(key, value)?),
        Field::BytesPerMin => rules.bytes_per_min = Some(limit(key, value)?),
        Field::MaxMessage => rules.max_message = Some(limit(key, value)?),
        Field::MaxFile => rules.max_file = Some(limit(key, value)?),
        Field::Requests => rules.requests = Some(flag(key, value)?),
        Field::Tasks => rules.tasks = Some(flag(key, value)?),
        Field::Mailbox => rules.mailbox = Some(flag(key, value)?),
        Field::MaxHops => {
            let hops = value.parse().map_err(|_| wrong(key, "a number from 0 to 255"))?;
            rules.max_hops = Some(hops);
        }
        Field::AutoAnswersPerMin => rules.auto_answers_per_min = Some(limit(key, value)?),
    }
    Ok(())
}

fn wrong(key: &str, expected: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{key}: {expected}"))
}

fn ports(key: &str, value: &str) -> Result<PortRules, Failure> {
    let ports: PortSet = value.parse().map_err(|error| wrong(key, error))?;
    Ok(PortRules::only(ports))
}

fn topics(key: &str, value: &str) -> Result<Topics, Failure> {
    let patterns: Vec<&str> = match value {
        "none" => Vec::new(),
        "all" => vec!["*"],
        list => list.split(',').collect(),
    };
    if patterns.iter().any(|pattern| pattern.is_empty()) {
        return Err(wrong(key, "topics and patterns with commas between them, `none`, or `*` for all"));
    }
    Topics::new(patterns).map_err(|error| wrong(key, error))
}

fn limit(key: &str, value: &str) -> Result<Limit, Failure> {
    value.parse().map_err(|error| wrong(key, error))
}

fn flag(key: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err(wrong(key, "yes or no")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[&str]) -> Result<Rules, Failure> {
        rules(&pairs.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn every_key_is_read() {
        let rules = read(&[
            "ports=80,443",
            "publish=a.*,b",
            "subscribe=none",
            "messages_per_min=600",
            "bytes_per_min=10MB",
            "max_message=1MB",
            "max_file=unlimited",
            "requests=no",
            "tasks=off",
            "mailbox=yes",
            "max_hops=2",
            "auto_answers_per_min=5",
        ])
        .unwrap();
        let json = serde_json::to_value(&rules).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Field::ALL.len(), "{json}");
        assert_eq!(json["publish"], serde_json::json!(["a.*", "b"]));
        assert_eq!(json["max_message"], 1 << 20);
        assert_eq!(json["ports"], serde_json::json!({"allow": "80,443", "others": "deny"}));
    }

    #[test]
    fn slips_of_the_pen_are_refused_and_explained() {
        for bad in
            ["ports", "ports=x", "max_mesage=1", "tasks=maybe", "max_hops=999", "publish=", "max_file=1TB"]
        {
            assert_eq!(read(&[bad]).unwrap_err().code, crate::failure::Code::InvalidArgument, "{bad}");
        }
        assert!(read(&["max_mesage=1"]).unwrap_err().hint.unwrap().contains("max_message"));
    }
}
