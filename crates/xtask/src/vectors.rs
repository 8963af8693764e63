//! Copies the recorded vectors into the repository, so that a clone can be tested by itself.

use std::fs;

use crate::{Failure, during, root};

/// Copies every vector file; a file that only exists on our side is left alone.
pub(crate) fn copy() -> Result<(), Failure> {
    let from = root().join("../shared/vectors");
    let to = root().join("crates/wire/tests/vectors");
    fs::create_dir_all(&to).map_err(during(format!("create {}", to.display())))?;
    for entry in fs::read_dir(&from).map_err(during(format!("read {}", from.display())))? {
        let entry = entry.map_err(during(format!("read {}", from.display())))?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target).map_err(during(format!("copy to {}", target.display())))?;
        println!("{}", target.display());
    }
    Ok(())
}
