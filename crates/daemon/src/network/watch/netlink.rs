//! Linux: the kernel sends a message to a netlink socket for each change. What it says is not read, only that it came:
//! the host is looked at afterwards.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The socket.
pub(super) struct Signals(AsyncFd<OwnedFd>);

impl Signals {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; this descriptor keeps its number while it lives"
    )]
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(AsyncFd::with_interest(socket, Interest::READABLE)?))
    }

    /// Resolves when the kernel said something.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }

    /// Throws away what waits.
    pub(super) fn drain(&mut self) {
        while receive(self.0.get_ref()).is_ok() {}
    }
}

fn receive(socket: &OwnedFd) -> io::Result<()> {
    // A message that does not fit is cut, which is all the same to us.
    let mut message = [0; 512];
    match recv(socket, &mut message[..], RecvFlags::DONTWAIT) {
        // Messages were lost because too many came: a change, too.
        Ok(_) | Err(Errno::NOBUFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
