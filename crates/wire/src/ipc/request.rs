//! What clients say: requests, and the frames of the extended dialect around them.

use serde::de::DeserializeOwned;

use super::frame::frame;
use super::json::{Badge, Enrollment, SignEnvelope, VerifyEnvelope};
use super::subcommand::{Handshake, Managed, Network};
use super::{Call, Command, Failure};
use crate::{Addr, Endpoint, NetworkId, NodeId, ParseError, Port, Reader, StreamId};

/// Tags a node may have (spec 1.4).
pub const MAX_TAGS: usize = 3;

/// One frame from a client. [`ClientFrame::parse`] takes what a `Decoder` yields.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame<'a> {
    /// Asks for the extended dialect.
    Hello {
        /// Highest version the client speaks.
        version: u8,
    },
    /// A request with a number chosen by the client. The request is parsed by a second [`Request::parse`], so
    /// that its failure can be answered under the number.
    Tagged {
        /// Comes back with the reply.
        tag: u32,
        /// Command and payload.
        request: &'a [u8],
    },
    /// The daemon may send so many more bytes of this stream.
    Credit {
        /// Which stream.
        stream: StreamId,
        /// How many more.
        bytes: u32,
    },
    /// The client writes no more to this stream; it still reads.
    Finish {
        /// Which stream.
        stream: StreamId,
    },
    /// End the stream at once, without delivering what is on the way.
    Reset {
        /// Which stream.
        stream: StreamId,
        /// Why, for logs.
        failure: Failure,
    },
    /// A request without a number, answered in order.
    Request(Request<'a>),
}

/// What a client asks of the daemon.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// Claims a port; streams and datagrams to it then belong to this client.
    Bind {
        /// The local port.
        port: Port,
    },
    /// Opens a stream; answered when it is established.
    Dial {
        /// The service.
        to: Endpoint,
    },
    /// Opens a stream and writes to it, so that the first bytes cost no round trip of their own; answered as `Dial` is.
    /// They do not count against the stream's credit. When the dial fails they may have arrived all the same.
    DialWith {
        /// The service.
        to: Endpoint,
        /// At most [`FIRST_BYTES`](super::FIRST_BYTES).
        data: &'a [u8],
    },
    /// Data for a stream. Never answered.
    Send {
        /// Which stream.
        stream: StreamId,
        /// At most `MAX_DATA` bytes.
        data: &'a [u8],
    },
    /// Ends both directions of a stream once all is delivered.
    Close {
        /// Which stream.
        stream: StreamId,
    },
    /// A datagram. Never answered.
    SendTo {
        /// The service.
        to: Endpoint,
        /// The payload.
        data: &'a [u8],
    },
    /// A datagram; answered when it has been handed to the network.
    SendToConfirm {
        /// The service.
        to: Endpoint,
        /// The payload.
        data: &'a [u8],
    },
    /// A datagram with a chosen source port; answered as `SendToConfirm` is.
    SendFrom {
        /// The local port.
        from: Port,
        /// The service.
        to: Endpoint,
        /// The payload.
        data: &'a [u8],
    },
    /// About the node.
    Info,
    /// Trust.
    Handshake(Handshake<'a>),
    /// A hostname's address.
    ResolveHostname {
        /// The name.
        name: &'a str,
    },
    /// Names this node; empty takes the name away.
    SetHostname {
        /// The name.
        name: &'a str,
    },
    /// Public nodes answer everyone, private ones only those they trust.
    SetVisibility {
        /// Public?
        public: bool,
    },
    /// Leaves the registry.
    Deregister,
    /// Tags this node; none takes all away.
    SetTags {
        /// At most [`MAX_TAGS`].
        tags: Vec<String>,
    },
    /// Where events are posted to; empty turns it off.
    SetWebhook {
        /// The address.
        url: &'a str,
    },
    /// Networks.
    Network(Network<'a>),
    /// Counters.
    Health,
    /// Managed networks.
    Managed(Managed<'a>),
    /// Changes the identity key.
    RotateKey,
    /// A datagram to all members of a network.
    Broadcast {
        /// The network.
        network: NetworkId,
        /// The port at each member.
        port: Port,
        /// Proves the right to do so.
        token: &'a str,
        /// The payload.
        data: &'a [u8],
    },
    /// Gives up all dials of this client. Never answered.
    Cancel,
    /// Leaves the relay for a peer, if possible.
    PreferDirect {
        /// The peer.
        node: NodeId,
    },
    /// Presents a badge.
    SubmitBadge(Badge),
    /// Enrolls for recovery.
    EnrollRecovery(Enrollment),
    /// Signs a request of an application.
    SignEnvelope(SignEnvelope),
    /// Checks an application's request.
    VerifyEnvelope(VerifyEnvelope),
    /// Gives a port back.
    Unbind {
        /// The local port.
        port: Port,
    },
    /// Answered when the peer has acknowledged all that was written to the stream.
    Drain {
        /// Which stream.
        stream: StreamId,
    },
    /// One of our own calls.
    Call(Call),
    /// The packets that this client's capture has seen since it asked last. Its answer is the only reply that is neither
    /// JSON nor empty.
    Packets {
        /// Wait until there is one?
        wait: bool,
    },
}

/// Why a request cannot be understood. The texts are those of 1.18 where it has one (spec 1.11).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No such command, or one that only the daemon may say.
    #[error("unknown command: 0x{0:02X}")]
    UnknownCommand(u8),
    /// No such sub-command.
    #[error("{family}: unknown sub-command 0x{byte:02X}")]
    UnknownSubcommand {
        /// The command.
        family: &'static str,
        /// The sub-command.
        byte: u8,
    },
    /// Something is missing or has the wrong length.
    #[error("{0}")]
    Malformed(&'static str),
    /// The payload should be JSON.
    #[error("{field}: {reason}")]
    Json {
        /// What it is the payload of.
        field: &'static str,
        /// What the JSON parser says.
        reason: String,
    },
    /// A `Send` or `SendTo` without its header. Those commands are never answered, so nor is this.
    #[error("{0}")]
    Unanswered(&'static str),
}

impl<'a> ClientFrame<'a> {
    /// Reads one frame: command and payload.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other commands are requests, which sort themselves"
    )]
    pub fn parse(frame: &'a [u8]) -> Result<Self, RequestError> {
        let (command, payload) = command(frame)?;
        Ok(match command {
            Command::Hello => {
                fields(payload, "hello: missing version", |r| Ok(Self::Hello { version: r.u8()? }))?
            }
            Command::Tagged => fields(payload, "request: missing tag", |r| {
                Ok(Self::Tagged { tag: r.u32()?, request: r.rest() })
            })?,
            Command::Credit => fields(payload, "credit: missing conn_id or bytes", |r| {
                Ok(Self::Credit { stream: stream(r)?, bytes: r.u32()? })
            })?,
            Command::Finish => {
                fields(payload, "finish: missing conn_id", |r| Ok(Self::Finish { stream: stream(r)? }))?
            }
            Command::Reset => {
                let (stream, rest) =
                    fields(payload, "reset: missing conn_id", |r| Ok((stream(r)?, r.rest())))?;
                Self::Reset { stream, failure: json(rest, "reset: bad payload")? }
            }
            _ => Self::Request(Request::parse(frame)?),
        })
    }

    /// Appends the frame with its length.
    pub fn emit(&self, out: &mut Vec<u8>) {
        frame(out, |out| match self {
            Self::Hello { version } => out.extend([Command::Hello.byte(), *version]),
            Self::Tagged { tag, request } => {
                out.push(Command::Tagged.byte());
                out.extend(tag.to_be_bytes());
                out.extend_from_slice(request);
            }
            Self::Credit { stream, bytes } => {
                put_stream(out, Command::Credit, *stream);
                out.extend(bytes.to_be_bytes());
            }
            Self::Finish { stream } => put_stream(out, Command::Finish, *stream),
            Self::Reset { stream, failure } => {
                put_stream(out, Command::Reset, *stream);
                put_json(out, failure);
            }
            Self::Request(request) => request.put(out),
        });
    }
}

impl<'a> Request<'a> {
    /// Reads one request: command and payload.
    pub fn parse(frame: &'a [u8]) -> Result<Self, RequestError> {
        let (command, payload) = command(frame)?;
        Ok(match command {
            Command::Bind => fields(payload, "bind: missing port", |r| Ok(Self::Bind { port: port(r)? }))?,
            Command::Dial => {
                fields(payload, "dial: missing address/port", |r| Ok(Self::Dial { to: endpoint(r)? }))?
            }
            Command::DialWith => fields(payload, "dial: missing address/port", |r| {
                Ok(Self::DialWith { to: endpoint(r)?, data: r.rest() })
            })?,
            Command::Send => {
                let mut r = Reader::new(payload);
                let stream = stream(&mut r).map_err(|_| RequestError::Unanswered("send: missing conn_id"))?;
                Self::Send { stream, data: r.rest() }
            }
            Command::Close => {
                fields(payload, "close: missing conn_id", |r| Ok(Self::Close { stream: stream(r)? }))?
            }
            Command::SendTo => {
                let mut r = Reader::new(payload);
                let to = endpoint(&mut r).map_err(|_| RequestError::Unanswered("sendto: missing header"))?;
                Self::SendTo { to, data: r.rest() }
            }
            Command::SendToConfirm => fields(payload, "sendto: missing header", |r| {
                Ok(Self::SendToConfirm { to: endpoint(r)?, data: r.rest() })
            })?,
            Command::SendFrom => fields(payload, "sendfrom: missing header", |r| {
                Ok(Self::SendFrom { from: port(r)?, to: endpoint(r)?, data: r.rest() })
            })?,
            Command::Info => Self::Info,
            Command::Handshake => Self::Handshake(Handshake::parse(payload)?),
            Command::ResolveHostname if payload.is_empty() => {
                return Err(RequestError::Malformed("resolve_hostname: missing hostname"));
            }
            Command::ResolveHostname => {
                Self::ResolveHostname { name: text(payload, "resolve_hostname: hostname is not UTF-8")? }
            }
            Command::SetHostname => {
                Self::SetHostname { name: text(payload, "set_hostname: hostname is not UTF-8")? }
            }
            Command::SetVisibility => fields(payload, "set_visibility: missing value", |r| {
                Ok(Self::SetVisibility { public: r.u8()? != 0 })
            })?,
            Command::Deregister => Self::Deregister,
            Command::SetTags => Self::SetTags { tags: tags(payload)? },
            Command::SetWebhook => Self::SetWebhook { url: text(payload, "set_webhook: URL is not UTF-8")? },
            Command::Network => Self::Network(Network::parse(payload)?),
            Command::Health => Self::Health,
            Command::Managed => Self::Managed(Managed::parse(payload)?),
            Command::RotateKey => Self::RotateKey,
            Command::Broadcast => {
                let (network, port, token, data) = fields(payload, "broadcast: missing header", |r| {
                    let (network, port, length) = (network(r)?, port(r)?, r.u16()?);
                    Ok((network, port, r.take(length.into())?, r.rest()))
                })?;
                Self::Broadcast { network, port, token: text(token, "broadcast: token is not UTF-8")?, data }
            }
            Command::Cancel => Self::Cancel,
            Command::PreferDirect => {
                let node = payload.try_into().map(u32::from_be_bytes);
                let node = node.map_err(|_| {
                    RequestError::Malformed("prefer_direct: payload must be 4 bytes (node_id)")
                })?;
                Self::PreferDirect { node: NodeId(node) }
            }
            Command::SubmitBadge => Self::SubmitBadge(json(payload, "submit_badge: bad payload")?),
            Command::EnrollRecovery => Self::EnrollRecovery(json(payload, "enroll_recovery: bad payload")?),
            Command::SignEnvelope => Self::SignEnvelope(json(payload, "sign_envelope: bad payload")?),
            Command::VerifyEnvelope => Self::VerifyEnvelope(json(payload, "verify_envelope: bad payload")?),
            Command::Unbind => {
                fields(payload, "unbind: port is required", |r| Ok(Self::Unbind { port: port(r)? }))?
            }
            Command::Drain => {
                fields(payload, "drain: missing conn_id", |r| Ok(Self::Drain { stream: stream(r)? }))?
            }
            Command::Call => Self::Call(json(payload, "call: bad payload")?),
            Command::Packets => {
                fields(payload, "packets: missing value", |r| Ok(Self::Packets { wait: r.u8()? != 0 }))?
            }
            Command::BindOk
            | Command::DialOk
            | Command::Accept
            | Command::Recv
            | Command::CloseOk
            | Command::Error
            | Command::RecvFrom
            | Command::InfoOk
            | Command::HandshakeOk
            | Command::ResolveHostnameOk
            | Command::SetHostnameOk
            | Command::SetVisibilityOk
            | Command::DeregisterOk
            | Command::SetTagsOk
            | Command::SetWebhookOk
            | Command::NetworkOk
            | Command::HealthOk
            | Command::ManagedOk
            | Command::RotateKeyOk
            | Command::BroadcastOk
            | Command::PreferDirectOk
            | Command::SubmitBadgeOk
            | Command::EnrollRecoveryOk
            | Command::SignEnvelopeOk
            | Command::VerifyEnvelopeOk
            | Command::UnbindOk
            | Command::SendToOk
            | Command::Hello
            | Command::HelloOk
            | Command::Tagged
            | Command::TaggedOk
            | Command::Credit
            | Command::Finish
            | Command::Reset
            | Command::DrainOk
            | Command::CallOk
            | Command::PacketsOk
            | Command::Failure => return Err(RequestError::UnknownCommand(command.byte())),
        })
    }

    /// The command of the answer, if there is one.
    pub const fn answered_by(&self) -> Option<Command> {
        Some(match self {
            Self::Send { .. } | Self::SendTo { .. } | Self::Cancel => return None,
            Self::Bind { .. } => Command::BindOk,
            Self::Dial { .. } | Self::DialWith { .. } => Command::DialOk,
            Self::Close { .. } => Command::CloseOk,
            Self::SendToConfirm { .. } | Self::SendFrom { .. } => Command::SendToOk,
            Self::Info => Command::InfoOk,
            Self::Handshake(_) => Command::HandshakeOk,
            Self::ResolveHostname { .. } => Command::ResolveHostnameOk,
            Self::SetHostname { .. } => Command::SetHostnameOk,
            Self::SetVisibility { .. } => Command::SetVisibilityOk,
            Self::Deregister => Command::DeregisterOk,
            Self::SetTags { .. } => Command::SetTagsOk,
            Self::SetWebhook { .. } => Command::SetWebhookOk,
            Self::Network(_) => Command::NetworkOk,
            Self::Health => Command::HealthOk,
            Self::Managed(_) => Command::ManagedOk,
            Self::RotateKey => Command::RotateKeyOk,
            Self::Broadcast { .. } => Command::BroadcastOk,
            Self::PreferDirect { .. } => Command::PreferDirectOk,
            Self::SubmitBadge(_) => Command::SubmitBadgeOk,
            Self::EnrollRecovery(_) => Command::EnrollRecoveryOk,
            Self::SignEnvelope(_) => Command::SignEnvelopeOk,
            Self::VerifyEnvelope(_) => Command::VerifyEnvelopeOk,
            Self::Unbind { .. } => Command::UnbindOk,
            Self::Drain { .. } => Command::DrainOk,
            Self::Call(_) => Command::CallOk,
            Self::Packets { .. } => Command::PacketsOk,
        })
    }

    /// Appends the request as a frame of its own, in the reference dialect.
    pub fn emit(&self, out: &mut Vec<u8>) {
        frame(out, |out| self.put(out));
    }

    /// Appends the request as a tagged frame of the extended dialect.
    pub fn emit_tagged(&self, tag: u32, out: &mut Vec<u8>) {
        frame(out, |out| {
            out.push(Command::Tagged.byte());
            out.extend(tag.to_be_bytes());
            self.put(out);
        });
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bind { port } => put_port(out, Command::Bind, *port),
            Self::Dial { to } => put_endpoint(out, Command::Dial, *to),
            Self::DialWith { to, data } => {
                put_endpoint(out, Command::DialWith, *to);
                out.extend_from_slice(data);
            }
            Self::Send { stream, data } => {
                put_stream(out, Command::Send, *stream);
                out.extend_from_slice(data);
            }
            Self::Close { stream } => put_stream(out, Command::Close, *stream),
            Self::SendTo { to, data } => {
                put_endpoint(out, Command::SendTo, *to);
                out.extend_from_slice(data);
            }
            Self::SendToConfirm { to, data } => {
                put_endpoint(out, Command::SendToConfirm, *to);
                out.extend_from_slice(data);
            }
            Self::SendFrom { from, to, data } => {
                put_port(out, Command::SendFrom, *from);
                to.addr.emit(out);
                out.extend(to.port.0.to_be_bytes());
                out.extend_from_slice(data);
            }
            Self::Info => out.push(Command::Info.byte()),
            Self::Handshake(handshake) => {
                out.push(Command::Handshake.byte());
                handshake.put(out);
            }
            Self::ResolveHostname { name } => put_text(out, Command::ResolveHostname, name),
            Self::SetHostname { name } => put_text(out, Command::SetHostname, name),
            Self::SetVisibility { public } => out.extend([Command::SetVisibility.byte(), u8::from(*public)]),
            Self::Deregister => out.push(Command::Deregister.byte()),
            Self::SetTags { tags } => {
                out.push(Command::SetTags.byte());
                put_json(out, tags);
            }
            Self::SetWebhook { url } => put_text(out, Command::SetWebhook, url),
            Self::Network(network) => {
                out.push(Command::Network.byte());
                network.put(out);
            }
            Self::Health => out.push(Command::Health.byte()),
            Self::Managed(managed) => {
                out.push(Command::Managed.byte());
                managed.put(out);
            }
            Self::RotateKey => out.push(Command::RotateKey.byte()),
            Self::Broadcast { network, port, token, data } => {
                out.push(Command::Broadcast.byte());
                out.extend(network.0.to_be_bytes());
                out.extend(port.0.to_be_bytes());
                put_short_text(out, token);
                out.extend_from_slice(data);
            }
            Self::Cancel => out.push(Command::Cancel.byte()),
            Self::PreferDirect { node } => {
                out.push(Command::PreferDirect.byte());
                out.extend(node.0.to_be_bytes());
            }
            Self::SubmitBadge(badge) => {
                out.push(Command::SubmitBadge.byte());
                put_json(out, badge);
            }
            Self::EnrollRecovery(enrollment) => {
                out.push(Command::EnrollRecovery.byte());
                put_json(out, enrollment);
            }
            Self::SignEnvelope(envelope) => {
                out.push(Command::SignEnvelope.byte());
                put_json(out, envelope);
            }
            Self::VerifyEnvelope(envelope) => {
                out.push(Command::VerifyEnvelope.byte());
                put_json(out, envelope);
            }
            Self::Unbind { port } => put_port(out, Command::Unbind, *port),
            Self::Drain { stream } => put_stream(out, Command::Drain, *stream),
            Self::Call(call) => {
                out.push(Command::Call.byte());
                put_json(out, call);
            }
            Self::Packets { wait } => out.extend([Command::Packets.byte(), u8::from(*wait)]),
        }
    }
}

fn command(frame: &[u8]) -> Result<(Command, &[u8]), RequestError> {
    let Some((&byte, payload)) = frame.split_first() else {
        return Err(RequestError::Malformed("empty frame"));
    };
    let command = Command::from_byte(byte).ok_or(RequestError::UnknownCommand(byte))?;
    Ok((command, payload))
}

/// Reads fixed fields; whatever is missing, the text is the one 1.18 gives for the command.
pub(super) fn fields<'a, T>(
    payload: &'a [u8],
    missing: &'static str,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, ParseError>,
) -> Result<T, RequestError> {
    read(&mut Reader::new(payload)).map_err(|_| RequestError::Malformed(missing))
}

pub(super) fn text<'a>(bytes: &'a [u8], wrong: &'static str) -> Result<&'a str, RequestError> {
    str::from_utf8(bytes).map_err(|_| RequestError::Malformed(wrong))
}

pub(super) fn json<T: DeserializeOwned>(payload: &[u8], field: &'static str) -> Result<T, RequestError> {
    serde_json::from_slice(payload).map_err(|error| {
        // The wording of 1.18's parser for the one mistake that scripts were seen to make.
        let reason =
            if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        RequestError::Json { field, reason }
    })
}

pub(super) fn tags(payload: &[u8]) -> Result<Vec<String>, RequestError> {
    // `null` clears the tags, as an empty array does.
    let tags: Option<Vec<String>> = json(payload, "set_tags: invalid JSON")?;
    let tags = tags.unwrap_or_default();
    if tags.len() > MAX_TAGS {
        return Err(RequestError::Malformed("set_tags: maximum 3 tags allowed"));
    }
    Ok(tags)
}

pub(super) fn port(r: &mut Reader<'_>) -> Result<Port, ParseError> {
    Ok(Port(r.u16()?))
}

pub(super) fn network(r: &mut Reader<'_>) -> Result<NetworkId, ParseError> {
    Ok(NetworkId(r.u16()?))
}

pub(super) fn node(r: &mut Reader<'_>) -> Result<NodeId, ParseError> {
    Ok(NodeId(r.u32()?))
}

pub(super) fn stream(r: &mut Reader<'_>) -> Result<StreamId, ParseError> {
    Ok(StreamId(r.u32()?))
}

pub(super) fn endpoint(r: &mut Reader<'_>) -> Result<Endpoint, ParseError> {
    Ok(Endpoint::new(Addr::read(r)?, port(r)?))
}

pub(super) fn put_port(out: &mut Vec<u8>, command: Command, port: Port) {
    out.push(command.byte());
    out.extend(port.0.to_be_bytes());
}

pub(super) fn put_stream(out: &mut Vec<u8>, command: Command, stream: StreamId) {
    out.push(command.byte());
    out.extend(stream.0.to_be_bytes());
}

fn put_endpoint(out: &mut Vec<u8>, command: Command, to: Endpoint) {
    out.push(command.byte());
    to.addr.emit(out);
    out.extend(to.port.0.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, command: Command, text: &str) {
    out.push(command.byte());
    out.extend_from_slice(text.as_bytes());
}

/// A text behind its length of two bytes. Tokens are the only such texts; one that is longer than two
/// bytes can count is cut and will then be refused as wrong.
pub(super) fn put_short_text(out: &mut Vec<u8>, text: &str) {
    let text = &text.as_bytes()[..text.len().min(u16::MAX.into())];
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

#[expect(clippy::expect_used, reason = "our own structs have string keys and no failing serializers")]
pub(super) fn put_json<T: serde::Serialize>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("writing JSON to memory cannot fail");
}
