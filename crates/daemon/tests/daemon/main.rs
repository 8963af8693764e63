//! Whole daemons on real sockets, with a real rendezvous, in one process.

mod common;
mod hostile;
mod programs;
mod registry;
mod restarts;
mod streams;
