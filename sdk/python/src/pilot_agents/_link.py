"""One connection to the daemon: frames in both directions, requests, streams, ports.

A protocol of asyncio: what arrives is handled at once and without waiting, so a stream that nobody reads holds up nothing
else. In the extended dialect the credit of each stream bounds what may be waiting here; the reference dialect knows none,
so the connection itself is not read while 16 MiB wait.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from . import _wire as wire
from ._stream_state import StreamState
from ._streams import Streams
from .address import Endpoint
from .errors import (
    AlreadyExistsError,
    ClosedError,
    DisconnectedError,
    InvalidArgumentError,
    NotRunningError,
    PermissionDeniedError,
    PilotError,
    ProtocolError,
    from_json,
    from_text,
    not_running,
)

HELLO_TIMEOUT = 10.0
"""How long whoever answers on the socket may take to say its first word."""
CLOSE_TIMEOUT = 5.0
"""How long a daemon may take to read what is left when the connection is closed."""
ACCEPT_BACKLOG = 128
"""Streams that wait to be accepted on one port. More are turned away, and their peers told so."""
DATAGRAM_BACKLOG = 256
"""Datagrams that wait to be received on one port. More are dropped, as networks do."""
WRITE_HIGH = 256 * 1024

T = TypeVar("T")
Answer = tuple[int, bytes]
"""The command that answered, and its payload."""


@dataclass
class _Pending:
    expects: int
    future: asyncio.Future[Answer]
    frame: bytes = b""


class Waiting(Generic[T]):
    """What has come to a port, and who waits for it."""

    def __init__(self) -> None:
        self.queue: deque[T] = deque()
        self.waiters: deque[asyncio.Future[None]] = deque()
        self.is_closed = False

    def push(self, item: T) -> None:
        self.queue.append(item)
        _wake_one(self.waiters)

    def close(self) -> None:
        self.is_closed = True
        self.wake_all()

    def wake_all(self) -> None:
        while self.waiters:
            _wake_one(self.waiters)


Accepting = Waiting[tuple[StreamState, Endpoint]]
"""A claimed port, and the streams that wait on it."""
Receiving = Waiting[tuple[Endpoint, bytes]]
"""A port whose datagrams are wanted."""


def _wake_one(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return


class Link(asyncio.Protocol):
    """See the module."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.is_reference = False
        self.version = ""
        self.over: PilotError | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._decoder = wire.Decoder()
        self._hello: asyncio.Future[None] | None = self._loop.create_future()
        self._next_tag = 1
        self._pending: dict[int, _Pending] = {}
        self._queue: deque[int] = deque()
        self._current: int | None = None
        self.streams = Streams(self._write)
        self._listeners: dict[int, Accepting] = {}
        self._datagrams: dict[int, Receiving] = {}
        self._is_full = False
        self._room: list[asyncio.Future[None]] = []
        self._gone = self._loop.create_future()

    # ---- beginning and end

    @classmethod
    async def connect(cls, socket: str) -> Link:
        """Connects, and agrees on a dialect."""
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(lambda: cls(socket), socket)
        except (FileNotFoundError, ConnectionRefusedError):
            raise not_running(socket) from None
        except PermissionError:
            raise PermissionDeniedError(
                f"the daemon at {socket} belongs to another user",
                hint="run as that user, or start a daemon of your own with `--socket`",
            ) from None
        except OSError as error:
            raise _strange(f"cannot connect to {socket}: {error}") from None
        try:
            await link._agree()
        except BaseException:
            link.abort()
            raise
        return link

    async def _agree(self) -> None:
        hello = self._hello
        assert hello is not None
        self._write(wire.frame(bytes([wire.HELLO, wire.DIALECT])))
        try:
            await asyncio.wait_for(hello, HELLO_TIMEOUT)
        except asyncio.TimeoutError:
            raise _strange(f"no answer within {HELLO_TIMEOUT:.0f} s") from None
        finally:
            self._hello = None

    async def close(self) -> None:
        """Ends the connection. What the daemon has been given is still delivered; streams with more than that to say are
        reset, so that their peers do not take the beginning for the whole."""
        self.streams.reset_unsent(ClosedError("this program was closed before everything was sent"))
        self.end(ClosedError("this client is closed"))
        transport = self._transport
        if transport is not None:
            transport.close()
            done, _ = await asyncio.wait([self._gone], timeout=CLOSE_TIMEOUT)
            if not done:
                transport.abort()

    def abort(self) -> None:
        self.end(ClosedError("this client is closed"))
        if self._transport is not None:
            self._transport.abort()

    def end(self, why: PilotError) -> None:
        """Nothing more will happen here. Everybody who waits is told."""
        if self.over is not None:
            return
        self.over = why
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(why)
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(_copy(why))
        self._pending.clear()
        self._queue.clear()
        self.streams.wake_all()
        for listener in self._listeners.values():
            listener.wake_all()
        for receiving in self._datagrams.values():
            receiving.wake_all()
        self._wake_room()

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.streams.pause_reading = self._transport.pause_reading
        self.streams.resume_reading = self._transport.resume_reading

    def data_received(self, data: bytes) -> None:
        try:
            for frame, start, end in self._decoder.feed(data):
                self._on_frame(frame, start, end)
                if self.over is not None:
                    break
        except PilotError as error:
            self.end(error)
            if self._transport is not None:
                self._transport.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._hello is not None:
            self.end(_strange("the connection was closed at once"))
        self.end(DisconnectedError("the daemon ended the connection", hint="see `pilotctl daemon status`"))
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        self._is_full = self.streams.is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self.streams.on_room()
        self._wake_room()

    def _wake_room(self) -> None:
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
        self._room.clear()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _wait_room(self) -> None:
        while self._is_full and self.over is None:
            waiter = self._loop.create_future()
            self._room.append(waiter)
            await waiter
        self._check()

    def _check(self) -> None:
        if self.over is not None:
            raise _copy(self.over)

    # ---- what the daemon says

    def _on_frame(self, frame: bytes, start: int, end: int) -> None:
        command = frame[start]
        if command == wire.RECV:
            reader = wire.Reader(frame, start + 1, end)
            self.streams.on_data(reader.u32(), frame, reader.at, end)
            return
        reader = wire.Reader(frame, start + 1, end)
        if self._hello is not None and not self._hello.done():
            self._on_greeting(command, reader)
            return
        if command == wire.TAGGED_OK:
            tag, inner = reader.u32(), reader.u8()
            if inner not in wire.REPLIES:
                raise ProtocolError(f"the daemon broke the protocol: 0x{inner:02X} is no answer")
            self._on_reply(tag, inner, reader.rest())
        elif command == wire.CREDIT:
            self.streams.on_credit(reader.u32(), reader.u32())
        elif command == wire.FINISH:
            self.streams.on_finish(reader.u32())
        elif command == wire.RESET:
            self.streams.on_end(reader.u32(), from_json(_object(reader.json())))
        elif command == wire.CLOSE_OK:
            self.streams.on_end(reader.u32(), None)
        elif command == wire.ACCEPT:
            self._on_accept(*reader.accept())
        elif command == wire.RECV_FROM:
            peer, port = reader.recv_from()
            receiving = self._datagrams.get(port)
            if receiving is not None and len(receiving.queue) < DATAGRAM_BACKLOG:
                receiving.push((peer, reader.rest()))
        elif command in wire.REPLIES:
            self._on_reply(None, command, reader.rest())
        elif command != wire.HELLO_OK:
            raise ProtocolError(f"the daemon broke the protocol: command 0x{command:02X}")

    def _on_greeting(self, command: int, reader: wire.Reader) -> None:
        assert self._hello is not None
        if command == wire.HELLO_OK:
            version, features = reader.u8(), _object(reader.json())
            self.is_reference = self.streams.is_reference = version != wire.DIALECT
            initial = features.get("initial_credit", wire.INITIAL_CREDIT)
            if isinstance(initial, int) and initial > 0:
                self.streams.initial = initial
            self.version = str(features.get("version", ""))
        elif command in (wire.ERROR, wire.FAILURE):
            self.is_reference = self.streams.is_reference = True
        elif command == wire.RECV_FROM:
            # Datagrams go to every client, even to one that has asked for nothing yet.
            return
        else:
            raise _strange("an answer that nobody asked for")
        self._hello.set_result(None)

    def _on_reply(self, tag: int | None, command: int, payload: bytes) -> None:
        stream = None
        if command == wire.DIAL_OK:
            # It is known from here on, so that data behind it finds it, whoever wakes when.
            stream = self.streams.open(wire.Reader(payload, 0, len(payload)).u32())
        # Without a number it answers the one request under way, if it can: 1.18 may answer late.
        tag = self._current if tag is None else tag
        pending = self._pending.get(tag) if tag is not None else None
        if tag is None or pending is None:
            return
        expected = command in (pending.expects, wire.ERROR, wire.FAILURE)
        if self.is_reference and not expected:
            return
        # Read before it is taken off the list: what cannot be read ends the connection, and with it whoever is on the list.
        error: PilotError | None = None
        if command == wire.ERROR:
            error = from_text(payload[2:].decode(errors="replace"))
        elif command == wire.FAILURE:
            error = from_json(_parse(payload))
        elif not expected:
            what = f"0x{command:02X} came where 0x{pending.expects:02X} was expected"
            error = ProtocolError(f"the daemon broke the protocol: {what}")
        del self._pending[tag]
        if pending.future.done():
            # Nobody waits any more: what the answer brings is given back.
            if stream is not None:
                self.streams.close(stream)
        elif error is not None:
            pending.future.set_exception(error)
        else:
            pending.future.set_result((command, payload))
        if self._current == tag:
            self._current = None
            self._advance()

    # ---- requests

    async def order(self, request: wire.Request) -> Answer:
        """Asks, and waits for the answer. When the waiting is cancelled, what the answer brings is given back."""
        self._check()
        await self._wait_room()
        frame, tag = self._start(request)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[tag] = _Pending(request.answered_by, future, frame)
        if self.is_reference:
            self._queue.append(tag)
            self._advance()
        else:
            self._write(frame)
        try:
            return await future
        except asyncio.CancelledError:
            self._forget(tag, future)
            raise

    def start_unattended(self, request: wire.Request) -> None:
        """Asks, and does not want to know."""
        if self.over is not None:
            return
        frame, tag = self._start(request)
        future: asyncio.Future[Answer] = self._loop.create_future()
        future.cancel()
        self._pending[tag] = _Pending(request.answered_by, future, frame)
        if self.is_reference:
            self._queue.append(tag)
            self._advance()
        else:
            self._write(frame)

    def _start(self, request: wire.Request) -> tuple[bytes, int]:
        while self._next_tag in self._pending:
            self._next_tag = (self._next_tag + 1) & 0xFFFF_FFFF
        tag = self._next_tag
        self._next_tag = (tag + 1) & 0xFFFF_FFFF
        frame = wire.frame(request.body) if self.is_reference else wire.tagged(tag, request.body)
        if len(frame) > 4 + wire.MAX_FRAME:
            raise InvalidArgumentError(f"a request is at most {wire.MAX_FRAME} bytes, this has {len(frame)}")
        return frame, tag

    def _forget(self, tag: int, future: asyncio.Future[Answer]) -> None:
        """The place of a request that was sent is kept, so that its answer is not taken for another's."""
        if tag in self._queue:
            self._queue.remove(tag)
            self._pending.pop(tag, None)
        elif future.done() and not future.cancelled() and future.exception() is None:
            command, payload = future.result()
            if command == wire.DIAL_OK:
                stream = self.streams.get(wire.Reader(payload, 0, len(payload)).u32())
                if stream is not None:
                    self.streams.close(stream)

    def _advance(self) -> None:
        if self._current is None and self._queue:
            self._current = self._queue.popleft()
            self._write(self._pending[self._current].frame)

    async def send(self, body: bytes) -> None:
        """Says something that is not answered."""
        self._check()
        await self._wait_room()
        self._write(wire.frame(body))

    # ---- streams and ports

    def stream_of(self, answer: Answer) -> StreamState:
        """The stream that answered a dial."""
        command, payload = answer
        number = wire.Reader(payload, 0, len(payload)).u32() if command == wire.DIAL_OK else None
        stream = self.streams.get(number) if number is not None else None
        if stream is None:
            raise ProtocolError("the daemon broke the protocol: a dial was answered without a stream")
        return stream

    def close_foreign(self, number: int) -> None:
        """Ends a stream of another program, in the reference dialect."""
        self._write(wire.about(wire.CLOSE, number))

    def _on_accept(self, port: int, number: int, peer: Endpoint) -> None:
        stream = self.streams.open(number)
        listener = self._listeners.get(port)
        if listener is None:
            self.streams.reset(stream, PilotError("nobody listens any more", code="refused"))
        elif len(listener.queue) >= ACCEPT_BACKLOG:
            self.streams.reset(stream, PilotError("too many streams wait to be accepted", code="busy"))
        else:
            listener.push((stream, peer))

    def add_listener(self, port: int) -> Accepting:
        """Comes before the request to the daemon, because the first stream may overtake the answer."""
        if port in self._listeners:
            raise AlreadyExistsError(f"port {port} is in use by this program")
        self._listeners[port] = Accepting()
        return self._listeners[port]

    def remove_listener(self, port: int, *, was_bound: bool) -> None:
        listener = self._listeners.pop(port, None)
        if listener is None:
            return
        for stream, _ in listener.queue:
            self.streams.reset(stream, PilotError("nobody listens any more", code="refused"))
        listener.queue.clear()
        listener.close()
        if was_bound:
            self.start_unattended(wire.unbind(port))

    def listens(self, port: int) -> bool:
        return port in self._listeners

    def add_datagrams(self, port: int) -> Receiving:
        if port in self._datagrams:
            raise AlreadyExistsError(f"the datagrams of port {port} are received by this program already")
        self._datagrams[port] = Receiving()
        return self._datagrams[port]

    def remove_datagrams(self, port: int) -> None:
        receiving = self._datagrams.pop(port, None)
        if receiving is not None:
            receiving.close()

    async def next_of(self, port: Waiting[T]) -> T:
        """What comes next to a port."""
        while not port.queue:
            self._check()
            if port.is_closed:
                raise ClosedError("the port is closed")
            waiter: asyncio.Future[None] = self._loop.create_future()
            port.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    _wake_one(port.waiters)
                raise
        return port.queue.popleft()


def _copy(error: PilotError) -> PilotError:
    """An error that is raised in several places has a traceback in each."""
    return type(error)(error.message, code=error.code, hint=error.hint, unreachable=error.unreachable)


def _strange(reason: str) -> PilotError:
    return ProtocolError(
        f"no Pilot daemon on the connection: {reason}", hint="is PILOT_SOCKET the socket of a Pilot daemon?"
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError("the daemon broke the protocol: no object of JSON")
    return value


def _parse(payload: bytes) -> dict[str, Any]:
    return _object(wire.Reader(payload, 0, len(payload)).json())


def is_restarting(error: PilotError) -> bool:
    """The daemon is gone, or has not started its services yet: a moment later it may answer."""
    return isinstance(error, NotRunningError) or error.code == "busy"


_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def check_id(text: str) -> str:
    """Gives an id of a message back if it is one."""
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise InvalidArgumentError(f"{text!r} is no id of a message", hint="1 to 128 letters, digits and `. _ : -`")
    return text
