"""What can go wrong, told by class, with what to do about it.

Every error has a ``code`` for programs, a sentence for people, and often a ``hint`` what to do. Decide by the class or the
code, never by the text. Where Python has an exception of its own for the same thing (``TimeoutError``, ``ConnectionError``,
``PermissionError``, ``ValueError``), the class here is one of those too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "AlreadyExistsError",
    "BusyError",
    "ClosedError",
    "DisconnectedError",
    "FailedError",
    "InvalidArgumentError",
    "NotFoundError",
    "NotRegisteredError",
    "NotRunningError",
    "NotTrustedError",
    "PermissionDeniedError",
    "PilotError",
    "PilotTimeoutError",
    "ProtocolError",
    "RefusedError",
    "RegistryUnreachableError",
    "RequestCancelledError",
    "Unreachable",
    "UnreachableError",
    "UnsupportedError",
]

_RETRYABLE = frozenset(
    {"timeout", "unreachable", "registry_unreachable", "not_registered", "busy", "closed", "not_running"}
)


@dataclass(frozen=True)
class Unreachable:
    """What is known of a peer that does not answer."""

    node_id: int = 0
    hostname: str = ""
    last_seen_secs: int | None = None
    """Seconds since it was last heard, here or by the registry."""
    tried: list[str] = field(default_factory=list)
    """The addresses that were tried in vain."""
    relay: str = ""
    """The way through the beacon: ``untried``, ``silent``, and so on."""
    registry_error: str = ""


class PilotError(Exception):
    """Something failed. See the subclasses."""

    code: str = "other"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        unreachable: Unreachable | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.hint = hint
        self.unreachable = unreachable

    @property
    def retryable(self) -> bool:
        """Whether the same call may work later."""
        return self.code in _RETRYABLE

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r})"


class InvalidArgumentError(PilotError, ValueError):
    """The request itself is wrong; repeating it cannot help."""

    code = "invalid_argument"


class NotFoundError(PilotError, LookupError):
    """No such node, name, stream, message or network."""

    code = "not_found"


class NotTrustedError(PilotError):
    """The peer has not agreed to talk to this node, or this node not to it."""

    code = "not_trusted"


class PermissionDeniedError(PilotError, PermissionError):
    """Not allowed for this caller."""

    code = "permission_denied"


class PilotTimeoutError(PilotError, TimeoutError):
    """Nothing happened within the time allowed."""

    code = "timeout"


class RefusedError(PilotError, ConnectionRefusedError):
    """The peer answered: nobody listens on that port, or it does not take the request."""

    code = "refused"


class UnreachableError(PilotError, ConnectionError):
    """The peer cannot be reached at present; ``unreachable`` says what was tried."""

    code = "unreachable"


class RegistryUnreachableError(PilotError, ConnectionError):
    """The registry cannot be reached at present."""

    code = "registry_unreachable"


class NotRegisteredError(PilotError):
    """This node has no address from the registry yet."""

    code = "not_registered"


class AlreadyExistsError(PilotError):
    """The name or port is taken."""

    code = "already_exists"


class BusyError(PilotError):
    """A limit of the daemon or the peer is reached; later may work."""

    code = "busy"


class ClosedError(PilotError, ConnectionError):
    """The stream, or this client, is closed."""

    code = "closed"


class RequestCancelledError(PilotError):
    """The request was taken back."""

    code = "cancelled"


class FailedError(PilotError):
    """A program of the peer tried, and it failed; the text is its own."""

    code = "failed"


class UnsupportedError(PilotError, NotImplementedError):
    """The daemon or the peer does not know how to do this."""

    code = "unsupported"


class NotRunningError(PilotError, ConnectionError):
    """No daemon answers on the local socket."""

    code = "not_running"


class DisconnectedError(NotRunningError):
    """The daemon ended the connection: it stopped, or dropped this program."""


class ProtocolError(PilotError):
    """The daemon or the peer said something that none should, or has a fault."""

    code = "internal"


_CLASSES: dict[str, type[PilotError]] = {
    cls.code: cls
    for cls in (
        InvalidArgumentError,
        NotFoundError,
        NotTrustedError,
        PermissionDeniedError,
        PilotTimeoutError,
        RefusedError,
        UnreachableError,
        RegistryUnreachableError,
        NotRegisteredError,
        AlreadyExistsError,
        BusyError,
        ClosedError,
        RequestCancelledError,
        FailedError,
        UnsupportedError,
        NotRunningError,
        ProtocolError,
    )
}


def failure(code: str, message: str, hint: str | None = None, unreachable: Unreachable | None = None) -> PilotError:
    """The error of a class."""
    cls = _CLASSES.get(code, PilotError)
    return cls(message, code=code, hint=hint, unreachable=unreachable)


def from_json(body: Mapping[str, Any]) -> PilotError:
    """The error in a ``Failure`` of the extended dialect."""
    code, message, hint = body.get("code"), body.get("message"), body.get("hint")
    return failure(
        code if isinstance(code, str) else "other",
        message if isinstance(message, str) else "the daemon gave no reason",
        hint if isinstance(hint, str) else None,
        _unreachable(body.get("unreachable")),
    )


def _unreachable(body: Any) -> Unreachable | None:
    if not isinstance(body, Mapping):
        return None
    tried, seen, node = body.get("tried"), body.get("last_seen_secs"), body.get("node_id")
    return Unreachable(
        node_id=node if isinstance(node, int) else 0,
        hostname=str(body.get("hostname", "")),
        last_seen_secs=seen if isinstance(seen, int) else None,
        tried=[str(address) for address in tried] if isinstance(tried, list) else [],
        relay=str(body.get("relay", "")),
        registry_error=str(body.get("registry_error", "")),
    )


# Parts of the texts of release 1.18 and the class they stand for; the first that occurs decides. A daemon of that release
# has texts only, and this is the one place where a class is read from one.
_TEXTS: tuple[tuple[str, str], ...] = (
    ("unknown command", "unsupported"),
    ("connection refused", "refused"),
    ("dial timeout", "timeout"),
    ("timeout", "timeout"),
    ("untrusted", "not_trusted"),
    ("was not trusted", "not_found"),
    ("not trusted", "not_trusted"),
    ("trust_required", "not_trusted"),
    ("not found", "not_found"),
    ("already bound", "already_exists"),
    ("already", "already_exists"),
    ("not owned by this client", "permission_denied"),
    ("dial tcp", "registry_unreachable"),
    ("too large", "invalid_argument"),
    ("missing", "invalid_argument"),
    ("invalid", "invalid_argument"),
    ("maximum", "invalid_argument"),
    ("cannot target", "invalid_argument"),
)


def from_text(text: str) -> PilotError:
    """The error in a text of a daemon that speaks the reference dialect."""
    return failure(next((code for part, code in _TEXTS if part in text), "other"), text)


def not_running(socket: str) -> NotRunningError:
    return NotRunningError(f"no daemon answers at {socket}", hint="start it with `pilotctl daemon start`")


def unsupported(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"the daemon here is of release 1.18, which does not know `{what}`",
        hint="stop it and start `pilotctl daemon start` in its place",
    )
