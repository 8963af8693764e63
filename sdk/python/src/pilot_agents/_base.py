"""What all parts of the client share: the connection, and peers given as text."""

from __future__ import annotations

from typing import Any, Union

from . import _wire as wire
from ._daemon import Daemon
from .address import Address, Endpoint, literal
from .errors import InvalidArgumentError, NotFoundError, ProtocolError

Peer = Union[str, int, Address, "Named"]
"""A peer: a hostname, an address (``0:0000.0000.0002``), a number, or something with an ``address``."""


class Named:
    """Something that stands for a node, such as a message for its sender."""

    @property
    def peer_address(self) -> Address:
        """The node it stands for."""
        raise NotImplementedError


class Base:
    """See the module."""

    _daemon: Daemon

    async def call(self, call: str, /, **fields: Any) -> Any:
        """A call of the local socket as it is (docs/local-socket.md): its name and fields, and the JSON of its answer.

        For what this package has no method for, as ``await p.call("why", node=2, timeout_ms=0)``.
        """
        return await self._daemon.call(call, fields)

    async def address_of(self, peer: Peer) -> Address:
        """The address of a peer. Only a hostname needs the registry."""
        if isinstance(peer, Address):
            return peer
        if isinstance(peer, bool):
            raise InvalidArgumentError("a peer is a hostname, an address or a number")
        if isinstance(peer, int):
            wire.u32(peer)
            return Address.backbone(peer)
        if isinstance(peer, str):
            found = literal(peer)
            return found if found is not None else await self._look_up(peer)
        if isinstance(peer, Named):
            return peer.peer_address
        raise InvalidArgumentError(f"{type(peer).__name__} names no peer")

    async def endpoint_of(self, peer: Peer | Endpoint, port: int | None) -> Endpoint:
        """A service: a peer and a port, or both in one."""
        if isinstance(peer, Endpoint):
            return peer if port is None else peer.address.port(port)
        if port is None:
            if not isinstance(peer, str):
                raise InvalidArgumentError("a port is missing")
            name, _, number = peer.rpartition(":")
            if not (name and number.isdigit()):
                raise InvalidArgumentError("a port is missing", hint="write agent-b:1000, or give the port behind it")
            return (await self.address_of(name)).port(int(number))
        return (await self.address_of(peer)).port(port)

    async def node_of(self, peer: Peer) -> int:
        """The number of a peer's node."""
        return (await self.address_of(peer)).node

    async def _look_up(self, name: str) -> Address:
        return Address.parse(str((await self._resolved(name)).get("address", "")))

    async def _resolved(self, name: str) -> dict[str, Any]:
        try:
            if await self._daemon.is_reference():
                found = await self._daemon.json(wire.plain(wire.RESOLVE_HOSTNAME, name.encode()))
            else:
                found = await self._daemon.call("resolve", {"target": name})
        except NotFoundError as error:
            error.hint = error.hint or (
                "is the name right, and its daemon up? A private node is seen by those it trusts: "
                'ask by its address, `await p.handshake("0:0000.0000.0002")`'
            )
            raise
        if not isinstance(found, dict):
            raise ProtocolError("the daemon answered another question")
        return found
