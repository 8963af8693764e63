"""The streams of a connection: their data, their credit, and how each ends."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable

from . import _wire as wire
from ._stream_state import UNLIMITED, StreamState
from .errors import PilotError, ProtocolError

MAX_PIECE = 32 * 1024
"""Largest piece of data in one frame: larger ones would make other streams wait longer for their turn."""
PIECES = 4
REFERENCE_BACKLOG = 16 << 20
"""Reference dialect: once so many bytes wait to be read, the connection itself is not read."""
EARLY_STREAMS = 64
"""Reference dialect: streams whose data may come before they are announced."""


def _nothing() -> None:
    return


class Streams:
    """See the module."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self.is_reference = False
        self.initial = wire.INITIAL_CREDIT
        # The socket takes no more for now.
        self.is_full = False
        self.is_over = False
        self.pause_reading: Callable[[], None] = _nothing
        self.resume_reading: Callable[[], None] = _nothing
        self._open: dict[int, StreamState] = {}
        self._early: OrderedDict[int, StreamState] = OrderedDict()
        self._unread = 0
        self._blocked: dict[int, StreamState] = {}

    def get(self, number: int) -> StreamState | None:
        return self._open.get(number)

    def wake_all(self) -> None:
        """The connection is over."""
        self.is_over = True
        for stream in [*self._open.values(), *self._early.values()]:
            stream.wake_all()

    def on_room(self) -> None:
        """The socket takes more."""
        self.is_full = False
        blocked, self._blocked = self._blocked, {}
        for stream in blocked.values():
            self.pump(stream)

    def reset_unsent(self, why: PilotError) -> None:
        """Ends the streams that have something to send which will not be sent any more."""
        for stream in list(self._open.values()):
            if stream.pending_size and not stream.ended:
                self.reset(stream, why)

    # ---- as the daemon tells of them

    def _credit(self) -> int:
        return UNLIMITED if self.is_reference else self.initial

    def open(self, number: int) -> StreamState:
        stream = self._early.pop(number, None) or StreamState(number, self._credit())
        replaced = self._open.get(number)
        if replaced is not None:
            self._unread -= len(replaced.arrived)
        self._open[number] = stream
        return stream

    def _find(self, number: int) -> StreamState | None:
        stream = self._open.get(number)
        if stream is not None or not self.is_reference:
            return stream
        early = self._early.get(number)
        if early is None:
            if len(self._early) == EARLY_STREAMS:
                _, oldest = self._early.popitem(last=False)
                self._unread -= len(oldest.arrived)
            early = self._early[number] = StreamState(number, UNLIMITED)
        return early

    def on_data(self, number: int, frame: bytes, start: int, end: int) -> None:
        stream = self._find(number)
        size = end - start
        if stream is None or size == 0:
            return
        if not self.is_reference:
            if stream.granted < size:
                raise ProtocolError(f"the daemon broke the protocol: more data than granted on stream {number}")
            stream.granted -= size
        if stream.closing:
            # It is thrown away, and the peer goes on until it has heard of the end.
            stream.earned += size
            self.grant(stream)
            return
        with memoryview(frame)[start:end] as piece:
            stream.arrived += piece
        stream.wake_reader()
        self._unread += size
        if self.is_reference and self._unread >= REFERENCE_BACKLOG:
            self.pause_reading()

    def on_credit(self, number: int, count: int) -> None:
        stream = self._open.get(number)
        if stream is not None:
            stream.credit += count
            self.pump(stream)

    def on_finish(self, number: int) -> None:
        stream = self._open.get(number)
        if stream is not None:
            stream.finished_by_peer = True
            stream.wake_reader()

    def on_end(self, number: int, failure: PilotError | None) -> None:
        stream = self._find(number)
        if stream is None:
            return
        if not stream.ended:
            # What the peer sent before an abnormal end can still be read, then the failure shows.
            stream.ended, stream.failure = True, failure
            stream.is_cut = failure is not None and stream.pending_size > 0
        if stream.closing and (stream.close_sent or not self.is_reference):
            self._open.pop(number, None)
        stream.wake_all()

    # ---- as programs use them

    def take(self, stream: StreamState, count: int) -> bytes:
        """Reads what has arrived, up to so much."""
        taken = stream.take(count)
        was_full = self._unread >= REFERENCE_BACKLOG
        self._unread -= len(taken)
        if self.is_reference:
            if was_full and self._unread < REFERENCE_BACKLOG:
                self.resume_reading()
        else:
            self.grant(stream)
        return taken

    def grant(self, stream: StreamState) -> None:
        """Lets the daemon send as much again as was read, in large steps."""
        if self.is_reference or stream.earned < self.initial // 4 or stream.eof or stream.close_sent:
            return
        count, stream.earned = stream.earned, 0
        stream.granted += count
        self._write(wire.credit(stream.id, count))

    def pump(self, stream: StreamState) -> None:
        """Sends what credit and socket allow, and what comes after the last byte."""
        if stream.ended or self.is_over:
            stream.pending.clear()
            stream.pending_size = 0
            stream.wake_writers()
            return
        while stream.pending and stream.credit:
            if self.is_full:
                self._blocked[stream.id] = stream
                return
            budget = min(stream.credit, stream.pending_size, MAX_PIECE * PIECES)
            parts: list[bytes | memoryview] = []
            for at in range(0, budget, MAX_PIECE):
                piece = min(MAX_PIECE, budget - at)
                parts.append(wire.data_head(stream.id, piece))
                parts.extend(_cut(stream.pending, piece))
            stream.pending_size -= budget
            if not self.is_reference:
                stream.credit -= budget
            self._write(wire.join(parts))
        stream.wake_writers()
        if stream.pending:
            return
        if stream.finishing and not stream.finish_sent and not stream.closing:
            stream.finish_sent = True
            if not self.is_reference:
                self._write(wire.about(wire.FINISH, stream.id))
        if stream.closing and not stream.close_sent:
            stream.close_sent = True
            self._write(wire.about(wire.CLOSE, stream.id))

    def close(self, stream: StreamState) -> None:
        """Ends the stream in order, after what is still to be sent."""
        if stream.closing or self._open.get(stream.id) is not stream:
            return
        stream.closing = True
        self._unread -= len(stream.arrived)
        stream.earned += len(stream.arrived) - stream.counted
        stream.arrived.clear()
        stream.counted = 0
        if stream.ended and not self.is_reference:
            # Both sides know already; the number means nothing to the daemon any more.
            self._open.pop(stream.id, None)
            stream.wake_all()
            return
        if stream.ended:
            stream.close_sent = True
            self._write(wire.about(wire.CLOSE, stream.id))
            return
        self.grant(stream)
        self.pump(stream)

    def reset(self, stream: StreamState, why: PilotError) -> None:
        """Ends the stream at once, and tells the peer that this was no orderly end."""
        stream.pending.clear()
        stream.pending_size = 0
        if self.is_reference:
            self.close(stream)
            return
        if self._open.get(stream.id) is not stream:
            return
        del self._open[stream.id]
        self._unread -= len(stream.arrived)
        if not stream.ended and not stream.close_sent:
            body = json.dumps({"code": why.code, "message": why.message}).encode()
            self._write(wire.about(wire.RESET, stream.id, body))
        stream.ended, stream.closing = True, True
        stream.failure = stream.failure or why
        stream.wake_all()

    def is_open(self, stream: StreamState) -> bool:
        return self._open.get(stream.id) is stream


def _cut(pending: deque[memoryview], count: int) -> list[memoryview]:
    """Takes so many bytes from the front."""
    parts = []
    while count:
        first = pending[0]
        if len(first) <= count:
            parts.append(pending.popleft())
            count -= len(first)
        else:
            parts.append(first[:count])
            pending[0] = first[count:]
            count = 0
    return parts
