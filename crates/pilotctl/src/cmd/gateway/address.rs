//! Addresses on the loopback interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;

use crate::failure::{Code, Failure};

/// An address of this machine for as long as this lives.
pub(super) struct Held {
    ip: Ipv4Addr,
    /// It was added, and is to be removed.
    added: bool,
}

impl Held {
    /// Adds it, unless the machine has it anyway.
    pub(super) fn new(ip: Ipv4Addr) -> Result<Self, Failure> {
        // All of 127.0.0.0/8 is this machine's on Linux; elsewhere it is 127.0.0.1 alone.
        let added = !(ip.is_loopback() && cfg!(target_os = "linux"));
        if added {
            tool(&add(ip)).map_err(|said| {
                Failure::new(
                    Code::PermissionDenied,
                    format!("{ip} cannot become an address of this machine: {said}"),
                )
                .hint("that takes root; on Linux `--subnet 127.4.0.0/16` needs none")
            })?;
        }
        Ok(Self { ip, added })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.added {
            // Somebody may have removed it before.
            drop(tool(&remove(self.ip)));
        }
    }
}

/// One that a killed gateway left behind is taken over.
fn add(ip: Ipv4Addr) -> Vec<String> {
    match cfg!(target_os = "macos") {
        true => words(&["ifconfig", "lo0", "alias", &ip.to_string(), "255.255.255.255"]),
        false => words(&["ip", "address", "replace", &format!("{ip}/32"), "dev", "lo"]),
    }
}

fn remove(ip: Ipv4Addr) -> Vec<String> {
    match cfg!(target_os = "macos") {
        true => words(&["ifconfig", "lo0", "-alias", &ip.to_string()]),
        false => words(&["ip", "address", "del", &format!("{ip}/32"), "dev", "lo"]),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn tool(words: &[String]) -> Result<(), String> {
    let said = |error: &io::Error| format!("`{}`: {error}", words[0]);
    let done = Command::new(&words[0]).args(&words[1..]).output().map_err(|error| said(&error))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
    }
}

/// Whether an address is this machine's: only then can a socket be bound to it. Machines beside this one can send packets
/// to the addresses that peers are given, and shall not have this node's trust.
pub(super) fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_ours() {
        assert!(is_ours([127, 0, 0, 1].into()));
        // Set aside for documents (RFC 5737).
        assert!(!is_ours([192, 0, 2, 1].into()));
    }
}
