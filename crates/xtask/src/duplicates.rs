//! Two versions of one crate cost build time and size: each pair is in `deny.toml` with a reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::packages::Name;
use crate::policy::{Policy, Skipped};
use crate::{Failure, cargo, output_of};

/// Refuses a pair of versions that `deny.toml` does not argue for, and an argument for what is not there any more.
pub(crate) fn check() -> Result<(), Failure> {
    let policy = Policy::read()?;
    let mut present: BTreeSet<Name> = BTreeSet::new();
    for target in &policy.targets {
        // What is compiled anywhere here, benchmarks and tests included; a lock file names more than that.
        let tree = output_of(
            cargo()
                .args(["tree", "--workspace", "--locked", "--target", target, "--edges", "normal,build,dev"])
                .args(["--prefix", "none", "--format", "{p}"]),
        )?;
        present.extend(tree.lines().filter_map(name_in));
    }
    let wrong = compare(&present, &policy.skipped);
    println!("{} crates, {} second versions, each with a reason", present.len(), policy.skipped.len());
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Check(wrong.join("; "))) }
}

/// `name v1.0.0 (proc-macro)`
fn name_in(line: &str) -> Option<Name> {
    let mut words = line.split(' ');
    Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
}

fn compare(present: &BTreeSet<Name>, skipped: &[Skipped]) -> Vec<String> {
    let skipped: BTreeSet<Name> =
        skipped.iter().map(|skipped| (skipped.name.clone(), skipped.version.clone())).collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in present.difference(&skipped) {
        versions.entry(&package.0).or_default().push(&package.1);
    }
    let several = versions.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, versions)| {
        let versions = versions.join(" and ");
        format!("{name} is there as {versions}: `cargo tree -i {name}@..` shows why; make it one, or say in deny.toml why not")
    });
    let gone = skipped.difference(present).map(|(name, version)| {
        format!("deny.toml has a reason for {name} {version}, which is not there any more")
    });
    several.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_version_needs_a_reason_and_a_reason_a_second_version() {
        let present = [("a", "1.0.0"), ("a", "2.0.0"), ("b", "1.0.0")];
        let present: BTreeSet<Name> = present.map(|(name, version)| (name.into(), version.into())).into();
        let skip = |name: &str, version: &str| Skipped { name: name.into(), version: version.into() };
        assert_eq!(compare(&present, &[skip("a", "1.0.0")]), [""; 0]);
        let wrong = compare(&present, &[]);
        assert!(wrong.len() == 1 && wrong[0].starts_with("a is there as 1.0.0 and 2.0.0"), "{wrong:?}");
        let wrong = compare(&present, &[skip("a", "1.0.0"), skip("c", "1.0.0")]);
        assert_eq!(wrong, ["deny.toml has a reason for c 1.0.0, which is not there any more"]);
    }
}
