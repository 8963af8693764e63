"""Streams and datagrams between two daemons."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os

import pytest
from conftest import PATIENCE, Machine, run

from pilot_agents import (
    Address,
    ClosedError,
    Endpoint,
    InvalidArgumentError,
    Listener,
    NotFoundError,
    Pilot,
    PilotError,
    PilotTimeoutError,
    RefusedError,
    Stream,
    UnreachableError,
)


async def pair(a: Pilot, b: Pilot, port: int) -> tuple[Stream, Stream, Listener]:
    """Two ends of a stream, and the listener."""
    listener = await b.listen(port)
    dialled, accepted = await asyncio.gather(a.dial(b.address, port), listener.accept())
    return dialled, accepted, listener


def test_a_stream_reads_and_writes_as_those_of_asyncio_do(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            dialled, accepted, listener = await pair(a, b, 2000)
            assert accepted.peer.address == a.address
            assert dialled.peer == Endpoint(b.address, 2000)
            assert accepted.local_port == 2000
            dialled.write(b"one line\nand ")
            dialled.writelines([b"another\n", bytearray(b"0123456789")])
            dialled.write(memoryview(b"rest|tail"))
            await dialled.drain()
            dialled.write_eof()
            assert await accepted.readline() == b"one line\n"
            assert [await accepted.__anext__()] == [b"and another\n"]
            assert await accepted.readexactly(10) == b"0123456789"
            assert await accepted.readuntil(b"|") == b"rest|"
            assert await accepted.read(3) == b"tai"
            assert await accepted.read() == b"l"
            assert await accepted.read() == b""
            assert await accepted.read(5) == b""
            assert accepted.at_eof()
            assert await accepted.readline() == b""
            # The other direction goes on.
            await accepted.send(b"an answer after the end of the question\n" * 3)
            await accepted.settle()
            accepted.close()
            assert [line async for line in dialled] == [b"an answer after the end of the question\n"] * 3
            dialled.close()
            await dialled.wait_closed()
            await accepted.wait_closed()
            with pytest.raises(ClosedError):
                dialled.write(b"x")
            with pytest.raises(ClosedError):
                await dialled.read(1)
            listener.close()

    run(main())


def test_a_read_that_is_cut_short_says_what_came(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            dialled, accepted, listener = await pair(a, b, 2001)
            async with listener, accepted, dialled:
                await dialled.send(b"four")
                dialled.write_eof()
                with pytest.raises(asyncio.IncompleteReadError) as cut:
                    await accepted.readexactly(5)
                assert (cut.value.partial, cut.value.expected) == (b"four", 5)
                await accepted.send(b"x" * 100)
                with pytest.raises(asyncio.LimitOverrunError):
                    await dialled.readuntil(b"\n", limit=10)
                assert await dialled.readexactly(100) == b"x" * 100
                with pytest.raises(ValueError, match="less than zero"):
                    await dialled.readexactly(-1)
                first = asyncio.ensure_future(dialled.read(1))
                await asyncio.sleep(0)
                with pytest.raises(RuntimeError, match="another task"):
                    await dialled.read(1)
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
                # A read that was cancelled has taken nothing.
                await accepted.send(b"whole")
                assert await dialled.readexactly(5) == b"whole"

    run(main())


def test_64_mib_arrive_as_they_were_sent(alice: Machine, bob: Machine) -> None:
    block = os.urandom(1 << 20)
    count = 64

    async def sender(stream: Stream) -> None:
        for _ in range(count):
            stream.write(block)
            await stream.drain()
        stream.write_eof()

    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            dialled, accepted, listener = await pair(a, b, 2002)
            async with listener, dialled, accepted:
                sending = asyncio.ensure_future(sender(dialled))
                digest, size = hashlib.sha256(), 0
                while data := await accepted.read(1 << 16):
                    digest.update(data)
                    size += len(data)
                await sending
                assert size == count << 20
                assert digest.digest() == hashlib.sha256(block * count).digest()

    run(main(), 2 * PATIENCE)


def test_more_than_the_credit_can_be_read_at_once(alice: Machine, bob: Machine) -> None:
    data = os.urandom(5 << 20)

    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            dialled, accepted, listener = await pair(a, b, 2003)
            async with listener, dialled, accepted:
                dialled.write(data)
                assert await accepted.readexactly(len(data)) == data
                accepted.write(data)
                accepted.write_eof()
                assert await dialled.read() == data

    run(main())


def test_a_stream_that_nobody_reads_stops_no_other(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            async with await b.listen(2004) as listener:
                slow, slow_end = await asyncio.gather(a.dial("bob", 2004), listener.accept())
                slow.write(b"s" * (32 << 20))
                waiting = asyncio.ensure_future(slow.drain())
                fast, fast_end = await asyncio.gather(a.dial("bob:2004"), listener.accept())
                for _ in range(20):
                    await fast.send(b"f" * 100_000)
                    assert await fast_end.readexactly(100_000) == b"f" * 100_000
                    await fast_end.send(b"ok")
                    assert await fast.readexactly(2) == b"ok"
                assert not waiting.done(), "nobody reads it"
                # And it goes on when somebody does.
                assert len(await slow_end.readexactly(32 << 20)) == 32 << 20
                await waiting
                for stream in (slow, slow_end, fast, fast_end):
                    stream.close()
                    await stream.wait_closed()

    run(main())


def test_what_was_written_before_close_is_delivered(alice: Machine, bob: Machine) -> None:
    data = os.urandom(3 << 20)

    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            dialled, accepted, listener = await pair(a, b, 2005)
            dialled.write(data)
            dialled.close()
            assert await accepted.read() == data
            await dialled.wait_closed()
            accepted.close()
            listener.close()

    run(main())


def test_a_stream_left_by_an_exception_does_not_look_whole(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            dialled, accepted, listener = await pair(a, b, 2006)
            with pytest.raises(KeyError):
                async with dialled:
                    await dialled.send(b"half of")
                    await dialled.settle()
                    raise KeyError("a mistake")
            with pytest.raises(PilotError) as failed:
                await accepted.read()
            assert failed.value.code in ("closed", "cancelled"), failed.value
            accepted.close()
            listener.close()

    run(main())


def test_a_stream_that_is_forgotten_is_closed(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            dialled, accepted, listener = await pair(a, b, 2007)
            await dialled.send(b"last words")
            with pytest.warns(ResourceWarning, match="never closed"):
                del dialled
                await asyncio.sleep(0)
                gc.collect()
            assert await accepted.read() == b"last words"
            accepted.close()
            listener.close()

    run(main())


def test_data_goes_out_with_the_dial(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b, await b.listen(2008) as listener:
            data = os.urandom(50_000)
            dialled, accepted = await asyncio.gather(a.dial(bob.address, 2008, data=data), listener.accept())
            assert await accepted.readexactly(len(data)) == data
            accepted.close()
            assert await dialled.read() == b""
            dialled.close()

    run(main())


def test_peers_are_named_as_in_the_command_line(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b, await b.listen(2009) as listener:
            found = await a.resolve("bob")
            for peer in ("bob", str(bob.address), str(bob.address.node), bob.address.node, bob.address, found):
                async with await a.dial(peer, 2009):
                    (await listener.accept()).close()
            for service in ("bob:2009", f"{bob.address}:2009", Endpoint(bob.address, 2009)):
                async with await a.dial(service):
                    (await listener.accept()).close()
            for wrong in ("0:0000.0000", "1:0000.0000.0002"):
                with pytest.raises(InvalidArgumentError):
                    await a.dial(wrong, 2009)
            with pytest.raises(InvalidArgumentError):
                await a.dial("bob")
            with pytest.raises(InvalidArgumentError):
                await a.dial("bob", 70_000)
            with pytest.raises(NotFoundError) as unknown:
                await a.dial("nobody-of-that-name", 1)
            assert unknown.value.code == "not_found"
            assert unknown.value.hint

    run(main())


def test_a_port_that_nobody_listens_on_refuses(alice: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a:
            with pytest.raises(RefusedError) as refused:
                await a.dial("bob", 2999)
            assert isinstance(refused.value, ConnectionRefusedError)
            assert not refused.value.retryable

    run(main())


def test_a_port_is_claimed_once_and_given_back(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b, bob.pilot() as other:
            listener = await b.listen(2010)
            for taker in (b, other):
                with pytest.raises(PilotError) as taken:
                    await taker.listen(2010)
                assert taken.value.code == "already_exists"
            # One that waits when the listener is closed is told.
            waiting = await a.dial("bob", 2010)
            listener.close()
            assert [stream async for stream in listener] == []
            with pytest.raises(PilotError):
                await waiting.readexactly(1)
            waiting.close()
            async with await b.listen(2010):
                pass

    run(main())


def test_an_accept_that_is_cancelled_loses_no_stream(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b, await b.listen(2011) as listener:
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(listener.accept(), 0.001)
            dialled = await a.dial("bob", 2011)
            accepted = await listener.accept()
            accepted.close()
            dialled.close()

    run(main())


def test_a_dial_that_is_cancelled_leaves_no_stream(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b, await b.listen(2012) as listener:
            dialling = asyncio.ensure_future(a.dial("bob", 2012))
            accepted = await listener.accept()
            dialling.cancel()
            try:
                (await dialling).close()
            except asyncio.CancelledError:
                pass
            # Whether it was open by then or not, the other end learns of the end.
            assert await accepted.read() == b""
            accepted.close()

    run(main())


def test_many_streams_at_once(alice: Machine, bob: Machine) -> None:
    async def echo(stream: Stream) -> None:
        async with stream:
            while data := await stream.read(1 << 16):
                await stream.send(data)

    async def serve(listener: Listener) -> None:
        async with listener:
            tasks = []
            async for stream in listener:
                tasks.append(asyncio.ensure_future(echo(stream)))

    async def ask(a: Pilot, number: int) -> bool:
        question = str(number).encode() * 5000
        async with await a.dial("bob", 2013) as stream:
            stream.write(question)
            stream.write_eof()
            return await stream.read() == question

    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            serving = asyncio.ensure_future(serve(await b.listen(2013)))
            assert all(await asyncio.gather(*(ask(a, number) for number in range(100))))
            serving.cancel()

    run(main())


def test_datagrams_come_with_their_sender(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            async with await a.datagrams(3000) as ours, await b.datagrams(3001) as theirs:
                await ours.send_to(Endpoint(b.address, 3001), b"ping")
                sender, data = await theirs.recv_from()
                assert (sender, data) == (Endpoint(a.address, 3000), b"ping")
                await theirs.send_to(sender, b"pong")
                async for sender, data in ours:
                    assert (sender, data) == (Endpoint(b.address, 3001), b"pong")
                    break
                await a.send_datagram("bob", b"from any port", 3001)
                assert (await theirs.recv_from())[1] == b"from any port"
                with pytest.raises(InvalidArgumentError):
                    await a.send_datagram("bob", b"x" * 65_536, 3001)
            with pytest.raises(ClosedError):
                await ours.recv_from()

    run(main())


def test_an_unreachable_peer_is_reported_with_what_was_tried(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a:
            carol = bob.world.machine("carol")
            from conftest import befriend

            await befriend(alice, carol)
            carol.kill()
            error: PilotError | None = None
            while not isinstance(error, UnreachableError):
                # It was heard a moment ago: until it has been silent for long enough it may be alive.
                with pytest.raises((UnreachableError, PilotTimeoutError)) as gone:
                    await a.dial(carol.address, 1000)
                assert isinstance(gone.value, PilotError)
                error = gone.value
            assert error.unreachable is not None
            assert error.unreachable.node_id == carol.address.node
            assert error.unreachable.tried
            assert error.retryable

    run(main(), 2 * PATIENCE)


def test_addresses_are_read_and_written() -> None:
    assert str(Address.parse("1:0001.00AB.cdef")) == "1:0001.00AB.CDEF"
    assert Endpoint.parse("0:0000.0000.0002:1000") == Endpoint(Address(0, 2), 1000)
    for wrong in (
        "",
        "0",
        "0:0000.0000",
        "0:0000.0000.00002",
        "0:0001.0000.0002",
        "70000:0000.0000.0001",
        "0:00g0.0000.0001",
    ):
        with pytest.raises(InvalidArgumentError):
            Address.parse(wrong)
