"""What a message carries, and how it is handed to the daemon."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from typing import Any, Literal, Union

from .errors import InvalidArgumentError

MAX_MESSAGE = (64 << 20) - 4096
"""Longest message sent in one frame: what release 1.18.0 accepts."""
INLINE_MAX = 512 << 10

MessageType = Literal["text", "json", "binary"]
Data = Union[str, bytes, bytearray, memoryview, dict[str, Any], list[Any], int, float, bool, None]
"""What may be sent: text, bytes, or anything else that JSON has a form for."""


def content_of(data: Data, kind: MessageType | None) -> tuple[MessageType, bytes]:
    """The type of a message and its bytes. A text is sent as text, bytes as binary, everything else as JSON."""
    if kind is not None and kind not in ("text", "json", "binary"):
        raise InvalidArgumentError(f"{kind!r} is no type of a message", hint="`text`, `json` or `binary`")
    if isinstance(data, (bytes, bytearray, memoryview)):
        kind, body = kind or "binary", bytes(data)
    elif isinstance(data, str):
        kind, body = kind or "text", data.encode()
    else:
        try:
            kind, body = kind or "json", json.dumps(data, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"this cannot be sent as JSON: {error}") from None
    if kind == "json":
        try:
            json.loads(body)
        except ValueError as error:
            raise InvalidArgumentError(f"this is no JSON: {error}", hint='send it with type="text"') from None
    if len(body) > MAX_MESSAGE:
        raise InvalidArgumentError(
            f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE}", hint="send it as a file"
        )
    return kind, body


def new_message_id() -> str:
    """A new random id."""
    return secrets.token_hex(16)


@contextlib.asynccontextmanager
async def body_of(data: bytes) -> AsyncIterator[dict[str, str]]:
    """The bytes as a request carries them. What does not fit into one goes through a file, which is removed again."""
    if len(data) <= INLINE_MAX:
        yield {"inline": base64.b64encode(data).decode()}
        return
    path = await asyncio.to_thread(_write_aside, data)
    try:
        yield {"path": path}
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _write_aside(data: bytes) -> str:
    handle, path = tempfile.mkstemp(prefix="pilot-", suffix=".msg")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return path
