"""Requests: a message that is answered, with pieces and progress before the answer. The side that asks.

A request is a message in the inbox of the node that is asked, and its answer one in ours: both survive restarts of either
daemon. A lost connection to the local daemon is mended, and nothing is sent or done twice by that.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args

from ._base import Base, Peer
from ._content import Data, MessageType, body_of, content_of, new_message_id
from ._daemon import RECONNECT_PAUSE, Daemon, expect, millis
from ._json import build
from ._link import check_id, is_restarting
from ._messages import Delivery, DeliveryState, Message, hops, message_of
from .address import Address
from .errors import InvalidArgumentError, PilotError, failure

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Done",
    "Part",
    "PendingRequest",
    "Progress",
    "RequestEvent",
    "Response",
    "Restarted",
    "StateChanged",
]

_LADDER = (*get_args(DeliveryState), "")
Outcome = Literal["done", "failed", "declined", "cancelled"]


@dataclass(frozen=True)
class Response:
    """The answer to a request: the word of the peer."""

    outcome: Outcome
    message: Message
    """The message, which is in the inbox."""
    data: bytes

    @property
    def text(self) -> str:
        """Its data as text."""
        return self.data.decode(errors="replace")

    def json(self) -> Any:
        """Its data as JSON; `ValueError` when it is none."""
        return json.loads(self.data)

    def check(self) -> Response:
        """Itself, if the work was done; otherwise the worker's reason as an error: `FailedError`, `RefusedError` when it
        declined, or `RequestCancelledError`."""
        if self.outcome == "done":
            return self
        code = {"failed": "failed", "declined": "refused", "cancelled": "cancelled"}[self.outcome]
        raise failure(code, self.text.strip() or f"the request was {self.outcome}")


@dataclass(frozen=True)
class StateChanged:
    """The request has come further on its way."""

    state: str


@dataclass(frozen=True)
class Progress:
    """How far the work is, in the worker's words."""

    data: bytes

    @property
    def text(self) -> str:
        """The words."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True)
class Part:
    """The next bytes of the answer."""

    data: bytes


@dataclass(frozen=True)
class Restarted:
    """The work was begun anew: the parts so far are not of the answer."""


@dataclass(frozen=True)
class Done:
    """The end. With parts, those since the last restart are the answer's bytes."""

    response: Response


RequestEvent = Union[StateChanged, Progress, Part, Restarted, Done]


class Parts:
    """Pieces of an answer, put in order: each is handed out once, and together they are the answer.

    Pieces may be lost on their way; the answer carries all of them again. After a gap nothing more is handed out until the
    answer is there, and then what is missing.
    """

    def __init__(self, run: int = 0) -> None:
        self.run = run
        self.last = 0
        self._gap = False
        self._given = 0
        self._hash = hashlib.sha256()

    def on_piece(self, run: int, number: int, kind: str, data: bytes) -> list[RequestEvent]:
        events: list[RequestEvent] = []
        if run > self.run:
            if self._given:
                events.append(Restarted())
            self.__init__(run)  # type: ignore[misc]
        if run < self.run or number <= self.last:
            return events
        self._gap = self._gap or number != self.last + 1
        self.last = number
        if kind == "progress":
            events.append(Progress(data))
        elif data and not self._gap:
            self._given += len(data)
            self._hash.update(data)
            events.append(Part(data))
        return events

    def on_answer(self, body: bytes) -> list[RequestEvent]:
        """The answer came: what of it has not been handed out."""
        events: list[RequestEvent] = []
        begin = body[: self._given]
        if len(begin) < self._given or hashlib.sha256(begin).digest() != self._hash.digest():
            events.append(Restarted())
            self._given = 0
        if body[self._given :]:
            events.append(Part(body[self._given :]))
        return events


class PendingRequest:
    """A request under way. Iterate over it for what happens, or wait for its `answer`.

    As a context manager it is taken back when it is left before its end.
    """

    def __init__(
        self,
        daemon: Daemon,
        name: str,
        to: Address,
        deadline: float,
        waits: float,
        parts: bool,
        loose: bool,
        sent_ns: int,
    ) -> None:
        self._daemon = daemon
        self._id = name
        self._to = to
        self._deadline = deadline
        self._waits = waits
        self._wants_parts = parts
        self._loose = loose
        self._sent_ns = sent_ns
        self._parts = Parts()
        self._item: Delivery | None = None
        self._events: deque[RequestEvent] = deque()
        self._is_over = False

    @property
    def id(self) -> str:
        """Its id."""
        return self._id

    @property
    def to(self) -> Address:
        """Who was asked."""
        return self._to

    @property
    def delivery(self) -> Delivery | None:
        """What the outbox knows of it."""
        return self._item

    async def next(self) -> RequestEvent | None:
        """The next thing that happens; `None` after the end. It may be cancelled and called again.

        `PilotTimeoutError` when the deadline is over; `delivery` tells how far the request came.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._events:
                return self._events.popleft()
            if self._is_over:
                return None
            left = self._deadline - loop.time()
            if left <= 0:
                self._is_over = True
                raise self._timed_out()
            try:
                await self._ask(left)
            except PilotError as error:
                if self._is_over or not is_restarting(error):
                    raise
                await asyncio.sleep(min(RECONNECT_PAUSE, left))

    async def _ask(self, left: float) -> None:
        news = expect(
            await self._daemon.call(
                "serving",
                {
                    "op": "next",
                    "id": self._id,
                    "to": self._to.node,
                    "since_ns": self._sent_ns,
                    "loose": self._loose,
                    "run": self._parts.run,
                    "number": self._parts.last,
                    "state": self._item.state if self._item is not None else None,
                    "timeout_ms": max(1, millis(left)),
                },
            ),
            "news",
        )
        for piece in news.get("interim") or []:
            try:
                data = base64.b64decode(piece["data"], validate=True)
                kind = piece["kind"]
            except (binascii.Error, KeyError, TypeError, ValueError):
                # What is no base64 counts as lost.
                data, kind = b"", "progress"
            self._events.extend(self._parts.on_piece(int(piece["run"]), int(piece["number"]), kind, data))
        if news.get("item") is not None:
            self.on_item(build(Delivery, news["item"]))
        if news.get("answer") is not None:
            await self._on_answer(news["answer"])

    def on_item(self, item: Delivery) -> None:
        if self._item is not None and _LADDER.index(self._item.state) >= _LADDER.index(item.state):
            return
        self._item = item
        reason = f": {item.reason}" if item.reason else ""
        ends = {
            "expired": ("timeout", f"the request could not be delivered in time{reason}"),
            "refused": ("refused", f"{self._to} does not take the request{reason}"),
            "cancelled": ("cancelled", "the request was taken back before it was delivered"),
        }
        if item.state in ends:
            self._is_over = True
            raise failure(*ends[item.state])
        self._events.append(StateChanged(item.state))

    async def _on_answer(self, letter: Any) -> None:
        message = await message_of(letter)
        known: dict[str, Outcome] = {"failed": "failed", "declined": "declined", "cancelled": "cancelled"}
        # A message of a node that says nothing of that counts as done.
        outcome = known.get(message.outcome or "done", "done")
        if self._wants_parts and outcome == "done":
            self._events.extend(self._parts.on_answer(message.data))
        self._events.append(Done(Response(outcome, message, message.data)))
        self._is_over = True

    def _timed_out(self) -> PilotError:
        known = {
            None: "nothing is known of the request",
            "queued": "the request waits here to be delivered",
            "sent": "the request is on its way",
            "stored": "the request is in its inbox, and nobody has taken it",
        }
        state = self._item.state if self._item is not None else None
        told = known.get(state, "a program there has taken the request")
        return failure("timeout", f"no answer from {self._to} within {self._waits:g} s; {told}")

    async def answer(self) -> Response:
        """Waits for the answer; pieces and progress are passed over. See `Response.check` for the errors."""
        async for event in self:
            if isinstance(event, Done):
                return event.response.check()
        raise InvalidArgumentError("the answer was handed out already")

    async def cancel(self) -> None:
        """Takes the request back. It ends with the outcome ``cancelled``, or with an answer that was faster."""
        expect(await self._daemon.call("serving", {"op": "cancel", "id": self._id, "to": self._to.node}), "done")

    def __aiter__(self) -> AsyncIterator[RequestEvent]:
        return self

    async def __anext__(self) -> RequestEvent:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._is_over:
            return
        self._is_over = True
        await _finish(self._take_back())

    async def _take_back(self) -> None:
        try:
            await self.cancel()
        except PilotError:
            # Nobody is there to be told; the deadline is in the request.
            return


async def _finish(work: Any) -> None:
    """Does something short to its end, also in a task that is being cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=2.0)
        raise


class RequestCalls(Base):
    """See the module."""

    async def request(
        self,
        peer: Peer,
        data: Data,
        *,
        type: MessageType | None = None,
        timeout: float = 30.0,
        key: str | None = None,
        ttl: float | None = None,
        message_id: str | None = None,
        reply_to: str | None = None,
        loose: bool = False,
        on_progress: Callable[[str], object] | None = None,
        on_part: Callable[[bytes], object] | None = None,
    ) -> Response:
        """Asks, and waits for the answer.

        ``timeout`` is a deadline for both sides: work that nobody waits for any more is not begun, and one that was begun
        is stopped. When the task is cancelled, the request is taken back. Requests under one ``key`` are carried out once: a
        second one gets the answer of the first, for a day. ``on_progress`` is told the worker's words, ``on_part`` the next
        bytes of the answer; when the work is begun anew, ``on_part`` gets ``b""`` and then the answer from its beginning.
        ``loose`` takes a message that names nothing for the answer, as programs of release 1.18.0 send them.

        Errors: `PilotTimeoutError`, `FailedError`, `RefusedError` when the worker declined, and those of delivery.
        """
        pending = await self.open_request(
            peer,
            data,
            type=type,
            timeout=timeout,
            key=key,
            ttl=ttl,
            message_id=message_id,
            reply_to=reply_to,
            loose=loose,
            parts=on_progress is not None or on_part is not None,
        )
        async with pending:
            async for event in pending:
                if isinstance(event, Done):
                    return event.response.check()
                if isinstance(event, Progress) and on_progress is not None:
                    on_progress(event.text)
                elif isinstance(event, Part) and on_part is not None:
                    on_part(event.data)
                elif isinstance(event, Restarted) and on_part is not None:
                    on_part(b"")
        raise AssertionError("a request ends with an answer or an error")

    async def open_request(
        self,
        peer: Peer,
        data: Data,
        *,
        type: MessageType | None = None,
        timeout: float = 30.0,
        key: str | None = None,
        parts: bool = False,
        ttl: float | None = None,
        message_id: str | None = None,
        reply_to: str | None = None,
        loose: bool = False,
    ) -> PendingRequest:
        """Sends a request, to be followed. It is on the disk of this node when this returns; a node that is not there gets
        it when it is back, if the deadline has not passed. ``parts`` asks for pieces and progress before the answer."""
        kind, body = content_of(data, type)
        to = await self.address_of(peer)
        name = check_id(message_id) if message_id is not None else new_message_id()
        tag: dict[str, Any] = {"deadline_ms": millis(timeout), "parts": parts}
        if key is not None:
            tag["key"] = check_id(key)
        loop = asyncio.get_running_loop()
        sent_ns, deadline = time.time_ns(), loop.time() + timeout
        async with body_of(body) as carried:
            fields = {
                "op": "ask",
                "to": str(to),
                "kind": kind,
                "body": carried,
                "message_id": name,
                "reply_to": reply_to,
                "extension": {"request": tag, "hops": hops()},
                "ttl_ms": millis(timeout if ttl is None else ttl),
            }
            # The id makes it the same request if it is asked again.
            reply = expect(await self._daemon.patient_call("serving", fields, until=deadline), "asked")
        pending = PendingRequest(self._daemon, name, to, deadline, timeout, parts, loose, sent_ns)
        if reply.get("item") is not None:
            pending.on_item(build(Delivery, reply["item"]))
        return pending

    async def reply(
        self,
        message: Message | str,
        data: Data,
        *,
        type: MessageType | None = None,
        outcome: Literal["done", "failed", "declined"] = "done",
    ) -> str:
        """Answers a message of the inbox, whoever works at it: the message, its id there, its sender's id, the beginning of
        either, or ``last``. Gives the id of the answer."""
        kind, body = content_of(data, type)
        name = message.id if isinstance(message, Message) else message
        async with body_of(body) as carried:
            reply = await self.call(
                "serving",
                op="answer",
                id=name,
                held=False,
                outcome=outcome,
                kind=kind,
                body=carried,
                hops=hops(),
            )
        return str(expect(reply, "answered")["message_id"])

    async def remark(self, message: Message | str, data: str | bytes, *, part: bool = False) -> None:
        """Sends word of progress, or a piece of the answer, to a request that nobody works at."""
        name = message.id if isinstance(message, Message) else message
        for piece in pieces(data.encode() if isinstance(data, str) else data):
            encoded = base64.b64encode(piece).decode()
            kind = "part" if part else "progress"
            expect(await self.call("serving", op="interim", id=name, kind=kind, data=encoded), "done")


PART_MAX = 64 << 10
"""Longest piece of an answer, or word of progress."""


def pieces(data: bytes) -> list[bytes]:
    """Never none, so that an empty word of progress is one."""
    return [data[at : at + PART_MAX] for at in range(0, len(data), PART_MAX)] or [b""]
