"""About the node, its streams and ports, and its peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _wire as wire
from ._base import Base, Named, Peer
from ._daemon import millis
from ._json import build, build_all
from .address import Address, Endpoint, check_port
from .errors import InvalidArgumentError, NotTrustedError, UnsupportedError
from .stream import Datagrams, Listener, Stream, check_datagram

__all__ = ["Connection", "Health", "Info", "NetworkAddress", "PeerInfo", "Pong", "Resolved", "Status"]

UNSET = Address(0, 0)


@dataclass(frozen=True)
class NetworkAddress:
    """The node's address in one more network."""

    network_id: int = 0
    address: Address = UNSET
    name: str = ""
    trust: bool | None = None
    """Whether its members are trusted."""
    expires_at: int | None = None


@dataclass(frozen=True)
class PeerInfo(Named):
    """A peer with a tunnel."""

    node_id: int = 0
    endpoint: str = ""
    """Where packets to it are sent, ``ip:port``."""
    encrypted: bool = False
    authenticated: bool = False
    relay: bool = False
    """Whether it is reached through the relay."""
    address: Address | None = None
    hostname: str = ""
    rtt_us: int | None = None
    idle_ms: int | None = None
    """Milliseconds since it was last heard."""
    networks: list[int] = field(default_factory=list)
    bytes_sent: int | None = None
    bytes_recv: int | None = None
    alarms: list[str] = field(default_factory=list)

    @property
    def peer_address(self) -> Address:
        return self.address or Address.backbone(self.node_id)


@dataclass(frozen=True)
class Connection:
    """A stream of this node, of whichever program."""

    id: int = 0
    local_port: int = 0
    remote_addr: Address = UNSET
    remote_port: int = 0
    state: str = ""
    """As in TCP: ``ESTABLISHED``, ``FIN_WAIT``, ..."""
    srtt_ms: int = 0
    in_flight: int = 0
    bytes_sent: int = 0
    bytes_recv: int = 0
    retransmits: int = 0
    fast_retx: int = 0


@dataclass(frozen=True)
class Info:
    """The node, its peers and streams."""

    node_id: int = 0
    address: Address = UNSET
    """All zero before the node is registered."""
    hostname: str = ""
    email: str = ""
    endpoint: str = ""
    beacon_addr: str = ""
    version: str = ""
    features: list[str] = field(default_factory=list)
    transport: str = ""
    uptime_secs: int = 0
    connections: int = 0
    ports: int = 0
    peers: int = 0
    encrypted_peers: int = 0
    authenticated_peers: int = 0
    relay_peer_count: int = 0
    encrypt: bool = False
    identity: bool = False
    public_key: str = ""
    networks: list[NetworkAddress] = field(default_factory=list)
    peer_list: list[PeerInfo] = field(default_factory=list)
    conn_list: list[Connection] = field(default_factory=list)
    bytes_sent: int = 0
    bytes_recv: int = 0
    pkts_sent: int = 0
    pkts_recv: int = 0
    handshake_pending_count: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    """The network around the node."""


@dataclass(frozen=True)
class Health:
    """Counters only."""

    status: str = ""
    uptime_seconds: int = 0
    connections: int = 0
    peers: int = 0
    encrypted_peers: int = 0
    authenticated_peers: int = 0
    relay_peer_count: int = 0
    bytes_sent: int = 0
    bytes_recv: int = 0
    handshake_pending_count: int = 0
    accept_queue_drops: int = 0
    beacon_addr: str = ""
    transport: str = ""


@dataclass(frozen=True)
class Status:
    """How the daemon runs. `raw` has everything it says."""

    pid: int = 0
    version: str = ""
    uptime_secs: int = 0
    home: str = ""
    inbox_dir: str = ""
    received_dir: str = ""
    socket: str = ""
    listen: str = ""
    node_id: int = 0
    address: Address = UNSET
    hostname: str = ""
    public_key: str = ""
    public: bool = False
    encrypt: bool = False
    auto_approve: bool = False
    registry: dict[str, Any] = field(default_factory=dict)
    beacon: str = ""
    transport: str = ""
    nat: dict[str, Any] = field(default_factory=dict)
    services: list[dict[str, Any]] = field(default_factory=list)
    peers: int = 0
    connections: int = 0
    pending: int = 0
    policy_broken: str | None = None
    alarms: list[dict[str, Any]] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved(Named):
    """A node that was found."""

    node_id: int = 0
    address: Address = UNSET
    hostname: str = ""
    public: bool = False

    @property
    def peer_address(self) -> Address:
        return self.address


@dataclass(frozen=True)
class Pong:
    """The answer to a ping."""

    node_id: int = 0
    rtt_us: int = 0
    relay: bool = False
    endpoint: str = ""


class NodeCalls(Base):
    """See the module."""

    # ---- streams and datagrams

    async def dial(self, peer: Peer | Endpoint, port: int | None = None, *, data: bytes = b"") -> Stream:
        """Opens a stream to a service. Returns when the peer has accepted it.

        What is in ``data`` is written before that: what fits into the first packet costs no round trip. If the dial fails
        it may have arrived all the same.
        """
        to = await self.endpoint_of(peer, port)
        link = await self._daemon.link()
        rest = data
        if data and not link.is_reference:
            try:
                answer = await link.order(wire.dial_with(to, data[: wire.FIRST_BYTES]))
                rest = data[wire.FIRST_BYTES :]
            except UnsupportedError:
                answer = await link.order(wire.dial(to))
        else:
            answer = await link.order(wire.dial(to))
        stream = Stream(link, link.stream_of(answer), to)
        if rest:
            try:
                await stream.send(rest)
            except BaseException:
                stream.reset()
                raise
        return stream

    async def listen(self, port: int) -> Listener:
        """Claims a port; iterate over the listener for the streams that come to it."""
        check_port(port)
        link = await self._daemon.link()
        accepting = link.add_listener(port)
        try:
            await link.order(wire.bind(port))
        except BaseException as error:
            # Claimed or not, it is not wanted any more when the waiting was cancelled.
            link.remove_listener(port, was_bound=not isinstance(error, Exception))
            raise
        return Listener(link, port, accepting)

    async def datagrams(self, port: int) -> Datagrams:
        """Receives the datagrams for a port, and sends from it."""
        check_port(port)
        link = await self._daemon.link()
        return Datagrams(link, port, link.add_datagrams(port))

    async def send_datagram(self, peer: Peer | Endpoint, data: bytes, port: int | None = None) -> None:
        """Sends one datagram of up to 65,535 bytes. Returns when it was handed to the network."""
        check_datagram(data)
        to = await self.endpoint_of(peer, port)
        await self._daemon.order(wire.send_to_confirm(to, data))

    async def broadcast(self, network: int, port: int, data: bytes, token: str = "") -> None:
        """Sends a datagram to all members of a network."""
        check_datagram(data)
        proof = token.encode()
        head = wire.u16(network) + wire.u16(port) + wire.u16(len(proof)) + proof
        await self._daemon.order(wire.plain(wire.BROADCAST, head + data))

    # ---- about the node

    async def info(self) -> Info:
        """The node, its peers and streams."""
        return build(Info, await self._daemon.json(wire.plain(wire.INFO)))

    async def health(self) -> Health:
        """Counters only."""
        return build(Health, await self._daemon.json(wire.plain(wire.HEALTH)))

    async def status(self) -> Status:
        """How the daemon runs."""
        found = await self.call("status")
        return build(Status, {**found, "raw": found} if isinstance(found, dict) else found)

    async def set_hostname(self, name: str) -> None:
        """Names the node in the registry; an empty name takes the name away."""
        await self._daemon.json(wire.plain(wire.SET_HOSTNAME, name.encode()))

    async def set_visibility(self, public: bool) -> None:
        """Public nodes answer everyone, private ones only those they trust."""
        await self._daemon.json(wire.plain(wire.SET_VISIBILITY, bytes([bool(public)])))

    async def set_tags(self, tags: Sequence[str]) -> None:
        """Tags the node in the registry, with three tags at most; none takes all away."""
        await self._daemon.json(wire.plain(wire.SET_TAGS, _json(list(tags))))

    async def set_webhook(self, url: str) -> None:
        """Where the daemon posts its events; an empty URL turns it off."""
        await self._daemon.json(wire.plain(wire.SET_WEBHOOK, url.encode()))

    async def deregister(self) -> None:
        """Leaves the registry."""
        await self._daemon.json(wire.plain(wire.DEREGISTER))

    async def rotate_key(self) -> dict[str, Any]:
        """Replaces the node's identity key; its number and address stay."""
        found = await self._daemon.json(wire.plain(wire.ROTATE_KEY))
        return found if isinstance(found, dict) else {}

    async def shutdown(self) -> None:
        """Ends the daemon in order."""
        await self.call("shutdown")

    # ---- peers

    async def resolve(self, peer: Peer) -> Resolved:
        """Finds a node. Only a hostname needs the registry; otherwise the result has number and address, and no name."""
        if isinstance(peer, str):
            from .address import literal

            if literal(peer) is None:
                return build(Resolved, await self._resolved(peer))
        address = await self.address_of(peer)
        return Resolved(node_id=address.node, address=address)

    find = resolve

    async def lookup(self, peer: Peer) -> dict[str, Any]:
        """What the registry knows of a node: tags, key, last seen, and so on, as the registry says it."""
        found = await self.call("lookup", node=await self.node_of(peer))
        return found if isinstance(found, dict) else {}

    async def peers(self, search: str | None = None) -> list[PeerInfo]:
        """The peers with a tunnel. With ``search``, of those and the trusted nodes the ones whose name, address or tag has
        it in it; ``tag:gpu`` is an exact tag."""
        if await self._daemon.is_reference():
            peers = (await self.info()).peer_list
        else:
            peers = build_all(PeerInfo, await self.call("peers"))
        return peers if search is None else await self._matching(peers, search)

    async def _matching(self, peers: list[PeerInfo], search: str) -> list[PeerInfo]:
        trusted = await self._daemon.json(wire.plain(wire.HANDSHAKE, b"\x05"))
        known = {peer.node_id: peer for peer in peers}
        for node in build_all(PeerInfo, (trusted or {}).get("trusted")):
            known.setdefault(node.node_id, PeerInfo(node_id=node.node_id, hostname=node.hostname))
        found = []
        for peer in known.values():
            tags = await self._tags(peer.node_id)
            if all(_matches(peer, tags, word) for word in search.split()):
                found.append(peer)
        return found

    async def _tags(self, node: int) -> list[str]:
        from .errors import NotFoundError, PermissionDeniedError

        try:
            tags = (await self.lookup(node)).get("tags")
        except (NotFoundError, NotTrustedError, PermissionDeniedError):
            return []
        return [str(tag) for tag in tags] if isinstance(tags, list) else []

    async def connections(self) -> list[Connection]:
        """All streams of this node, of whichever program."""
        if await self._daemon.is_reference():
            return (await self.info()).conn_list
        return build_all(Connection, await self.call("connections"))

    async def disconnect(self, stream: int) -> None:
        """Ends a stream, whichever program it belongs to. A reference daemon does not say whether there is one."""
        link = await self._daemon.link()
        if link.is_reference:
            link.close_foreign(stream)
        else:
            await self.call("disconnect", stream=stream)

    async def ping(self, peer: Peer, *, timeout: float = 5.0, size: int = 0) -> Pong:
        """One round trip to a peer's node, no application involved."""
        if not 0 <= size <= 0xFFFF:
            raise InvalidArgumentError("a ping carries up to 65,535 bytes")
        node = await self.node_of(peer)
        return build(Pong, await self.call("ping", node=node, size=size, timeout_ms=millis(timeout)))

    async def why(self, peer: Peer, *, timeout: float = 0.0) -> dict[str, Any]:
        """Why a peer is reached as it is, or is not. With a time the peer is tried and the registry asked; without, it is
        what is known."""
        found = await self.call("why", node=await self.node_of(peer), timeout_ms=millis(timeout))
        return found if isinstance(found, dict) else {}

    async def netcheck(self, *, timeout: float = 5.0) -> dict[str, Any]:
        """What the network in front of the node lets through."""
        found = await self.call("netcheck", timeout_ms=millis(timeout))
        return found if isinstance(found, dict) else {}


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _matches(peer: PeerInfo, tags: list[str], word: str) -> bool:
    for prefix in ("tag:", "#"):
        if word.startswith(prefix):
            return word[len(prefix) :] in tags
    address = str(peer.peer_address)
    return str(peer.node_id) == word or word in address or word in peer.hostname or any(word in tag for tag in tags)
