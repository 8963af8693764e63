//! Checks the licence of every dependency against the list in `deny.toml`.

use std::collections::BTreeSet;

use crate::Failure;
use crate::packages::{metadata, packages};
use crate::policy::Policy;

/// Refuses any dependency that cannot be used under an allowed licence.
pub(crate) fn check() -> Result<(), Failure> {
    let allowed = Policy::read()?.licences;
    let metadata = metadata()?;
    let packages = packages(&metadata);
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
        ["MIT", "Apache-2.0", "ISC"].map(str::to_owned).into()
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
