"""Data exchange, port 1001: what one node says to another about messages and files.

Frames ``u32 type | u32 length | payload`` in each direction, each answered by the receiver with a line of text.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

from .errors import BusyError, ClosedError, ProtocolError, UnsupportedError
from .stream import Stream

TEXT, BINARY, JSON, FILE, TRACE, FILESTREAM, TAGGED, CONTROL = 1, 2, 3, 4, 5, 7, 10, 80
KINDS = {"text": TEXT, "binary": BINARY, "json": JSON}
NAMES = {
    TEXT: "TEXT",
    BINARY: "BINARY",
    JSON: "JSON",
    FILE: "FILE",
    TRACE: "TRACE",
    FILESTREAM: "FILESTREAM",
    8: "GOVERNED",
    TAGGED: "TAGGED",
    CONTROL: "CONTROL",
}
MAX_ANSWER = 64 << 10
"""Longest answer accepted: answers are lines of text."""
_HEAD = struct.Struct(">II")


@dataclass(frozen=True)
class Receipt:
    """The receiver has stored a message."""

    message_id: str
    tagged: bool
    """Whether the receiver knows ids. If not, an answer cannot name this message."""
    bytes: int
    ack: str
    """The receiver's answer in its own words."""
    duplicate: bool
    """Whether it had the message already."""


@dataclass(frozen=True)
class Answer:
    """What a receiver says to a frame."""

    stored: bool
    kind: int | None
    """The type of what it answers; none for a refusal that names none."""
    bytes: int
    duplicate: bool
    reason: str
    text: str

    def is_unsupported(self, kind: int) -> bool:
        """An older receiver names the envelope itself, one that knows it names what is inside."""
        return self.kind == kind


_ACK = re.compile(r"ACK (\S+(?:\(\d+\))?) (0|[1-9][0-9]*) bytes( \(duplicate\))?")
_ERR = re.compile(r"ERR (\S+) save failed: (.*)", re.DOTALL)


def _kind(name: str) -> int | None:
    for number, known in NAMES.items():
        if known == name:
            return number
    match = re.fullmatch(r"UNKNOWN\((\d{1,9})\)", name)
    return int(match[1]) if match else None


def parse_answer(kind: int, payload: bytes) -> Answer:
    """Reads an answer."""
    if kind == JSON:
        # The answer to a traced message, with the plain one inside.
        try:
            inner = json.loads(payload)["inner_ack"]
        except (ValueError, KeyError, TypeError):
            raise UnsupportedError("the receiver's answer is not readable") from None
        return parse_answer(TEXT, str(inner).encode())
    if kind != TEXT:
        raise UnsupportedError(f"the receiver answered with a {NAMES.get(kind, kind)} frame")
    text = payload.decode(errors="replace")
    match = _ACK.fullmatch(text)
    if match and (named := _kind(match[1])) is not None:
        return Answer(True, named, int(match[2]), match[3] is not None, "", text)
    if not text.startswith("ERR "):
        raise UnsupportedError(f"the receiver answered `{text[:80]}`")
    match = _ERR.fullmatch(text)
    if match and (named := _kind(match[1])) is not None:
        return Answer(False, named, 0, False, match[2], text)
    return Answer(False, None, 0, False, text[4:], text)


def frame(kind: int, *parts: bytes) -> bytes:
    """A frame."""
    return _HEAD.pack(kind, sum(map(len, parts))) + b"".join(parts)


def control(header: dict[str, Any], body: bytes = b"") -> bytes:
    """What only our nodes say to each other."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return frame(CONTROL, struct.pack(">I", len(text)), text, body)


def parse_control(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Reads such a word."""
    if len(payload) < 4:
        raise ProtocolError("the peer broke the protocol: a control frame is too short")
    (length,) = struct.unpack_from(">I", payload)
    header = payload[4 : 4 + length]
    try:
        word = json.loads(header)
    except ValueError:
        word = None
    if len(header) < length or not isinstance(word, dict):
        raise ProtocolError("the peer broke the protocol: a control frame without a header")
    return word, payload[4 + length :]


async def read_frame(stream: Stream, limit: int = MAX_ANSWER) -> tuple[int, bytes]:
    """The next frame."""
    try:
        kind, length = _HEAD.unpack(await stream.readexactly(_HEAD.size))
        if length > limit:
            raise ProtocolError(f"the peer broke the protocol: an answer of {length} bytes")
        return kind, await stream.readexactly(length)
    except asyncio.IncompleteReadError:
        raise ClosedError("the receiver closed the connection without an answer") from None


def refused(reason: str) -> BusyError:
    """The error for something the receiver did not store."""
    return BusyError(
        f"the receiver did not store it: {reason}",
        hint="nothing was delivered; make room on the receiver or send something it accepts",
    )


class Courier:
    """A connection to a peer's data exchange, for one message after the other."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._tags = True

    async def send(self, kind: str, body: bytes, message_id: str, reply_to: str | None) -> Receipt:
        """Sends a message and waits until the receiver has stored it."""
        while True:
            await self._stream.send(self._delivery(KINDS[kind], body, message_id, reply_to))
            answer = parse_answer(*await read_frame(self._stream))
            if self._tags and answer.is_unsupported(TAGGED):
                # An older receiver says so, and gets the message in the older form.
                self._tags = False
                continue
            if not answer.stored:
                raise refused(answer.reason)
            return Receipt(message_id, self._tags, answer.bytes, answer.text, answer.duplicate)

    def _delivery(self, kind: int, body: bytes, message_id: str, reply_to: str | None) -> bytes:
        if not self._tags:
            return frame(kind, body)
        tag = {"message_id": message_id}
        if reply_to is not None:
            tag["reply_to"] = reply_to
        header = json.dumps(tag, separators=(",", ":")).encode()
        return frame(TAGGED, struct.pack(">H", len(header)), header, struct.pack(">I", kind), body)
