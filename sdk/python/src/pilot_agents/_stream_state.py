"""One stream, without the connection: what arrived and was not read, what may be written, and how it ends."""

from __future__ import annotations

import asyncio
import sys
from collections import deque

from .errors import PilotError

UNLIMITED = sys.maxsize


class StreamState:
    """The state of one stream. The connection feeds it and takes from it; `Stream` is how programs see it."""

    __slots__ = (
        "arrived",
        "close_sent",
        "closed_waiters",
        "closing",
        "counted",
        "credit",
        "earned",
        "ended",
        "failure",
        "finish_sent",
        "finished_by_peer",
        "finishing",
        "granted",
        "id",
        "is_cut",
        "pending",
        "pending_size",
        "reader",
        "writers",
    )

    def __init__(self, stream: int, credit: int) -> None:
        self.id = stream
        self.arrived = bytearray()
        # Bytes of `arrived` that the daemon has been, or will be, allowed to send again.
        self.counted = 0
        # Bytes that it may send again and was not told of yet.
        self.earned = 0
        # Bytes that it may still send.
        self.granted = credit
        # Bytes that may still be sent to it.
        self.credit = credit
        self.pending: deque[memoryview] = deque()
        self.pending_size = 0
        self.reader: asyncio.Future[None] | None = None
        self.writers: list[asyncio.Future[None]] = []
        self.closed_waiters: list[asyncio.Future[None]] = []
        self.finished_by_peer = False
        self.finishing = False
        self.finish_sent = False
        self.closing = False
        self.close_sent = False
        # The stream is over, in order unless there is a failure.
        self.ended = False
        self.failure: PilotError | None = None
        # It failed with something still to be sent.
        self.is_cut = False

    @property
    def eof(self) -> bool:
        """No more data will come."""
        return self.finished_by_peer or self.ended

    def take(self, count: int) -> bytes:
        """The first bytes of what arrived; they count as read."""
        taken = bytes(self.arrived[:count])
        del self.arrived[:count]
        uncounted = len(taken) - self.counted
        if uncounted > 0:
            self.earned += uncounted
        self.counted = max(0, self.counted - len(taken))
        return taken

    def count_all(self) -> None:
        """Whoever reads needs more than has arrived: the daemon may go on sending."""
        self.earned += len(self.arrived) - self.counted
        self.counted = len(self.arrived)

    def wake_reader(self) -> None:
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)

    def wake_writers(self) -> None:
        _wake(self.writers)

    def wake_all(self) -> None:
        self.wake_reader()
        self.wake_writers()
        _wake(self.closed_waiters)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
