//! An imaginary network for nodes: links, a registry and a clock in one thread, driven by one number.
//!
//! A [`World`] drives [`pilot_proto::Node`]s exactly as the daemon does, but its sockets are a queue of datagrams with
//! arrival times and its clock jumps to the next thing that happens. A simulated hour takes a fraction of a second,
//! and a fault that was found is found again from its seed.
//!
//! | module | is |
//! |---|---|
//! | `world` | hosts, time, and what happens next |
//! | `link` | delay, loss, duplication, reordering, corruption, bandwidth |
//! | `nat` | the boxes between homes and the network |
//! | `topology` | who is where, and the way through the boxes |
//! | `transfer` | applications, and the model of what they may observe |
//! | `attacker` | who repeats and changes what others sent |
//! | `watch` | what must hold whatever happens |
//! | `plan` | a random world from a seed: minutes, and several faults at once |
//! | `day` | another: a day, one fault after the other, and how long each is felt |
//! | `programme` | thousands of hours of both, and the table of what came of them |
//! | `goodput` | how fast one stream is |
//! | `contest` | streams that share a bottleneck, and the queue in front of it |
//! | `history` | what happened, as text and as a digest |
//!
//! Read `tests/hello.rs` first: two nodes and one message.

mod attacker;
mod content;
mod contest;
mod day;
mod directory;
mod goodput;
mod history;
mod link;
mod nat;
mod plan;
mod programme;
mod topology;
mod transfer;
mod watch;
mod world;

pub use content::Content;
pub use contest::{Contest, Flow, Outcome, Share};
pub use day::{Day, Dweller, Episode, Journal, Recovery, Trouble};
pub use goodput::{Bulk, Goodput, Tuning};
pub use history::{Detail, History};
pub use link::{Arrival, Conditions, Link, Loss};
pub use nat::{Dependence, Nat, PortChoice};
pub use plan::{Home, Mishap, NodePlan, Plan};
pub use programme::{Failure, Programme, Report, Times, Which};
pub use topology::{BoxId, Net};
pub use transfer::{Finishes, Pace, Role, Script, Transfer, Violation};
pub use watch::{Bother, Fault, Traffic};
pub use world::{Host, Memory, Overheard, Progress, TransferId, World};
