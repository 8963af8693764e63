"""Where the daemon is, and a connection to it that is made anew when the old one has ended."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from . import _wire as wire
from ._link import Answer, Link
from .errors import ClosedError, NotRunningError, ProtocolError, unsupported

DEFAULT_SOCKET = "/tmp/pilot.sock"  # noqa: S108 - where daemons are when nothing else is said
RECONNECT_PAUSE = 0.1
"""Seconds before something that goes on by itself asks a daemon that was restarted again."""


def default_socket() -> str:
    """``$PILOT_SOCKET``, else what ``config.json`` in ``$PILOT_HOME`` or ``~/.pilot`` says, else ``/tmp/pilot.sock``."""
    return os.environ.get("PILOT_SOCKET") or _configured() or DEFAULT_SOCKET


def _configured() -> str | None:
    home = os.environ.get("PILOT_HOME")
    try:
        folder = Path(home) if home else Path.home() / ".pilot"
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RuntimeError):
        return None
    socket = config.get("socket") if isinstance(config, dict) else None
    return socket if isinstance(socket, str) and socket else None


class Daemon:
    """A connection that is mended. What was opened on the old one (streams, ports) has ended with it."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.generation = 0
        self._link: Link | None = None
        self._lock: asyncio.Lock | None = None
        self._is_closed = False

    async def link(self) -> Link:
        """The connection; a new one if the old one has ended."""
        link = self._link
        if link is not None and link.over is None:
            return link
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._is_closed:
                raise ClosedError("this client is closed", hint="use it inside `async with Pilot() as p`")
            if self._link is None or self._link.over is not None:
                self._link = await Link.connect(self.socket)
                self.generation += 1
            return self._link

    async def close(self) -> None:
        self._is_closed = True
        if self._link is not None:
            await self._link.close()

    async def is_reference(self) -> bool:
        return (await self.link()).is_reference

    async def order(self, request: wire.Request) -> Answer:
        return await (await self.link()).order(request)

    async def json(self, request: wire.Request) -> Any:
        """A request that is answered with JSON."""
        _, payload = await self.order(request)
        return wire.Reader(payload, 0, len(payload)).json()

    async def call(self, name: str, fields: dict[str, Any]) -> Any:
        """A call of the extended dialect. Fields that are `None` are left out."""
        link = await self.link()
        if link.is_reference:
            raise unsupported(name)
        given = {key: value for key, value in fields.items() if value is not None}
        _, payload = await link.order(wire.call(name, given))
        return wire.Reader(payload, 0, len(payload)).json()

    async def patient_call(self, name: str, fields: dict[str, Any], until: float | None = None) -> Any:
        """The same, for what may be asked of the next daemon as well: one that is gone is waited for, until a time of the
        loop's clock if one is given."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self.call(name, fields)
            except NotRunningError:
                if self._is_closed or (until is not None and loop.time() + RECONNECT_PAUSE >= until):
                    raise
                await asyncio.sleep(RECONNECT_PAUSE)


def expect(reply: Any, *kinds: str) -> dict[str, Any]:
    """A reply that says what it ``is``."""
    if not isinstance(reply, dict) or reply.get("is") not in kinds:
        raise ProtocolError("the daemon answered another question")
    return reply


def millis(seconds: float) -> int:
    return max(0, min(int(seconds * 1000), 1 << 53))
