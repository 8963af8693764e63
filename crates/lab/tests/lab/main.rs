//! Real programs in networks of their own. One executable, so that tests of all kinds run side by side.

mod beacons;
mod blocked;
mod explains;
mod failover;
mod idle;
mod kinds;
mod matrix;
mod neighbours;
mod protocols;
mod reference;
mod roaming;
mod routers;
mod services;
mod spoofing;
mod strangers;
