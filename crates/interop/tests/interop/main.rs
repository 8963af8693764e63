//! Our programs and the released ones, each the other's peer. One executable, so that it is linked once.
#![cfg(feature = "reference")]

mod between_ours;
mod crashes;
mod driving;
mod events;
mod files;
mod messages;
mod networks;
mod streams;
mod trust;
mod web;
