//! A reader of OpenMetrics that takes nothing the format does not allow, because a scraper does not either.

use std::collections::{BTreeMap, BTreeSet};

/// Each sample by its name and labels as they are written.
pub(crate) type Samples = BTreeMap<String, f64>;

/// # Panics
/// When the text is not as the format wants it.
pub(crate) fn parse(text: &str) -> Samples {
    let body = text.strip_suffix("# EOF\n").expect("the last line is not # EOF");
    let (mut samples, mut families) = (Samples::new(), BTreeSet::new());
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), false);
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!help.trim().is_empty(), "no help: {line}");
            begin(name, &mut family, &mut families);
            assert!(!std::mem::replace(&mut helped, true), "help twice: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert!(["counter", "gauge"].contains(&of), "type: {line}");
            assert!(family == name || begin(name, &mut family, &mut families), "{line}");
            (kind, helped) = (of.to_owned(), false);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let name = series.split('{').next().unwrap();
            let of = if kind == "counter" { name.strip_suffix("_total") } else { Some(name) };
            assert_eq!(of, Some(family.as_str()), "a {kind} of another family: {line}");
            labels(&series[name.len()..]);
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(value.is_finite() && (kind != "counter" || value >= 0.0), "{line}");
            assert_eq!(samples.insert(series.to_owned(), value), None, "twice: {line}");
        }
    }
    samples
}

/// A family begins here, for the first time.
fn begin(name: &str, family: &mut String, families: &mut BTreeSet<String>) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    assert!(name.chars().all(legal) && name.starts_with(|c: char| c.is_ascii_lowercase()), "name: {name}");
    if family != name {
        assert!(families.insert(name.to_owned()), "{name} in two places");
        name.clone_into(family);
    }
    true
}

fn labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let mut names = BTreeSet::new();
    for label in inner.unwrap_or_else(|| panic!("labels: {text}")).split(',') {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("label: {text}"));
        assert!(names.insert(name), "label twice: {text}");
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("label: {text}"));
        assert!(!value.is_empty() && !value.contains(['"', '\\', '\n']), "label: {text}");
    }
}

#[test]
fn what_a_scraper_would_refuse_is_refused() {
    let right = "# HELP a What.\n# TYPE a counter\na_total{x=\"y\"} 1\na_total{x=\"z\"} 2\n# EOF\n";
    assert_eq!(parse(right).get("a_total{x=\"z\"}"), Some(&2.0));
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_total{x=\"z\"}", "a_total{x=\"y\"}"),
        ("a_total{x=\"z\"}", "a{x=\"z\"}"),
        ("a_total{x=\"z\"}", "b_total"),
        (" 2\n", " two\n"),
        ("# TYPE a counter", "# TYPE a number"),
        ("# HELP a What.", "# HELP a "),
        ("# EOF", "# HELP a Again.\n# TYPE a counter\n# HELP b B.\n# TYPE b gauge\n# TYPE a gauge\n# EOF"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert!(std::panic::catch_unwind(|| parse(&wrong)).is_err(), "{wrong}");
    }
}
