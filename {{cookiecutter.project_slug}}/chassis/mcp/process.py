"""The process of a server over stdio, which all runs share."""

from fastmcp.client.transports import StdioTransport


class SharedProcess(StdioTransport):
    """Starts the process anew where it has ended."""

    async def close(self) -> None:
        """Leave it to the others: a client closes it where its run is cancelled while it connects."""
