//! A stage for tests with real processes: our rendezvous, our daemons and the released reference daemon.
//!
//! Every node has its own home, socket and port on the loopback interface, and everything the reference would send
//! elsewhere is switched off. A test waits for conditions with [`until`], never for a time. When a test fails, the end
//! of every log is printed; when it ends, every process it started is gone.

mod command;
mod node;
mod process;
mod stage;
mod wait;

pub use command::{Command, Failed, Program, isolate};
pub use node::{Node, Place};
pub use process::Process;
pub use stage::{OPERATOR, Pair, Stage};
pub use wait::{PATIENCE, until};
