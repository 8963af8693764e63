"""Files and folders: sent in chunks that the receiver acknowledges, resumed where an earlier try ended, checked by their
hashes; left with the daemon for a peer that is away; and those that arrived."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union

from ._base import Base, Peer
from ._carriage import Carriage, Corrupt, FileProgress, Final, Sent, UnknownWay, send_whole
from ._content import new_message_id
from ._courier import refused
from ._daemon import RECONNECT_PAUSE, expect, millis
from ._json import build, build_all
from ._link import check_id
from ._messages import Delivery, DeliveryState, _settled
from ._parcel import open_parcel
from .address import Address, Ports
from .errors import NotRunningError, PilotError
from .stream import Stream

__all__ = ["FileProgress", "FileReceipt", "ReceivedFile"]

PAUSE = 0.25
PAUSE_MAX = 4.0
_FINAL = ("not_trusted", "permission_denied", "not_found", "invalid_argument")

StrPath = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class FileReceipt:
    """The receiver has stored a file or folder."""

    name: str
    bytes: int
    """Its length; that of all files in the folder."""
    bytes_sent: int
    """Bytes sent by this call, those sent again after an interruption included."""
    bytes_resumed: int
    """Bytes the receiver had from an earlier try."""
    sha256: str
    """Its SHA-256; that of the folder's manifest, which has those of all files."""
    transport: Literal["file_stream", "whole"]
    """In acknowledged chunks, or in one piece to a receiver that knows nothing better."""
    seconds: float
    files: int | None
    """How many files the folder has, if it was one."""
    skipped: list[str]
    """What is in the folder and was not sent: links and whatever else is no file."""


@dataclass(frozen=True)
class ReceivedFile:
    """A file or folder that a peer sent."""

    name: str = ""
    bytes: int = 0
    modified: str = ""
    path: str = ""
    from_: Address | None = field(default=None, metadata={"json": "from"})
    from_hostname: str | None = None
    from_key: str | None = None
    sha256: str | None = None
    announced: str | None = None
    """The name its sender gave it; ``name`` is the one it has here."""
    files: int | None = None
    received_ns: int = 0


class FileCalls(Base):
    """See the module."""

    async def send_file(
        self,
        peer: Peer,
        path: StrPath,
        *,
        name: str | None = None,
        progress: Callable[[FileProgress], object] | None = None,
        patience: float = 90.0,
    ) -> FileReceipt:
        """Sends a file, or a folder with all files in it, and waits until the receiver has checked and stored it.

        A broken connection is renewed and the transfer goes on where it stopped, for up to ``patience`` seconds without a
        byte being brought forward; a later call goes on where this one stopped, too. Memory does not depend on the file's
        length. Folders are for our own nodes; a receiver of release 1.18.0 cannot take them.
        """
        to = await self.address_of(peer)
        loop = asyncio.get_running_loop()
        started = moved = loop.time()
        parcel = await asyncio.to_thread(open_parcel, Path(path), name)
        sent, pause = Sent(), PAUSE
        tell = progress or (lambda _: None)
        transport: Literal["file_stream", "whole"] = "file_stream"
        while True:
            before, is_open = sent.done, False
            try:
                stream = await self._dial_exchange(to)
                is_open = True
                try:
                    await Carriage(parcel, sent, tell).run(stream)
                finally:
                    stream.close()
                break
            except UnknownWay:
                await self._send_whole(to, parcel)
                sent = Sent(done=parcel.size, bytes_sent=parcel.size)
                tell(FileProgress(parcel.size, parcel.size, 0))
                transport = "whole"
                break
            except Final as final:
                raise final.error from None
            except Corrupt as corrupt:
                source = parcel.sources[corrupt.number]
                if not source.is_unchanged():
                    raise source.changed() from None
                # What the receiver had of it was damaged, by a power failure for instance; it has removed it.
                if sent.is_restarted:
                    raise refused(corrupt.said) from None
                sent.is_restarted = True
            except PilotError as error:
                # The first try says at once what is wrong; later ones are about a connection that worked.
                if not is_open and (sent.tries == 0 or error.code in _FINAL):
                    raise
                if sent.done > before:
                    moved, pause = loop.time(), PAUSE
                if loop.time() - moved >= patience:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX)
            sent.tries += 1
        return FileReceipt(
            name=parcel.name,
            bytes=parcel.length,
            bytes_sent=sent.bytes_sent,
            bytes_resumed=sent.resumed,
            sha256=parcel.sha256.hex(),
            transport=transport,
            seconds=loop.time() - started,
            files=parcel.files,
            skipped=parcel.skipped,
        )

    async def _dial_exchange(self, to: Address) -> Stream:
        stream: Stream = await self.dial(to, Ports.DATA_EXCHANGE)  # type: ignore[attr-defined]
        return stream

    async def _send_whole(self, to: Address, parcel: Any) -> None:
        async with await self._dial_exchange(to) as stream:
            await send_whole(parcel, stream)

    async def queue_file(
        self,
        peer: Peer,
        path: StrPath,
        *,
        name: str | None = None,
        ttl: float | None = None,
        until: DeliveryState | None = None,
        timeout: float = 30.0,
        message_id: str | None = None,
    ) -> Delivery:
        """Leaves a file with the daemon, which delivers it when it can. The daemon takes a copy before this returns. As
        `send_message` for the rest."""
        to = await self.address_of(peer)
        reply = await self.call(
            "outbox",
            op="send",
            to=str(to),
            kind="file",
            body={"path": os.path.abspath(path)},
            name=name,
            message_id=check_id(message_id) if message_id is not None else new_message_id(),
            ttl_ms=None if ttl is None else millis(ttl),
            until=until,
            wait_ms=millis(timeout) if until is not None else 0,
        )
        return _settled(build(Delivery, expect(reply, "item")), until)

    async def received_files(
        self, *, sender: Peer | None = None, since_ns: int | None = None, limit: int | None = None
    ) -> list[ReceivedFile]:
        """The files and folders that peers sent."""
        node = None if sender is None else await self.node_of(sender)
        reply = await self.call("received", op="list", **{"from": node}, since_ns=since_ns, limit=limit)
        return build_all(ReceivedFile, expect(reply, "files").get("files"))

    async def wait_file(
        self, *, sender: Peer | None = None, since_ns: int | None = None, timeout: float
    ) -> ReceivedFile | None:
        """Waits for the next file or folder that arrives after a time (now unless said); `None` when none came in time.
        The wait outlives a restart of the daemon."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        since = time.time_ns() if since_ns is None else since_ns
        node = None if sender is None else await self.node_of(sender)
        while True:
            left = max(0.0, end - loop.time())
            try:
                fields = {"op": "wait", "from": node, "since_ns": since, "timeout_ms": millis(left)}
                reply = expect(await self._daemon.call("received", fields), "file", "timed_out")
                return build(ReceivedFile, reply) if reply["is"] == "file" else None
            except NotRunningError:
                if left <= RECONNECT_PAUSE:
                    raise
                await asyncio.sleep(RECONNECT_PAUSE)

    async def remove_file(self, name: str) -> None:
        """Removes a file that arrived."""
        await self.call("received", op="remove", name=name)
