"""An agent of LangGraph (LangChain's tools and models) that asks another agent over Pilot.

    pip install langgraph langchain-core ./sdk/python
    python sdk/python/examples/langgraph_agent.py agent-b "what is the load?"

Its model is scripted, so that the example runs without a network: put `ChatOpenAI(...)` or any other model in its place.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pilot_tools import RULE, tools

from pilot_agents import Pilot


class Scripted(BaseChatModel):
    """Asks the peer what the user wants to know, and passes the answer on."""

    peer: str

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        assert "ask_peer" in [tool.name for tool in tools]
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            heard = json.loads(str(last.content))
            said = AIMessage(f"{heard['peer']} says: {heard['peer_says']}")
        else:
            call = ToolCall(name="ask_peer", args={"peer": self.peer, "question": str(last.content)}, id="call-1")
            said = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=said)])


async def ask(p: Pilot, peer: str, question: str) -> str:
    """Has the agent answer a question."""
    kit = [StructuredTool.from_function(coroutine=tool) for tool in tools(p)]
    model = Scripted(peer=peer).bind_tools(kit)

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage(RULE), *state["messages"]])]}

    def next_step(state: MessagesState) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode(kit))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", next_step)
    graph.add_edge("tools", "think")
    ended = await graph.compile().ainvoke({"messages": [HumanMessage(question)]})
    return str(ended["messages"][-1].content)


async def main() -> None:
    async with Pilot() as p:
        print(await ask(p, sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    asyncio.run(main())
