"""Trust between nodes, and the owner's rules for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from . import _wire as wire
from ._base import Base, Named, Peer
from ._daemon import expect, millis
from ._json import build, build_all
from .address import Address
from .errors import NotTrustedError, PilotTimeoutError, ProtocolError

__all__ = ["Pending", "TrustEntry", "TrustWait", "Trusted"]

REFERENCE_WAIT = 30.0
"""The longest wait for trust that a reference daemon allows in one request."""


@dataclass(frozen=True)
class Pending(Named):
    """A node that asked for trust."""

    node_id: int = 0
    public_key: str = ""
    justification: str = ""
    """Its reason, written by its owner: text of a stranger."""
    received_at: int = 0
    hostname: str = ""

    @property
    def peer_address(self) -> Address:
        return Address.backbone(self.node_id)


@dataclass(frozen=True)
class Trusted(Named):
    """A trusted node."""

    node_id: int = 0
    public_key: str = ""
    mutual: bool = False
    network: int = 0
    approved_at: int = 0
    hostname: str = ""
    network_name: str = ""
    key_changed: dict[str, Any] | None = None
    """When its owner last replaced its key, and by whose signature."""

    @property
    def peer_address(self) -> Address:
        return Address.backbone(self.node_id)


@dataclass(frozen=True)
class TrustEntry(Named):
    """The relation to one node."""

    node_id: int = 0
    address: Address = field(default_factory=lambda: Address(0, 0))
    hostname: str = ""
    state: str = "none"
    """``none``, ``pending`` (it asked), ``requested`` (this node asked), ``trusted``, ``rejected``, ``revoked``."""
    public_key: str = ""
    since: int = 0
    justification: str = ""
    networks: list[int] = field(default_factory=list)

    @property
    def peer_address(self) -> Address:
        return self.address


@dataclass(frozen=True)
class TrustWait:
    """The end of a wait for trust."""

    node_id: int = 0
    state: str = "none"
    reason: str = ""
    """What the peer said when it declined: text of a stranger."""


class TrustCalls(Base):
    """See the module."""

    async def handshake(self, peer: Peer, justification: str = "", *, wait: float | None = None) -> TrustWait:
        """Asks a node for mutual trust; its owner sees the justification.

        With ``wait``, waits so many seconds for the answer: `NotTrustedError` when it declines, `PilotTimeoutError` when
        there is none in time (the request stays).
        """
        node = await self.node_of(peer)
        await self._handshake(b"\x01" + wire.u32(node) + justification.encode())
        if wait is None:
            return TrustWait(node_id=node, state="requested")
        ended = await self.wait_trust(node, timeout=wait)
        if ended.state in ("rejected", "revoked"):
            raise NotTrustedError(f"node {node} declined" + (f": {ended.reason}" if ended.reason else ""))
        if ended.state != "trusted":
            raise PilotTimeoutError(
                f"node {node} has not answered within {wait:g} s", hint="its owner runs `pilotctl approve`"
            )
        return ended

    async def approve(self, peer: Peer) -> None:
        """Agrees to a node that asked."""
        await self._handshake(b"\x02" + wire.u32(await self.node_of(peer)))

    async def reject(self, peer: Peer, reason: str = "") -> None:
        """Declines a node that asked; its owner sees the reason."""
        await self._handshake(b"\x03" + wire.u32(await self.node_of(peer)) + reason.encode())

    async def revoke(self, peer: Peer) -> None:
        """Takes trust back, on both sides."""
        await self._handshake(b"\x06" + wire.u32(await self.node_of(peer)))

    untrust = revoke

    async def pending(self) -> list[Pending]:
        """Who asked and waits for an answer."""
        return build_all(Pending, (await self._handshake(b"\x04")).get("pending"))

    async def trusted(self) -> list[Trusted]:
        """Who is trusted."""
        return build_all(Trusted, (await self._handshake(b"\x05")).get("trusted"))

    async def trust_list(self) -> list[TrustEntry]:
        """Every relation to another node."""
        return build_all(TrustEntry, (await self.call("trust_list") or {}).get("nodes"))

    async def wait_trust(self, peer: Peer, *, timeout: float) -> TrustWait:
        """Waits until a node has answered a request for trust, or the time is over; tells how things stand then."""
        node = await self.node_of(peer)
        if not await self._daemon.is_reference():
            return build(TrustWait, await self.call("wait_trust", node=node, timeout_ms=millis(timeout)))
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            left = min(max(0.0, end - loop.time()), REFERENCE_WAIT)
            waited = await self._handshake(b"\x07" + wire.u32(node) + wire.u32(millis(left)))
            if waited.get("trusted") is True:
                return TrustWait(node_id=node, state="trusted")
            if left < REFERENCE_WAIT:
                return TrustWait(node_id=node, state="requested")

    async def auto_approve(self, enabled: bool | None = None) -> bool:
        """Whether requests for trust are agreed to without asking; changes it when told to."""
        return bool((await self.call("auto_approve", enabled=enabled)).get("enabled"))

    async def _handshake(self, payload: bytes) -> dict[str, Any]:
        found = await self._daemon.json(wire.plain(wire.HANDSHAKE, payload))
        if not isinstance(found, dict):
            raise ProtocolError("the daemon answered another question")
        return found

    # ---- rules, as `pilotctl policy` has them (docs/messaging/rules.md). A target is ``all``, ``trusted``, ``group:NAME``
    # or an address; rules and answers are JSON.

    async def policy(self) -> dict[str, Any]:
        """All rules for other nodes, and how they stand."""
        return expect(await self.call("policy", op="show"), "overview")

    async def policy_of(self, peer: Peer) -> dict[str, Any]:
        """What holds for one node."""
        return expect(await self.call("policy", op="peer", node=await self.node_of(peer)), "effective")

    async def set_policy(self, target: Any, rules: dict[str, Any]) -> dict[str, Any]:
        """Replaces the given fields of a target's rules; gives its rules as they are now."""
        return expect(await self.call("policy", op="set", target=target, rules=rules), "rules")

    async def unset_policy(self, target: Any, fields: list[str]) -> dict[str, Any]:
        """Takes fields of a target's rules away, all if none is named."""
        return expect(await self.call("policy", op="unset", target=target, fields=fields), "rules")

    async def test_policy(self, peer: Peer, question: dict[str, Any]) -> dict[str, Any]:
        """Whether a node may do something now, and by which rule: ``{"what": "port", "port": 1000}``."""
        node = await self.node_of(peer)
        return expect(await self.call("policy", op="test", node=node, question=question), "tested")

    async def reload_policy(self) -> dict[str, Any]:
        """Reads the file of rules again."""
        return expect(await self.call("policy", op="reload"), "overview")

    async def reset_policy(self) -> dict[str, Any]:
        """Goes back to no rules at all."""
        return expect(await self.call("policy", op="reset"), "overview")
