//! How an address of a peer became known. (The rest of this module follows with the path machine.)

/// How an address of a peer became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateSource {
    /// The registry has it as the peer's address.
    Registry,
    /// The registry has it among the addresses in the peer's own network.
    RegistryLan,
    /// The peer named it, inside the tunnel: an address of one of its interfaces.
    PeerHost,
    /// The peer named it: where its beacon sees it.
    PeerObserved,
    /// The peer named it: a port that its gateway maps.
    PeerMapped,
    /// The beacon introduced us.
    Introduced,
    /// The peer announced itself in our network (mDNS).
    Lan,
    /// Authentic frames came from there.
    Frames,
    /// The peer was reached there in an earlier life of this node.
    Remembered,
}
