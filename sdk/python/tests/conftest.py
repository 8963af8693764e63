"""Real processes in a temporary place: a rendezvous, and machines with a daemon each."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot_agents import Address, Pilot


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--frameworks", action="store_true", help="only the examples of agent frameworks, which must be installed"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = bool(config.getoption("--frameworks"))
    items[:] = [item for item in items if (item.get_closest_marker("frameworks") is not None) == wanted]


PATIENCE = 60.0
"""Seconds that anything here may take before it counts as hanging."""


def program() -> str:
    found = os.environ.get("PILOTCTL")
    if not found:
        pytest.exit("set PILOTCTL to the pilotctl to test with", returncode=2)
    return str(Path(found).resolve())


class Process:
    """A process that says when it is ready, and is killed in the end."""

    def __init__(self, words: list[str], home: Path, socket: Path, more: dict[str, str] | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "test.log"
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                words,
                cwd=home,
                env=environment(home, socket, more),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def ready(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, f"it ended at once: {self.log.read_text()}"
        said = json.loads(line)
        assert said["status"] == "ok", said
        return dict(said["data"])

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


def environment(home: Path, socket: Path, more: dict[str, str] | None = None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PILOT_")}
    own = {"HOME": str(home), "PILOT_HOME": str(home), "PILOT_SOCKET": str(socket), "PILOT_SEND_PATIENCE": "2s"}
    return {**clean, **own, **(more or {})}


class Machine:
    """A machine with a daemon."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.home = world.folder / name
        self.socket = world.folder / f"{name}.sock"
        self.daemon: Process | None = None
        self.address = Address(0, 0)
        self.more: dict[str, str] = {}

    def start(self) -> None:
        words = [program(), "daemon", "run", "--json", "--registry", self.world.registry, "--beacon", self.world.beacon]
        self.daemon = Process(
            [*words, "--hostname", self.name, "--listen", "127.0.0.1:0"], self.home, self.socket, self.more
        )
        self.address = Address.parse(self.daemon.ready()["address"])
        end = time.monotonic() + PATIENCE
        # A daemon is ready before the registry has answered.
        while self.address.node == 0:
            assert time.monotonic() < end, f"{self.name} is not registered: {self.daemon.log.read_text()}"
            time.sleep(0.05)
            self.address = Address.parse(self.ctl("info")["address"])

    def kill(self) -> None:
        """As a power failure would."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon = None

    def ctl(self, *words: str, stdin: bytes = b"") -> Any:
        """Runs a line that must succeed."""
        done = subprocess.run(
            [program(), "--json", *words],
            env=environment(self.home, self.socket),
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)["data"]

    def spawn(self, *words: str, more: dict[str, str] | None = None) -> Process:
        """A line in the background."""
        return Process([program(), *words], self.home, self.socket, more)

    def pilot(self) -> Pilot:
        return Pilot(self.socket)


class World:
    """A rendezvous and the folder of everything around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = folder / "rendezvous"
        words = [
            program(),
            "rendezvous",
            "run",
            "--json",
            "--registry-addr",
            "127.0.0.1:0",
            "--beacon-addr",
            "127.0.0.1:0",
        ]
        self._rendezvous = Process(words, home, home / "sock")
        ready = self._rendezvous.ready()
        self.registry, self.beacon = str(ready["registry_addr"]), str(ready["beacon_addr"])
        self.machines: list[Machine] = []

    def machine(self, name: str) -> Machine:
        machine = Machine(self, name)
        self.machines.append(machine)
        machine.start()
        return machine

    def close(self) -> None:
        for machine in self.machines:
            machine.kill()
        self._rendezvous.kill()


async def befriend(a: Machine, b: Machine) -> None:
    async with a.pilot() as asking, b.pilot() as asked:
        answer = asyncio.ensure_future(asking.handshake(b.address, "for the test", wait=PATIENCE))
        while not any(node.node_id == a.address.node for node in await asked.pending()):
            assert not answer.done() or await answer
            await asyncio.sleep(0.02)
        await asked.approve(a.address)
        assert (await answer).state == "trusted"
        assert (await asked.wait_trust(a.address, timeout=PATIENCE)).state == "trusted"


def run(main: Coroutine[Any, Any, Any], limit: float = PATIENCE) -> Any:
    """Runs it to its end; what hangs fails."""

    async def bounded() -> Any:
        return await asyncio.wait_for(main, limit)

    return asyncio.run(bounded())


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    # Short: the path of a socket may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="pilotpy", dir="/tmp", ignore_cleanup_errors=True) as folder:
        world = World(Path(folder))
        try:
            yield world
        finally:
            world.close()


@pytest.fixture(scope="session")
def friends(world: World) -> tuple[Machine, Machine]:
    """Two machines that trust each other."""
    alice, bob = world.machine("alice"), world.machine("bob")
    run(befriend(alice, bob))
    return alice, bob


@pytest.fixture(scope="session")
def alice(friends: tuple[Machine, Machine]) -> Machine:
    return friends[0]


@pytest.fixture(scope="session")
def bob(friends: tuple[Machine, Machine]) -> Machine:
    return friends[1]


Main = Callable[[], Coroutine[Any, Any, None]]
