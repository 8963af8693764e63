//! The command bytes. Each number appears here and nowhere else.

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $byte:literal),+ $(,)?) => {
        /// First byte of every frame. Those below 0x80 are the reference's, the others are the extended dialect's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Command {
            $($(#[$doc])* $name = $byte),+
        }

        impl Command {
            /// Every command, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The command of this number.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Claim a port.
    Bind = 0x01,
    /// The port is claimed.
    BindOk = 0x02,
    /// Open a stream.
    Dial = 0x03,
    /// The stream is open.
    DialOk = 0x04,
    /// Pushed: a peer opened a stream to a claimed port.
    Accept = 0x05,
    /// Data for a stream.
    Send = 0x06,
    /// Pushed: data from a stream.
    Recv = 0x07,
    /// End a stream.
    Close = 0x08,
    /// The stream ended; answer to `Close`, and pushed when the peer ends it.
    CloseOk = 0x09,
    /// The request failed, as text.
    Error = 0x0A,
    /// Send a datagram; never answered.
    SendTo = 0x0B,
    /// Pushed to every client: a datagram arrived.
    RecvFrom = 0x0C,
    /// Ask about the node.
    Info = 0x0D,
    /// JSON `Info`.
    InfoOk = 0x0E,
    /// Trust; has sub-commands.
    Handshake = 0x0F,
    /// JSON of the sub-command.
    HandshakeOk = 0x10,
    /// Look a hostname up.
    ResolveHostname = 0x11,
    /// JSON `Resolved`.
    ResolveHostnameOk = 0x12,
    /// Name this node.
    SetHostname = 0x13,
    /// JSON `HostnameSet`.
    SetHostnameOk = 0x14,
    /// Make this node public or private.
    SetVisibility = 0x15,
    /// JSON `VisibilitySet`.
    SetVisibilityOk = 0x16,
    /// Leave the registry.
    Deregister = 0x17,
    /// JSON `Deregistered`.
    DeregisterOk = 0x18,
    /// Tag this node.
    SetTags = 0x19,
    /// JSON `TagsSet`.
    SetTagsOk = 0x1A,
    /// Where events are posted to.
    SetWebhook = 0x1B,
    /// JSON `WebhookSet`.
    SetWebhookOk = 0x1C,
    /// Networks; has sub-commands.
    Network = 0x1F,
    /// The registry's JSON.
    NetworkOk = 0x20,
    /// Ask for counters only.
    Health = 0x21,
    /// JSON `Health`.
    HealthOk = 0x22,
    /// Managed networks; has sub-commands.
    Managed = 0x23,
    /// JSON of the sub-command.
    ManagedOk = 0x24,
    /// Change the identity key.
    RotateKey = 0x25,
    /// JSON.
    RotateKeyOk = 0x26,
    /// A datagram to every member of a network.
    Broadcast = 0x29,
    /// It was sent.
    BroadcastOk = 0x2A,
    /// Give up all dials of this client; never answered.
    Cancel = 0x2B,
    /// Leave the relay for a peer, if possible.
    PreferDirect = 0x2D,
    /// JSON `Preferred`.
    PreferDirectOk = 0x2E,
    /// Present a badge.
    SubmitBadge = 0x2F,
    /// JSON.
    SubmitBadgeOk = 0x30,
    /// Enroll for recovery.
    EnrollRecovery = 0x31,
    /// JSON.
    EnrollRecoveryOk = 0x32,
    /// Sign a request of an application.
    SignEnvelope = 0x33,
    /// JSON `SignedEnvelope`.
    SignEnvelopeOk = 0x34,
    /// Check the signature of an application's request.
    VerifyEnvelope = 0x35,
    /// JSON `EnvelopeCheck`.
    VerifyEnvelopeOk = 0x36,
    /// Give a port back.
    Unbind = 0x37,
    /// The port is free.
    UnbindOk = 0x38,
    /// Send a datagram and be told.
    SendToConfirm = 0x39,
    /// The datagram was sent.
    SendToOk = 0x3A,

    /// Ask for the extended dialect.
    Hello = 0x80,
    /// The connection speaks it from here on.
    HelloOk = 0x81,
    /// A request with a number.
    Tagged = 0x82,
    /// The reply to the request of that number.
    TaggedOk = 0x83,
    /// Permission to send so many more bytes on a stream.
    Credit = 0x84,
    /// No more data will come in this direction.
    Finish = 0x85,
    /// The stream ended abnormally, or is to.
    Reset = 0x86,
    /// Tell me when the peer has everything.
    Drain = 0x87,
    /// The peer has everything.
    DrainOk = 0x88,
    /// One of our own calls, as JSON.
    Call = 0x8A,
    /// Its result, as JSON.
    CallOk = 0x8B,
    /// Send a datagram from a port of one's choice and be told (answered by `SendToOk`).
    SendFrom = 0x8C,
    /// Open a stream, with what is written to it first (answered by `DialOk`).
    DialWith = 0x8D,
    /// The request failed, as JSON `Failure`.
    Failure = 0x8F,
    /// What has a capture seen? (`u8` 1: answer when there is something; 0: at once)
    Packets = 0x90,
    /// The packets ([`crate::capture::parse`]).
    PacketsOk = 0x91,
}

impl Command {
    /// The number on the wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_names_one_command() {
        for &command in Command::ALL {
            assert_eq!(Command::from_byte(command.byte()), Some(command));
        }
        let known = (0..=255).filter(|&byte| Command::from_byte(byte).is_some()).count();
        assert_eq!(known, Command::ALL.len());
    }
}
