//! The demo: a rendezvous and two daemons as processes of their own in a temporary place, and the whole story
//! played with ordinary `pilotctl` lines. Every result is checked; nothing is taken on trust.

mod stage;
mod story;

pub(crate) use stage::{Entry, Stage};
pub(crate) use story::{end, play};
