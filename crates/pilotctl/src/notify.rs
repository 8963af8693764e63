//! Tells systemd that a service is ready (sd_notify(3)), so that what needs it starts after it.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
#[cfg(target_os = "linux")]
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

/// Says so where the variable `NOTIFY_SOCKET` names. Without it nobody asked; a failure is not the service's.
pub(crate) fn ready() {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        drop(say(&socket, b"READY=1"));
    }
}

fn say(socket: &OsStr, what: &[u8]) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // Never wait for somebody who does not read.
    sender.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.to_str().and_then(|socket| socket.strip_prefix('@')) {
        let address = SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(what, &address).map(drop);
    }
    sender.send_to(what, socket).map(drop)
}
