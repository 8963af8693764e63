//! What a release of `pilotctl` is made of, in the words of CycloneDX 1.5 (<https://cyclonedx.org/docs/1.5/json>).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::packages::{Edges, Name, Tree, checksums, metadata, name, packages};
use crate::{Failure, during, output_of};

/// For which executable, and where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The target that it is compiled for; without one, this machine's
    #[arg(long)]
    target: Option<String>,
    /// Where to; without one, to be read here
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Writes the list. The same sources give the same bytes.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let target = match &args.target {
        Some(target) => target.clone(),
        None => host()?,
    };
    let document = document(&target)?;
    let wrong = faults(&document);
    if !wrong.is_empty() {
        return Err(Failure::Check(format!("the list is not as it should be: {}", wrong.join(", "))));
    }
    let text = format!("{document:#}\n");
    match &args.output {
        Some(file) => fs::write(file, text).map_err(during(format!("write {}", file.display()))),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// The target of the compiler when none is named.
fn host() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = output_of(std::process::Command::new(rustc).arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::Check("rustc does not say for which host it is".into()))
}

fn document(target: &str) -> Result<Value, Failure> {
    let built = Tree::of_pilotctl(target, Edges::Built)?;
    let linked = Tree::of_pilotctl(target, Edges::Linked)?;
    let (metadata, checksums) = (metadata()?, checksums()?);
    let known: BTreeMap<Name, &Value> =
        packages(&metadata).iter().map(|package| (name(package), package)).collect();
    let mut components = Vec::new();
    let mut whole = Value::Null;
    for (package, features) in &built.features {
        let about = known.get(package).ok_or_else(|| {
            Failure::Check(format!("cargo metadata does not know {} {}", package.0, package.1))
        })?;
        let mut component = component(package, about, checksums.get(package));
        if package.0 == "pilotctl" {
            component.insert("type".into(), "application".into());
            component.insert("properties".into(), json!([{ "name": "cargo:target", "value": target }]));
            whole = component.into();
            continue;
        }
        // Macros and what build scripts need run at build time only.
        let scope = if linked.features.contains_key(package) { "required" } else { "excluded" };
        component.insert("scope".into(), scope.into());
        if !features.is_empty() {
            let features: Vec<&str> = features.iter().map(String::as_str).collect();
            let value = features.join(",");
            component.insert("properties".into(), json!([{ "name": "cargo:features", "value": value }]));
        }
        components.push(Value::from(component));
    }
    let dependencies: Vec<Value> = built
        .needs
        .iter()
        .map(|(package, needs)| {
            json!({ "ref": reference(package), "dependsOn": needs.iter().map(reference).collect::<Vec<_>>() })
        })
        .collect();
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": whole },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What names a package within the document.
fn reference((name, version): &Name) -> String {
    format!("{name}@{version}")
}

fn component(package: &Name, about: &Value, checksum: Option<&String>) -> Map<String, Value> {
    let (name, version) = package;
    let mut component = Map::new();
    let mut set = |field: &str, value: Value| component.insert(field.to_owned(), value);
    set("type", "library".into());
    set("bom-ref", reference(package).into());
    set("name", name.clone().into());
    set("version", version.clone().into());
    if let Some(licence) = about["license"].as_str() {
        // As some wrote it before there were expressions.
        set("licenses", json!([{ "expression": licence.replace('/', " OR ") }]));
    }
    if let Some(checksum) = checksum {
        set("purl", format!("pkg:cargo/{name}@{version}").into());
        set("hashes", json!([{ "alg": "SHA-256", "content": checksum }]));
    }
    if let Some(repository) = about["repository"].as_str() {
        set("externalReferences", json!([{ "type": "vcs", "url": repository }]));
    }
    component
}

/// What the schema asks for and the document does not have, and what nobody could use.
fn faults(document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            faults.push(what);
        }
    };
    demand(document["bomFormat"] == "CycloneDX", "bomFormat".into());
    demand(document["specVersion"] == "1.5", "specVersion".into());
    let whole = &document["metadata"]["component"];
    demand(whole["type"] == "application" && whole["name"] == "pilotctl", "metadata.component".into());
    let components: &[Value] = document["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    demand(!components.is_empty(), "components".into());
    let mut references: BTreeMap<&str, u32> = BTreeMap::new();
    for component in components.iter().chain([whole]) {
        let text = |field: &str| component[field].as_str().unwrap_or_default();
        let shown = format!("{} {}", text("name"), text("version"));
        *references.entry(text("bom-ref")).or_default() += 1;
        demand(["library", "application"].contains(&text("type")), format!("type of {shown}"));
        demand(
            !text("name").is_empty() && !text("version").is_empty(),
            format!("name and version of {shown}"),
        );
        let licence = component["licenses"][0]["expression"].as_str().unwrap_or_default();
        demand(!licence.is_empty() && !licence.contains('/'), format!("licence of {shown}"));
        let ours = text("name") == "pilotctl" || text("name").starts_with("pilot-");
        let hash = component["hashes"][0]["content"].as_str().unwrap_or_default();
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        demand(is_hash || ours, format!("checksum of {shown}"));
        demand(text("purl").starts_with("pkg:cargo/") || ours, format!("purl of {shown}"));
    }
    for (reference, times) in &references {
        demand(*times == 1 && !reference.is_empty(), format!("`{reference}` names {times} components"));
    }
    for dependency in document["dependencies"].as_array().into_iter().flatten() {
        let needs = dependency["dependsOn"].as_array().into_iter().flatten();
        for end in needs.chain([&dependency["ref"]]) {
            let is_known = end.as_str().is_some_and(|end| references.contains_key(end));
            demand(is_known, format!("`{end}` is no component"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cargo;

    const TARGET: &str = "x86_64-unknown-linux-gnu";

    #[test]
    fn the_list_has_what_the_schema_asks_for_and_is_the_same_each_time() {
        let list = document(TARGET).unwrap();
        assert_eq!(faults(&list), [""; 0]);
        assert_eq!(list.to_string(), document(TARGET).unwrap().to_string());
    }

    #[test]
    fn the_components_are_what_cargo_builds_for_the_executable_and_no_more() {
        let list = document(TARGET).unwrap();
        let components =
            list["components"].as_array().unwrap().iter().chain([&list["metadata"]["component"]]);
        let listed: BTreeSet<String> = components
            .map(|component| {
                format!("{} v{}", component["name"].as_str().unwrap(), component["version"].as_str().unwrap())
            })
            .collect();
        let mut tree = cargo();
        tree.args(["tree", "-p", "pilotctl", "-e", "normal,build", "--locked", "--target", TARGET]);
        let text = output_of(tree.args(["--prefix", "none", "--no-dedupe"])).unwrap();
        let words = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>());
        assert_eq!(listed, words.map(|words| words.join(" ")).collect());
        // What runs at build time is told from what is handed out.
        let scope = |name: &str| {
            let components = list["components"].as_array().unwrap();
            components.iter().find(|component| component["name"] == name).unwrap()["scope"].clone()
        };
        assert_eq!(
            (scope("ring"), scope("serde_derive"), scope("cc")),
            ("required".into(), "excluded".into(), "excluded".into())
        );
        // Tests and benchmarks need these; nobody who runs the executable does.
        assert!(!listed.iter().any(|name| name.starts_with("proptest ") || name.starts_with("quinn ")));
    }

    #[test]
    fn a_component_without_licence_or_checksum_or_with_a_name_of_two_is_noticed() {
        let whole = json!({
            "type": "application", "bom-ref": "pilotctl@1", "name": "pilotctl", "version": "1",
            "licenses": [{ "expression": "MIT" }],
        });
        let bare = json!({ "type": "library", "bom-ref": "a@1", "name": "a", "version": "1" });
        let list = json!({
            "bomFormat": "CycloneDX", "specVersion": "1.5", "metadata": { "component": whole },
            "components": [bare, bare], "dependencies": [{ "ref": "pilotctl@1", "dependsOn": ["b@1"] }],
        });
        let faults = faults(&list);
        for expected in [
            "licence of a 1",
            "checksum of a 1",
            "purl of a 1",
            "`a@1` names 2 components",
            "`\"b@1\"` is no component",
        ] {
            assert!(faults.iter().any(|fault| fault == expected), "{expected}: {faults:?}");
        }
    }
}
