"""The official client of the Model Context Protocol against `pilotctl mcp`, and through the overlay.

Run by `tests/mcp.rs` with the daemons of two agents that trust each other. Arguments: the pilotctl executable, and for
each agent its name and its environment as JSON. The client checks every structured result against the output schema
that the server gave for the tool.
"""

import asyncio
import json
import pathlib
import sys

from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

PILOTCTL = sys.argv[1]
ENV = {name: json.loads(env) for name, env in zip(sys.argv[2::2], sys.argv[3::2])}
LIMIT = 30


def server(agent: str, *words: str) -> StdioServerParameters:
    return StdioServerParameters(command=PILOTCTL, args=["mcp", *words], env=ENV[agent], cwd=ENV[agent]["HOME"])


class Agent:
    """A client, and which tools it has called."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.called: set[str] = set()

    async def ok(self, tool: str, progress=None, **arguments):
        self.called.add(tool)
        result = await self.client.call_tool(tool, arguments, LIMIT, progress)
        assert not result.is_error, (tool, result)
        assert result.content[0].text, tool
        return result.structured_content


async def every_tool(mode: str, version: str) -> None:
    async with Client(server("agent-a"), mode=mode) as one, Client(server("agent-b"), mode=mode) as two:
        assert one.protocol_version == version, one.protocol_version
        assert "never instructions" in (one.instructions or "") or mode not in ("legacy", "auto")
        tools = (await one.list_tools()).tools
        assert len(tools) <= 12
        for tool in tools:
            assert tool.input_schema["type"] == "object" and tool.output_schema["type"] == "object", tool.name
            assert tool.annotations is not None and tool.annotations.read_only_hint is not None, tool.name
        a, b = Agent(one), Agent(two)

        assert (await a.ok("status"))["hostname"] == "agent-a"
        peer = (await a.ok("find_peers", query="agent-b"))["peers"][0]
        assert (await a.ok("why", peer=peer["address"]))["answers"]
        await a.ok("send_message", peer="agent-b", text="hello", wait_ms=20000)
        got = (await b.ok("inbox_wait", timeout_secs=20))["message"]
        assert got["peer_data"]["text"] == "hello" and got["from"]["hostname"] == "agent-a", got
        assert (await b.ok("inbox_read", id=got["id"]))["messages"][0]["from"]["trust"] == "trusted"

        # A request whose answer the other client gives, with progress before it.
        heard = []

        async def progress(done, total, message) -> None:
            heard.append((done, message))

        async def work() -> None:
            task = (await b.ok("inbox_wait", timeout_secs=20))["message"]
            await b.ok("reply", id=task["id"], text="half", outcome="progress")
            await b.ok("reply", id=task["id"], json={"n": json.loads(task["peer_data"]["text"])["n"] * 2})

        working = asyncio.create_task(work())
        done = await a.ok("request", progress, peer="agent-b", json={"n": 21}, timeout_secs=20)
        await working
        assert json.loads(done["answer"]["peer_data"]["text"]) == {"n": 42}, done
        assert [step for step, _ in heard] == sorted({step for step, _ in heard}) and heard, heard

        await a.ok("subscribe", topic="results.>")
        await b.ok("publish", topic="results.x", text="ready")
        events = await a.ok("subscribe", topic="results.>", after=0, wait_secs=20)
        assert events["events"][0]["peer_data"]["text"] == "ready", events
        path = pathlib.Path(ENV["agent-a"]["HOME"], f"official-{mode}.txt")
        path.write_text("the report")
        assert (await a.ok("send_file", peer="agent-b", path=str(path)))["state"] == "stored"
        a.called |= b.called

        # What was wrong is told as the result of the tool.
        wrong = await one.call_tool("send_message", {"peer": "agent-b"})
        assert wrong.is_error and "code: invalid_argument" in wrong.content[0].text, wrong
        try:
            await one.call_tool("no_such_tool", {})
        except MCPError as error:
            assert error.error.code == -32602, error
        else:
            raise AssertionError("an unknown tool was called")

        # A call that is cancelled leaves the server as it was.
        try:
            async with asyncio.timeout(0.2):
                await one.call_tool("inbox_wait", {"timeout_secs": 600})
        except TimeoutError:
            pass
        assert (await a.ok("status"))["registered"]

        await resources(a, b, version)
        # Trust ends last: nothing goes on without it.
        assert (await a.ok("trust", action="revoke", peer=peer["address"]))["trust"] == "revoked"
        asking = asyncio.create_task(a.ok("trust", action="request", peer=peer["address"], wait_secs=20))
        address = (await a.ok("status"))["address"]
        while not (await b.ok("find_peers", relation="pending"))["peers"]:
            await asyncio.sleep(0.02)
        await b.ok("trust", action="approve", peer=address)
        assert (await asking)["trust"] == "trusted"
        assert {tool.name for tool in tools} == a.called, {tool.name for tool in tools} ^ a.called


async def resources(a: Agent, b: Agent, version: str) -> None:
    uris = [str(resource.uri) for resource in (await a.client.list_resources()).resources]
    assert uris == ["pilot://inbox", "pilot://events/results.%3E"], uris
    if version == "2026-07-28":
        async with a.client.listen(resource_subscriptions=["pilot://events/results.%3E"]) as news:
            await b.ok("publish", topic="results.y", text="more")
            async with asyncio.timeout(LIMIT):
                async for event in news:
                    assert str(event.uri) == "pilot://events/results.%3E", event
                    break
    else:
        await a.client.subscribe_resource("pilot://events/results.%3E")
        await b.ok("publish", topic="results.y", text="more")
        await a.ok("subscribe", topic="results.>", after=1, wait_secs=20)
    read = await a.client.read_resource("pilot://events/results.%3E", cache_mode="bypass")
    assert "more" in read.contents[0].text, read


async def through_the_overlay(mode: str) -> None:
    """The tools of a server at agent-b, made with the official library, used from agent-a."""
    async with Client(server("agent-a", "connect", "agent-b"), mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "caller"]
        assert (await client.call_tool("add", {"a": 40, "b": 2})).content[0].text == "42"
        assert (await client.call_tool("caller", {})).content[0].text == "agent-a"


async def main() -> None:
    for mode, version in (("legacy", "2025-11-25"), ("2026-07-28", "2026-07-28"), ("auto", "2026-07-28")):
        async with asyncio.timeout(60):
            await every_tool(mode, version)
            await through_the_overlay(mode)
        print(mode, "done", flush=True)


asyncio.run(main())
