"""A daemon of release 1.18.0, as far as its protocol goes. Needs the released package: PILOT_REFERENCE names its venv."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Machine, Process, World, run

from pilot_agents import (
    Address,
    Endpoint,
    NotRunningError,
    Pilot,
    PilotError,
    RefusedError,
    UnsupportedError,
)

REFERENCE = os.environ.get("PILOT_REFERENCE")

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not REFERENCE, reason="PILOT_REFERENCE does not name the venv of the released reference"),
]


def daemon_program() -> str:
    assert REFERENCE
    found = list(Path(REFERENCE).glob("lib/python3*/site-packages/pilotprotocol/bin/pilot-daemon"))
    assert found, f"no pilotprotocol in {REFERENCE}"
    return str(found[0])


async def registered(socket: Path) -> Address:
    """Waits until the daemon answers as a registered node."""
    while True:
        try:
            async with Pilot(socket) as p:
                return p.address
        except (NotRunningError, PilotError):
            await asyncio.sleep(0.05)


def start_reference(machine: Machine, identity: Path) -> Process:
    """Its daemon, with nobody outside to talk to."""
    identity.parent.mkdir(parents=True, exist_ok=True)
    world = machine.world
    quiet = {
        "PILOT_REGISTRY": world.registry,
        "PILOT_NO_SKILLINJECT": "1",
        "PILOT_TELEMETRY_URL": "",
        "PILOT_MOTD_URL": "",
        "PILOT_APPSTORE_CATALOG_URL": "http://127.0.0.1:9/x",
    }
    words = [daemon_program(), "-transport", "udp", "-proxy", "off", "-telemetry-url", "", "-motd-feed-url", ""]
    words += ["-no-skillinject", "-registry", world.registry, "-beacon", world.beacon, "-listen", "127.0.0.1:0"]
    words += ["-socket", str(machine.socket), "-identity", str(identity), "-hostname", machine.name]
    return Process(words, machine.home, machine.socket, quiet)


async def trust_each_other(ours: Machine, theirs: Machine) -> None:
    async with ours.pilot() as o, theirs.pilot() as t:
        asking = asyncio.ensure_future(o.handshake(theirs.address, "for the test", wait=PATIENCE))
        while not any(node.node_id == ours.address.node for node in await t.pending()):
            assert not asking.done() or await asking
            await asyncio.sleep(0.1)
        await t.approve(ours.address)
        assert (await asking).state == "trusted"
        assert (await t.wait_trust(ours.address, timeout=PATIENCE)).state == "trusted"


@pytest.fixture(scope="module")
def theirs(world: World) -> Iterator[Machine]:
    machine = Machine(world, "theirs")
    machine.daemon = start_reference(machine, machine.home / "identity.json")
    try:
        machine.address = run(registered(machine.socket))
        yield machine
    finally:
        machine.kill()


@pytest.fixture(scope="module")
def trusting(alice: Machine, theirs: Machine) -> tuple[Machine, Machine]:
    """One of ours and one of theirs, which trust each other."""
    run(trust_each_other(alice, theirs), 2 * PATIENCE)
    return alice, theirs


def test_streams_go_both_ways(trusting: tuple[Machine, Machine]) -> None:
    ours, theirs = trusting

    async def main() -> None:
        async with ours.pilot() as o, theirs.pilot() as t:
            assert await t.is_reference()
            assert t.hostname == "theirs"
            assert (await t.health()).status == "ok"
            async with await t.listen(6000) as listener:
                dialled, accepted = await asyncio.gather(o.dial(theirs.address, 6000), listener.accept())
                assert accepted.peer.address == ours.address
                data = os.urandom(2 << 20)
                dialled.write(data)
                assert await accepted.readexactly(len(data)) == data
                accepted.write(data)
                assert await dialled.readexactly(len(data)) == data
                dialled.close()
                assert await accepted.read() == b""
                accepted.close()
            async with await o.listen(6001) as listener:
                dialled, accepted = await asyncio.gather(
                    t.dial(ours.address, 6001, data=b"with the dial"), listener.accept()
                )
                assert await accepted.readexactly(13) == b"with the dial"
                with pytest.raises(UnsupportedError):
                    await dialled.settle()
                accepted.close()
                assert await dialled.read() == b""
                dialled.close()
            with pytest.raises(RefusedError):
                await t.dial(ours.address, 6999)
            # It queues behind what is under way, and every answer finds its question.
            both = await asyncio.gather(t.info(), t.health(), t.trusted(), t.pending(), t.peers())
            assert both[0].hostname == "theirs"
            assert ours.address.node in [node.node_id for node in both[2]]

    run(main())


def test_messages_files_and_datagrams(trusting: tuple[Machine, Machine], tmp_path: Path) -> None:
    ours, theirs = trusting

    async def main() -> None:
        async with ours.pilot() as o, theirs.pilot() as t:
            inbox = await o.inbox().start()
            sent = await t.send_message(ours.address, "from their daemon")
            assert sent.reached("stored")
            message = await inbox.next(10)
            assert message is not None
            assert (message.text, message.sender, message.message_id) == ("from their daemon", theirs.address, sent.id)
            await o.send_message(theirs.address, "to their daemon", until="stored")
            path = tmp_path / "file.bin"
            path.write_bytes(os.urandom(300_000))
            assert (await o.send_file(theirs.address, path)).transport == "file_stream"
            assert (await t.send_file(ours.address, path)).bytes == 300_000
            file = (await o.received_files(sender=theirs.address))[-1]
            assert Path(file.path).read_bytes() == path.read_bytes()
            async with await o.datagrams(6002) as d, await t.datagrams(6003) as theirs_d:
                await t.send_datagram(ours.address, b"a datagram", 6002)
                sender, data = await d.recv_from()
                assert (sender.address, data) == (theirs.address, b"a datagram")
                await d.send_to(Endpoint(theirs.address, 6003), b"and back")
                assert (await theirs_d.recv_from())[1] == b"and back"

    run(main())


def test_events_of_their_broker(trusting: tuple[Machine, Machine]) -> None:
    ours, theirs = trusting

    async def main() -> None:
        async with ours.pilot() as o, theirs.pilot() as t:
            async with (
                o.subscribe("their.*", peer=theirs.address) as events,
                t.subscribe("our.topic", peer=ours.address) as back,
            ):
                assert events.subscribed is not None
                assert not events.subscribed.confirmed
                await o.publish("their.topic", "at their broker", peer=theirs.address)
                event = await events.next(10)
                assert (event.topic, event.text, event.publisher) == ("their.topic", "at their broker", None)
                await o.publish("our.topic", "at our broker")
                assert (await back.next(10)).text == "at our broker"

    run(main())


def test_what_it_does_not_know_is_said(theirs: Machine) -> None:
    async def main() -> None:
        async with theirs.pilot() as t:
            for unknown in (
                t.status(),
                t.ping(1),
                t.outbox(),
                t.request(1, "x"),
                t.serve().start(),
                t.inbox().next(1),
                t.submit_task(1, "x"),
                t.policy(),
                t.send_message(1, "x", until="read"),
            ):
                with pytest.raises(UnsupportedError) as told:
                    await unknown
                assert told.value.code == "unsupported"
                assert told.value.hint

    run(main())


def test_a_node_of_the_reference_becomes_one_of_ours(world: World, alice: Machine) -> None:
    """In the same home: with its address, its key and its trust."""
    mover = Machine(world, "mover")
    state = mover.home / ".pilot"
    theirs = start_reference(mover, state / "identity.json")
    try:
        mover.address = run(registered(mover.socket))
        run(trust_each_other(alice, mover), 2 * PATIENCE)
    finally:
        theirs.kill()
    before = mover.address
    mover.more = {"PILOT_HOME": str(state)}
    mover.start()
    try:
        assert mover.address == before

        async def main() -> None:
            async with alice.pilot() as a, mover.pilot() as m:
                assert not await m.is_reference()
                assert alice.address.node in [node.node_id for node in await m.trusted()]
                inbox = await m.inbox().start()
                await a.send_message(before, "are you still you?", until="stored")
                message = await inbox.next(10)
                assert message is not None
                assert message.text == "are you still you?"

        run(main())
    finally:
        mover.kill()
