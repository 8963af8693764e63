"""Requests: the side that answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Union

from . import _wire as wire
from ._base import Base, Named, Peer
from ._content import Data, MessageType, body_of, content_of
from ._daemon import RECONNECT_PAUSE, expect
from ._link import Link, is_restarting
from ._messages import Message, message_of
from ._requests import PART_MAX, _finish, pieces
from .address import Address
from .errors import (
    ClosedError,
    FailedError,
    NotRunningError,
    PilotError,
    RefusedError,
    RequestCancelledError,
    unsupported,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Decline", "Handler", "IncomingRequest", "Server"]

TURN_MS = 3_600_000


class Decline(Exception):
    """Raised by a handler that does not take a request; the peer reads the reason."""


class _Work:
    """A connection of its own that is mended when the daemon was restarted; what is held is held again then."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.held: dict[str, list[int]] = {}
        self.is_closed = False
        self._generation = 0
        self._link: Link | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        self._link = await Link.connect(self.socket)
        if self._link.is_reference:
            await self._link.close()
            raise unsupported("serve")

    async def close(self) -> None:
        self.is_closed = True
        if self._link is not None:
            await self._link.close()

    async def call(self, **fields: Any) -> dict[str, Any]:
        while True:
            generation, link = self._generation, self._link
            try:
                if link is None or self.is_closed:
                    raise ClosedError("the server is closed")
                return await _ask(link, fields)
            except PilotError as error:
                if self.is_closed or not is_restarting(error):
                    raise
                await self._mend(generation)

    async def _mend(self, generation: int) -> None:
        async with self._lock:
            if self._generation != generation:
                return
            while not self.is_closed:
                await asyncio.sleep(RECONNECT_PAUSE)
                try:
                    link = await Link.connect(self.socket)
                except NotRunningError:
                    continue
                held = [{"id": name, "run": run, "sent": sent} for name, (run, sent) in self.held.items()]
                try:
                    await _ask(link, {"op": "resume", "held": held})
                except PilotError as error:
                    link.abort()
                    if not is_restarting(error):
                        raise
                    continue
                old, self._link = self._link, link
                if old is not None:
                    old.abort()
                self._generation += 1
                return


async def _ask(link: Link, fields: dict[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in fields.items() if value is not None}
    _, payload = await link.order(wire.call("serving", given))
    reply = wire.Reader(payload, 0, len(payload)).json()
    return expect(reply, "taken", "timed_out", "resumed", "answered", "withdrawn", "done", "state")


class IncomingRequest(Named):
    """A request that this program holds. Answer it once: `answer`, `fail`, `decline` or `finish`; or `release` it.

    What it says is the word of its sender: treat it as data. As a context manager it is given back when it is left without
    an answer; left by an exception, the peer is told that the work failed (with the text of a `FailedError`, and of any other
    exception with the name of its class only).
    """

    def __init__(self, work: _Work, message: Message, taken: dict[str, Any]) -> None:
        self._work = work
        self._message = message
        self._wants_parts = bool(taken.get("parts"))
        self._hops = int(taken.get("hops") or 0)
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + int(taken.get("left_ms") or 0) / 1000
        self._sent = bytearray()
        self._is_over = False
        self._withdrawn: asyncio.Future[str] = self._loop.create_future()
        self._watch = asyncio.ensure_future(_watch(work, message.id, self._withdrawn))

    @property
    def id(self) -> str:
        """Its id in the inbox."""
        return self._message.id

    @property
    def message(self) -> Message:
        """The message."""
        return self._message

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return self._message.data

    @property
    def text(self) -> str:
        """Its data as text."""
        return self._message.text

    def json(self) -> Any:
        """Its data as JSON; `ValueError` when it is none."""
        return self._message.json()

    @property
    def sender(self) -> Address:
        """Who asks: the address that the tunnel proved."""
        return self._message.sender

    @property
    def peer_address(self) -> Address:
        return self._message.sender

    @property
    def hostname(self) -> str:
        """The name of who asks, as this node knows it; may be empty."""
        return self._message.hostname

    @property
    def time_left(self) -> float:
        """For how many seconds the answer is still waited for."""
        return max(0.0, self._deadline - self._loop.time())

    @property
    def wants_parts(self) -> bool:
        """Whether pieces and progress are wanted before the answer. If not, they cost nothing."""
        return self._wants_parts

    @property
    def hops(self) -> int:
        """How many programs in a row have answered by themselves to bring it about."""
        return self._hops

    @property
    def is_cancelled(self) -> bool:
        """Whether it is not to be worked at any more: taken back, over time, or answered by somebody else."""
        return self._withdrawn.done()

    async def cancelled(self) -> str:
        """Waits until it is not to be worked at any more, and says why: ``cancelled``, ``deadline``, ``answered``,
        ``lost``."""
        return await asyncio.shield(self._withdrawn)

    async def progress(self, word: str | bytes) -> None:
        """Says how far the work is. `RequestCancelledError` when it is not to be worked at any more."""
        data = word.encode() if isinstance(word, str) else word
        await self._interim("progress", data[:PART_MAX])

    async def part(self, data: str | bytes) -> None:
        """Sends the next bytes of the answer; `finish` sends all of them as the answer. The requester gets each byte once,
        also if a part is lost."""
        for piece in pieces(data.encode() if isinstance(data, str) else data):
            if piece:
                self._sent += piece
                await self._interim("part", piece)

    async def _interim(self, kind: str, data: bytes) -> None:
        if not self._wants_parts:
            return
        encoded = base64.b64encode(data).decode()
        await self._work.call(op="interim", id=self.id, kind=kind, data=encoded)
        held = self._work.held.get(self.id)
        if held is not None:
            held[1] += 1

    async def answer(self, data: Data, *, type: MessageType | None = None) -> str:
        """Answers; gives the id of the answer. When this returns, it survives a crash of the daemon.
        `RequestCancelledError` when the request was not to be worked at any more."""
        return await self._end("done", data, type)

    async def finish(self) -> str:
        """Answers with the parts that were sent, as text if they are."""
        sent = bytes(self._sent)
        try:
            sent.decode()
        except UnicodeDecodeError:
            return await self._end("done", sent, "binary")
        return await self._end("done", sent, "text")

    async def fail(self, why: str) -> str:
        """Says that it failed, and why."""
        return await self._end("failed", why, "text")

    async def decline(self, why: str) -> str:
        """Says that it is not done, and why."""
        return await self._end("declined", why, "text")

    async def _end(self, outcome: str, data: Data, kind: MessageType | None) -> str:
        if self._is_over:
            raise RuntimeError("a request is answered once")
        sent, body = content_of(data, kind)
        async with body_of(body) as carried:
            # From here on it is not given back, whatever happens: it may be answered.
            self._close()
            reply = await self._work.call(op="answer", id=self.id, held=True, outcome=outcome, kind=sent, body=carried)
        return str(reply.get("message_id", ""))

    async def release(self) -> None:
        """Gives it back: another program, or this one, gets it again."""
        if not self._is_over:
            self._close()
            await self._work.call(op="release", id=self.id)

    def _close(self) -> None:
        self._is_over = True
        self._watch.cancel()
        self._work.held.pop(self.id, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_over:
            return
        if isinstance(error, Exception) and not self.is_cancelled:
            await _report(self, error)
        else:
            with contextlib.suppress(PilotError):
                await _finish(self.release())

    def __del__(self) -> None:
        if getattr(self, "_is_over", True) or self._work.is_closed:
            return
        self._work.held.pop(self.id, None)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_release_later, self._work, self.id, self._watch)


_BACKGROUND: set[asyncio.Future[Any]] = set()


def _release_later(work: _Work, name: str, watch: asyncio.Future[None]) -> None:
    watch.cancel()

    async def release() -> None:
        with contextlib.suppress(PilotError):
            await work.call(op="release", id=name)

    task = asyncio.ensure_future(release())
    _BACKGROUND.add(task)
    task.add_done_callback(_BACKGROUND.discard)


async def _watch(work: _Work, name: str, withdrawn: asyncio.Future[str]) -> None:
    why = "lost"
    try:
        while True:
            reply = await work.call(op="watch", id=name, timeout_ms=TURN_MS)
            if reply["is"] != "timed_out":
                why = str(reply.get("why", "lost"))
                break
    except PilotError:
        pass
    if not withdrawn.done():
        withdrawn.set_result(why)


async def _report(work: IncomingRequest, error: Exception) -> None:
    with contextlib.suppress(RequestCancelledError, NotRunningError, ClosedError):
        if isinstance(error, (Decline, RefusedError)):
            await work.decline(str(error) or "declined")
        elif isinstance(error, FailedError):
            await work.fail(error.message)
        else:
            # Its text may name files or keys of this machine.
            await work.fail(f"the work failed: {type(error).__name__}")


Handler = Union[Callable[[IncomingRequest], Awaitable[Data]], Callable[[IncomingRequest], Data]]
"""Answers a request with what it returns. It may raise `Decline` or `FailedError`."""


class Server:
    """Hands out requests to be answered. Each is held until it is answered or released, or this program ends: then another
    program gets it. Iterate over it, or `run` a handler."""

    def __init__(self, base: Base, sender: Peer | None, all_messages: bool) -> None:
        self._base = base
        self._sender = sender
        self._all = all_messages
        self._node: int | None = None
        self._work: _Work | None = None
        self._taking: asyncio.Future[dict[str, Any]] | None = None

    async def start(self) -> Self:
        """Connects; from here on requests are waited for when they are asked for."""
        if self._work is None:
            if self._sender is not None:
                self._node = await self._base.node_of(self._sender)
            work = _Work(self._base._daemon.socket)
            await work.open()
            self._work = work
        return self

    async def next(self) -> IncomingRequest:
        """The next request. A daemon that is restarted is waited for. It may be cancelled and called again: nothing is lost
        by that."""
        await self.start()
        work = self._work
        assert work is not None
        while True:
            if self._taking is None:
                self._taking = asyncio.ensure_future(
                    work.call(op="take", **{"from": self._node}, all=self._all or None, timeout_ms=TURN_MS)
                )
            # The call outlives a `next` that was cancelled, so that nothing it brings is lost.
            taken = await asyncio.shield(self._taking)
            self._taking = None
            if taken["is"] == "taken":
                return await _incoming(work, taken)

    async def run(self, handler: Handler, *, concurrency: int = 16) -> None:
        """Answers requests with a handler, until it is cancelled; up to ``concurrency`` at a time.

        A handler that is a coroutine is cancelled when its request is not to be worked at any more; any other runs in a
        thread. What it returns is the answer.
        """
        limit = asyncio.Semaphore(concurrency)
        workers: set[asyncio.Future[None]] = set()
        try:
            while True:
                await limit.acquire()
                request = await self.next()
                worker = asyncio.ensure_future(_handle(request, handler))
                workers.add(worker)
                worker.add_done_callback(workers.discard)
                worker.add_done_callback(lambda _: limit.release())
                del request
        finally:
            for unfinished in workers:
                unfinished.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def close(self) -> None:
        """Gives back what is held, and waits for no more."""
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        if self._work is not None:
            # With the connection everything that it held is given back.
            await self._work.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> IncomingRequest:
        try:
            return await self.next()
        except ClosedError:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _incoming(work: _Work, taken: dict[str, Any]) -> IncomingRequest:
    letter = taken.get("letter")
    name = str(letter.get("id")) if isinstance(letter, dict) else ""
    work.held[name] = [int(taken.get("run") or 0), 0]
    try:
        return IncomingRequest(work, await message_of(letter), taken)
    except BaseException:
        work.held.pop(name, None)
        with contextlib.suppress(PilotError):
            await work.call(op="release", id=name)
        raise


async def _handle(request: IncomingRequest, handler: Handler) -> None:
    async with request:
        doing = asyncio.ensure_future(_call(handler, request))
        stopped = asyncio.ensure_future(request.cancelled())
        try:
            await asyncio.wait([doing, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                return
            answer = doing.result()
            with contextlib.suppress(RequestCancelledError):
                if answer is None and request._sent:
                    await request.finish()
                else:
                    await request.answer("" if answer is None else answer)
        except (Decline, FailedError, RefusedError) as error:
            await _report(request, error)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the handler of request {request.id} failed", "exception": error}
            )
            await _report(request, error)
        finally:
            doing.cancel()
            stopped.cancel()


async def _call(handler: Handler, request: IncomingRequest) -> Data:
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        answer: Any = handler(request)
        return await answer  # type: ignore[no-any-return]
    found: Any = await asyncio.to_thread(handler, request)
    return await found if inspect.isawaitable(found) else found  # type: ignore[no-any-return]


class ServeCalls(Base):
    """See the module."""

    def serve(self, *, sender: Peer | None = None, all: Literal[True, False] = False) -> Server:
        """Answers requests of other nodes: ``async for work in p.serve(): await work.answer(...)``, or
        ``await p.serve().run(handler)``.

        With ``all``, plain messages too, of those that arrive from now on: programs of release 1.18.0 ask with such ones.
        """
        server = Server(self, sender, all)
        self._adopt(server)
        return server

    def _adopt(self, child: Any) -> None:
        """What is to be closed with the client."""
        raise NotImplementedError
