"""Streams and the ports they come to. They behave as the streams of asyncio do."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from . import _wire as wire
from ._link import Accepting, Link, Receiving
from ._stream_state import StreamState
from .address import Endpoint
from .errors import ClosedError, InvalidArgumentError, PilotError, UnsupportedError, unsupported

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Datagrams", "Listener", "Stream"]

HIGH = 64 * 1024
"""From this many bytes on that wait to be sent, `drain` waits."""
LOW = 16 * 1024
LIMIT = 64 * 1024
"""Longest line."""


class Stream:
    """Ordered, reliable bytes to and from a peer. Reading and writing are independent.

    Reads give ``b""`` at the end. Each stream has its own flow control: one that is not read holds up its own writer and
    nobody else. One task may read while another writes; two that read at the same time are an error.

    As a context manager it ends in order; left by an exception it is reset, so that the peer does not take what was sent
    for the whole.
    """

    def __init__(self, link: Link, state: StreamState, peer: Endpoint, local_port: int | None = None) -> None:
        self._link = link
        self._state = state
        self._peer = peer
        self._local_port = local_port
        self._loop = asyncio.get_running_loop()

    @property
    def id(self) -> int:
        """The daemon's number for the stream, as ``pilotctl connections`` shows it."""
        return self._state.id

    @property
    def peer(self) -> Endpoint:
        """The other end."""
        return self._peer

    @property
    def local_port(self) -> int | None:
        """The port it came to; none for a stream that was dialled."""
        return self._local_port

    def get_extra_info(self, name: str, default: object = None) -> object:
        """As asyncio's: ``peername``."""
        return self._peer if name == "peername" else default

    def __repr__(self) -> str:
        return f"<Stream {self.id} to {self._peer}>"

    # ---- reading

    def at_eof(self) -> bool:
        """Whether everything was read and nothing more will come."""
        return not self._state.arrived and (self._state.eof or self._link.over is not None)

    def _check_read(self) -> None:
        state = self._state
        if state.closing and not state.failure:
            raise ClosedError("the stream is closed")
        if state.ended and state.failure is not None:
            raise state.failure
        if not state.eof and self._link.over is not None:
            raise self._link.over

    async def _more(self) -> bool:
        """Waits for more than has arrived; False at the end of the data."""
        state = self._state
        self._check_read()
        if state.eof:
            return False
        if state.reader is not None:
            raise RuntimeError("another task is reading from this stream")
        state.count_all()
        self._link.streams.grant(state)
        state.reader = self._loop.create_future()
        try:
            await state.reader
        finally:
            state.reader = None
        return True

    async def read(self, n: int = -1) -> bytes:
        """Up to ``n`` bytes, or everything until the end when ``n`` is negative; ``b""`` at the end."""
        state = self._state
        if n == 0:
            return b""
        if n < 0:
            parts = []
            while part := await self.read(256 * 1024):
                parts.append(part)
            return b"".join(parts)
        while not state.arrived:
            if not await self._more():
                return b""
        return self._link.streams.take(state, n)

    async def readexactly(self, n: int) -> bytes:
        """``n`` bytes; `asyncio.IncompleteReadError` when the end comes before."""
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        state = self._state
        while len(state.arrived) < n:
            if not await self._more():
                raise asyncio.IncompleteReadError(self._link.streams.take(state, len(state.arrived)), n)
        return self._link.streams.take(state, n) if n else b""

    async def readuntil(self, separator: bytes = b"\n", *, limit: int = LIMIT) -> bytes:
        """Everything up to and with ``separator``.

        `asyncio.IncompleteReadError` when the end comes before it, `asyncio.LimitOverrunError` when more than ``limit``
        bytes come before it; they stay readable.
        """
        if not separator:
            raise ValueError("Separator should be at least one-byte string")
        state = self._state
        searched = 0
        while True:
            at = state.arrived.find(separator, searched)
            if at >= 0:
                if at > limit:
                    raise asyncio.LimitOverrunError("Separator is found, but chunk is longer than limit", at)
                return self._link.streams.take(state, at + len(separator))
            searched = max(0, len(state.arrived) - len(separator) + 1)
            if searched > limit:
                raise asyncio.LimitOverrunError("Separator is not found, and chunk exceed the limit", searched)
            if not await self._more():
                raise asyncio.IncompleteReadError(self._link.streams.take(state, len(state.arrived)), None)

    async def readline(self, *, limit: int = LIMIT) -> bytes:
        """A line with its end; what is left when the end of the data comes before; ``b""`` at the end.

        A line of more than ``limit`` bytes is a `ValueError`, as with asyncio.
        """
        try:
            return await self.readuntil(b"\n", limit=limit)
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            raise ValueError(error.args[0]) from None

    def _take_arrived(self) -> bytes:
        """What is there already."""
        return self._link.streams.take(self._state, len(self._state.arrived))

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The lines, as asyncio's reader gives them."""
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # ---- writing

    def _check_write(self) -> None:
        state = self._state
        if state.ended and state.failure is not None:
            raise state.failure
        if self._link.over is not None:
            raise self._link.over
        if state.ended or state.closing or state.finishing:
            raise ClosedError("the stream is closed for writing")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Gives data to the stream, without waiting. Follow it with ``await drain()``: what the peer does not read yet
        waits in this program."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a stream carries bytes, not {type(data).__name__}")
        self._check_write()
        if not data:
            return
        state = self._state
        kept = memoryview(data if isinstance(data, bytes) else bytes(data))
        state.pending.append(kept)
        state.pending_size += len(kept)
        self._link.streams.pump(state)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """`write` for each."""
        for part in data:
            self.write(part)

    async def drain(self) -> None:
        """Waits until it makes sense to write more, as with asyncio."""
        state = self._state
        if state.ended and state.failure is not None:
            raise state.failure
        if state.pending_size > HIGH:
            await self._wait_sent(LOW)

    async def _wait_sent(self, most: int) -> None:
        state = self._state
        while state.pending_size > most:
            if self._link.over is not None:
                raise self._link.over
            waiter: asyncio.Future[None] = self._loop.create_future()
            state.writers.append(waiter)
            await waiter
        if state.ended and state.failure is not None:
            raise state.failure

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """`write` and `drain`."""
        self.write(data)
        await self.drain()

    async def settle(self) -> None:
        """Waits until the peer's node has acknowledged everything written so far."""
        if self._link.is_reference:
            raise unsupported("settle")
        await self._wait_sent(0)
        await self._link.order(wire.drain(self._state.id))

    def can_write_eof(self) -> bool:
        """As asyncio's. A reference daemon cannot tell a peer; it notices when the stream is closed."""
        return not self._link.is_reference

    def write_eof(self) -> None:
        """Tells the peer, after what was written, that no more comes; reading goes on."""
        state = self._state
        if state.finishing or state.closing:
            return
        state.finishing = True
        self._link.streams.pump(state)

    # ---- the end

    def close(self) -> None:
        """Ends the stream in order: what was written is still delivered, what comes is thrown away."""
        self._link.streams.close(self._state)

    def is_closing(self) -> bool:
        """Whether it is closed, or being so."""
        return self._state.closing or self._state.ended

    async def wait_closed(self) -> None:
        """Waits until the daemon has taken note of the end, and with it of everything written. An error when the stream
        failed before all of it was sent."""
        state = self._state
        if not state.closing:
            raise RuntimeError("wait_closed comes after close")
        while self._link.streams.is_open(state):
            if self._link.over is not None:
                raise self._link.over
            waiter: asyncio.Future[None] = self._loop.create_future()
            state.closed_waiters.append(waiter)
            await waiter
        if state.is_cut and state.failure is not None:
            raise state.failure

    def reset(self) -> None:
        """Ends the stream at once. What is on its way may be lost, and the peer sees a failure."""
        self._link.streams.reset(self._state, PilotError("the application reset the stream", code="cancelled"))

    abort = reset

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.reset()
            return
        self.close()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.reset()
            raise

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state is None or state.closing or state.ended or self._link.over is not None:
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
        # The loop is closed: with it the connection ended.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._link.streams.close, state)


class Listener:
    """A claimed port. Iterate over it for the streams that come to it."""

    def __init__(self, link: Link, port: int, accepting: Accepting) -> None:
        self._link = link
        self._port = port
        self._accepting = accepting
        self._is_open = True

    @property
    def port(self) -> int:
        """The port."""
        return self._port

    async def accept(self) -> Stream:
        """The next stream. It may be cancelled and called again: no stream is lost by that."""
        state, peer = await self._link.next_of(self._accepting)
        return Stream(self._link, state, peer, self._port)

    def close(self) -> None:
        """Gives the port back. Streams that were accepted go on; those that wait are refused."""
        if self._is_open:
            self._is_open = False
            self._link.remove_listener(self._port, was_bound=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Stream:
        if not self._is_open:
            raise StopAsyncIteration
        try:
            return await self.accept()
        except ClosedError:
            if self._is_open:
                raise
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Datagrams:
    """Single packets of a port: unordered, and lost when something on the way is full."""

    def __init__(self, link: Link, port: int, receiving: Receiving) -> None:
        self._link = link
        self._port = port
        self._receiving = receiving
        self._is_open = True
        self._is_bound = False

    @property
    def port(self) -> int:
        """The port that they come to and go out from."""
        return self._port

    async def recv_from(self) -> tuple[Endpoint, bytes]:
        """The next datagram, and who sent it."""
        peer, data = await self._link.next_of(self._receiving)
        return peer, data

    async def send_to(self, to: Endpoint, data: bytes) -> None:
        """Sends a datagram of up to 65,535 bytes from this port, which is claimed by that. Returns when it was handed to the
        network."""
        check_datagram(data)
        if not self._link.is_reference:
            if not self._is_bound and not self._link.listens(self._port):
                await self._link.order(wire.bind(self._port))
                self._is_bound = True
            await self._link.order(wire.send_from(self._port, to, data))
            return
        try:
            await self._link.order(wire.send_to_confirm(to, data))
        except UnsupportedError:
            # Releases before 1.18 have no confirmation.
            await self._link.send(wire.send_to(to, data))

    def close(self) -> None:
        """Receives no more."""
        if self._is_open:
            self._is_open = False
            self._link.remove_datagrams(self._port)
            if self._is_bound:
                self._link.start_unattended(wire.unbind(self._port))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Endpoint, bytes]:
        if not self._is_open:
            raise StopAsyncIteration
        try:
            return await self.recv_from()
        except ClosedError:
            if self._is_open:
                raise
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def check_datagram(data: bytes) -> None:
    if len(data) > wire.MAX_DATAGRAM:
        raise InvalidArgumentError(
            f"a datagram of {len(data)} bytes is over the limit of {wire.MAX_DATAGRAM}", hint="use a stream"
        )
