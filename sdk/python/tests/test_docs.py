"""Every block of Python in the guide and the README is run between two nodes."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, Machine, World, befriend, run

from pilot_agents import Pilot

HERE = Path(__file__).parents[1]
PAGES = [HERE / "README.md", HERE.parents[1] / "docs/python.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def block_of(page: Path, number: int) -> tuple[str, str]:
    """The code, moved to its line of the page, and the side that runs it."""
    text = page.read_text()
    match = list(BLOCK.finditer(text))[number]
    code = "\n" * text[: match.start(1)].count("\n") + match[1]
    return code, "agent-b" if match[1].startswith("# agent-b\n") else "agent-a"


async def play(page: Path, number: int, p: Pilot) -> None:
    code, _ = block_of(page, number)
    compiled = compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"p": p, "asyncio": asyncio, "__name__": "__main__"}
    if "asyncio.run(" in code or "pilot_agents.sync" in code:
        # A whole program, or one without asyncio.
        await asyncio.to_thread(exec, compiled, names)
        return
    body: Any = types.FunctionType(compiled, names)
    done = body()
    if inspect.isawaitable(done):
        await done


async def is_ready(code: str, b: Pilot, playing: asyncio.Future[None]) -> None:
    """A port that is dialled next has to be claimed by then; everything else waits for the other side."""
    if ".listen(" in code:
        while not (b._daemon._link is not None and b._daemon._link._listeners) and not playing.done():
            await asyncio.sleep(0.01)
        await b.info()


@pytest.fixture(scope="module")
def agents(world: World) -> tuple[Machine, Machine]:
    a, b = world.machine("agent-a"), world.machine("agent-b")
    run(befriend(a, b))
    return a, b


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the guide uses asyncio.TaskGroup")
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_blocks_of_a_page_run(page: Path, agents: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    if not page.exists():
        pytest.skip("the guide is in the repository only")
    count = len(BLOCK.findall(page.read_text()))
    assert count >= 3
    monkeypatch.setenv("PILOT_SOCKET", str(agents[0].socket))

    async def main() -> None:
        # The README's worker comes after what asks it.
        order = (
            sorted(range(count), key=lambda n: block_of(page, n)[1] != "agent-b")
            if page.name == "README.md"
            else range(count)
        )
        playing: list[asyncio.Future[None]] = []
        async with agents[0].pilot() as a:
            sides = []
            try:
                for number in order:
                    code, side = block_of(page, number)
                    if side == "agent-b":
                        b = await agents[1].pilot().connect()
                        sides.append(b)
                        playing.append(asyncio.ensure_future(play(page, number, b)))
                        await is_ready(code, b, playing[-1])
                        continue
                    await play(page, number, a)
                    for background in playing:
                        assert not background.done(), background.exception()
            finally:
                for background in playing:
                    background.cancel()
                await asyncio.gather(*playing, return_exceptions=True)
                for b in sides:
                    await b.close()

    run(main(), 2 * PATIENCE)
    Path("/tmp/pilot-python-doc.bin").unlink(missing_ok=True)
    assert "PILOT_SOCKET" in os.environ
