"""A server made with the official library, to be offered to peers."""

import os

from mcp.server import MCPServer

server = MCPServer("adder")


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool()
def caller() -> str:
    """Who uses this server."""
    return os.environ["PILOT_FROM_HOSTNAME"]


server.run()
