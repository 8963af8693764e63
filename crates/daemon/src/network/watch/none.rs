//! Systems that tell nothing, as far as we know.

use std::io;
use std::net::Ipv4Addr;

/// Never exists.
pub(super) enum Signals {}

impl Signals {
    pub(super) fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) async fn wait(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn drain(&mut self) {
        match *self {}
    }
}

pub(in crate::network) fn default_gateway() -> Option<Ipv4Addr> {
    None
}
