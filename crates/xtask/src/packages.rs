//! What cargo says of the packages that this workspace is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::{Failure, cargo, during, output_of, root};

/// Name and version.
pub(crate) type Name = (String, String);

/// All packages that `Cargo.lock` names, as `cargo metadata` shows them.
pub(crate) fn metadata() -> Result<Value, Failure> {
    serde_json::from_str(&output_of(cargo().args(["metadata", "--format-version", "1", "--locked"]))?)
        .map_err(|error| Failure::Check(format!("cargo metadata: {error}")))
}

/// The packages of a metadata document.
pub(crate) fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Name and version of a package.
pub(crate) fn name(package: &Value) -> Name {
    let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
    (text("name"), text("version"))
}

/// The checksums that `Cargo.lock` has for what comes from a registry.
pub(crate) fn checksums() -> Result<BTreeMap<Name, String>, Failure> {
    let file = root().join("Cargo.lock");
    let text = fs::read_to_string(&file).map_err(during(format!("read {}", file.display())))?;
    Ok(locked(&text))
}

fn locked(text: &str) -> BTreeMap<Name, String> {
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
        line.strip_suffix('"').map(str::to_owned)
    };
    let packages = text.split("[[package]]").skip(1);
    packages
        .filter_map(|package| {
            Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
        })
        .collect()
}

/// What a build of `pilotctl` takes part in: packages, their features, and which needs which.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// What each needs.
    pub(crate) needs: BTreeMap<Name, BTreeSet<Name>>,
    /// With which features each is built.
    pub(crate) features: BTreeMap<Name, BTreeSet<String>>,
}

/// Whether what runs during the build only, build scripts and macros, belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edges {
    /// All that is compiled.
    Built,
    /// Only what is linked into the executable.
    Linked,
}

impl Tree {
    /// As `cargo tree` resolves it for a release: `pilotctl` alone, its default features, one target.
    pub(crate) fn of_pilotctl(target: &str, edges: Edges) -> Result<Self, Failure> {
        let edges = match edges {
            Edges::Built => "normal,build",
            Edges::Linked => "normal,no-proc-macro",
        };
        let text = output_of(
            cargo()
                .args(["tree", "--package", "pilotctl", "--locked", "--target", target])
                .args(["--edges", edges, "--prefix", "depth", "--format", " {p}|{f}"]),
        )?;
        Self::parse(&text)
            .ok_or_else(|| Failure::Check("`cargo tree` prints what this program does not know".into()))
    }

    /// Lines such as `2 name v1.0.0 (proc-macro)|feature,feature (*)`. What was shown before has no lines below it again.
    fn parse(text: &str) -> Option<Self> {
        let mut tree = Self::default();
        let mut above: Vec<Name> = Vec::new();
        for line in text.lines() {
            let (depth, rest) = line.split_once(' ')?;
            let depth: usize = depth.parse().ok()?;
            let (package, features) = rest.split_once('|')?;
            let mut words = package.split(' ').filter(|word| !word.is_empty());
            let name = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
            let features = features.trim_end_matches(" (*)").split(',').filter(|feature| !feature.is_empty());
            let features = features.map(str::to_owned);
            tree.features.entry(name.clone()).or_default().extend(features);
            tree.needs.entry(name.clone()).or_default();
            above.truncate(depth);
            if let Some(parent) = above.last() {
                tree.needs.entry(parent.clone()).or_default().insert(name.clone());
            }
            above.push(name);
        }
        (!tree.needs.is_empty()).then_some(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, version: &str) -> Name {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn a_tree_is_read_with_what_needs_what_and_with_which_features() {
        let text = "0 pilotctl v0.1.0 (/some where/of mine/pilotctl)|\n\
                    1 a v1.0.0|std\n\
                    2 b v0.2.0 (proc-macro)|default,std (*)\n\
                    1 b v0.2.0 (proc-macro)|default,full\n\
                    2 c v3.0.0| (*)\n";
        let tree = Tree::parse(text).unwrap();
        let needs = |of: &Name| tree.needs[of].iter().cloned().collect::<Vec<_>>();
        assert_eq!(needs(&name("pilotctl", "0.1.0")), [name("a", "1.0.0"), name("b", "0.2.0")]);
        assert_eq!(needs(&name("a", "1.0.0")), [name("b", "0.2.0")]);
        assert_eq!(needs(&name("b", "0.2.0")), [name("c", "3.0.0")]);
        let features: Vec<_> = tree.features[&name("b", "0.2.0")].iter().map(String::as_str).collect();
        assert_eq!(features, ["default", "full", "std"]);
        assert!(tree.features[&name("pilotctl", "0.1.0")].is_empty());
        assert_eq!(Tree::parse("nothing of the kind"), None);
        assert_eq!(Tree::parse(""), None);
    }

    #[test]
    fn checksums_are_those_of_what_comes_from_a_registry() {
        let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
        assert_eq!(locked(text), BTreeMap::from([(name("a", "1.0.0"), "00ff".to_owned())]));
    }
}
