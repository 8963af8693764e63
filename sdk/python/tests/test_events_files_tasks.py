"""Events, files, tasks, trust, and what is known of nodes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from conftest import PATIENCE, Machine, befriend, run

from pilot_agents import (
    Address,
    FileProgress,
    InvalidArgumentError,
    NotFoundError,
    NotTrustedError,
    PilotError,
    PilotTimeoutError,
)

# ---- events


def test_events_reach_those_that_subscribed(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            async with b.subscribe("alice.*") as events:
                assert events.subscribed is not None
                assert events.subscribed.confirmed
                assert events.subscribed.brokers >= 1
                for data in ("text", b"\x00\xff", {"n": 1}):
                    await a.publish("alice.tasks", data)
                await a.publish("other.topic", "not for it")
                await a.publish("alice.last", "end")
                heard = [await events.next(10) for _ in range(4)]
            assert [event.topic for event in heard] == ["alice.tasks"] * 3 + ["alice.last"]
            assert (heard[0].text, heard[1].data, heard[2].json()) == ("text", b"\x00\xff", {"n": 1})
            assert {event.publisher for event in heard} == {a.address}
            assert heard[0].hostname == "alice"
            assert [event.lost for event in heard] == [0] * 4
            with pytest.raises(PilotTimeoutError):
                await events.next(0.01)

    run(main())


def test_an_event_stream_has_several_subscriptions_and_a_past(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            for number in range(5):
                await b.publish("past.numbers", str(number))
            async with await a.open_event_stream("bob") as events:
                await events.subscribe("past.numbers", replay=3)
                assert [(await events.next(10)).text for _ in range(3)] == ["2", "3", "4"]
                await events.subscribe("present")
                await events.publish("present", "at the broker of bob")
                await events.settle()
                event = await events.next(10)
                assert (event.topic, event.broker, event.replayed) == ("present", b.address, False)
            await a.publish("at.bob", "directly", peer="bob")
            with pytest.raises(InvalidArgumentError):
                await a.publish("t" * 1025, "")
            assert (await a.events_status()) != {}

    run(main())


def test_a_slow_subscriber_learns_what_it_lost(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            async with await b.open_event_stream("alice") as events, await a.open_event_stream() as news:
                await events.subscribe("flood", policy="drop-oldest", queue=16)
                payload = b"x" * 20_000
                for _ in range(3000):
                    await news.publish("flood", payload)
                await news.publish("flood", "last")
                heard = lost = 0
                while True:
                    event = await events.next(10)
                    heard, lost = heard + 1, lost + event.lost
                    if event.data == b"last":
                        break
                assert lost > 0
                assert heard + lost == 3001

    run(main(), 2 * PATIENCE)


# ---- files


def test_a_file_arrives_with_its_hash_and_progress(alice: Machine, bob: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        data = os.urandom(5_000_001)
        path = tmp_path / "data.bin"
        path.write_bytes(data)
        async with alice.pilot() as a, bob.pilot() as b:
            seen: list[FileProgress] = []
            arriving = asyncio.ensure_future(b.wait_file(sender="alice", timeout=20))
            await b.info()
            receipt = await a.send_file("bob", path, progress=seen.append)
            assert receipt.transport == "file_stream"
            assert (receipt.bytes, receipt.sha256) == (len(data), hashlib.sha256(data).hexdigest())
            assert seen[-1].done == seen[-1].total == len(data)
            assert [step.done for step in seen] == sorted(step.done for step in seen)
            file = await arriving
            assert file is not None
            assert Path(file.path).read_bytes() == data
            assert (file.from_, file.sha256) == (a.address, receipt.sha256)
            assert file.name in [known.name for known in await b.received_files(sender="alice")]
            await b.remove_file(file.name)
            assert not Path(file.path).exists()

    run(main())


def test_small_empty_and_renamed_files(alice: Machine, bob: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            for size in (0, 1, 49_152, 49_153):
                path = tmp_path / f"{size}.bin"
                path.write_bytes(b"z" * size)
                receipt = await a.send_file("bob", path, name=f"as-{size}.bin")
                assert (receipt.name, receipt.bytes) == (f"as-{size}.bin", size)
            names = {file.announced: file.bytes for file in await b.received_files()}
            assert {f"as-{size}.bin": size for size in (0, 1, 49_152, 49_153)}.items() <= names.items()
            with pytest.raises(NotFoundError):
                await a.send_file("bob", tmp_path / "nothing")
            with pytest.raises(InvalidArgumentError):
                await a.send_file("bob", "/dev/null")
            with pytest.raises(PilotError) as bad:
                await a.send_file("bob", path, name="../escape")
            assert bad.value.code == "refused"

    run(main())


def test_a_folder_arrives_as_it_was(alice: Machine, bob: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        root = tmp_path / "project"
        (root / "deep" / "empty").mkdir(parents=True)
        (root / "b.txt").write_text("same")
        (root / "deep" / "a.txt").write_text("same")
        (root / "large.bin").write_bytes(os.urandom(700_000))
        (root / "run.sh").write_text("#!/bin/sh\n")
        (root / "run.sh").chmod(0o755)
        (root / "link").symlink_to("/etc/passwd")
        async with alice.pilot() as a, bob.pilot() as b:
            receipt = await a.send_file("bob", root)
            assert (receipt.files, receipt.skipped) == (4, ["link"])
            file = next(known for known in await b.received_files() if known.sha256 == receipt.sha256)
            arrived = Path(file.path)
            for name in ("b.txt", "deep/a.txt", "large.bin", "run.sh"):
                assert (arrived / name).read_bytes() == (root / name).read_bytes(), name
            assert (arrived / "deep" / "empty").is_dir()
            assert os.access(arrived / "run.sh", os.X_OK)
            assert not (arrived / "link").exists()

    run(main())


def test_a_file_can_be_left_with_the_daemon(alice: Machine, bob: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "left.txt"
        path.write_text("left with the daemon")
        async with alice.pilot() as a, bob.pilot() as b:
            item = await a.queue_file("bob", path, until="stored", timeout=10)
            assert item.reached("stored"), item
            assert item.name == "left.txt"
            file = next(known for known in await b.received_files() if known.announced == "left.txt")
            assert Path(file.path).read_text() == "left with the daemon"

    run(main())


def test_a_transfer_that_is_cut_off_goes_on_where_it_was(alice: Machine, bob: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        data = os.urandom(40 << 20)
        path = tmp_path / "long.bin"
        path.write_bytes(data)
        cut: set[int] = set()
        async with alice.pilot() as a, bob.pilot() as b:

            def progress(step: FileProgress) -> None:
                if step.done > 10 << 20 and not cut:
                    link = a._daemon._link
                    assert link is not None and link._transport is not None
                    cut.add(step.done)
                    link._transport.abort()

            receipt = await a.send_file("bob", path, progress=progress)
            assert cut
            assert receipt.sha256 == hashlib.sha256(data).hexdigest()
            assert receipt.bytes_sent < len(data) + (8 << 20), "only what was under way is sent again"
            file = next(known for known in await b.received_files() if known.announced == "long.bin")
            assert file.sha256 == receipt.sha256

    run(main())


# ---- tasks


def test_a_task_is_given_worked_at_and_answered(alice: Machine, bob: Machine, tmp_path: Path) -> None:
    async def main() -> None:
        result = tmp_path / "result.txt"
        result.write_text("42")
        async with alice.pilot() as a, bob.pilot() as b:
            accepting = asyncio.ensure_future(b.accept_task(timeout=15))
            await b.info()
            given = await a.submit_task("bob", "compute the answer", deadline=60)
            accepted = await accepting
            assert (accepted.task_id, accepted.from_, accepted.category) == (given.task_id, a.address, "received")
            assert (await b.execute_task(accepted.task_id)).status == "EXECUTING"
            await b.report_task_progress(accepted.task_id, "half")
            await b.complete_task(accepted.task_id, "it is", files=[result], wait=5)
            done = await a.wait_task(given.task_id, timeout=10)
            assert done.is_settled
            assert (done.result_text, done.result_files[0].name) == ("it is", "result.txt")
            assert Path(done.result_files[0].path).read_text() == "42"
            assert given.task_id in [task.task_id for task in await a.tasks("submitted")]
            assert await b.task_queue() == []
            settings = await b.task_settings()
            assert not settings.enabled
            with pytest.raises(PilotTimeoutError):
                await b.accept_task(timeout=0.05)
            refused = asyncio.ensure_future(b.wait_task("x", timeout=0.1))
            with pytest.raises(NotFoundError):
                await refused

    run(main())


# ---- trust, and what is known of nodes


def test_trust_is_asked_for_declined_given_and_taken_back(alice: Machine) -> None:
    async def main() -> None:
        eve = alice.world.machine("eve")
        async with alice.pilot() as a, eve.pilot() as e:
            with pytest.raises(PilotError) as stranger:
                await e.dial(alice.address, 1000)
            assert stranger.value.code in ("not_trusted", "unreachable")
            asking = asyncio.ensure_future(e.handshake(alice.address, "let me in", wait=20))
            while not (pending := [node for node in await a.pending() if node.node_id == eve.address.node]):
                await asyncio.sleep(0.02)
            assert pending[0].justification == "let me in"
            await a.reject(pending[0], "not today")
            with pytest.raises(NotTrustedError, match="declined"):
                await asking
            await befriend(eve, alice)
            assert eve.address.node in [node.node_id for node in await a.trusted()]
            assert {entry.node_id: entry.state for entry in await a.trust_list()}[eve.address.node] == "trusted"
            assert (await a.ping(eve.address)).rtt_us > 0
            await a.untrust(eve.address)
            assert eve.address.node not in [node.node_id for node in await a.trusted()]
            with pytest.raises(NotFoundError):
                await a.approve(eve.address)
            with pytest.raises(PilotError):
                await a.untrust(eve.address)
            assert await a.auto_approve() is False
        eve.kill()

    run(main())


def test_what_is_known_of_this_node_and_its_peers(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            assert (a.address, a.node_id, a.hostname) == (alice.address, alice.address.node, "alice")
            assert a.version
            assert not await a.is_reference()
            info, health, status = await a.info(), await a.health(), await a.status()
            assert (info.node_id, info.hostname) == (a.node_id, "alice")
            assert info.encrypt
            assert health.status == "ok"
            assert (status.hostname, status.address, status.public) == ("alice", a.address, False)
            assert status.registry["connected"] is True
            assert status.raw["pid"] == status.pid
            assert (await a.ping("bob", size=100)).node_id == b.node_id
            assert b.node_id in [peer.node_id for peer in await a.peers()]
            assert [peer.hostname for peer in await a.peers(search="bob")] == ["bob"]
            found = await a.find("bob")
            assert (found.address, found.hostname) == (b.address, "bob")
            await b.set_tags(["gpu", "ml"])
            assert sorted((await a.lookup("bob"))["tags"]) == ["gpu", "ml"]
            assert [peer.node_id for peer in await a.peers(search="tag:gpu")] == [b.node_id]
            await b.set_tags([])
            with pytest.raises(InvalidArgumentError):
                await b.set_tags(["a", "b", "c", "d"])
            assert (await a.why("bob"))["node_id"] == b.node_id
            assert isinstance(await a.netcheck(timeout=2), dict)
            assert isinstance(await a.connections(), list)
            assert isinstance(await a.call("config"), dict)
            with pytest.raises(PilotError) as unknown:
                await a.call("no_such_call")
            assert unknown.value.code in ("invalid_argument", "unsupported")
            await b.set_hostname("bobby")
            assert (await a.find("bobby")).address == b.address
            await b.set_hostname("bob")
            await b.set_visibility(True)
            await b.set_visibility(False)

    run(main())


def test_networks_rules_and_mailboxes_answer(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a:
            assert "networks" in await a.network_list()
            assert await a.memberships() == []
            with pytest.raises(PilotError):
                await a.network_join(999)
            assert (await a.policy())["is"] == "overview"
            rules = await a.set_policy(str(bob.address), {"max_message": 1000})
            assert rules["rules"]["max_message"] == 1000
            tested = await a.test_policy("bob", {"what": "message", "bytes": 2000})
            assert tested["allowed"] is False
            await a.unset_policy(str(bob.address), [])
            assert (await a.test_policy("bob", {"what": "message", "bytes": 2000}))["allowed"] is True
            assert (await a.policy_of("bob"))["is"] == "effective"
            assert (await a.mailboxes())["mine"] == []

    run(main())


def test_addresses_of_peers_are_checked_here(alice: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a:
            for wrong in (-1, 1 << 33, True, None, 1.5):
                with pytest.raises(InvalidArgumentError):
                    await a.address_of(wrong)  # type: ignore[arg-type]
            assert await a.address_of(7) == Address(0, 7)

    run(main())
