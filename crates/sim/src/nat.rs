//! The boxes between homes and the network, in the words of RFC 4787: each gives an inside address a port of its own
//! outside, and lets in only what its filter allows.

mod gateway;

pub(crate) use gateway::Gateway;

/// How a box behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Which outside port the datagrams of one inside address get (RFC 4787 4.1).
    pub mapping: Dependence,
    /// Whose datagrams are let in (RFC 4787 5).
    pub filtering: Dependence,
    /// How outside ports are chosen (RFC 4787 4.2).
    pub port: PortChoice,
    /// Whether what goes to the box's own outside address comes back in (RFC 4787 6).
    pub hairpinning: bool,
}

/// What a behaviour depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// Nothing about the other end.
    EndpointIndependent,
    /// The address of the other end.
    AddressDependent,
    /// The address and the port of the other end.
    AddressAndPortDependent,
}

/// How a box chooses an outside port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// The inside port, unless somebody else has it.
    Preserving,
    /// The one after the last.
    Sequential,
    /// Any.
    Random,
}

use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

impl Nat {
    /// One outside port for everything, and everybody may send to it.
    pub const FULL_CONE: Self = Self {
        mapping: EndpointIndependent,
        filtering: EndpointIndependent,
        port: PortChoice::Sequential,
        hairpinning: false,
    };

    /// One outside port for everything, and only hosts that were sent something may answer.
    pub const ADDRESS_RESTRICTED: Self = Self { filtering: AddressDependent, ..Self::FULL_CONE };

    /// One outside port for everything, and only the address and port that was sent something may answer.
    pub const PORT_RESTRICTED: Self = Self { filtering: AddressAndPortDependent, ..Self::FULL_CONE };

    /// Another outside port for each destination. Two of these can talk through a relay only.
    pub const SYMMETRIC: Self = Self {
        mapping: AddressAndPortDependent,
        filtering: AddressAndPortDependent,
        port: PortChoice::Random,
        hairpinning: false,
    };

    /// What most homes have (Linux): the inside port if it is free, and only what answers is let in.
    pub const HOME: Self = Self { port: PortChoice::Preserving, ..Self::PORT_RESTRICTED };

    /// What RFC 6888 asks of a carrier: one outside port for everything, and subscribers reach each other.
    pub const CARRIER: Self =
        Self { filtering: AddressDependent, port: PortChoice::Random, hairpinning: true, ..Self::FULL_CONE };

    /// The same box, with or without hairpinning.
    #[must_use]
    pub const fn hairpinning(self, hairpinning: bool) -> Self {
        Self { hairpinning, ..self }
    }
}
