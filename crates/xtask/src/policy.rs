//! The parts of `deny.toml` that are checked without cargo-deny. Its form is fixed: one entry in a line.

use std::collections::BTreeSet;
use std::fs;

use crate::{Failure, during, root};

/// What `deny.toml` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// For which machines dependencies are looked at.
    pub(crate) targets: Vec<String>,
    /// The licences that are allowed.
    pub(crate) licences: BTreeSet<String>,
    /// Second versions of crates.
    pub(crate) skipped: Vec<Skipped>,
}

/// A version of a crate beside which there may be another one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Policy {
    /// Reads the file.
    pub(crate) fn read() -> Result<Self, Failure> {
        let file = root().join("deny.toml");
        let text = fs::read_to_string(&file).map_err(during(format!("read {}", file.display())))?;
        Self::parse(&text).map_err(|why| Failure::Check(format!("deny.toml: {why}")))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let strings = |section: &str, key: &str| {
            list(text, section, key).split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        };
        let entries = list(text, "bans", "skip").lines().map(str::trim).filter(|line| line.starts_with('{'));
        let skipped =
            entries.map(|line| entry(line).ok_or_else(|| format!("no version or no reason: {line}")));
        Ok(Self {
            targets: strings("graph", "targets"),
            licences: strings("licenses", "allow").into_iter().collect(),
            skipped: skipped.collect::<Result<_, _>>()?,
        })
    }
}

/// What is between the brackets of `key = [..]` in a section.
fn list<'t>(text: &'t str, section: &str, key: &str) -> &'t str {
    let (_, section) = text.split_once(&format!("[{section}]\n")).unwrap_or_default();
    let section = section.split_once("\n[").map_or(section, |(section, _)| section);
    let (_, list) = section.split_once(&format!("{key} = [")).unwrap_or_default();
    list.split_once(']').map_or(list, |(list, _)| list)
}

/// `{ crate = "name@version", reason = "because" },`
fn entry(line: &str) -> Option<Skipped> {
    let mut strings = line.split('"').skip(1).step_by(2);
    let (name, version) = strings.next()?.split_once('@')?;
    let reason = line.contains("reason = \"").then(|| strings.next())??;
    (!reason.is_empty()).then(|| Skipped { name: name.to_owned(), version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_the_policy_are_read_each_from_its_section() {
        let policy = Policy::parse(
            "[graph]\ntargets = [\"x\", \"y\"]\n[licenses]\nallow = [\n \"MIT\",\n \"ISC\",\n]\n[bans]\n\
             allow = [\"GPL-3.0\"]\nskip = [\n # Why\n { crate = \"a@1.0.0\", reason = \"b needs it\" },\n]\n",
        );
        let policy = policy.unwrap();
        assert_eq!(policy.targets, ["x", "y"]);
        assert_eq!(policy.licences.into_iter().collect::<Vec<_>>(), ["ISC", "MIT"]);
        assert_eq!(policy.skipped, [Skipped { name: "a".into(), version: "1.0.0".into() }]);
    }

    #[test]
    fn a_second_version_without_a_reason_is_refused() {
        for line in [
            "{ crate = \"a@1.0.0\" },",
            "{ crate = \"a\", reason = \"b\" },",
            "{ crate = \"a@1\", reason = \"\" },",
        ] {
            let text = format!("[bans]\nskip = [\n {line}\n]\n");
            assert!(Policy::parse(&text).is_err(), "{line}");
        }
    }
}
