"""An agent of the OpenAI Agents SDK that asks another agent over Pilot.

    pip install openai-agents ./sdk/python
    python sdk/python/examples/openai_agents_agent.py agent-b "what is the load?"

Its model is scripted, so that the example runs without a network: leave `model` out for OpenAI's, or name any other.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from pilot_tools import RULE, tools

from pilot_agents import Pilot


class Scripted(Model):
    """Asks the peer what the user wants to know, and passes the answer on."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    async def get_response(
        self, system_instructions: str | None, input: Any, model_settings: Any, tools: list[Any], *_: Any, **__: Any
    ) -> ModelResponse:
        assert system_instructions == RULE
        assert "ask_peer" in [tool.name for tool in tools]
        last = input[-1] if isinstance(input, list) else {"content": input}
        if last.get("type") == "function_call_output":
            heard = json.loads(last["output"])
            text = ResponseOutputText(
                text=f"{heard['peer']} says: {heard['peer_says']}", type="output_text", annotations=[]
            )
            said: Any = ResponseOutputMessage(
                id="m-1", content=[text], role="assistant", status="completed", type="message"
            )
        else:
            asked = json.dumps({"peer": self._peer, "question": last["content"]})
            said = ResponseFunctionToolCall(call_id="call-1", name="ask_peer", arguments=asked, type="function_call")
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("this script does not stream")


async def ask(p: Pilot, peer: str, question: str) -> str:
    """Has the agent answer a question."""
    kit: list[Any] = [function_tool(tool) for tool in tools(p)]
    agent = Agent(name="asker", instructions=RULE, tools=kit, model=Scripted(peer))
    return str((await Runner.run(agent, question)).final_output)


async def main() -> None:
    # Nothing is reported to anybody.
    set_tracing_disabled(True)
    async with Pilot() as p:
        print(await ask(p, sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    asyncio.run(main())
