"""The client: a connection to the daemon of this machine."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any

from ._daemon import Daemon, default_socket
from ._events import EventCalls
from ._files import FileCalls
from ._messages import MessageCalls
from ._networks import NetworkCalls
from ._node import Info, NodeCalls
from ._requests import RequestCalls
from ._serve import ServeCalls
from ._tasks import TaskCalls
from ._trust import TrustCalls
from .address import Address
from .errors import NotRegisteredError, PilotError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Pilot"]


class Pilot(
    NodeCalls,
    TrustCalls,
    MessageCalls,
    RequestCalls,
    ServeCalls,
    FileCalls,
    EventCalls,
    TaskCalls,
    NetworkCalls,
):
    """A connection to the daemon: ``async with Pilot() as p: ...``

    The socket is the argument, else ``$PILOT_SOCKET``, else what ``config.json`` says, else ``/tmp/pilot.sock``. Peers are
    named by hostname, address or number.

    When the daemon ends, what is under way fails with `DisconnectedError`, and streams and ports are gone with it; the next
    call connects anew. Inboxes, subscriptions, servers, requests and waits go on by themselves.
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        self._daemon = Daemon(os.fspath(socket) if socket is not None else default_socket())
        self._info: Info | None = None
        self._children: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def socket(self) -> str:
        """Where the daemon is."""
        return self._daemon.socket

    async def connect(self) -> Self:
        """Connects. `NotRunningError` when no daemon answers there. What ``async with`` does."""
        await self._daemon.link()
        self._info = await self.info()
        return self

    async def close(self) -> None:
        """Ends the connection and all that was opened through it, in order: what the daemon has been given is still
        delivered."""
        for child in list(self._children):
            with contextlib.suppress(PilotError):
                await child.close()
        await self._daemon.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.connect()
        except BaseException:
            await self._daemon.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def address(self) -> Address:
        """The address of this node, as it was when this client connected or last asked for `info`."""
        if self._info is None or self._info.node_id == 0:
            raise NotRegisteredError(
                "the node has no address yet",
                hint="is the registry up? See `pilotctl status`, then `await p.info()`",
            )
        return self._info.address

    @property
    def node_id(self) -> int:
        """The number of this node."""
        return self.address.node

    @property
    def hostname(self) -> str:
        """The name of this node, or nothing."""
        return self._info.hostname if self._info is not None else ""

    @property
    def version(self) -> str:
        """The version of the daemon's software."""
        return self._info.version if self._info is not None else ""

    async def is_reference(self) -> bool:
        """True when the daemon is of release 1.18: no half-close, no settling, no calls of our own, one request at a time."""
        return await self._daemon.is_reference()

    async def info(self) -> Info:
        """The node, its peers and streams."""
        self._info = await super().info()
        return self._info

    async def _own_address(self) -> Address:
        if self._info is None or self._info.node_id == 0:
            await self.info()
        return self.address

    def _adopt(self, child: Any) -> None:
        self._children.add(child)

    def __repr__(self) -> str:
        return f"<Pilot at {self.socket}>"
