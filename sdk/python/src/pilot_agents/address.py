"""Addresses of nodes and of services on them."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidArgumentError

__all__ = ["Address", "Endpoint", "Ports"]

_HEX = frozenset("0123456789abcdefABCDEF")


class Ports:
    """Ports with a meaning."""

    ECHO = 7
    HTTP = 80
    STDIO = 1000
    """What ``pilotctl connect`` uses: a stream for any two programs."""
    DATA_EXCHANGE = 1001
    EVENT_STREAM = 1002
    TASKS = 1003


def _number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    value = int(text)
    return value if value <= most else None


@dataclass(frozen=True, order=True)
class Address:
    """Where a node is in the overlay: ``N:NNNN.HHHH.LLLL`` as text."""

    network: int
    node: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads ``0:0000.0000.0002``."""
        network_text, _, groups_text = text.partition(":")
        groups = groups_text.split(".")
        network = _number(network_text, 0xFFFF)
        if network is None or len(groups) != 3 or any(len(g) != 4 or not set(g) <= _HEX for g in groups):
            raise InvalidArgumentError(f"`{text}` is no address", hint="an address looks like 0:0000.0000.0002")
        if int(groups[0], 16) != network:
            raise InvalidArgumentError(f"`{text}` names two networks", hint=f"write {network}:{network:04X}.…")
        return cls(network, int(groups[1], 16) << 16 | int(groups[2], 16))

    @classmethod
    def backbone(cls, node: int) -> Address:
        """The address of a node in the network that everybody belongs to."""
        return cls(0, node)

    def __str__(self) -> str:
        return f"{self.network}:{self.network:04X}.{self.node >> 16:04X}.{self.node & 0xFFFF:04X}"

    def port(self, port: int) -> Endpoint:
        """A service of this node."""
        return Endpoint(self, port)


@dataclass(frozen=True, order=True)
class Endpoint:
    """A service: a node and a port, ``N:NNNN.HHHH.LLLL:port`` as text."""

    address: Address
    port: int

    def __post_init__(self) -> None:
        check_port(self.port)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Reads ``0:0000.0000.0002:1000``."""
        address, _, port_text = text.rpartition(":")
        port = _number(port_text, 0xFFFF)
        if port is None:
            raise InvalidArgumentError(f"`{text}` names no port", hint="write 0:0000.0000.0002:1000")
        return cls(Address.parse(address), port)

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def check_port(port: int) -> int:
    """Gives the port back if it is one."""
    if not isinstance(port, int) or not 0 <= port <= 0xFFFF:
        raise InvalidArgumentError(f"{port!r} is no port", hint="a port is a number from 0 to 65535")
    return port


def literal(target: str) -> Address | None:
    """The address in a text that needs nobody to be asked: an address or a node number."""
    number = _number(target, 0xFFFF_FFFF)
    if number is not None:
        return Address.backbone(number)
    return Address.parse(target) if ":" in target else None
