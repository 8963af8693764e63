//! The few styles of text output. They are ANSI codes; [`crate::output`] removes them where they do not belong.

use std::fmt::Display;

/// For what the eye should find first.
pub(crate) fn strong(text: impl Display) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

/// For what is there in case one looks for it.
pub(crate) fn faint(text: impl Display) -> String {
    format!("\x1b[2m{text}\x1b[0m")
}

pub(crate) fn good(text: impl Display) -> String {
    format!("\x1b[32m{text}\x1b[0m")
}

pub(crate) fn bad(text: impl Display) -> String {
    format!("\x1b[1;31m{text}\x1b[0m")
}
