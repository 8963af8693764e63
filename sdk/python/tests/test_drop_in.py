"""The reference's own Python SDK drives our daemon: all of its public calls that make sense. Run as a program of its venv."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, Machine, World, befriend, environment, run

REFERENCE = os.environ.get("PILOT_REFERENCE")

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not REFERENCE, reason="PILOT_REFERENCE does not name the venv of the released reference"),
]

# What is left out: `policy_set` ends the process inside the SDK's own library, whatever the daemon is.
SCRIPT = r"""
import json, os, sys, threading
from pilotprotocol import Driver

socket, peer, node, path = os.environ["PILOT_SOCKET"], sys.argv[1], int(sys.argv[2]), sys.argv[3]
said = {}

def note(name, work):
    try:
        said[name] = {"ok": work()}
    except Exception as error:
        said[name] = {"error": str(error)}

def dialled():
    with driver.dial(f"{peer}:7", timeout=10) as conn:
        conn.write(b"echo")
        return conn.read_full(4).decode()

def accepted():
    with driver.listen(4100) as listener:
        print("listening", flush=True)
        with listener.accept() as conn:
            heard = conn.read(4096)
            conn.write(b"heard " + heard)
            return heard.decode()

def subscribed():
    for topic, data in driver.subscribe_event(peer, "news", timeout=20):
        return [topic, data.decode()]

with Driver(socket) as driver:
    for name in ("info", "health", "trusted_peers", "pending_handshakes", "network_list", "network_poll_invites"):
        note(name, getattr(driver, name))
    note("handshake", lambda: driver.handshake(node, "again"))
    note("approve_handshake", lambda: driver.approve_handshake(99))
    note("reject_handshake", lambda: driver.reject_handshake(99, "no"))
    note("revoke_trust", lambda: driver.revoke_trust(99))
    note("wait_for_trust", lambda: driver.wait_for_trust(node, 300))
    note("resolve_hostname", lambda: driver.resolve_hostname("sdk-peer"))
    note("set_hostname", lambda: driver.set_hostname("sdk-renamed"))
    note("set_visibility", lambda: driver.set_visibility(False))
    note("set_tags", lambda: driver.set_tags(["gpu"]))
    note("set_webhook", lambda: driver.set_webhook(""))
    for name, more in (("join", [""]), ("leave", []), ("members", []), ("invite", [node]), ("respond_invite", [True])):
        note(f"network_{name}", lambda: getattr(driver, f"network_{name}")(999, *more))
    for name in ("managed_status", "managed_force_cycle", "managed_reconcile", "policy_get"):
        note(name, lambda: getattr(driver, name)(999))
    note("member_tags_get", lambda: driver.member_tags_get(999, node))
    note("member_tags_set", lambda: driver.member_tags_set(999, node, ["x"]))
    note("broadcast", lambda: driver.broadcast(999, 5000, b"x", ""))
    note("send_message", lambda: driver.send_message(peer, b"from their SDK", "text"))
    note("send_file", lambda: driver.send_file(peer, path))
    note("send_to", lambda: driver.send_to(f"{peer}:4200", b"a datagram"))
    note("publish_event", lambda: driver.publish_event(peer, "their.topic", b"published"))
    note("dial", dialled)
    note("refused", lambda: driver.dial(f"{peer}:4999", timeout=10))
    note("listen", accepted)
    print("subscribing", flush=True)
    note("subscribe_event", subscribed)
    note("disconnect", lambda: driver.disconnect(9999))
    note("rotate_key", driver.rotate_key)
    note("deregister", driver.deregister)
print(json.dumps(said), flush=True)
"""


async def drive(ours: Machine, peer: Machine, path: Path) -> dict[str, Any]:
    """Runs the script, and does on the peer what it waits for."""
    assert REFERENCE
    words = [f"{REFERENCE}/bin/python", "-c", SCRIPT, str(peer.address), str(peer.address.node), str(path)]
    script = await asyncio.create_subprocess_exec(
        *words, env=environment(ours.home, ours.socket), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert script.stdout is not None and script.stderr is not None
    try:
        async with peer.pilot() as p, await p.datagrams(4200) as datagrams, p.subscribe("their.*") as events:
            assert await script.stdout.readline() == b"listening\n", (await script.stderr.read()).decode()
            assert (await datagrams.recv_from())[1] == b"a datagram"
            assert (await events.next(10)).text == "published"
            async with await p.dial(ours.address, 4100) as stream:
                await stream.send(b"a listener")
                assert await stream.readexactly(16) == b"heard a listener"
            assert await script.stdout.readline() == b"subscribing\n"
            ended = asyncio.ensure_future(script.stdout.readline())
            while not ended.done():
                await p.publish("news", "it is on")
                await asyncio.wait([ended], timeout=0.1)
        said = json.loads(await ended)
    finally:
        if script.returncode is None:
            script.kill()
        await script.wait()
    assert isinstance(said, dict)
    return said


def test_the_sdk_of_the_reference_drives_our_daemon(world: World, tmp_path: Path) -> None:
    ours, peer = world.machine("sdk-node"), world.machine("sdk-peer")
    run(befriend(ours, peer))
    path = tmp_path / "small.txt"
    path.write_text("a small file")
    said = run(drive(ours, peer, path), 2 * PATIENCE)

    results = {name: answer.get("ok") for name, answer in said.items()}
    assert results["info"]["hostname"] == "sdk-node"
    assert results["info"]["encrypt"] is True
    assert results["health"]["status"] == "ok"
    assert [row["node_id"] for row in results["trusted_peers"]["trusted"]] == [peer.address.node]
    assert results["pending_handshakes"] == {"pending": []}
    assert results["handshake"]["status"] == "sent"
    assert results["resolve_hostname"]["address"] == str(peer.address)
    assert results["set_hostname"]["hostname"] == "sdk-renamed"
    assert results["set_visibility"]["visibility"] == "private"
    assert results["set_tags"]["tags"] == ["gpu"]
    assert results["send_message"]["ack"] == "ACK TEXT 14 bytes"
    assert results["send_file"]["ack"] == "ACK FILE 12 bytes"
    assert results["publish_event"]["status"] == "published"
    assert results["dial"] == "echo"
    assert results["listen"] == "a listener"
    assert results["subscribe_event"] == ["news", "it is on"]
    assert results["rotate_key"]["node_id"] == ours.address.node
    assert "ok" in said["deregister"], said["deregister"]
    assert results["deregister"]["type"] == "deregister_ok"

    errors = {name: answer["error"] for name, answer in said.items() if "error" in answer}
    assert "was not trusted" in errors.pop("revoke_trust")
    assert "connection refused" in errors.pop("refused")
    for name in ("join", "leave", "members", "invite", "respond_invite"):
        assert "network 999" in errors.pop(f"network_{name}")
    for name in (
        "member_tags_get",
        "member_tags_set",
        "managed_status",
        "managed_force_cycle",
        "managed_reconcile",
        "broadcast",
    ):
        assert errors.pop(name)
    assert errors == {}

    async def arrived() -> None:
        async with peer.pilot() as p:
            message = await p.read_message()
            assert (message.text, message.sender) == ("from their SDK", ours.address)
            (file,) = await p.received_files(sender=ours.address)
            assert Path(file.path).read_text() == "a small file"

    run(arrived())
    ours.kill()
