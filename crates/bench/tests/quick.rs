//! A short run of one row with all its processes.

use std::process::Command;

#[test]
fn a_short_run_measures_every_side_and_keeps_the_figures() {
    let folder = tempfile::tempdir().unwrap();
    let (json, charts) = (folder.path().join("figures.json"), folder.path().join("charts"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilot-bench"));
    command.args(["rtt", "--quick", "--json"]).arg(&json).arg("--charts").arg(&charts);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let table = &figures["tables"][0];
    assert_eq!(table["id"], "rtt");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 7, "{rows:?}");
    for row in rows {
        let cells = row["cells"].as_array().unwrap();
        assert!(cells.iter().all(|cell| cell["median"].as_f64().unwrap() > 0.0), "{row}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(row["name"].as_str().unwrap()));
    }
    assert!(charts.join("rtt-p50.svg").exists());
}
