//! Checks the licence of every dependency against the list in `deny.toml`.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::{Failure, cargo, during, output_of, root};

/// Refuses any dependency that cannot be used under an allowed licence.
pub(crate) fn check() -> Result<(), Failure> {
    let file = root().join("deny.toml");
    let policy = fs::read_to_string(&file).map_err(during(format!("read {}", file.display())))?;
    let allowed = allowed(&policy);
    let metadata = output_of(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata)
        .map_err(|error| Failure::Check(format!("cargo metadata: {error}")))?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["source"].is_null())
        .filter(|package| !satisfied(package["license"].as_str().unwrap_or_default(), &allowed))
        .map(|package| format!("{} ({})", package["name"], package["license"]))
        .collect();
    println!("{} packages, {} licences allowed", packages.len(), allowed.len());
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Failure::Check(format!("licence of {}", refused.join(", "))))
    }
}

/// The strings of the `allow` list under `[licenses]`.
fn allowed(policy: &str) -> BTreeSet<String> {
    let licences = policy.split_once("\n[licenses]").map_or("", |(_, rest)| rest);
    let list = licences.split_once("allow = [").map_or("", |(_, rest)| rest);
    let list = list.split_once(']').map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether one of the alternatives of an SPDX expression is allowed as a whole.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let satisfied = alternatives(&mut rest, allowed);
    satisfied && rest.is_empty()
}

/// `term OR term ..`
fn alternatives(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut satisfied = conjunction(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        satisfied |= conjunction(words, allowed);
    }
    satisfied
}

/// `licence AND licence ..`
fn conjunction(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut satisfied = licence(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        satisfied &= licence(words, allowed);
    }
    satisfied
}

/// A name, a name with an exception, or a bracketed expression.
fn licence(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let satisfied = alternatives(words, allowed);
            if let [")", rest @ ..] = *words {
                *words = rest;
            }
            satisfied
        }
        [name, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{name} WITH {exception}"))
        }
        [name, rest @ ..] => {
            *words = rest;
            allowed.contains(*name)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissive() -> BTreeSet<String> {
        allowed(
            "[graph]\n[licenses]\nallow = [\n \"MIT\",\n \"Apache-2.0\",\n \"ISC\",\n]\n[bans]\nallow = [\"GPL-3.0\"]",
        )
    }

    #[test]
    fn only_the_licence_list_of_the_policy_is_read() {
        assert_eq!(permissive().into_iter().collect::<Vec<_>>(), ["Apache-2.0", "ISC", "MIT"]);
    }

    #[test]
    fn one_allowed_alternative_is_enough_and_every_conjunct_is_needed() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("Apache-2.0 AND ISC", true),
            ("Apache-2.0 AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND ISC", true),
            ("(GPL-3.0 OR MPL-2.0) AND ISC", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", false),
            ("", false),
            ("MIT extra", false),
        ] {
            assert_eq!(satisfied(expression, &permissive()), expected, "{expression}");
        }
    }
}
