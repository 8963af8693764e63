//! Takes the defences of `docs/security.md` away, one by one, and wants to see the attack succeed: a test that stays green
//! without what it tests says nothing.
//!
//! It works in a copy of the checkout below `target/weakened`, with a build folder of its own. The list is
//! `crates/pilotctl/tests/attacks/defences.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Failure, cargo, during, output_of, root};

const LIST: &str = "crates/pilotctl/tests/attacks/defences.txt";

/// Longest run of one attack, its build included.
const PATIENCE: &str = "1800";

/// Which of them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only defences whose headline contains this
    only: Option<String>,
}

/// One defence, and what is to be seen without it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Defence {
    headline: String,
    file: String,
    was: String,
    now: String,
    attack: Attack,
}

/// A test that has to fail without the defence.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Attack {
    /// The test target that it is in.
    target: String,
    test: String,
}

/// What became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Held,
    Succeeded,
    /// There is no such test, or it was not built.
    NotRun,
}

/// Takes all of them away, and fails if that makes no difference to one.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let list = root().join(LIST);
    let text = fs::read_to_string(&list).map_err(during(format!("read {}", list.display())))?;
    let wanted = |defence: &Defence| args.only.as_ref().is_none_or(|only| defence.headline.contains(only));
    let defences: Vec<Defence> = parse(&text)?.into_iter().filter(wanted).collect();
    if defences.is_empty() {
        return Err(Failure::Check(format!("no such defence in {LIST}")));
    }
    let tree = root().join("target/weakened/tree");
    copy_to(&tree)?;
    // All of them first: whoever fails anyhow shows nothing.
    let attacks: BTreeSet<&Attack> = defences.iter().map(|defence| &defence.attack).collect();
    for attack in attacks {
        let with = attack.run(&tree)?;
        if with != Outcome::Held {
            return Err(Failure::Check(format!("{} does not pass as it is: {with:?}", attack.test)));
        }
    }
    let mut idle = Vec::new();
    for defence in &defences {
        let Defence { headline, attack, .. } = defence;
        println!("{headline}");
        let file = tree.join(&defence.file);
        let source = fs::read_to_string(&file).map_err(during(format!("read {}", file.display())))?;
        write(&file, &without(defence, &source)?)?;
        let outcome = attack.run(&tree);
        write(&file, &source)?;
        match outcome? {
            Outcome::Succeeded => println!("  without it {} fails, as it should", attack.test),
            Outcome::Held => {
                println!("  WITHOUT IT {} PASSES", attack.test);
                idle.push(headline.as_str());
            }
            Outcome::NotRun => return Err(Failure::Check(format!("without `{headline}` nothing is built"))),
        }
    }
    println!("{} defences taken away, {} not missed", defences.len(), idle.len());
    if idle.is_empty() { Ok(()) } else { Err(Failure::Check(format!("not missed: {}", idle.join("; ")))) }
}

fn parse(text: &str) -> Result<Vec<Defence>, Failure> {
    let bad = |line: &str| Failure::Check(format!("{LIST}: `{line}` is not understood"));
    let mut defences: Vec<Defence> = Vec::new();
    for block in text.split("\n\n").skip(1) {
        let mut defence = Defence::default();
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once(' ').ok_or_else(|| bad(line))?;
            let field = match key {
                "#" => &mut defence.headline,
                "in" => &mut defence.file,
                "was" => &mut defence.was,
                "now" => &mut defence.now,
                "red" => {
                    let (target, test) = value.split_once(' ').ok_or_else(|| bad(line))?;
                    defence.attack = Attack { target: target.to_owned(), test: test.to_owned() };
                    continue;
                }
                _ => return Err(bad(line)),
            };
            value.clone_into(field);
        }
        let Defence { headline, file, was, now, attack: Attack { target, test } } = &defence;
        if [headline, file, was, now, target, test].iter().any(|field| field.is_empty()) {
            return Err(bad(block));
        }
        defences.push(defence);
    }
    Ok(defences)
}

/// The source without the defence.
fn without(defence: &Defence, source: &str) -> Result<String, Failure> {
    match source.matches(&defence.was).count() {
        1 => Ok(source.replacen(&defence.was, &defence.now, 1)),
        count => Err(Failure::Check(format!(
            "`{}` is found {count} times in {}; {LIST} has to follow",
            defence.was, defence.file
        ))),
    }
}

/// What git knows of, as it is now. What is the same stays as it is, so that it is not built again.
fn copy_to(tree: &Path) -> Result<(), Failure> {
    let listed = output_of(Command::new("git").current_dir(root()).args(["ls-files"]))?;
    for name in listed.lines() {
        let (from, to) = (root().join(name), tree.join(name));
        let Ok(content) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|before| before == content) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(during(format!("create {}", folder.display())))?;
        }
        // With its permissions.
        fs::copy(&from, &to).map_err(during(format!("copy {name}")))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(during(format!("write {}", file.display())))
}

impl Attack {
    fn run(&self, tree: &Path) -> Result<Outcome, Failure> {
        let Self { target, test } = self;
        let program = cargo().get_program().to_owned();
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(program).current_dir(tree);
        command.args(["test", "--workspace", "--exclude", "pilot-bench", "--locked", "--test", target, test]);
        command.env("CARGO_TARGET_DIR", tree.with_file_name("build")).env("CARGO_INCREMENTAL", "0");
        let output = command.output().map_err(during("run the attacks"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(match (said.contains(&format!("{test} ... ok")), said.contains(&format!("{test} ... FAILED"))) {
            (true, false) => Outcome::Held,
            (false, true) => Outcome::Succeeded,
            (false, false) | (true, true) => {
                println!("{}", String::from_utf8_lossy(&output.stderr));
                Outcome::NotRun
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defence_of_the_list_is_found_once() {
        let text = fs::read_to_string(root().join(LIST)).unwrap();
        let defences = parse(&text).unwrap();
        assert!(defences.len() > 10);
        for defence in defences {
            let source = fs::read_to_string(root().join(&defence.file)).unwrap();
            let weakened = without(&defence, &source).unwrap_or_else(|error| panic!("{error}"));
            assert_ne!(weakened, source);
        }
    }
}
