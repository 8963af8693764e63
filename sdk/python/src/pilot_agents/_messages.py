"""Messages: handed to the daemon, which delivers them when it can, and read from the inbox."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._base import Base, Named, Peer
from ._content import Data, MessageType, body_of, content_of, new_message_id
from ._courier import Courier, Receipt
from ._daemon import RECONNECT_PAUSE, Daemon, expect, millis
from ._json import build, build_all
from ._link import check_id, is_restarting
from .address import Address, Ports
from .errors import ClosedError, NotRunningError, PilotError, ProtocolError, failure, unsupported

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Delivery", "DeliveryState", "Inbox", "InboxEntry", "Message", "Outbox"]

DeliveryState = Literal["queued", "sent", "stored", "read", "answered", "expired", "refused", "cancelled"]
"""How far a message has come. ``stored`` is in the inbox of the peer, on disk there."""
SETTLED = ("expired", "refused", "cancelled")
_ORDER = ("queued", "sent", "stored", "read", "answered")

UNSET = Address(0, 0)
TURN = 3600.0
"""Seconds that one request waits before it is made again."""


@dataclass(frozen=True)
class Delivery:
    """A message of the outbox, and how far it has come."""

    id: str = ""
    to: Address = UNSET
    to_hostname: str | None = None
    kind: str = ""
    bytes: int = 0
    name: str | None = None
    reply_to: str | None = None
    state: str = "queued"
    """One of `DeliveryState`."""
    created_at: str = ""
    state_at: str = ""
    expires_at: str = ""
    attempts: int = 0
    next_try_ms: int | None = None
    reason: str | None = None
    """Why it waits, or has come to its end."""
    via: Address | None = None
    """The mailbox that keeps it for the peer."""
    ack: str | None = None
    tagged: bool | None = None

    def reached(self, state: DeliveryState) -> bool:
        """Whether it has come so far."""
        return self.state in _ORDER and state in _ORDER and _ORDER.index(self.state) >= _ORDER.index(state)


@dataclass(frozen=True)
class Outbox:
    """What the outbox holds: the newest messages, oldest of them first, and how many wait in all."""

    items: list[Delivery] = field(default_factory=list)
    pending: int = 0
    pending_bytes: int = 0


@dataclass(frozen=True)
class Message(Named):
    """A message of the inbox. What it says is the word of its sender, not of this node: treat it as data."""

    id: str
    """Its name in the inbox."""
    sender: Address
    hostname: str
    """The sender's name, as this node knows it; may be empty."""
    key: str
    """The sender's key, as the tunnel proved it."""
    type: str
    """``text``, ``json``, ``binary``, or what a foreign sender calls it."""
    data: bytes
    message_id: str | None
    """The id that its sender gave it."""
    reply_to: str | None
    received_at: str
    arrived_ns: int
    """When it arrived, in nanoseconds since 1970: a place in the inbox."""
    path: str
    """Its file."""
    outcome: str | None
    """Of the answer to a request: ``done``, ``failed``, ``declined`` or ``cancelled``."""
    hops: int
    """How many programs in a row have answered by themselves to bring it about."""
    provenance: dict[str, Any]
    """How it came: ``trust``, ``path`` and ``endpoint`` or ``via``."""

    @property
    def text(self) -> str:
        """Its data as text."""
        return self.data.decode(errors="replace")

    def json(self) -> Any:
        """Its data as JSON; `ValueError` when it is none."""
        return json.loads(self.data)

    @property
    def peer_address(self) -> Address:
        return self.sender


@dataclass(frozen=True)
class InboxEntry:
    """A message as it is listed."""

    id: str = ""
    bytes: int = 0
    from_: Address = field(default=UNSET, metadata={"json": "from"})
    from_hostname: str | None = None
    message_id: str | None = None
    preview: str | None = None
    read_at: str | None = None
    received_at: str = ""
    arrived_ns: int = 0
    reply_to: str | None = None
    type: str = ""


async def message_of(letter: Any) -> Message:
    """The message in an answer, or behind it."""
    if not isinstance(letter, dict) or not isinstance(letter.get("id"), str):
        raise ProtocolError("the daemon answered another question")
    body, path = letter.get("message"), str(letter.get("path", ""))
    if body is None:
        # Too long for the socket.
        try:
            body = json.loads(await asyncio.to_thread(Path(path).read_bytes))
        except (OSError, ValueError) as error:
            raise ProtocolError(f"the message {letter['id']} cannot be read: {error}") from None
    if not isinstance(body, dict):
        raise ProtocolError(f"the message {letter['id']} is damaged")
    pilot = body.get("pilot") if isinstance(body.get("pilot"), dict) else {}
    provenance = body.get("provenance")
    return Message(
        id=letter["id"],
        sender=Address.parse(str(body.get("from", ""))),
        hostname=str(body.get("from_hostname") or ""),
        key=str(body.get("from_key") or ""),
        type=str(body.get("type", "")).lower(),
        data=_data_of(body, letter["id"]),
        message_id=_text(body.get("message_id")),
        reply_to=_text(body.get("reply_to")),
        received_at=str(body.get("received_at", "")),
        arrived_ns=_count(letter.get("arrived_ns")),
        path=path,
        outcome=_text(pilot.get("outcome")) if pilot else None,
        hops=_count(pilot.get("hops")) if pilot else 0,
        provenance=provenance if isinstance(provenance, dict) else {},
    )


def _data_of(body: dict[str, Any], name: str) -> bytes:
    encoded, text = body.get("data_b64"), body.get("data")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ProtocolError(f"the message {name} is damaged: `data_b64` is not base64") from None
    if isinstance(text, str):
        return text.encode()
    raise ProtocolError(f"the message {name} is damaged: it has no data")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


async def mailbox(daemon: Daemon, op: str, **fields: Any) -> dict[str, Any]:
    """Asks the daemon about messages; a refusal is an error."""
    reply = await daemon.call("mailbox", {"op": op, **fields})
    if isinstance(reply, dict) and reply.get("is") == "failed":
        raise failure(str(reply.get("code", "other")), str(reply.get("message", "")))
    return expect(reply, "messages", "message", "timed_out", "marked", "cleared")


def hops() -> int:
    """How many programs in a row have answered by themselves for a message that this program sends: one more than for the
    message that it was started for (``PILOT_HOPS``), none if it was started for none."""
    of_cause = os.environ.get("PILOT_HOPS", "")
    return min(int(of_cause) + 1, 255) if of_cause.isdigit() else 0


class Inbox:
    """Messages as they arrive, in their order. Iterate over it, or call `next`.

    It goes on by itself when the daemon is restarted: what arrives meanwhile is not missed, and nothing is handed out
    twice. A message counts as read when it is handed out.
    """

    def __init__(self, daemon: Daemon, filters: dict[str, Any], sender: Peer | None, base: Base) -> None:
        self._daemon = daemon
        self._filters = filters
        self._sender = sender
        self._base = base
        self._is_placed = False
        self._asking: asyncio.Future[dict[str, Any]] | None = None

    async def _place(self) -> None:
        if self._is_placed:
            return
        if self._sender is not None:
            self._filters["from"] = await self._base.node_of(self._sender)
        if self._filters.get("since_ns") is None and not self._filters.get("unread"):
            newest = build_all(InboxEntry, (await mailbox(self._daemon, "list", limit=1)).get("messages"))
            self._filters["since_ns"] = newest[-1].arrived_ns if newest else 0
        self._is_placed = True

    async def start(self) -> Self:
        """From here on every message that arrives will be handed out, whenever it is asked for."""
        await self._place()
        return self

    async def next(self, timeout: float | None = None) -> Message | None:
        """The next message; `None` when there is none in this time. It may be cancelled: the message comes with the next
        call then."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        await self._place()
        while True:
            # The question outlives a `next` that was cancelled or timed out: they do not pile up at the daemon.
            if self._asking is None:
                fields = {"peek": True, "timeout_ms": millis(TURN), **self._filters}
                self._asking = asyncio.ensure_future(mailbox(self._daemon, "wait", **fields))
            left = None if end is None else max(0.0, end - loop.time())
            done, _ = await asyncio.wait([self._asking], timeout=left)
            if not done:
                return None
            asked, self._asking = self._asking, None
            try:
                message = await self._handed_out(asked.result())
            except NotRunningError:
                if end is not None and loop.time() + RECONNECT_PAUSE >= end:
                    raise
                await asyncio.sleep(RECONNECT_PAUSE)
                continue
            if message is not None:
                return message

    async def _handed_out(self, reply: dict[str, Any]) -> Message | None:
        if reply["is"] == "timed_out":
            return None
        message = await message_of(reply)
        await mailbox(self._daemon, "mark", ids=[message.id], read=True)
        self._filters["since_ns"] = message.arrived_ns
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        message = await self.next()
        if message is None:
            raise StopAsyncIteration
        return message


class MessageCalls(Base):
    """See the module."""

    # ---- sending

    async def send_message(
        self,
        peer: Peer,
        data: Data,
        *,
        type: MessageType | None = None,
        ttl: float | None = None,
        until: DeliveryState | None = None,
        timeout: float = 30.0,
        reply_to: str | Message | None = None,
        message_id: str | None = None,
    ) -> Delivery:
        """Hands a message to the daemon, which delivers it: in order per peer, once, also when either side is restarted
        meanwhile. When this returns it is on disk here.

        A text is sent as text, bytes as binary, everything else as JSON, unless ``type`` says otherwise. ``ttl`` is for how
        many seconds the daemon tries (seven days unless said). With ``until``, waits until it came so far, for ``timeout``
        at most: then the result says how far it came, and the daemon goes on; what can never come so far is an error. The
        same ``message_id`` again is the same message.

        A daemon of release 1.18 has no outbox: there it is delivered at once, or fails.
        """
        kind, body = content_of(data, type)
        to = await self.address_of(peer)
        answers = reply_to.message_id if isinstance(reply_to, Message) else reply_to
        name = check_id(message_id) if message_id is not None else new_message_id()
        if answers is not None:
            check_id(answers)
        if await self._daemon.is_reference():
            if ttl is not None or until not in (None, "queued", "sent", "stored"):
                raise unsupported("send_message with ttl or until")
            receipt = await self._send_now(to, kind, body, name, answers)
            return Delivery(id=name, to=to, kind=kind, bytes=receipt.bytes, state="stored", ack=receipt.ack)
        async with body_of(body) as carried:
            reply = await self.call(
                "outbox",
                op="send",
                to=str(to),
                kind=kind,
                body=carried,
                message_id=name,
                reply_to=answers,
                extension={"hops": hops()},
                ttl_ms=None if ttl is None else millis(ttl),
                until=until,
                wait_ms=millis(timeout) if until is not None else 0,
            )
        return _settled(build(Delivery, expect(reply, "item")), until)

    async def send_message_now(
        self,
        peer: Peer,
        data: Data,
        *,
        type: MessageType | None = None,
        reply_to: str | Message | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Sends a message past the outbox and waits until the peer has stored it; fails when it cannot be reached now.

        A connection that breaks before the answer is tried once more under the same id, so that it is stored once.
        """
        kind, body = content_of(data, type)
        answers = reply_to.message_id if isinstance(reply_to, Message) else reply_to
        name = check_id(message_id) if message_id is not None else new_message_id()
        return await self._send_now(await self.address_of(peer), kind, body, name, answers)

    async def _send_now(self, to: Address, kind: MessageType, body: bytes, name: str, reply_to: str | None) -> Receipt:
        for attempt in (1, 2):
            stream = await self.dial(to, Ports.DATA_EXCHANGE)  # type: ignore[attr-defined]
            async with stream:
                try:
                    return await Courier(stream).send(kind, body, name, reply_to)
                except ClosedError:
                    if attempt == 2:
                        raise
        raise AssertionError("unreachable")

    # ---- the outbox

    async def outbox(self, *, to: Peer | None = None, pending: bool = False, limit: int | None = None) -> Outbox:
        """What the outbox holds."""
        node = None if to is None else await self.node_of(to)
        reply = await self.call("outbox", op="list", to=node, pending=pending, limit=limit)
        return build(Outbox, expect(reply, "items"))

    async def outbox_show(self, message: str | Delivery) -> Delivery:
        """One message of the outbox."""
        return await self._item("show", id=_id_of(message))

    async def outbox_cancel(self, message: str | Delivery) -> Delivery:
        """Takes a message back that is not stored yet. One that is being tried at this moment may still arrive."""
        return await self._item("cancel", id=_id_of(message))

    async def outbox_wait(self, message: str | Delivery, until: DeliveryState, *, timeout: float) -> Delivery:
        """Waits until a message has come so far, never will, or the time is over: the result tells. The wait outlives a
        restart of the daemon."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            left = max(0.0, end - loop.time())
            try:
                return await self._item("wait", id=_id_of(message), until=until, timeout_ms=millis(left))
            except NotRunningError:
                if left == 0.0:
                    raise
                await asyncio.sleep(RECONNECT_PAUSE)

    async def _item(self, op: str, **fields: Any) -> Delivery:
        return build(Delivery, expect(await self.call("outbox", op=op, **fields), "item"))

    # ---- the inbox

    def inbox(
        self,
        *,
        sender: Peer | None = None,
        unread: bool = False,
        since_ns: int | None = None,
        type: str | None = None,
        text: str | None = None,
    ) -> Inbox:
        """The messages that arrive from the first `Inbox.next` or `Inbox.start` on; with ``unread``, the unread ones that
        are there come first, and with ``since_ns``, those that arrived after that.

        ``async for message in p.inbox(): ...``
        """
        given = {"since_ns": since_ns, "type": type, "text": text, "unread": unread or None}
        filters = {key: value for key, value in given.items() if value is not None}
        return Inbox(self._daemon, filters, sender, self)

    async def list_messages(
        self,
        *,
        sender: Peer | None = None,
        unread: bool = False,
        since_ns: int | None = None,
        before_ns: int | None = None,
        type: str | None = None,
        text: str | None = None,
        limit: int | None = None,
    ) -> list[InboxEntry]:
        """What is in the inbox, oldest first: the newest ``limit`` of what passes the filters, 500 at most."""
        node = None if sender is None else await self.node_of(sender)
        fields = {"from": node, "since_ns": since_ns, "before_ns": before_ns, "type": type, "text": text}
        reply = await mailbox(self._daemon, "list", unread=unread or None, limit=limit, **fields)
        return build_all(InboxEntry, reply.get("messages"))

    async def read_message(self, id: str | None = None, *, peek: bool = False) -> Message:
        """One message of the inbox, or the newest. It counts as read unless only peeked at."""
        return await message_of(await mailbox(self._daemon, "read", id=id, peek=peek or None))

    async def take_message(
        self, *, sender: Peer | None = None, type: str | None = None, timeout: float
    ) -> Message | None:
        """Takes the first unread message, at once or when it comes; `None` when none came in time. Of several programs that
        wait, one gets it."""
        return await self._wait_mail({"unread": True, "type": type}, sender, timeout)

    async def wait_message(
        self, *, sender: Peer | None = None, since_ns: int | None = None, timeout: float
    ) -> Message | None:
        """Waits for the next message that arrives after a time (now unless said); `None` when none came in time."""
        return await self._wait_mail({"since_ns": time.time_ns() if since_ns is None else since_ns}, sender, timeout)

    async def wait_reply(
        self, message: Delivery | Receipt, peer: Peer, *, since_ns: int = 0, timeout: float
    ) -> Message | None:
        """Waits for the answer to a message; `None` when none came in time. From a peer that does not name what it
        answers, the first message after ``since_ns`` counts."""
        name = message.id if isinstance(message, Delivery) else message.message_id
        return await self._wait_mail({"reply_to": name, "since_ns": since_ns}, peer, timeout)

    async def _wait_mail(self, fields: dict[str, Any], sender: Peer | None, timeout: float) -> Message | None:
        # What is waited for lies on disk, so the wait outlives a restart of the daemon.
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        given = {key: value for key, value in fields.items() if value is not None}
        if sender is not None:
            given["from"] = await self.node_of(sender)
        while True:
            left = max(0.0, end - loop.time())
            try:
                return await self._wait_once(given, left)
            except PilotError as error:
                if not is_restarting(error) or left <= RECONNECT_PAUSE:
                    raise
                await asyncio.sleep(RECONNECT_PAUSE)

    async def _wait_once(self, fields: dict[str, Any], left: float) -> Message | None:
        asking = asyncio.ensure_future(mailbox(self._daemon, "wait", timeout_ms=millis(left), **fields))
        try:
            reply = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # What it brings was taken for nobody.
            task = asyncio.ensure_future(_give_back(self._daemon, asking))
            _BACKGROUND.add(task)
            task.add_done_callback(_BACKGROUND.discard)
            raise
        return None if reply["is"] == "timed_out" else await message_of(reply)

    async def mark_messages(self, ids: Sequence[str], *, read: bool = True) -> int:
        """Marks messages as read or unread; gives how many were not so before."""
        return int((await mailbox(self._daemon, "mark", ids=list(ids), read=read)).get("marked", 0))

    async def remove_messages(self, ids: Sequence[str]) -> int:
        """Removes messages; gives how many there were."""
        return int((await mailbox(self._daemon, "remove", ids=list(ids))).get("cleared", 0))

    async def clear_messages(self, *, before_ns: int | None = None, only_read: bool = False) -> int:
        """Removes all messages, or those before a time, or those that were read; gives how many there were."""
        reply = await mailbox(self._daemon, "clear", before_ns=before_ns, read=only_read or None)
        return int(reply.get("cleared", 0))


_BACKGROUND: set[asyncio.Future[None]] = set()


async def _give_back(daemon: Daemon, asking: asyncio.Future[dict[str, Any]]) -> None:
    try:
        reply = await asking
        if reply["is"] == "message":
            await mailbox(daemon, "mark", ids=[reply["id"]], read=False)
    except PilotError:
        # With the connection the wait ended.
        return


def _id_of(message: str | Delivery) -> str:
    return message if isinstance(message, str) else message.id


def _settled(item: Delivery, until: DeliveryState | None) -> Delivery:
    if until is None or item.state not in SETTLED or item.state == until:
        return item
    codes = {"expired": "timeout", "refused": "refused", "cancelled": "cancelled"}
    reason = f": {item.reason}" if item.reason else ""
    raise failure(codes[item.state], f"the message for {item.to} is {item.state}{reason}")
