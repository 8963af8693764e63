//! A laboratory of networks: namespaces with cables between them, routers with the NATs that the internet has, and the
//! real programs inside.
//!
//! Every [`Lab`] is an internet of its own: a bridge with public addresses and a machine for the rendezvous. Hosts and
//! [`Router`]s are plugged into it; nothing in it can reach the machine's network, so the addresses are those that
//! documents use. Everything is gone when it is dropped, and what a killed run left behind is cleared by the next one.

mod host;
mod lab;
mod meeting;
mod meter;
mod namespace;
mod path;
mod proxy;
mod report;
mod router;
mod site;
mod spoof;
mod survey;
mod tool;
mod trace;
mod transfer;
mod watch;

pub use host::{Host, Traffic};
pub use lab::{BEACON, Lab, REGISTRY, RENDEZVOUS, SECOND};
pub use meeting::{agree, deliver, echo, echo_by};
pub use meter::{Count, Meter, Reading};
pub use namespace::Namespace;
pub use path::{Way, endpoint, transport};
pub use proxy::Proxy;
pub use report::report;
pub use router::{Nat, Router};
pub use site::{Access, Site};
pub use spoof::Spoofer;
pub use survey::Observers;
pub use transfer::{Interruption, Transfer};
pub use watch::{Unexpected, Watch};
