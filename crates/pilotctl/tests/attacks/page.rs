//! docs/security.md names a test behind each promise.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every source file below.
fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

/// What stands between back-quotes and has the form of a test's name: four words or more.
fn named(page: &str) -> impl Iterator<Item = &str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let words = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    quoted
        .map(|text| text.rsplit("::").next().unwrap_or(text))
        .filter(move |text| words(text) && text.split('_').count() >= 4)
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    let functions: BTreeSet<String> = files
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .flat_map(|text| {
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split_once('(').map(|(name, _)| name.to_owned()));
            names.collect::<Vec<_>>()
        })
        .collect();
    let names: BTreeSet<&str> = named(&page).collect();
    let missing: Vec<&&str> = names.iter().filter(|name| !functions.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:#?}");
    assert!(names.len() > 100, "only {} tests are named", names.len());
}
