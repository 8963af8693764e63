"""An agent of PydanticAI that asks another agent over Pilot.

    pip install pydantic-ai-slim ./sdk/python
    python sdk/python/examples/pydantic_ai_agent.py agent-b "what is the load?"

Its model is scripted, so that the example runs without a network: put `"openai:gpt-..."` or any other model in its place.
"""

from __future__ import annotations

import asyncio
import json
import sys

from pilot_tools import RULE, tools
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from pilot_agents import Pilot


def scripted(peer: str) -> FunctionModel:
    """Asks the peer what the user wants to know, and passes the answer on."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        assert "ask_peer" in [tool.name for tool in info.function_tools]
        last = messages[-1].parts[-1]
        if isinstance(last, ToolReturnPart):
            heard = json.loads(last.model_response_str())
            return ModelResponse(parts=[TextPart(f"{heard['peer']} says: {heard['peer_says']}")])
        assert isinstance(last, UserPromptPart)
        return ModelResponse(parts=[ToolCallPart("ask_peer", {"peer": peer, "question": str(last.content)})])

    return FunctionModel(model)


async def ask(p: Pilot, peer: str, question: str) -> str:
    """Has the agent answer a question."""
    agent = Agent(scripted(peer), system_prompt=RULE, tools=tools(p))
    return (await agent.run(question)).output


async def main() -> None:
    async with Pilot() as p:
        print(await ask(p, sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    asyncio.run(main())
