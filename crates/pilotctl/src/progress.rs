//! Progress on stderr, only where a person looks at it.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Format;

/// A bar for `total` bytes; invisible unless stderr is a terminal and text was asked for.
pub(crate) fn bytes(format: Format, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), target(format));
    bar.set_style(
        ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

fn target(format: Format) -> ProgressDrawTarget {
    let wanted = format == Format::Text && std::io::stderr().is_terminal();
    if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
