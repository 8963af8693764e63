//! Copies the recorded vectors into the repository, so that a clone can be tested by itself.

use std::fs;

use crate::{Failure, during, root};

/// Which file is read by the tests of which crate. `cli.json` is a record to read, not a test.
const COPIES: &[(&str, &str)] = &[
    ("dataplane.json", "crates/wire/tests/vectors"),
    ("ipc.json", "crates/wire/tests/vectors"),
    ("registry.json", "crates/wire/tests/vectors"),
    ("services.json", "crates/wire/tests/vectors"),
    ("article_commands.txt", "crates/pilotctl/tests/data"),
];

/// Copies every vector file to the crate that reads it.
pub(crate) fn copy() -> Result<(), Failure> {
    for (name, folder) in COPIES {
        let from = root().join("../shared/vectors").join(name);
        let to = root().join(folder);
        fs::create_dir_all(&to).map_err(during(format!("create {}", to.display())))?;
        let target = to.join(name);
        fs::copy(&from, &target).map_err(during(format!(
            "copy {} to {}",
            from.display(),
            target.display()
        )))?;
        println!("{}", target.display());
    }
    Ok(())
}
