"""The same client for programs without asyncio: every call waits for its end.

    from pilot_agents.sync import Pilot

    with Pilot() as p:
        print(p.request("agent-b", "what is the load?").text)

A thread of its own runs the asyncio client; any number of threads may use one `Pilot`. What an interrupted call (Ctrl-C) waited
for is taken back as when a task is cancelled. A ``timeout`` on reads and on `next` is in seconds, `PilotTimeoutError` when it is
over; nothing is lost by that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

from . import _events, _messages, _requests, _serve, stream
from ._base import Peer
from ._content import Data
from .address import Address, Endpoint
from .errors import ClosedError, PilotTimeoutError
from .pilot import Pilot as AsyncPilot

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Datagrams",
    "EventStream",
    "Inbox",
    "IncomingRequest",
    "Listener",
    "PendingRequest",
    "Pilot",
    "Server",
    "Stream",
    "Subscription",
]

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
W = TypeVar("W", bound="_Wrapper[Any]")


class _Loop:
    """A thread with a loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pilot", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        if self._loop.is_closed():
            work.close()
            raise ClosedError("this client is closed")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback of the client cannot wait for the client")
        doing = asyncio.run_coroutine_threadsafe(_within(work, timeout), self._loop)
        try:
            return doing.result()
        except concurrent.futures.CancelledError:
            raise ClosedError("this client was closed meanwhile") from None
        except BaseException:
            doing.cancel()
            raise

    def soon(self, work: Callable[[], object]) -> None:
        """Does something that does not wait."""

        async def do() -> None:
            work()

        self.wait(do())

    def close(self) -> None:
        if self._loop.is_closed():
            return

        async def cancel_all() -> None:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _within(work: Coroutine[Any, Any, T], timeout: float | None) -> T:
    if timeout is None:
        return await work
    try:
        return await asyncio.wait_for(work, timeout)
    except PilotTimeoutError:
        raise
    except asyncio.TimeoutError:
        raise PilotTimeoutError(f"nothing within {timeout:g} s") from None


class _Wrapper(Generic[A_co]):
    """Something of the asyncio client, and the loop that it lives on."""

    def __init__(self, inner: A_co, loop: _Loop) -> None:
        self._inner = inner
        self._loop = loop

    def __repr__(self) -> str:
        return repr(self._inner)


def _blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Wrapper[A], P], T]:
    """The method of the asyncio client, waited for."""

    def wait(self: _Wrapper[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.wait(method(self._inner, *args, **kwargs))

    functools.update_wrapper(wait, method)
    return wait


def _opening(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]], cls: Callable[[T, _Loop], W]
) -> Callable[Concatenate[_Wrapper[A], P], W]:
    """The same, for what gives something to go on with."""

    def wait(self: _Wrapper[A], /, *args: P.args, **kwargs: P.kwargs) -> W:
        return cls(self._loop.wait(method(self._inner, *args, **kwargs)), self._loop)

    functools.update_wrapper(wait, method)
    return wait


class Stream(_Wrapper[stream.Stream]):
    """Ordered, reliable bytes to and from a peer; see `pilot_agents.Stream`. Reads give ``b""`` at the end."""

    @property
    def peer(self) -> Endpoint:
        """The other end."""
        return self._inner.peer

    @property
    def id(self) -> int:
        """The daemon's number for the stream."""
        return self._inner.id

    def read(self, n: int = -1, timeout: float | None = None) -> bytes:
        """Up to ``n`` bytes, or everything until the end when ``n`` is negative."""
        return self._loop.wait(self._inner.read(n), timeout)

    def readexactly(self, n: int, timeout: float | None = None) -> bytes:
        """``n`` bytes; `asyncio.IncompleteReadError` when the end comes before."""
        return self._loop.wait(self._inner.readexactly(n), timeout)

    def readline(self, timeout: float | None = None) -> bytes:
        """A line with its end."""
        return self._loop.wait(self._inner.readline(), timeout)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def write(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Writes, and waits while the peer does not read."""
        self._loop.wait(self._inner.send(data), timeout)

    def write_eof(self) -> None:
        """Tells the peer that no more comes; reading goes on."""
        self._loop.soon(self._inner.write_eof)

    settle = _blocking(stream.Stream.settle)

    def close(self) -> None:
        """Ends the stream in order, and waits until what was written has left for the peer."""

        async def close() -> None:
            self._inner.close()
            await self._inner.wait_closed()

        self._loop.wait(close())

    def reset(self) -> None:
        """Ends it at once; the peer sees a failure."""
        self._loop.soon(self._inner.reset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close() if kind is None else self.reset()


class Listener(_Wrapper[stream.Listener]):
    """A claimed port. Iterate over it for the streams that come to it."""

    @property
    def port(self) -> int:
        """The port."""
        return self._inner.port

    def accept(self, timeout: float | None = None) -> Stream:
        """The next stream."""
        return Stream(self._loop.wait(self._inner.accept(), timeout), self._loop)

    def __iter__(self) -> Iterator[Stream]:
        while True:
            yield self.accept()

    def close(self) -> None:
        """Gives the port back."""
        self._loop.soon(self._inner.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Datagrams(_Wrapper[stream.Datagrams]):
    """Single packets of a port."""

    send_to = _blocking(stream.Datagrams.send_to)

    def recv_from(self, timeout: float | None = None) -> tuple[Endpoint, bytes]:
        """The next datagram, and who sent it."""
        return self._loop.wait(self._inner.recv_from(), timeout)

    def close(self) -> None:
        """Receives no more."""
        self._loop.soon(self._inner.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Inbox(_Wrapper[_messages.Inbox]):
    """Messages as they arrive; see `pilot_agents.Inbox`."""

    next = _blocking(_messages.Inbox.next)

    def __iter__(self) -> Iterator[_messages.Message]:
        while (message := self.next()) is not None:
            yield message


class PendingRequest(_Wrapper[_requests.PendingRequest]):
    """A request under way; see `pilot_agents.PendingRequest`."""

    @property
    def id(self) -> str:
        """Its id."""
        return self._inner.id

    next = _blocking(_requests.PendingRequest.next)
    answer = _blocking(_requests.PendingRequest.answer)
    cancel = _blocking(_requests.PendingRequest.cancel)

    def __iter__(self) -> Iterator[_requests.RequestEvent]:
        while (event := self.next()) is not None:
            yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.wait(self._inner.__aexit__())


class IncomingRequest(_Wrapper[_serve.IncomingRequest]):
    """A request that this program holds; see `pilot_agents.IncomingRequest`."""

    @property
    def message(self) -> _messages.Message:
        """The message."""
        return self._inner.message

    @property
    def sender(self) -> Address:
        """Who asks."""
        return self._inner.sender

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return self._inner.data

    @property
    def text(self) -> str:
        """Its data as text."""
        return self._inner.text

    def json(self) -> Any:
        """Its data as JSON."""
        return self._inner.json()

    @property
    def is_cancelled(self) -> bool:
        """Whether it is not to be worked at any more."""
        return self._inner.is_cancelled

    progress = _blocking(_serve.IncomingRequest.progress)
    part = _blocking(_serve.IncomingRequest.part)
    answer = _blocking(_serve.IncomingRequest.answer)
    finish = _blocking(_serve.IncomingRequest.finish)
    fail = _blocking(_serve.IncomingRequest.fail)
    decline = _blocking(_serve.IncomingRequest.decline)
    release = _blocking(_serve.IncomingRequest.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._loop.wait(self._inner.__aexit__(kind, error, trace))


class Server(_Wrapper[_serve.Server]):
    """Hands out requests to be answered; see `pilot_agents.Server`."""

    def next(self, timeout: float | None = None) -> IncomingRequest:
        """The next request."""
        return IncomingRequest(self._loop.wait(self._inner.next(), timeout), self._loop)

    def run(self, handler: Callable[[_serve.IncomingRequest], Data], *, concurrency: int = 16) -> None:
        """Answers requests with a handler, each call in a thread, until it is interrupted or the client is closed."""
        self._loop.wait(self._inner.run(handler, concurrency=concurrency))

    def __iter__(self) -> Iterator[IncomingRequest]:
        while True:
            yield self.next()

    close = _blocking(_serve.Server.close)

    def __enter__(self) -> Self:
        self._loop.wait(self._inner.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventStream(_Wrapper[_events.EventStream]):
    """Events of this node and the nodes it trusts; see `pilot_agents.EventStream`."""

    subscribe = _blocking(_events.EventStream.subscribe)
    publish = _blocking(_events.EventStream.publish)
    settle = _blocking(_events.EventStream.settle)
    next = _blocking(_events.EventStream.next)
    close = _blocking(_events.EventStream.close)

    def __iter__(self) -> Iterator[_events.Event]:
        while True:
            yield self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Subscription(_Wrapper[_events.Subscription]):
    """What comes for one topic, from its making on."""

    next = _blocking(_events.Subscription.next)
    close = _blocking(_events.Subscription.close)

    def __iter__(self) -> Iterator[_events.Event]:
        while True:
            yield self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pilot(_Wrapper[AsyncPilot]):
    """A connection to the daemon: ``with Pilot() as p: ...``; see `pilot_agents.Pilot` for what each call does."""

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        super().__init__(AsyncPilot(socket), _Loop())

    def connect(self) -> Self:
        """Connects. What ``with`` does."""
        self._loop.wait(self._inner.connect())
        return self

    def close(self) -> None:
        """Ends the connection and all that was opened through it."""
        try:
            self._loop.wait(self._inner.close())
        except ClosedError:
            return
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        try:
            return self.connect()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> Address:
        """The address of this node."""
        return self._inner.address

    @property
    def node_id(self) -> int:
        """The number of this node."""
        return self._inner.node_id

    @property
    def hostname(self) -> str:
        """The name of this node, or nothing."""
        return self._inner.hostname

    @property
    def socket(self) -> str:
        """Where the daemon is."""
        return self._inner.socket

    # ---- what gives something to go on with

    dial = _opening(AsyncPilot.dial, Stream)
    listen = _opening(AsyncPilot.listen, Listener)
    datagrams = _opening(AsyncPilot.datagrams, Datagrams)
    open_request = _opening(AsyncPilot.open_request, PendingRequest)
    open_event_stream = _opening(AsyncPilot.open_event_stream, EventStream)

    def inbox(
        self,
        *,
        sender: Peer | None = None,
        unread: bool = False,
        since_ns: int | None = None,
        type: str | None = None,
        text: str | None = None,
    ) -> Inbox:
        """The messages that arrive from now on, or the unread ones first."""
        inbox = self._inner.inbox(sender=sender, unread=unread, since_ns=since_ns, type=type, text=text)
        return Inbox(self._loop.wait(inbox.start()), self._loop)

    def subscribe(
        self,
        topic: str,
        *,
        peer: Peer | None = None,
        policy: _events.Overflow = "drop-oldest",
        queue: int | None = None,
        replay: int = 0,
    ) -> Subscription:
        """Events of a topic or pattern; the subscription is in force when this returns."""
        events = self._inner.subscribe(topic, peer=peer, policy=policy, queue=queue, replay=replay)
        return Subscription(self._loop.wait(events.start()), self._loop)

    def serve(self, *, sender: Peer | None = None, all: Literal[True, False] = False) -> Server:
        """Answers requests of other nodes: ``for work in p.serve(): ...``"""
        return Server(self._inner.serve(sender=sender, all=all), self._loop)

    def call(self, call: str, /, **fields: Any) -> Any:
        """A call of the local socket as it is."""
        return self._loop.wait(self._inner.call(call, **fields))

    # ---- everything else

    is_reference = _blocking(AsyncPilot.is_reference)
    info = _blocking(AsyncPilot.info)
    health = _blocking(AsyncPilot.health)
    status = _blocking(AsyncPilot.status)
    address_of = _blocking(AsyncPilot.address_of)
    resolve = _blocking(AsyncPilot.resolve)
    find = _blocking(AsyncPilot.find)
    lookup = _blocking(AsyncPilot.lookup)
    peers = _blocking(AsyncPilot.peers)
    connections = _blocking(AsyncPilot.connections)
    disconnect = _blocking(AsyncPilot.disconnect)
    ping = _blocking(AsyncPilot.ping)
    why = _blocking(AsyncPilot.why)
    netcheck = _blocking(AsyncPilot.netcheck)
    set_hostname = _blocking(AsyncPilot.set_hostname)
    set_visibility = _blocking(AsyncPilot.set_visibility)
    set_tags = _blocking(AsyncPilot.set_tags)
    set_webhook = _blocking(AsyncPilot.set_webhook)
    deregister = _blocking(AsyncPilot.deregister)
    rotate_key = _blocking(AsyncPilot.rotate_key)
    shutdown = _blocking(AsyncPilot.shutdown)
    send_datagram = _blocking(AsyncPilot.send_datagram)
    broadcast = _blocking(AsyncPilot.broadcast)
    handshake = _blocking(AsyncPilot.handshake)
    approve = _blocking(AsyncPilot.approve)
    reject = _blocking(AsyncPilot.reject)
    revoke = _blocking(AsyncPilot.revoke)
    untrust = _blocking(AsyncPilot.untrust)
    pending = _blocking(AsyncPilot.pending)
    trusted = _blocking(AsyncPilot.trusted)
    trust_list = _blocking(AsyncPilot.trust_list)
    wait_trust = _blocking(AsyncPilot.wait_trust)
    auto_approve = _blocking(AsyncPilot.auto_approve)
    policy = _blocking(AsyncPilot.policy)
    policy_of = _blocking(AsyncPilot.policy_of)
    set_policy = _blocking(AsyncPilot.set_policy)
    unset_policy = _blocking(AsyncPilot.unset_policy)
    test_policy = _blocking(AsyncPilot.test_policy)
    reload_policy = _blocking(AsyncPilot.reload_policy)
    reset_policy = _blocking(AsyncPilot.reset_policy)
    send_message = _blocking(AsyncPilot.send_message)
    send_message_now = _blocking(AsyncPilot.send_message_now)
    outbox = _blocking(AsyncPilot.outbox)
    outbox_show = _blocking(AsyncPilot.outbox_show)
    outbox_cancel = _blocking(AsyncPilot.outbox_cancel)
    outbox_wait = _blocking(AsyncPilot.outbox_wait)
    list_messages = _blocking(AsyncPilot.list_messages)
    read_message = _blocking(AsyncPilot.read_message)
    take_message = _blocking(AsyncPilot.take_message)
    wait_message = _blocking(AsyncPilot.wait_message)
    wait_reply = _blocking(AsyncPilot.wait_reply)
    mark_messages = _blocking(AsyncPilot.mark_messages)
    remove_messages = _blocking(AsyncPilot.remove_messages)
    clear_messages = _blocking(AsyncPilot.clear_messages)
    request = _blocking(AsyncPilot.request)
    reply = _blocking(AsyncPilot.reply)
    remark = _blocking(AsyncPilot.remark)
    send_file = _blocking(AsyncPilot.send_file)
    queue_file = _blocking(AsyncPilot.queue_file)
    received_files = _blocking(AsyncPilot.received_files)
    wait_file = _blocking(AsyncPilot.wait_file)
    remove_file = _blocking(AsyncPilot.remove_file)
    publish = _blocking(AsyncPilot.publish)
    events_status = _blocking(AsyncPilot.events_status)
    submit_task = _blocking(AsyncPilot.submit_task)
    wait_task = _blocking(AsyncPilot.wait_task)
    cancel_task = _blocking(AsyncPilot.cancel_task)
    show_task = _blocking(AsyncPilot.show_task)
    tasks = _blocking(AsyncPilot.tasks)
    accept_task = _blocking(AsyncPilot.accept_task)
    decline_task = _blocking(AsyncPilot.decline_task)
    execute_task = _blocking(AsyncPilot.execute_task)
    task_queue = _blocking(AsyncPilot.task_queue)
    report_task_progress = _blocking(AsyncPilot.report_task_progress)
    complete_task = _blocking(AsyncPilot.complete_task)
    fail_task = _blocking(AsyncPilot.fail_task)
    task_settings = _blocking(AsyncPilot.task_settings)
    network_list = _blocking(AsyncPilot.network_list)
    network_join = _blocking(AsyncPilot.network_join)
    network_leave = _blocking(AsyncPilot.network_leave)
    network_members = _blocking(AsyncPilot.network_members)
    network_invite = _blocking(AsyncPilot.network_invite)
    network_invites = _blocking(AsyncPilot.network_invites)
    network_respond = _blocking(AsyncPilot.network_respond)
    memberships = _blocking(AsyncPilot.memberships)
    join_network = _blocking(AsyncPilot.join_network)
    trust_network = _blocking(AsyncPilot.trust_network)
    ask_about_network = _blocking(AsyncPilot.ask_about_network)
    find_cards = _blocking(AsyncPilot.find_cards)
    mailboxes = _blocking(AsyncPilot.mailboxes)
    use_mailbox = _blocking(AsyncPilot.use_mailbox)
    stop_mailbox = _blocking(AsyncPilot.stop_mailbox)
    allow_mailbox = _blocking(AsyncPilot.allow_mailbox)
    deny_mailbox = _blocking(AsyncPilot.deny_mailbox)
