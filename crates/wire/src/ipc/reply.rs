//! What the daemon says: replies, pushes, and the frames of the extended dialect around them.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::frame;
use super::request::{endpoint, port, put_json, put_port, put_stream, stream};
use super::{Command, Failure, Features};
use crate::{Endpoint, ParseError, Port, Reader, StreamId};

/// One frame from the daemon. [`DaemonFrame::parse`] takes what a `Decoder` yields.
#[derive(Debug, Clone, PartialEq)]
pub enum DaemonFrame<'a> {
    /// The connection speaks the extended dialect from here on.
    HelloOk {
        /// The version both speak.
        version: u8,
        /// What the daemon offers.
        features: Features,
    },
    /// The reply to a tagged request; [`Reply::parse`] reads it.
    Tagged {
        /// The number of the request.
        tag: u32,
        /// Command and payload.
        reply: &'a [u8],
    },
    /// The client may send so many more bytes to this stream.
    Credit {
        /// Which stream.
        stream: StreamId,
        /// How many more.
        bytes: u32,
    },
    /// The peer writes no more; it still reads.
    Finish {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream ended abnormally.
    Reset {
        /// Which stream.
        stream: StreamId,
        /// Why.
        failure: Failure,
    },
    /// A peer opened a stream to a port of this client.
    Accept {
        /// The local port.
        port: Port,
        /// The new stream.
        stream: StreamId,
        /// The peer's end.
        from: Endpoint,
    },
    /// Data from a stream.
    Recv {
        /// Which stream.
        stream: StreamId,
        /// At most `MAX_DATA` bytes.
        data: &'a [u8],
    },
    /// A datagram. Every client gets every one and keeps those for its ports.
    RecvFrom {
        /// The sender.
        from: Endpoint,
        /// The local port.
        port: Port,
        /// The payload.
        data: &'a [u8],
    },
    /// A reply without a number. `Reply::Closed` is also pushed when a stream ended in order.
    Reply(Reply<'a>),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    /// The port is claimed.
    Bound {
        /// The local port.
        port: Port,
    },
    /// The stream is open.
    Dialed {
        /// The new stream.
        stream: StreamId,
    },
    /// The stream is closed, or was not open.
    Closed {
        /// Which stream.
        stream: StreamId,
    },
    /// The datagrams to the network were sent.
    Broadcast,
    /// The port is free.
    Unbound {
        /// The local port.
        port: Port,
    },
    /// The datagram was sent.
    Sent,
    /// The peer has everything that was written.
    Drained {
        /// Which stream.
        stream: StreamId,
    },
    /// A result in JSON.
    Json {
        /// Which kind of result: one of the `..Ok` commands.
        command: Command,
        /// The text. Not parsed here: only who asked knows the type.
        body: Cow<'a, [u8]>,
    },
    /// What a capture has seen.
    Packets {
        /// As [`capture::parse`](crate::capture::parse) reads it.
        body: Cow<'a, [u8]>,
    },
    /// The request failed, in the reference dialect.
    Error {
        /// Always 1.
        code: u16,
        /// What happened.
        text: Cow<'a, str>,
    },
    /// The request failed, in the extended dialect.
    Failure(Failure),
}

/// A frame that no daemon should send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// An empty tagged reply.
    #[error("the daemon sent an empty reply")]
    Empty,
    /// A number that is no command, or one that only clients say.
    #[error("the daemon sent the unknown command 0x{0:02X}")]
    UnknownCommand(u8),
    /// The fields of a known command are not all there.
    #[error("the daemon sent a malformed {command:?}: {reason}")]
    Malformed {
        /// Which command.
        command: Command,
        /// What is wrong.
        reason: ParseError,
    },
    /// The JSON of a known command is wrong.
    #[error("the daemon sent a malformed {command:?}: {reason}")]
    Json {
        /// Which command.
        command: Command,
        /// What is wrong.
        reason: String,
    },
}

impl<'a> DaemonFrame<'a> {
    /// Reads one frame: command and payload.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other commands are replies, which sort themselves"
    )]
    pub fn parse(frame: &'a [u8]) -> Result<Self, ReplyError> {
        let (command, payload) = command(frame)?;
        let mut r = Reader::new(payload);
        let parsed = match command {
            Command::HelloOk => {
                let (version, rest) = fields(command, r, |r| Ok((r.u8()?, r.rest())))?;
                return Ok(Self::HelloOk { version, features: json(command, rest)? });
            }
            Command::Reset => {
                let (stream, rest) = fields(command, r, |r| Ok((stream(r)?, r.rest())))?;
                return Ok(Self::Reset { stream, failure: json(command, rest)? });
            }
            Command::TaggedOk => r.u32().map(|tag| Self::Tagged { tag, reply: r.rest() }),
            Command::Credit => stream(&mut r).and_then(|stream| Ok(Self::Credit { stream, bytes: r.u32()? })),
            Command::Finish => stream(&mut r).map(|stream| Self::Finish { stream }),
            Command::Accept => accept(&mut r),
            Command::Recv => stream(&mut r).map(|stream| Self::Recv { stream, data: r.rest() }),
            Command::RecvFrom => recv_from(&mut r),
            _ => return Reply::parse(frame).map(Self::Reply),
        };
        parsed.map_err(|reason| ReplyError::Malformed { command, reason })
    }

    /// Appends the frame with its length.
    pub fn emit(&self, out: &mut Vec<u8>) {
        frame(out, |out| match self {
            Self::HelloOk { version, features } => {
                out.extend([Command::HelloOk.byte(), *version]);
                put_json(out, features);
            }
            Self::Tagged { tag, reply } => {
                out.push(Command::TaggedOk.byte());
                out.extend(tag.to_be_bytes());
                out.extend_from_slice(reply);
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
            Self::Accept { port, stream, from } => {
                put_port(out, Command::Accept, *port);
                out.extend(stream.0.to_be_bytes());
                put_endpoint(out, *from);
            }
            Self::Recv { stream, data } => {
                put_stream(out, Command::Recv, *stream);
                out.extend_from_slice(data);
            }
            Self::RecvFrom { from, port, data } => {
                out.push(Command::RecvFrom.byte());
                put_endpoint(out, *from);
                out.extend(port.0.to_be_bytes());
                out.extend_from_slice(data);
            }
            Self::Reply(reply) => reply.put(out),
        });
    }
}

impl<'a> Reply<'a> {
    /// A result in JSON, for the request that [`Request::answered_by`](super::Request::answered_by) this command.
    pub fn json<T: Serialize>(command: Command, value: &T) -> Reply<'static> {
        let mut body = Vec::new();
        put_json(&mut body, value);
        Reply::Json { command, body: body.into() }
    }

    /// Reads one reply: command and payload.
    pub fn parse(frame: &'a [u8]) -> Result<Self, ReplyError> {
        let (command, payload) = command(frame)?;
        let r = Reader::new(payload);
        Ok(match command {
            Command::BindOk => Self::Bound { port: fields(command, r, port)? },
            Command::DialOk => Self::Dialed { stream: fields(command, r, stream)? },
            Command::CloseOk => Self::Closed { stream: fields(command, r, stream)? },
            Command::BroadcastOk => Self::Broadcast,
            Command::UnbindOk => Self::Unbound { port: fields(command, r, port)? },
            Command::SendToOk => Self::Sent,
            Command::DrainOk => Self::Drained { stream: fields(command, r, stream)? },
            Command::InfoOk
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
            | Command::PreferDirectOk
            | Command::SubmitBadgeOk
            | Command::EnrollRecoveryOk
            | Command::SignEnvelopeOk
            | Command::VerifyEnvelopeOk
            | Command::CallOk => Self::Json { command, body: payload.into() },
            Command::PacketsOk => Self::Packets { body: payload.into() },
            Command::Error => {
                let (code, text) = fields(command, r, |r| Ok((r.u16()?, r.rest())))?;
                Self::Error { code, text: String::from_utf8_lossy(text) }
            }
            Command::Failure => Self::Failure(json(command, payload)?),
            Command::Bind
            | Command::Dial
            | Command::Accept
            | Command::Send
            | Command::Recv
            | Command::Close
            | Command::SendTo
            | Command::RecvFrom
            | Command::Info
            | Command::Handshake
            | Command::ResolveHostname
            | Command::SetHostname
            | Command::SetVisibility
            | Command::Deregister
            | Command::SetTags
            | Command::SetWebhook
            | Command::Network
            | Command::Health
            | Command::Managed
            | Command::RotateKey
            | Command::Broadcast
            | Command::Cancel
            | Command::PreferDirect
            | Command::SubmitBadge
            | Command::EnrollRecovery
            | Command::SignEnvelope
            | Command::VerifyEnvelope
            | Command::Unbind
            | Command::SendToConfirm
            | Command::Hello
            | Command::HelloOk
            | Command::Tagged
            | Command::TaggedOk
            | Command::Credit
            | Command::Finish
            | Command::Reset
            | Command::Drain
            | Command::Call
            | Command::SendFrom
            | Command::DialWith
            | Command::Packets => return Err(ReplyError::UnknownCommand(command.byte())),
        })
    }

    /// Which command the reply is.
    pub const fn command(&self) -> Command {
        match self {
            Self::Bound { .. } => Command::BindOk,
            Self::Dialed { .. } => Command::DialOk,
            Self::Closed { .. } => Command::CloseOk,
            Self::Broadcast => Command::BroadcastOk,
            Self::Unbound { .. } => Command::UnbindOk,
            Self::Sent => Command::SendToOk,
            Self::Drained { .. } => Command::DrainOk,
            Self::Json { command, .. } => *command,
            Self::Packets { .. } => Command::PacketsOk,
            Self::Error { .. } => Command::Error,
            Self::Failure(_) => Command::Failure,
        }
    }

    /// Appends the reply as a frame of its own, in the reference dialect.
    pub fn emit(&self, out: &mut Vec<u8>) {
        frame(out, |out| self.put(out));
    }

    /// Appends the reply as a tagged frame of the extended dialect.
    pub fn emit_tagged(&self, tag: u32, out: &mut Vec<u8>) {
        frame(out, |out| {
            out.push(Command::TaggedOk.byte());
            out.extend(tag.to_be_bytes());
            self.put(out);
        });
    }

    fn put(&self, out: &mut Vec<u8>) {
        let command = self.command();
        match self {
            Self::Bound { port } | Self::Unbound { port } => put_port(out, command, *port),
            Self::Dialed { stream } | Self::Closed { stream } | Self::Drained { stream } => {
                put_stream(out, command, *stream);
            }
            Self::Broadcast | Self::Sent => out.push(command.byte()),
            Self::Json { body, .. } | Self::Packets { body } => {
                out.push(command.byte());
                out.extend_from_slice(body);
            }
            Self::Error { code, text } => {
                out.push(command.byte());
                out.extend(code.to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Failure(failure) => {
                out.push(command.byte());
                put_json(out, failure);
            }
        }
    }
}

fn command(frame: &[u8]) -> Result<(Command, &[u8]), ReplyError> {
    let (&byte, payload) = frame.split_first().ok_or(ReplyError::Empty)?;
    Ok((Command::from_byte(byte).ok_or(ReplyError::UnknownCommand(byte))?, payload))
}

fn accept<'a>(r: &mut Reader<'a>) -> Result<DaemonFrame<'a>, ParseError> {
    Ok(DaemonFrame::Accept { port: port(r)?, stream: stream(r)?, from: endpoint(r)? })
}

fn recv_from<'a>(r: &mut Reader<'a>) -> Result<DaemonFrame<'a>, ParseError> {
    Ok(DaemonFrame::RecvFrom { from: endpoint(r)?, port: port(r)?, data: r.rest() })
}

fn fields<'a, T>(
    command: Command,
    mut reader: Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, ParseError>,
) -> Result<T, ReplyError> {
    read(&mut reader).map_err(|reason| ReplyError::Malformed { command, reason })
}

fn json<T: DeserializeOwned>(command: Command, body: &[u8]) -> Result<T, ReplyError> {
    serde_json::from_slice(body).map_err(|error| ReplyError::Json { command, reason: error.to_string() })
}

fn put_endpoint(out: &mut Vec<u8>, endpoint: Endpoint) {
    endpoint.addr.emit(out);
    out.extend(endpoint.port.0.to_be_bytes());
}
