"""An orchestrator in Python that hands work to executors over streams to port 1000, wherever they run.

    python sdk/python/examples/orchestrator.py worker-1 worker-2

The executor in Rust is `crates/client/examples/executor.rs`. One line of JSON asks, and each line that comes back is a step or
the result: a small delta, not the whole context.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from pilot_agents import Pilot, PilotError, Ports

QUERIES = ["select 1", "select 20 + 22", "select the impossible"]


async def execute(p: Pilot, worker: str, query: str) -> dict[str, Any]:
    """Has a worker execute a query; gives its last line."""
    async with await p.dial(worker, Ports.STDIO) as stream:
        await stream.send(json.dumps({"action": "execute_query", "query": query}).encode() + b"\n")
        stream.write_eof()
        answer: dict[str, Any] = {"status": "error", "reason": "the worker said nothing"}
        async for line in stream:
            answer = json.loads(line)
            if answer["status"] == "working":
                print(f"{worker}: {answer['done']} of {answer['total']}", flush=True)
        return answer


async def work(p: Pilot, worker: str, queries: asyncio.Queue[str]) -> None:
    """Keeps a worker busy until there is nothing left."""
    while not queries.empty():
        query = queries.get_nowait()
        try:
            answer = await execute(p, worker, query)
        except PilotError as error:
            print(f"{worker}: {query}: {error.code}: {error}", flush=True)
            continue
        print(f"{worker}: {query}: {answer.get('result', answer.get('reason'))}", flush=True)


async def main(workers: list[str]) -> None:
    queries: asyncio.Queue[str] = asyncio.Queue()
    for query in QUERIES:
        queries.put_nowait(query)
    async with Pilot() as p:
        await asyncio.gather(*(work(p, worker, queries) for worker in workers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
