"""Networks and mailboxes. The answers about networks are the registry's own JSON."""

from __future__ import annotations

from typing import Any

from . import _wire as wire
from ._base import Base, Peer
from ._daemon import expect

__all__: list[str] = []


class NetworkCalls(Base):
    """See the module."""

    async def _network(self, payload: bytes) -> dict[str, Any]:
        found = await self._daemon.json(wire.plain(wire.NETWORK, payload))
        return found if isinstance(found, dict) else {}

    async def network_list(self) -> dict[str, Any]:
        """All networks."""
        return await self._network(b"\x01")

    async def network_join(self, network: int, token: str = "") -> dict[str, Any]:
        """Becomes a member."""
        return await self._network(b"\x02" + wire.u16(network) + token.encode())

    async def network_leave(self, network: int) -> dict[str, Any]:
        """Ends membership."""
        return await self._network(b"\x03" + wire.u16(network))

    async def network_members(self, network: int) -> dict[str, Any]:
        """Who is in a network."""
        return await self._network(b"\x04" + wire.u16(network))

    async def network_invite(self, network: int, peer: Peer) -> dict[str, Any]:
        """Invites a node."""
        return await self._network(b"\x05" + wire.u16(network) + wire.u32(await self.node_of(peer)))

    async def network_invites(self) -> dict[str, Any]:
        """Takes the invitations to this node."""
        return await self._network(b"\x06")

    async def network_respond(self, network: int, accept: bool) -> dict[str, Any]:
        """Answers an invitation."""
        return await self._network(b"\x07" + wire.u16(network) + bytes([bool(accept)]))

    async def memberships(self) -> list[dict[str, Any]]:
        """The networks of this node, and whether their members are trusted."""
        return list((await self.call("networks", op="show")).get("networks") or [])

    async def join_network(self, network: int, token: str = "", *, trust: bool) -> dict[str, Any]:
        """Becomes a member; with ``trust``, the members are trusted for as long as they and this node are in it."""
        reply = await self.call("networks", op="join", network=network, token=token, trust=trust)
        return dict(reply.get("answer") or {})

    async def trust_network(self, network: int, on: bool) -> None:
        """Whether the members of a network are trusted from now on."""
        await self.call("networks", op="trust", network=network, on=on)

    async def ask_about_network(self, request: dict[str, Any], token: str = "") -> dict[str, Any]:
        """A request to the registry about networks, in the name of this node."""
        reply = await self.call("networks", op="ask", request=request, token=token)
        return dict(reply.get("answer") or {})

    async def find_cards(self, query: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Searches the directory of a network: ``cards``, ``total`` and how many were ``refused`` for their signature."""
        return dict(await self.call("networks", op="cards", query=query, token=token))

    # ---- nodes that keep messages for this one while it is away, and nodes this one keeps messages for

    async def mailboxes(self) -> dict[str, Any]:
        """The mailboxes of this node, what it keeps for others, and the mailboxes of its peers."""
        return expect(await self.call("mailboxes", op="show"), "state")

    async def use_mailbox(self, peer: Peer) -> dict[str, Any]:
        """Has a node keep messages for this one while it is away, if it agrees now."""
        return expect(await self.call("mailboxes", op="use", node=await self.node_of(peer)), "state")

    async def stop_mailbox(self, peer: Peer) -> dict[str, Any]:
        """Has it keep no more."""
        return expect(await self.call("mailboxes", op="stop", node=await self.node_of(peer)), "state")

    async def allow_mailbox(
        self, peer: Peer, *, max_bytes: int | None = None, max_messages: int | None = None
    ) -> dict[str, Any]:
        """Keeps messages for a node."""
        node = await self.node_of(peer)
        fields = {"node": node, "max_bytes": max_bytes, "max_messages": max_messages}
        return expect(await self.call("mailboxes", op="allow", **fields), "state")

    async def deny_mailbox(self, peer: Peer, *, discard: bool = False) -> dict[str, Any]:
        """Takes no more messages for a node; with ``discard``, those that are kept are thrown away."""
        node = await self.node_of(peer)
        return expect(await self.call("mailboxes", op="deny", node=node, discard=discard), "state")
