//! Whether a version that `Cargo.lock` names has been taken back by its authors. Needs the registry, and no other tool.
//!
//! Cargo leaves a yanked version alone where a lock file names it, and refuses it where none does. So an empty package is
//! made that wants exactly the versions of ours, without a lock file.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::packages::{Name, checksums};
use crate::{Failure, cargo, during, root};

/// As many are named before the check gives up.
const NAMED: usize = 20;

/// Refuses a lock file with yanked versions.
pub(crate) fn check() -> Result<(), Failure> {
    let mut left: BTreeSet<Name> = checksums()?.into_keys().collect();
    let total = left.len();
    let mut yanked = Vec::new();
    while yanked.len() < NAMED {
        match refused(&left)? {
            Some(name) if left.remove(&name) => yanked.push(format!("{} {}", name.0, name.1)),
            Some((name, version)) => {
                return Err(Failure::Check(format!(
                    "cargo refuses {name} {version}, which nobody asked for"
                )));
            }
            None => break,
        }
    }
    println!("{total} versions, {} yanked", yanked.len());
    if yanked.is_empty() {
        return Ok(());
    }
    Err(Failure::Check(format!("yanked: {}; `cargo update -p NAME` takes another", yanked.join(", "))))
}

/// Asks cargo for all of them and says which it refuses first.
fn refused(names: &BTreeSet<Name>) -> Result<Option<Name>, Failure> {
    let folder = root().join("target/yanked");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(during(format!("remove {}", folder.display()))(error));
        }
        Ok(()) | Err(_) => {}
    }
    let source = folder.join("src");
    fs::create_dir_all(&source).map_err(during(format!("make {}", source.display())))?;
    for (path, text) in [(folder.join("Cargo.toml"), manifest(names)), (source.join("lib.rs"), String::new())]
    {
        fs::write(&path, text).map_err(during(format!("write {}", path.display())))?;
    }
    let mut command = cargo();
    let command: &mut Command = command.current_dir(&folder).args(["generate-lockfile", "--color", "never"]);
    let output = command.output().map_err(during("run cargo generate-lockfile"))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    named(&said).map(Some).ok_or_else(|| {
        Failure::Check(format!(
            "cargo does not say which versions are yanked (is the registry reached?):\n{said}"
        ))
    })
}

fn manifest(names: &BTreeSet<Name>) -> String {
    let mut text =
        String::from("[package]\nname = \"yanked\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n");
    for (number, (name, version)) in names.iter().enumerate() {
        let _ = writeln!(
            text,
            "d{number} = {{ package = \"{name}\", version = \"={version}\", default-features = false }}"
        );
    }
    text
}

/// ```text
/// error: failed to select a version for the requirement `name = "=1.2.3"`
///   version 1.2.3 is yanked
/// ```
fn named(said: &str) -> Option<Name> {
    let (_, rest) = said.split_once("for the requirement `")?;
    let (requirement, rest) = rest.split_once('`')?;
    let (name, version) = requirement.split_once(" = \"=")?;
    let version = version.strip_suffix('"')?;
    rest.contains(&format!("version {version} is yanked")).then(|| (name.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_cargo_refuses_is_named_and_other_failures_are_not_taken_for_that() {
        let said = "error: failed to select a version for the requirement `futures-util = \"=0.3.30\"`\n  \
                    version 0.3.30 is yanked\nlocation searched: crates.io index\n";
        assert_eq!(named(said), Some(("futures-util".into(), "0.3.30".into())));
        let other = said.replace("is yanked", "requires rustc 2.0");
        assert_eq!(named(&other), None);
        assert_eq!(named("error: failed to download from `https://index`"), None);
    }

    #[test]
    fn exactly_these_versions_are_asked_for() {
        let names =
            BTreeSet::from([("a".to_owned(), "1.0.0".to_owned()), ("a".to_owned(), "2.0.0".to_owned())]);
        let text = manifest(&names);
        assert!(
            text.contains("d0 = { package = \"a\", version = \"=1.0.0\", default-features = false }"),
            "{text}"
        );
        assert!(
            text.contains("d1 = { package = \"a\", version = \"=2.0.0\", default-features = false }"),
            "{text}"
        );
    }
}
