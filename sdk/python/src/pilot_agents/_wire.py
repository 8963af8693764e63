"""The frames of the local socket (docs/local-socket.md): ``u32 length | u8 command | payload``, numbers big-endian."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .address import Address, Endpoint
from .errors import InvalidArgumentError, ProtocolError

MAX_FRAME = 1 << 20
"""Largest frame, command and payload together."""
MAX_DATA = MAX_FRAME - 5
DIALECT = 1
INITIAL_CREDIT = 1 << 20
FIRST_BYTES = 16 << 10
"""What may be written together with a dial."""
MAX_DATAGRAM = 65_535

BIND, BIND_OK = 0x01, 0x02
DIAL, DIAL_OK = 0x03, 0x04
ACCEPT = 0x05
SEND, RECV = 0x06, 0x07
CLOSE, CLOSE_OK = 0x08, 0x09
ERROR = 0x0A
SEND_TO, RECV_FROM = 0x0B, 0x0C
INFO, INFO_OK = 0x0D, 0x0E
HANDSHAKE, HANDSHAKE_OK = 0x0F, 0x10
RESOLVE_HOSTNAME, RESOLVE_HOSTNAME_OK = 0x11, 0x12
SET_HOSTNAME, SET_HOSTNAME_OK = 0x13, 0x14
SET_VISIBILITY, SET_VISIBILITY_OK = 0x15, 0x16
DEREGISTER, DEREGISTER_OK = 0x17, 0x18
SET_TAGS, SET_TAGS_OK = 0x19, 0x1A
SET_WEBHOOK, SET_WEBHOOK_OK = 0x1B, 0x1C
NETWORK, NETWORK_OK = 0x1F, 0x20
HEALTH, HEALTH_OK = 0x21, 0x22
ROTATE_KEY, ROTATE_KEY_OK = 0x25, 0x26
BROADCAST, BROADCAST_OK = 0x29, 0x2A
UNBIND, UNBIND_OK = 0x37, 0x38
SEND_TO_CONFIRM, SEND_TO_OK = 0x39, 0x3A
HELLO, HELLO_OK = 0x80, 0x81
TAGGED, TAGGED_OK = 0x82, 0x83
CREDIT, FINISH, RESET = 0x84, 0x85, 0x86
DRAIN, DRAIN_OK = 0x87, 0x88
CALL, CALL_OK = 0x8A, 0x8B
SEND_FROM = 0x8C
DIAL_WITH = 0x8D
FAILURE = 0x8F

REPLIES = frozenset(
    {
        BIND_OK,
        DIAL_OK,
        ERROR,
        INFO_OK,
        HANDSHAKE_OK,
        RESOLVE_HOSTNAME_OK,
        SET_HOSTNAME_OK,
        SET_VISIBILITY_OK,
        DEREGISTER_OK,
        SET_TAGS_OK,
        SET_WEBHOOK_OK,
        NETWORK_OK,
        HEALTH_OK,
        ROTATE_KEY_OK,
        BROADCAST_OK,
        UNBIND_OK,
        SEND_TO_OK,
        DRAIN_OK,
        CALL_OK,
        FAILURE,
    }
)
"""What may answer a request."""

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_HEAD = struct.Struct(">IB")
_DATA_HEAD = struct.Struct(">IBI")
_TAG_HEAD = struct.Struct(">IBI")
_ENDPOINT = struct.Struct(">HIH")
_ACCEPT = struct.Struct(">HIHIH")
_RECV_FROM = struct.Struct(">HIHH")


@dataclass(frozen=True)
class Request:
    """A request, and the command that answers it."""

    body: bytes
    answered_by: int


def _endpoint(to: Endpoint) -> bytes:
    return _ENDPOINT.pack(to.address.network, to.address.node, to.port)


def u32(value: int) -> bytes:
    if not 0 <= value <= 0xFFFF_FFFF:
        raise InvalidArgumentError(f"{value} is no number of a node")
    return _U32.pack(value)


def u16(value: int) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise InvalidArgumentError(f"{value} is no number of a port or network")
    return _U16.pack(value)


def plain(command: int, payload: bytes = b"") -> Request:
    """A request of the usual form: the next number answers it."""
    return Request(bytes([command]) + payload, command + 1)


def bind(port: int) -> Request:
    return plain(BIND, u16(port))


def unbind(port: int) -> Request:
    return plain(UNBIND, u16(port))


def dial(to: Endpoint) -> Request:
    return plain(DIAL, _endpoint(to))


def dial_with(to: Endpoint, data: bytes) -> Request:
    return Request(bytes([DIAL_WITH]) + _endpoint(to) + data, DIAL_OK)


def send_to(to: Endpoint, data: bytes) -> bytes:
    return bytes([SEND_TO]) + _endpoint(to) + data


def send_to_confirm(to: Endpoint, data: bytes) -> Request:
    return plain(SEND_TO_CONFIRM, _endpoint(to) + data)


def send_from(port: int, to: Endpoint, data: bytes) -> Request:
    return Request(bytes([SEND_FROM]) + u16(port) + _endpoint(to) + data, SEND_TO_OK)


def drain(stream: int) -> Request:
    return plain(DRAIN, _U32.pack(stream))


def call(name: str, fields: dict[str, Any]) -> Request:
    body = json.dumps({"call": name, **fields}, separators=(",", ":"), ensure_ascii=False)
    return plain(CALL, body.encode())


def frame(body: bytes) -> bytes:
    """A frame of its command and payload."""
    return _U32.pack(len(body)) + body


def tagged(tag: int, body: bytes) -> bytes:
    return _TAG_HEAD.pack(len(body) + 5, TAGGED, tag) + body


def data_head(stream: int, length: int) -> bytes:
    """The bytes before so much data of a stream."""
    return _DATA_HEAD.pack(length + 5, SEND, stream)


def about(command: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame about a stream."""
    return frame(bytes([command]) + _U32.pack(stream) + payload)


def credit(stream: int, count: int) -> bytes:
    return about(CREDIT, stream, _U32.pack(count))


class Reader:
    """Takes the fields of a payload; what is too short is an error."""

    __slots__ = ("_at", "_body", "_end")

    def __init__(self, body: bytes, start: int, end: int) -> None:
        self._body = body
        self._at = start
        self._end = end

    def _take(self, form: struct.Struct) -> tuple[Any, ...]:
        if self._end - self._at < form.size:
            raise ProtocolError("the daemon broke the protocol: a frame is too short")
        values = form.unpack_from(self._body, self._at)
        self._at += form.size
        return values

    def u8(self) -> int:
        if self._at >= self._end:
            raise ProtocolError("the daemon broke the protocol: a frame is too short")
        self._at += 1
        return self._body[self._at - 1]

    def u32(self) -> int:
        return int(self._take(_U32)[0])

    def u16(self) -> int:
        return int(self._take(_U16)[0])

    def accept(self) -> tuple[int, int, Endpoint]:
        port, stream, network, node, remote = self._take(_ACCEPT)
        return port, stream, Endpoint(Address(network, node), remote)

    def recv_from(self) -> tuple[Endpoint, int]:
        network, node, remote, port = self._take(_RECV_FROM)
        return Endpoint(Address(network, node), remote), port

    @property
    def at(self) -> int:
        return self._at

    def rest(self) -> bytes:
        return self._body[self._at : self._end]

    def json(self) -> Any:
        try:
            return json.loads(self.rest())
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"the daemon broke the protocol: {error}") from None


class Decoder:
    """Cuts what arrives into frames. It never holds more than one unfinished frame."""

    __slots__ = ("_needed", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int, int]]:
        """The whole frames by now: each as bytes, and where in them command and payload begin and end.

        Frames of length zero are skipped, as the reference does.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, size = 0, len(data)
        self._needed = 4
        while size - at >= 4:
            (length,) = _U32.unpack_from(data, at)
            if length > MAX_FRAME:
                raise ProtocolError(f"the daemon broke the protocol: a frame of {length} bytes")
            end = at + 4 + length
            if end > size:
                self._needed = end - at
                break
            if length:
                yield data, at + 4, end
            at = end
        self._rest += data[at:]


def join(parts: Sequence[bytes | memoryview]) -> bytes:
    return b"".join(parts)
