"""Daemons that break the protocol, end, or are not there."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conftest import PATIENCE, Machine, World, befriend, run

from pilot_agents import (
    ClosedError,
    DisconnectedError,
    IncomingRequest,
    InvalidArgumentError,
    NotRunningError,
    Pilot,
    PilotError,
    ProtocolError,
    UnsupportedError,
    default_socket,
)
from pilot_agents import _wire as wire

INFO = b"\x0e" + json.dumps({"node_id": 1, "address": "0:0000.0000.0001", "hostname": "fake"}).encode()
HELLO_OK = b"\x81\x01" + json.dumps({"version": "fake", "initial_credit": 1000}).encode()


class Fake:
    """A daemon that says what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def hear(self) -> bytes:
        (length,) = struct.unpack(">I", await self._reader.readexactly(4))
        return await self._reader.readexactly(length)

    async def asked(self) -> tuple[bytes, bytes]:
        """A tagged request: its number and its body."""
        frame = await self.hear()
        assert frame[0] == wire.TAGGED, frame
        return frame[1:5], frame[5:]

    def say(self, *frames: bytes) -> None:
        for frame in frames:
            self.writer.write(wire.frame(frame))

    def reply(self, tag: bytes, body: bytes) -> None:
        self.say(bytes([wire.TAGGED_OK]) + tag + body)

    async def greet(self) -> None:
        assert await self.hear() == b"\x80\x01"
        self.say(HELLO_OK)
        tag, body = await self.asked()
        assert body == b"\x0d"
        self.reply(tag, INFO)


Script = Callable[[Fake], Awaitable[None]]


@asynccontextmanager
async def fake(folder: Path, script: Script) -> AsyncIterator[str]:
    """A socket that plays a script to each who connects."""
    failures: list[BaseException] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Fake(reader, writer))
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            writer.close()

    path = str(folder / "fake.sock")
    server = await asyncio.start_unix_server(play, path)
    try:
        yield path
    finally:
        server.close()
        # Python 3.13 removes the socket itself.
        Path(path).unlink(missing_ok=True)
        if failures:
            raise failures[0]


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x10\x00\x01x",
        wire.frame(b"\x83"),
        wire.frame(b"\x83\x00\x00\x00\x01"),
        wire.frame(b"\x83\x00\x00\x00\x02\x01"),
        wire.frame(b"\x83\x00\x00\x00\x02\x8f{"),
        wire.frame(b"\x83\x00\x00\x00\x02\x8f[]"),
        wire.frame(b"\x83\x00\x00\x00\x02\x04\x00"),
        wire.frame(b"\x84\x00"),
        wire.frame(b"\x85"),
        wire.frame(b"\x86\x00\x00\x00\x01no json"),
        wire.frame(b"\x86\x00\x00\x00\x01[]"),
        wire.frame(b"\x05\x00"),
        wire.frame(b"\x0c\x00"),
        wire.frame(b"\x07\x00"),
        wire.frame(b"\x77what"),
        wire.frame(b"\x8f{"),
    ],
)
def test_a_daemon_that_breaks_the_protocol_ends_the_connection(tmp_path: Path, said: bytes) -> None:
    async def script(daemon: Fake) -> None:
        await daemon.greet()
        await daemon.asked()
        daemon.writer.write(said)
        if said == wire.frame(b"\x8f{"):
            # An answer without a number is for nobody here; the connection is ended by what follows.
            daemon.say(b"\x77")

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            with pytest.raises(ProtocolError) as broken:
                await p.health()
            assert broken.value.code == "internal"

    run(main())


def test_a_frame_that_is_cut_off_is_a_lost_connection(tmp_path: Path) -> None:
    async def script(daemon: Fake) -> None:
        await daemon.greet()
        await daemon.asked()
        daemon.writer.write(b"\x00\x00\x00\x20\x83\x00")
        daemon.writer.close()

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            with pytest.raises(DisconnectedError) as ended:
                await p.health()
            assert ended.value.code == "not_running"
            assert ended.value.retryable

    run(main())


@pytest.mark.parametrize("answer", [b"not json", b"[1, 2]", b'{"node_id": "one"}', b'{"peer_list": [7]}', b"[" * 5_000])
def test_answers_of_a_wrong_form_are_errors(tmp_path: Path, answer: bytes) -> None:
    async def script(daemon: Fake) -> None:
        await daemon.greet()
        tag, _ = await daemon.asked()
        daemon.reply(tag, b"\x0e" + answer)
        tag, _ = await daemon.asked()
        daemon.reply(tag, b"\x22{}")

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            with pytest.raises(ProtocolError):
                await p.info()
            # The connection itself goes on.
            assert (await p.health()).status == ""

    run(main())


def test_unknown_fields_and_classes_are_read(tmp_path: Path) -> None:
    async def script(daemon: Fake) -> None:
        await daemon.greet()
        tag, _ = await daemon.asked()
        daemon.reply(tag, b'\x0e{"node_id": 1, "peer_list": null, "from_the_future": {"a": 1}}')
        tag, _ = await daemon.asked()
        daemon.reply(tag, b'\x8f{"code": "quota", "message": "m", "hint": "h", "more": 1}')

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            assert (await p.info()).peer_list == []
            with pytest.raises(PilotError) as failed:
                await p.health()
            assert (failed.value.code, failed.value.message, failed.value.hint) == ("quota", "m", "h")

    run(main())


def test_more_data_than_was_granted_ends_the_connection(tmp_path: Path) -> None:
    async def script(daemon: Fake) -> None:
        await daemon.greet()
        tag, body = await daemon.asked()
        assert body[0] == wire.DIAL
        daemon.reply(tag, b"\x04\x00\x00\x00\x09")
        daemon.say(b"\x07\x00\x00\x00\x09" + b"x" * 1000, b"\x07\x00\x00\x00\x09y")

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            stream = await p.dial(2, 1000)
            # What came before it can still be read.
            assert await stream.readexactly(1000) == b"x" * 1000
            with pytest.raises(ProtocolError, match="more data than granted"):
                await stream.read(1)
            stream.close()

    run(main())


def test_no_more_is_sent_than_was_granted(tmp_path: Path) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(daemon: Fake) -> None:
        await daemon.greet()
        tag, _ = await daemon.asked()
        daemon.reply(tag, b"\x04\x00\x00\x00\x09")
        got = b""
        while len(got) < 1000:
            got += (await daemon.hear())[5:]
        await heard.put(got)
        # A request goes ahead of data without credit.
        tag, body = await daemon.asked()
        assert body == b"\x21"
        daemon.reply(tag, b"\x22{}")
        daemon.say(b"\x84\x00\x00\x00\x09\x00\x00\x00\x03")
        await heard.put((await daemon.hear())[5:])
        daemon.say(b"\x84\x00\x00\x00\x09\x00\x00\x10\x00")
        await heard.put((await daemon.hear())[5:])
        assert await daemon.hear() == b"\x85\x00\x00\x00\x09"
        assert await daemon.hear() == b"\x08\x00\x00\x00\x09"
        daemon.say(b"\x09\x00\x00\x00\x09")

    async def main() -> None:
        data = bytes(range(256)) * 5
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            stream = await p.dial(2, 1000)
            stream.write(data)
            stream.write_eof()
            assert await heard.get() == data[:1000]
            await p.health()
            assert await heard.get() == data[1000:1003]
            assert await heard.get() == data[1003:]
            stream.close()
            await stream.wait_closed()

    run(main())


def test_an_abnormal_end_shows_after_what_came_before(tmp_path: Path) -> None:
    async def script(daemon: Fake) -> None:
        await daemon.greet()
        tag, _ = await daemon.asked()
        daemon.reply(tag, b"\x04\x00\x00\x00\x09")
        daemon.say(
            b"\x07\x00\x00\x00\x09begun", b'\x86\x00\x00\x00\x09{"code":"unreachable","message":"the peer is gone"}'
        )

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            stream = await p.dial(2, 1000)
            assert await stream.readexactly(5) == b"begun"
            for _ in range(2):
                with pytest.raises(ConnectionError, match="the peer is gone"):
                    await stream.read(1)
            with pytest.raises(ConnectionError):
                stream.write(b"x")
            stream.close()
            await stream.wait_closed()

    run(main())


def test_a_dial_that_nobody_waits_for_is_closed(tmp_path: Path) -> None:
    closed: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(daemon: Fake) -> None:
        await daemon.greet()
        tag, _ = await daemon.asked()
        await closed.put(b"asked")
        other, body = await daemon.asked()
        assert body == b"\x21"
        daemon.reply(tag, b"\x04\x00\x00\x00\x07")
        daemon.reply(other, b"\x22{}")
        await closed.put(await daemon.hear())

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            dialling = asyncio.ensure_future(p.dial(2, 1000))
            assert await closed.get() == b"asked"
            dialling.cancel()
            await p.health()
            assert await closed.get() == b"\x08\x00\x00\x00\x07"

    run(main())


def test_whoever_is_no_daemon_is_told_apart(tmp_path: Path) -> None:
    async def script(daemon: Fake) -> None:
        daemon.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def hangs_up(daemon: Fake) -> None:
        daemon.writer.close()

    async def main() -> None:
        for each in (script, hangs_up):
            async with fake(tmp_path, each) as socket:
                with pytest.raises(ProtocolError) as strange:
                    await Pilot(socket).connect()
                assert strange.value.message
        with pytest.raises(NotRunningError) as missing:
            await Pilot(tmp_path / "none.sock").connect()
        assert isinstance(missing.value, ConnectionError)

    run(main())


def test_a_daemon_of_the_reference_dialect_is_asked_one_thing_at_a_time(tmp_path: Path) -> None:
    async def script(daemon: Fake) -> None:
        assert await daemon.hear() == b"\x80\x01"
        daemon.say(b"\x0c" + b"\0" * 10 + b"a datagram for somebody", b"\x0a\x00\x01unknown command: 0x80")
        assert await daemon.hear() == b"\x0d"
        daemon.say(INFO)
        first = await daemon.hear()
        assert first == b"\x21"
        daemon.say(b"\x02\x00\x01", b"\x22{}")
        assert await daemon.hear() == b"\x03\x00\x00\x00\x00\x00\x02\x03\xe8"
        # Data may overtake the announcement.
        daemon.say(b"\x07\x00\x00\x00\x05early", b"\x04\x00\x00\x00\x05", b"\x09\x00\x00\x00\x05")
        assert await daemon.hear() == b"\x08\x00\x00\x00\x05"
        daemon.say(b"\x09\x00\x00\x00\x05")
        assert await daemon.hear() == b"\x03\x00\x00\x00\x00\x00\x02\x03\xe9"
        daemon.say(b"\x0a\x00\x01connection refused")

    async def main() -> None:
        async with fake(tmp_path, script) as socket, Pilot(socket) as p:
            assert await p.is_reference()
            health, stream = await asyncio.gather(p.health(), p.dial(2, 1000))
            assert health.status == ""
            assert await stream.read() == b"early"
            stream.close()
            await stream.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await p.dial(2, 1001)
            for unknown in (
                p.status(),
                p.outbox(),
                p.request(2, "x"),
                p.serve().start(),
                p.send_message(2, "x", ttl=1),
            ):
                with pytest.raises(UnsupportedError) as unsupported:
                    await unknown
                assert unsupported.value.hint

    run(main())


def test_the_socket_is_found_as_the_command_line_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PILOT_SOCKET", "PILOT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_socket() == "/tmp/pilot.sock"
    (tmp_path / ".pilot").mkdir()
    (tmp_path / ".pilot" / "config.json").write_text('{"socket": "/a/configured.sock"}')
    assert default_socket() == "/a/configured.sock"
    (tmp_path / "config.json").write_text('{"socket": "/of/pilot-home.sock"}')
    monkeypatch.setenv("PILOT_HOME", str(tmp_path))
    assert default_socket() == "/of/pilot-home.sock"
    monkeypatch.setenv("PILOT_SOCKET", "/of/the/environment.sock")
    assert default_socket() == "/of/the/environment.sock"
    assert Pilot("/given.sock").socket == "/given.sock"


# ---- a daemon that is killed


def test_a_killed_daemon_ends_what_is_under_way_and_the_next_one_is_used(world: World, alice: Machine) -> None:
    async def main() -> None:
        frank = world.machine("frank")
        await befriend(alice, frank)
        async with frank.pilot() as f, alice.pilot() as a:
            listener = await f.listen(5000)
            dialled, accepted = await asyncio.gather(a.dial("frank", 5000), listener.accept())
            inbox = await f.inbox().start()
            events = await f.subscribe("news").start()
            server = await f.serve(sender="alice").start()
            serving = asyncio.ensure_future(server.run(_echo))
            next_message = asyncio.ensure_future(inbox.next())
            waiting = asyncio.ensure_future(f.wait_trust(alice.address, timeout=0.0))
            await waiting
            frank.kill()
            with pytest.raises(DisconnectedError):
                await accepted.read()
            with pytest.raises(DisconnectedError):
                await listener.accept()
            with pytest.raises(DisconnectedError):
                accepted.write(b"x")
            with pytest.raises(NotRunningError) as gone:
                await f.info()
            assert gone.value.hint
            frank.start()
            assert (await f.info()).hostname == "frank"
            # These go on by themselves.
            await a.send_message("frank", "after the restart")
            message = await next_message
            assert message is not None
            assert message.text == "after the restart"
            assert (await a.request("frank", "still there?", timeout=20)).text == "still there?"
            heard = asyncio.ensure_future(events.next(20))
            while not heard.done():
                await f.publish("news", "again")
                await asyncio.wait([heard], timeout=0.1)
            assert (await heard).text == "again"
            serving.cancel()
            dialled.close()
        with pytest.raises(ClosedError):
            await f.info()
        frank.kill()

    run(main(), 2 * PATIENCE)


async def _echo(request: IncomingRequest) -> str:
    return request.text


def test_a_port_or_number_that_cannot_be_is_refused_here(alice: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a:
            for port in (-1, 65_536):
                with pytest.raises(InvalidArgumentError):
                    await a.listen(port)

    run(main())
