"""The event stream, port 1002: subscriptions that renew themselves, and publishing.

Agents that trust each other see each other's events: there is no broker to set up and nothing to poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from ._base import Base, Peer
from ._content import Data
from ._event_wire import NOTHING, RESERVED, EventDecoder, event_frame, is_wild, matches, payload_of, read_note
from .address import Address, Ports
from .errors import (
    ClosedError,
    InvalidArgumentError,
    NotRunningError,
    PermissionDeniedError,
    PilotError,
    PilotTimeoutError,
    ProtocolError,
    UnsupportedError,
)
from .stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Event", "EventStream", "Overflow", "Subscribed", "Subscription", "matches"]

Overflow = Literal["drop-oldest", "drop-newest", "block"]
"""What happens when events come faster than they are read."""

RESUME_MAX = 512
QUEUE = 1024
"""Events held for an application that does not read. When they are full the broker is not read."""
CONFIRM_OWN = 2.5
"""Seconds a broker may take to confirm a subscription: ours waits two for the brokers of other nodes."""
CONFIRM_OTHER = 0.25
PAUSE_MIN = 0.1
PAUSE_MAX = 5.0
PAUSE_MAX_HERE = 0.4
"""The longest while there is no daemon on this machine: it may be back any moment."""


@dataclass(frozen=True)
class Event:
    """An event that was received. What it says is the word of its publisher: treat it as data."""

    topic: str
    data: bytes
    publisher: Address | None
    """The node that published it, as the broker says; brokers of 1.18.0 do not."""
    hostname: str | None
    """The name of that node, as the own daemon knows it."""
    broker: Address | None
    """The node whose broker passed it on."""
    time: datetime
    """When the broker took it from its publisher; with brokers of 1.18.0, when it came here."""
    seq: int | None
    """Its number at that broker since the broker's start, over all topics."""
    replayed: bool
    """It comes out of the broker's history: it was asked for, or was missed during an interruption."""
    lost: int
    """Events of this subscription that are lost, just before this one."""
    lost_at_least: bool
    """More than ``lost`` may be lost."""
    demoted: bool
    """The subscription asked for ``block`` and was not read for too long; now it is one of ``drop-oldest``."""

    @property
    def text(self) -> str:
        """Its data as text."""
        return self.data.decode(errors="replace")

    def json(self) -> Any:
        """Its data as JSON; `ValueError` when it is none."""
        return json.loads(self.data)


@dataclass(frozen=True)
class Subscribed:
    """A subscription in force."""

    brokers: int
    """Brokers of trusted nodes that deliver too."""
    confirmed: bool
    """Whether the broker has said so itself. One of 1.18.0 cannot."""
    policy: Overflow
    queue: int
    """Events it queues; 0 when it does not say."""


# ---- what arrives on the connection of a subscription


class _Feed:
    def __init__(self, stream: Stream, broker: Address, token: str) -> None:
        self.stream = stream
        self._decoder = EventDecoder()
        self._broker = broker
        self._topic = RESERVED + token
        self._source: dict[str, Any] = {}
        self._lost = 0
        self._lost_at_least = False
        self._demoted = False
        self._early: deque[tuple[str, Any, Any]] = deque()

    async def until_subscribed(self) -> Subscribed:
        """Reads until the subscription is in force, or so much has come that it must be. May be cancelled."""
        while len(self._early) < QUEUE:
            step = await self._step()
            if step is None:
                raise ClosedError("the broker ended the connection")
            kind, value, _ = step
            if kind == "subscribed":
                assert isinstance(value, Subscribed)
                return value
            if kind == "refused":
                raise PermissionDeniedError(str(value))
            self._early.append(step)
        return Subscribed(0, True, "drop-oldest", 0)

    async def next(self) -> tuple[str, Any, Any] | None:
        return self._early.popleft() if self._early else await self._step()

    async def _step(self) -> tuple[str, Any, Any] | None:
        while True:
            while (found := self._decoder.next()) is not None:
                step = self._read(*found)
                if step is not None:
                    return step
            data = await self.stream.read(64 * 1024)
            if not data:
                return None
            self._decoder.feed(data)

    def _read(self, topic: str, payload: bytes) -> tuple[str, Any, Any] | None:
        if not topic.startswith(RESERVED):
            return self._received(topic, payload)
        note = read_note(self._topic, topic, payload)
        kind = note.get("note")
        if kind == "subscribed":
            policy = note.get("overflow", "drop-oldest")
            return (
                "subscribed",
                Subscribed(_int(note.get("brokers")), True, policy, _int(note.get("queue"))),
                None,
            )
        if kind == "at":
            return ("at", note.get("broker"), note.get("at"))
        if kind == "replayed" and note.get("answer") is None:
            return ("at", None, note.get("at"))
        if kind == "refused":
            return ("refused", note.get("reason", ""), None)
        if kind == "from":
            self._source = note
        elif kind == "lost":
            self._lost += _int(note.get("events"))
            self._lost_at_least = self._lost_at_least or note.get("at_least") is True
        elif kind == "demoted":
            self._demoted = True
        return None

    def _received(self, topic: str, payload: bytes) -> tuple[str, Any, Any]:
        source, self._source = self._source, {}
        nanos = _int(source.get("time")) or time.time_ns()
        at = source.get("at") if isinstance(source.get("at"), dict) else None
        event = Event(
            topic=topic,
            data=payload,
            publisher=_address(source.get("publisher")),
            hostname=source.get("hostname") if isinstance(source.get("hostname"), str) else None,
            broker=_address(source.get("via")) or self._broker,
            time=datetime.fromtimestamp(nanos / 1e9, timezone.utc),
            seq=_int(at.get("seq")) if at else None,
            replayed=source.get("replayed") is True,
            lost=self._lost,
            lost_at_least=self._lost_at_least,
            demoted=self._demoted,
        )
        self._lost, self._lost_at_least, self._demoted = 0, False, False
        return ("event", event, at)


def _int(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _address(value: Any) -> Address | None:
    try:
        return Address.parse(value) if isinstance(value, str) else None
    except InvalidArgumentError:
        return None


# ---- subscriptions


class _Kept:
    """One subscription, on a connection of its own, kept in force by a task."""

    def __init__(self, stream: EventStream, pattern: str, wishes: dict[str, Any]) -> None:
        self._client = stream._client
        self._broker = stream._broker
        self._is_own = stream._is_own
        self._queue = stream._queue
        self._pattern = pattern
        self._wishes = wishes
        self._reached: dict[str | None, Any] = {}
        self.first: asyncio.Future[Subscribed] = asyncio.get_running_loop().create_future()

    async def keep(self) -> None:
        pause = PAUSE_MIN
        while True:
            feed = None
            try:
                feed = await self._open()
                pause = PAUSE_MIN
                if not self.first.done():
                    await self._confirm(feed)
                await self._deliver(feed)
            except PilotError as error:
                if not self.first.done():
                    self.first.set_exception(error)
                    return
                if isinstance(error, NotRunningError):
                    pause = min(pause, PAUSE_MAX_HERE)
            finally:
                if feed is not None:
                    feed.stream.close()
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX)

    async def _confirm(self, feed: _Feed) -> None:
        knows = await self._knows_patterns()
        try:
            limit = CONFIRM_OWN if knows else CONFIRM_OTHER
            subscribed = await asyncio.wait_for(feed.until_subscribed(), limit)
        except PilotError:
            raise
        except asyncio.TimeoutError:
            subscribed = Subscribed(0, False, "drop-oldest", 0)
        if not self.first.done():
            self.first.set_result(subscribed)

    async def _deliver(self, feed: _Feed) -> None:
        while True:
            step = await feed.next()
            if step is None or step[0] == "refused":
                return
            kind, value, at = step
            if kind == "event":
                if matches(self._pattern, value.topic):
                    await self._queue.put(value)
                self._reach(None if value.broker == self._broker else str(value.broker), at)
            elif kind == "at":
                self._reach(value if isinstance(value, str) else None, at)

    def _reach(self, broker: str | None, at: Any) -> None:
        if isinstance(at, dict) and (len(self._reached) < RESUME_MAX or broker in self._reached):
            self._reached[broker] = at

    async def _knows_patterns(self) -> bool:
        """Only our own broker knows patterns by its rules for everybody."""
        return self._is_own and not await self._client._daemon.is_reference()

    async def _open(self) -> _Feed:
        token = secrets.token_hex(16)
        topic, wishes = self._pattern, {"overflow": "drop-oldest", **self._wishes}
        if not await self._knows_patterns() and is_wild(self._pattern):
            # Any other broker is asked for a topic it knows, and told the pattern besides; one of 1.18.0 sends everything,
            # and the rest happens here.
            topic = "*"
            wishes["pattern"] = self._pattern
        if self._reached:
            wishes.pop("replay", None)
            wishes["resume"] = [
                {"broker": broker, "at": at} if broker is not None else {"at": at}
                for broker, at in self._reached.items()
            ]
        ask = f"pilot.notes:{token} {json.dumps(wishes, separators=(',', ':'))}"
        stream = await self._client.dial(self._broker, Ports.EVENT_STREAM)  # type: ignore[attr-defined]
        try:
            await stream.send(event_frame(topic, ask.encode()))
            await settled(stream)
        except BaseException:
            stream.close()
            raise
        return _Feed(stream, self._broker, token)


async def settled(stream: Stream) -> None:
    with contextlib.suppress(UnsupportedError):
        await stream.settle()


class EventStream:
    """Events of this node and the nodes it trusts, or of one other node's broker. Iterate over it, or call `next`.

    A subscription that was once in force is renewed by itself when a broker or the local daemon goes away and comes back.
    What was published meanwhile follows, marked as replayed, as far as the brokers' histories go back. An application
    receives its own publications if it subscribed to their topic.
    """

    def __init__(self, client: Base, broker: Address, is_own: bool) -> None:
        self._client = client
        self._broker = broker
        self._is_own = is_own
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE)
        self._tasks: set[asyncio.Future[None]] = set()
        self._publisher: _Publisher | None = None
        self._lock = asyncio.Lock()

    async def subscribe(
        self, pattern: str, *, policy: Overflow = "drop-oldest", queue: int | None = None, replay: int = 0
    ) -> Subscribed:
        """Subscribes to a topic or pattern (see `matches`); returns when the subscription is in force.

        ``policy`` says what happens when events come faster than they are read, ``queue`` how many the broker holds,
        ``replay`` how many of the last matching events come first.
        """
        wishes: dict[str, Any] = {"overflow": policy}
        if queue is not None:
            wishes["queue"] = queue
        if replay:
            wishes["replay"] = replay
        kept = _Kept(self, pattern, wishes)
        event_frame(pattern, b"")
        task = asyncio.ensure_future(kept.keep())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await kept.first
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def next(self, timeout: float | None = None) -> Event:
        """The next event of any subscription; `PilotTimeoutError` when none came in this time."""
        if timeout is None:
            return await self._queue.get()
        try:
            return await asyncio.wait_for(self._queue.get(), timeout)
        except asyncio.TimeoutError:
            raise PilotTimeoutError(f"no event within {timeout:g} s") from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.next()

    async def publish(self, topic: str, data: Data) -> None:
        """Publishes an event; returns when the local daemon has it. See `settle`."""
        frame = event_frame(topic, payload_of(data))
        async with self._lock:
            for attempt in (1, 2):
                publisher = self._publisher
                if publisher is None or publisher.has_ended():
                    publisher = self._publisher = await self._open_publisher()
                try:
                    await publisher.stream.send(frame)
                    return
                except (NotRunningError, ClosedError):
                    self._publisher = None
                    if attempt == 2:
                        raise

    async def _open_publisher(self) -> _Publisher:
        dial = self._client.dial  # type: ignore[attr-defined]
        try:
            stream = await dial(self._broker, Ports.EVENT_STREAM)
        except NotRunningError:
            # Through a new daemon if the old one is gone.
            stream = await dial(self._broker, Ports.EVENT_STREAM)
        publisher = _Publisher(stream)
        # The first event of a connection is its subscription, even if it wants nothing.
        stream.write(event_frame(NOTHING, f"pilot.notes:{publisher.token}".encode()))
        return publisher

    async def settle(self) -> None:
        """Returns when the broker's node has acknowledged everything published so far. With a reference daemon, which
        cannot tell, at once. `PermissionDeniedError` when the broker has said by now that it does not allow one of them."""
        publisher = self._publisher
        if publisher is not None:
            await settled(publisher.stream)
            publisher.has_ended()

    async def close(self) -> None:
        """Ends all subscriptions."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Publisher:
    """The connection that events are published on."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.token = secrets.token_hex(16)
        self._decoder = EventDecoder()

    def has_ended(self) -> bool:
        """Looks without waiting. An error when the broker has refused a publication."""
        self._decoder.feed(self.stream._take_arrived())
        try:
            while (found := self._decoder.next()) is not None:
                note = read_note(RESERVED + self.token, *found)
                if note.get("note") == "refused":
                    raise PermissionDeniedError(str(note.get("reason", "the broker does not allow it")))
        except ProtocolError:
            return True
        return self.stream.at_eof()


class Subscription:
    """What comes for one topic. ``async with`` returns when it is in force; ``async for`` begins it if need be."""

    def __init__(self, client: Base, pattern: str, peer: Peer | None, options: dict[str, Any]) -> None:
        self._client = client
        self._pattern = pattern
        self._peer = peer
        self._options = options
        self._events: EventStream | None = None
        self.subscribed: Subscribed | None = None

    async def start(self) -> Self:
        """Returns when the subscription is in force."""
        if self._events is None:
            events = await open_events(self._client, self._peer)
            try:
                self.subscribed = await events.subscribe(self._pattern, **self._options)
            except BaseException:
                await events.close()
                raise
            self._events = events
        return self

    async def next(self, timeout: float | None = None) -> Event:
        """The next event; `PilotTimeoutError` when none came in this time."""
        await self.start()
        assert self._events is not None
        return await self._events.next(timeout)

    async def close(self) -> None:
        """Ends it."""
        if self._events is not None:
            await self._events.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.next()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def open_events(client: Base, peer: Peer | None) -> EventStream:
    if peer is not None:
        return EventStream(client, await client.address_of(peer), is_own=False)
    own = await client._own_address()  # type: ignore[attr-defined]
    return EventStream(client, own, is_own=True)


class EventCalls(Base):
    """See the module."""

    _published: EventStream | None = None

    async def open_event_stream(self, peer: Peer | None = None) -> EventStream:
        """Events of this node's broker, which also listens to the brokers of trusted nodes; or of one other node's broker
        alone."""
        events = await open_events(self, peer)
        self._adopt(events)
        return events

    def subscribe(
        self,
        topic: str,
        *,
        peer: Peer | None = None,
        policy: Overflow = "drop-oldest",
        queue: int | None = None,
        replay: int = 0,
    ) -> Subscription:
        """Events of a topic or pattern: ``async for event in p.subscribe("agent-b.*"): ...``"""
        options = {"policy": policy, "queue": queue, "replay": replay}
        subscription = Subscription(self, topic, peer, options)
        self._adopt(subscription)
        return subscription

    async def publish(self, topic: str, data: Data, *, peer: Peer | None = None) -> None:
        """Publishes an event at this node's broker, or at a peer's; returns when the broker's node has it."""
        if peer is not None:
            async with await open_events(self, peer) as events:
                await events.publish(topic, data)
                await events.settle()
            return
        if self._published is None:
            self._published = await self.open_event_stream()
        await self._published.publish(topic, data)
        await self._published.settle()

    async def events_status(self) -> dict[str, Any]:
        """How the event broker of this node stands: subscriptions, links to other brokers, history, counters."""
        found = await self.call("events")
        return found if isinstance(found, dict) else {}

    def _adopt(self, child: Any) -> None:
        """What is to be closed with the client."""
        raise NotImplementedError
