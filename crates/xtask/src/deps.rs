//! Keeps dependencies few: those of the core, which is free of runtimes and sockets, are a committed list, and so are
//! those of the executable with the features that they are built with.

use std::collections::BTreeSet;
use std::fs;

use crate::packages::{Edges, Tree};
use crate::{Failure, cargo, during, output_of, root};

/// Crates whose dependencies are listed beside their manifest in `dependencies.txt`.
const WATCHED: [(&str, &str); 2] = [("pilot-proto", "crates/proto"), ("pilot-wire", "crates/wire")];

/// Where the packages and features of the executable are listed.
const EXECUTABLE: &str = "crates/pilotctl/dependencies.txt";

/// For which the executable's list is made. Other systems differ in a few crates that stand for the system.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Compares the dependency lists with the committed ones, or writes them.
pub(crate) fn run(write: bool) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for (package, folder) in WATCHED {
        let now = dependencies(package)?;
        wrong.extend(compare(&format!("{folder}/dependencies.txt"), package, &now, write)?);
    }
    let tree = Tree::of_pilotctl(TARGET, Edges::Built)?;
    let now = tree.features.iter().map(|((name, _), features)| {
        let features: Vec<&str> = features.iter().map(String::as_str).collect();
        format!("{name} {}", features.join(",")).trim_end().to_owned()
    });
    wrong.extend(compare(EXECUTABLE, "pilotctl", &now.collect(), write)?);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::Check(format!(
        "{}; if that is meant, run `cargo xtask deps --write` and say why in the commit",
        wrong.join(", ")
    )))
}

/// What a list has too much or too little; or writes it.
fn compare(list: &str, package: &str, now: &BTreeSet<String>, write: bool) -> Result<Vec<String>, Failure> {
    let file = root().join(list);
    if write {
        let text = now.iter().map(|line| format!("{line}\n")).collect::<String>();
        fs::write(&file, text).map_err(during(format!("write {}", file.display())))?;
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&file).map_err(during(format!("read {}", file.display())))?;
    let listed: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let gained = now.difference(&listed).map(|line| format!("{package} gained `{line}`"));
    let lost = listed.difference(now).map(|line| format!("{package} lost `{line}`"));
    Ok(gained.chain(lost).collect())
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
