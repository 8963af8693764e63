//! The sockets of a beacon: the one that nodes know, and those that help them to find out what box they are behind.

use std::net::SocketAddr;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ear {
    /// The beacon's own.
    Main,
    /// Another port of the same address. Answers surveys.
    SecondPort,
    /// Another port again, to which nobody ever sends: a box that lets an answer from there in does not look at ports.
    QuietPort,
    /// Another address of this host. Answers surveys.
    SecondAddress,
    /// Another port of that address, to which nobody ever sends.
    QuietAddress,
}

/// Which of them there are, and where nodes find those that answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ears {
    /// The port of [`Ear::SecondPort`], if it and [`Ear::QuietPort`] exist.
    pub second_port: Option<u16>,
    /// The address of [`Ear::SecondAddress`], if it and [`Ear::QuietAddress`] exist.
    pub second_addr: Option<SocketAddr>,
}
