"""Events as they travel (port 1002), and the patterns that topics are matched with."""

from __future__ import annotations

import json
import struct
from typing import Any

from ._content import Data
from .errors import InvalidArgumentError, ProtocolError

MAX_TOPIC = 1024
MAX_PAYLOAD = 16 << 20
RESERVED = "\0pilot."
"""Topics that begin so are words between a broker and one subscriber."""
NOTHING = "\0pilot.nothing"
"""What a connection subscribes to that only publishes."""


def event_frame(topic: str, payload: bytes) -> bytes:
    """``u16 topic length | topic | u32 payload length | payload``"""
    name = topic.encode()
    if len(name) > MAX_TOPIC:
        raise InvalidArgumentError(f"a topic of {len(name)} bytes is over the limit of {MAX_TOPIC}")
    if len(payload) > MAX_PAYLOAD:
        raise InvalidArgumentError(
            f"an event of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}",
            hint="send a message or a file instead",
        )
    return struct.pack(">H", len(name)) + name + struct.pack(">I", len(payload)) + payload


class EventDecoder:
    """Collects bytes and gives out whole events. Too long lengths are refused as soon as they are here."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[str, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        (topic_length,) = struct.unpack_from(">H", buffer)
        if topic_length > MAX_TOPIC:
            raise ProtocolError("the broker broke the protocol: the topic is too long")
        start = 2 + topic_length + 4
        if len(buffer) < start:
            return None
        (length,) = struct.unpack_from(">I", buffer, start - 4)
        if length > MAX_PAYLOAD:
            raise ProtocolError("the broker broke the protocol: the event is too long")
        if len(buffer) < start + length:
            return None
        try:
            topic = buffer[2 : 2 + topic_length].decode()
        except UnicodeDecodeError:
            raise ProtocolError("the broker broke the protocol: a topic that is no text") from None
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return topic, payload


# ---- patterns


def is_wild(pattern: str) -> bool:
    """Whether it can match more than the topic of the same text."""
    return "*" in pattern or _rest(pattern) is not None


def matches(pattern: str, topic: str) -> bool:
    """Whether an event of this topic is wanted. Levels are separated by ``.`` or ``/``; ``*`` stands for anything within a
    level, a last ``>`` for one level or more, a last ``#`` for any number; ``*``, ``#`` or ``>`` alone for every topic."""
    if pattern == topic or pattern in ("*", "#", ">"):
        return True
    rest = _rest(pattern)
    if rest is None:
        return _prefix(pattern, topic) == ""
    parent, separator, wildcard = rest
    after = _prefix(parent, topic)
    return after == separator or (wildcard == "#" and after == "")


def _rest(pattern: str) -> tuple[str, str, str] | None:
    if pattern in (">", "#"):
        return ("", "", pattern)
    if len(pattern) >= 2 and pattern[-1] in ">#" and pattern[-2] in "./":
        return (pattern[:-2], pattern[-2], pattern[-1])
    return None


def _split(text: str) -> tuple[str, str, str]:
    at = next((at for at, char in enumerate(text) if char in "./"), None)
    return (text, "", "") if at is None else (text[:at], text[at], text[at + 1 :])


def _prefix(pattern: str, topic: str) -> str | None:
    """`None` when the levels differ, else the separator after which the topic goes on, or nothing."""
    while True:
        level, separator, pattern = _split(pattern)
        part, found, topic = _split(topic)
        if not _level(level, part):
            return None
        if not separator:
            return found
        if separator != found:
            return None


def _level(pattern: str, text: str) -> bool:
    p = t = 0
    star: tuple[int, int] | None = None
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star = (p, t)
            p += 1
        elif p < len(pattern) and pattern[p] == text[t]:
            p, t = p + 1, t + 1
        elif star is not None:
            star = (star[0], star[1] + 1)
            p, t = star[0] + 1, star[1]
        else:
            return False
    return set(pattern[p:]) <= {"*"}


def payload_of(data: Data) -> bytes:
    """The bytes of an event: those of a text, or JSON."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    return data.encode() if isinstance(data, str) else json.dumps(data, ensure_ascii=False).encode()


def read_note(wanted: str, topic: str, payload: bytes) -> dict[str, Any]:
    """A broker's word to this subscriber; nothing when it is none, or for somebody else."""
    if topic != wanted:
        return {}
    try:
        note = json.loads(payload)
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
