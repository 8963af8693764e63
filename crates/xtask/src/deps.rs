//! Keeps the core free of runtimes and sockets: its dependencies are a committed list.

use std::collections::BTreeSet;
use std::fs;

use crate::{Failure, cargo, during, output_of, root};

/// Crates whose dependencies are listed beside their manifest in `dependencies.txt`.
const WATCHED: [(&str, &str); 2] = [("pilot-proto", "crates/proto"), ("pilot-wire", "crates/wire")];

/// Compares the dependency lists with the committed ones, or writes them.
pub(crate) fn run(write: bool) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for (package, folder) in WATCHED {
        let file = root().join(folder).join("dependencies.txt");
        let now = dependencies(package)?;
        if write {
            let text = now.iter().map(|name| format!("{name}\n")).collect::<String>();
            fs::write(&file, text).map_err(during(format!("write {}", file.display())))?;
            continue;
        }
        let text = fs::read_to_string(&file).map_err(during(format!("read {}", file.display())))?;
        let listed: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        wrong.extend(now.difference(&listed).map(|name| format!("{package} gained `{name}`")));
        wrong.extend(listed.difference(&now).map(|name| format!("{package} lost `{name}`")));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::Check(format!(
        "{}; if that is meant, run `cargo xtask deps --write` and say why in the commit",
        wrong.join(", ")
    )))
}

/// Names of all normal dependencies of a package, without versions.
fn dependencies(package: &str) -> Result<BTreeSet<String>, Failure> {
    let tree = output_of(cargo().args(["tree", "--package", package, "--edges", "normal"]).args([
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--locked",
        "--target",
        "x86_64-unknown-linux-gnu",
    ]))?;
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    Ok(names.filter(|name| !name.is_empty() && *name != package).map(str::to_owned).collect())
}
