//! What each way of being connected is, in the words of RFC 4787.

use pilot_lab::Access;
use pilot_wire::path::Behaviour::{
    self, AddressAndPortDependent, AddressDependent, EndpointIndependent, None as Nothing,
};

/// What a box does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// On what the outside address depends.
    pub(crate) mapping: Behaviour,
    /// On what it depends who is let in.
    pub(crate) filtering: Behaviour,
    /// Does what goes to its own outside come back in? `None` without a box.
    pub(crate) hairpinning: Option<bool>,
    /// Is the outside port the inside one?
    pub(crate) port_preserved: bool,
}

const fn kind(
    mapping: Behaviour,
    filtering: Behaviour,
    hairpinning: Option<bool>,
    port_preserved: bool,
) -> Option<Kind> {
    Some(Kind { mapping, filtering, hairpinning, port_preserved })
}

/// The table. `None` lets no UDP through.
pub(crate) const KINDS: [(Access, Option<Kind>); 8] = [
    (Access::Public, kind(Nothing, EndpointIndependent, None, true)),
    (Access::FullCone, kind(EndpointIndependent, EndpointIndependent, Some(false), true)),
    (Access::AddressRestricted, kind(EndpointIndependent, AddressDependent, Some(false), true)),
    (Access::PortRestricted, kind(EndpointIndependent, AddressAndPortDependent, Some(false), true)),
    (Access::Symmetric, kind(AddressAndPortDependent, AddressAndPortDependent, Some(false), false)),
    (Access::Carrier, kind(EndpointIndependent, AddressAndPortDependent, Some(false), true)),
    (Access::Hairpin, kind(EndpointIndependent, AddressAndPortDependent, Some(true), true)),
    (Access::NoUdp, None),
];
