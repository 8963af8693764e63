"""One try to carry a parcel over a stream: what is written, and what is read at the same time.

INIT size, sha256, chunk, name  ->
                                <-  INIT-ACK offset     bytes already held from an earlier try
CHUNK offset, data              ->
                                <-  ACK offset          bytes written so far
DONE                            ->
                                <-  COMPLETE 0          hash checked, file in place
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass

from . import _courier as courier
from ._parcel import CHUNK, Parcel, Source
from .errors import PilotError, PilotTimeoutError, ProtocolError, RefusedError, UnsupportedError
from .stream import Stream

INIT, DATA, ACK, DONE, INIT_ACK, COMPLETE, ABORT = 1, 2, 3, 4, 5, 6, 7
WINDOW, WIDE_WINDOW = 16, 128
"""Chunks under way at a time: to a foreign receiver, and to one of our nodes."""
INIT_LIMIT = 5.0
"""Seconds a receiver may take to answer the announcement before it is taken for one that does not know this way."""
OUR_LIMIT = 60.0
"""Seconds one of our nodes may take: its disk may be slow."""
BATCH = 4 * CHUNK
"""Read from disk and written to the stream at a time. Files of a folder up to this length are sent without waiting."""
PIPELINE = 32
"""Files of a folder that are under way at a time."""
WHOLE_MAX = (16 << 20) - 4096
"""Largest file sent whole to a receiver that does not know resumable transfers."""


@dataclass(frozen=True)
class FileProgress:
    """How far a transfer is."""

    done: int
    """Bytes the receiver has written."""
    total: int
    """Bytes to be sent in all: the file, or all different files of the folder."""
    resumed: int
    """Bytes it had from an earlier try."""


@dataclass
class Sent:
    """What has been achieved over all tries."""

    tries: int = 0
    done: int = 0
    resumed: int = 0
    bytes_sent: int = 0
    is_restarted: bool = False


class UnknownWay(Exception):
    """The receiver does not know resumable transfers, or no folders."""


class Final(Exception):
    """The receiver does not want the file, or it cannot be read: another try is no use."""

    def __init__(self, error: PilotError) -> None:
        super().__init__(str(error))
        self.error = error


class Corrupt(Exception):
    """What the receiver has of a file is not what was sent."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(said)
        self.number = number
        self.said = said


_FOR_GOOD = (
    "unsafe file name",
    "the file has no name",
    "the receiver accepts up to",
    "in the folder",
    "in the manifest",
    "the folder has",
)


def refusal(said: str) -> PilotError:
    """The receiver's no: for good when it is about the file itself, for now when it is about room."""
    if said.startswith(("refused by policy: ", "unsupported frame type")) or any(words in said for words in _FOR_GOOD):
        return RefusedError(
            f"the receiver does not accept it: {said}",
            hint="nothing was delivered; trying again does not help",
        )
    return courier.refused(said)


def silent() -> PilotError:
    return PilotTimeoutError("the receiver does not answer the announcement of a file")


class Carriage:
    """One try."""

    def __init__(self, parcel: Parcel, sent: Sent, tell: Callable[[FileProgress], object]) -> None:
        self._parcel = parcel
        self._sent = sent
        self._tell = tell
        self._is_first = sent.tries == 0
        self._numbers = {source.id: number for number, source in enumerate(parcel.sources)}
        self._has = [0] * len(parcel.sources)
        self._is_folder = parcel.manifest is not None
        self._asks_window = not self._is_folder and parcel.size > WINDOW * CHUNK
        # What the receiver has told so far.
        self._is_ours: bool | None = None
        self._held: bytes | None = None
        self._granted: tuple[int, int] | None = None
        self._written = 0
        self._completed = 0
        self._news = asyncio.Condition()

    async def run(self, stream: Stream) -> None:
        """Carries the parcel until the receiver has stored it."""
        reading = asyncio.ensure_future(self._read(stream))
        writing = asyncio.ensure_future(self._write(stream))
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await writing
            await reading
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    # ---- writing

    async def _write(self, stream: Stream) -> None:
        parcel = self._parcel
        held = b""
        if parcel.manifest is not None:
            word = {"is": "transfer", "word": {"folder": {"name": parcel.name}}}
            await stream.send(courier.control(word, parcel.manifest))
            await self._until(lambda: self._held is not None, OUR_LIMIT)
            held = self._held or b""
        elif self._asks_window:
            await stream.send(courier.control({"is": "transfer", "word": "wide_window"}))
        begun = 0
        for number, source in enumerate(parcel.sources):
            if _has(held, number):
                continue
            await self._until(lambda begun=begun: self._completed + PIPELINE > begun)  # type: ignore[misc]
            begun += 1
            await stream.send(_init(source, parcel.name))
            if self._is_folder and source.size <= BATCH:
                await self._chunks(stream, source, 0, source.size)
            else:
                await self._large(stream, number, source)
            await stream.send(_step(DONE, source.id))
        if self._is_folder:
            await stream.send(courier.control({"is": "transfer", "word": "done"}))

    async def _large(self, stream: Stream, number: int, source: Source) -> None:
        offset, window = await self._wait_granted(number, source)
        while offset < source.size:
            least = offset - (window - 1) * CHUNK
            await self._until(lambda least=least: self._written >= least)  # type: ignore[misc]
            end = min(self._written + window * CHUNK, offset + BATCH, source.size)
            offset = await self._chunks(stream, source, offset, end)

    async def _chunks(self, stream: Stream, source: Source, offset: int, end: int) -> int:
        """Sends whole chunks (the last of the file may be short); gives where the next begins."""
        last = end if end == source.size else offset + (end - offset) // CHUNK * CHUNK
        try:
            data = await asyncio.to_thread(source.read, offset, last - offset)
        except PilotError as error:
            raise Final(error) from None
        for at in range(offset, last, CHUNK):
            piece = data[at - offset : min(at + CHUNK, last) - offset]
            stream.write(_step(DATA, source.id, struct.pack(">Q", at), piece))
        await stream.drain()
        self._sent.bytes_sent += last - offset
        return last

    async def _wait_granted(self, number: int, source: Source) -> tuple[int, int]:
        """Waits until the receiver says where to go on; also says how many chunks may be under way."""

        def is_granted() -> bool:
            return self._granted is not None and self._granted[0] == number

        try:
            await self._until(is_granted, INIT_LIMIT)
        except PilotTimeoutError:
            # A large file cannot be sent in any other way, and a receiver that once knew this way still does.
            is_ours = self._is_folder or self._is_ours is True
            if not is_ours and self._is_first and source.size <= WHOLE_MAX:
                raise UnknownWay from None
            await self._until(is_granted, OUR_LIMIT)
        assert self._granted is not None
        wide = self._is_folder or self._is_ours is True
        return self._granted[1], WIDE_WINDOW if wide else WINDOW

    async def _until(self, has_come: Callable[[], bool], limit: float | None = None) -> None:
        if has_come():
            return
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(has_come), limit)
            except PilotError:
                raise
            except asyncio.TimeoutError:
                raise silent() from None

    # ---- reading

    async def _read(self, stream: Stream) -> None:
        window_asked = self._asks_window
        while True:
            kind, payload = await courier.read_frame(stream)
            if kind == courier.FILESTREAM:
                over = self._on_step(payload)
            elif kind == courier.CONTROL:
                over = self._on_control(payload)
            else:
                answer = courier.parse_answer(kind, payload)
                if window_asked:
                    window_asked = False
                    self._is_ours = answer.stored and not answer.is_unsupported(courier.CONTROL)
                    over = False
                else:
                    over = self._on_answer(answer)
            async with self._news:
                self._news.notify_all()
            if over:
                return

    def _on_answer(self, answer: courier.Answer) -> bool:
        """What is not a step of the transfer; true when it is the end."""
        if answer.is_unsupported(courier.CONTROL if self._is_folder else courier.FILESTREAM):
            raise UnknownWay
        if answer.stored and self._is_folder:
            return True
        raise Final(refusal(answer.reason or answer.text))

    def _on_control(self, payload: bytes) -> bool:
        header, body = courier.parse_control(payload)
        if header.get("is") == "transfer" and header.get("word") == "held":
            for number, source in enumerate(self._parcel.sources):
                if _has(body, number):
                    self._begins(number, source.size)
            self._held = body
        return False

    def _on_step(self, payload: bytes) -> bool:
        if len(payload) < 17:
            raise Final(ProtocolError("the peer broke the protocol: a step of a file transfer is too short"))
        kind, rest = payload[0], payload[17:]
        number = self._numbers.get(payload[1:17])
        if number is None:
            # Words about another transfer are not about this one.
            return False
        size = self._parcel.sources[number].size
        if kind in (INIT_ACK, ACK) and len(rest) == 8:
            (offset,) = struct.unpack(">Q", rest)
            if offset > size:
                raise Final(ProtocolError("the peer broke the protocol: it has more of a file than there is"))
            self._on_offset(kind, number, offset)
            return False
        if kind == COMPLETE and rest[:1] == b"\0":
            self._tells(number, size)
            self._completed += 1
            return not self._is_folder
        said = rest[1 if kind == COMPLETE else 0 :].decode(errors="replace")
        if kind == COMPLETE and "sha256 mismatch" in said:
            raise Corrupt(number, said)
        if kind in (COMPLETE, ABORT):
            raise Final(refusal(said))
        raise Final(ProtocolError(f"the peer broke the protocol: step {kind} of a file transfer"))

    def _on_offset(self, kind: int, number: int, offset: int) -> None:
        if kind == INIT_ACK:
            self._begins(number, offset)
            self._granted, self._written = (number, offset), offset
        else:
            self._tells(number, offset)
            if self._granted is not None and self._granted[0] == number:
                self._written = max(self._written, offset)

    def _begins(self, number: int, offset: int) -> None:
        if self._is_first:
            self._sent.resumed += offset
        self._tells(number, offset)

    def _tells(self, number: int, offset: int) -> None:
        self._has[number] = max(self._has[number], offset)
        self._sent.done = max(self._sent.done, sum(self._has))
        self._tell(FileProgress(sum(self._has), self._parcel.size, self._sent.resumed))


def _has(held: bytes, number: int) -> bool:
    return number // 8 < len(held) and bool(held[number // 8] & (1 << number % 8))


def _step(kind: int, name: bytes, *parts: bytes) -> bytes:
    return courier.frame(courier.FILESTREAM, bytes([kind]), name, *parts)


def _init(source: Source, name: str) -> bytes:
    announced = name.encode()[:0xFFFF]
    head = struct.pack(">Q32sIH", source.size, source.sha256, CHUNK, len(announced))
    return _step(INIT, source.id, head, announced)


async def send_whole(parcel: Parcel, stream: Stream) -> None:
    """Sends a small file in one frame, to a receiver that knows nothing better."""
    if parcel.manifest is not None:
        raise UnsupportedError("the receiver runs a release that takes no folders", hint="send an archive of it")
    (source,) = parcel.sources
    if source.size > WHOLE_MAX:
        raise UnsupportedError(
            f"the receiver takes files of up to {WHOLE_MAX} bytes only; this one has {source.size}",
            hint="the receiver runs an old release; update it",
        )
    data = await asyncio.to_thread(source.read, 0, source.size)
    name = parcel.name.encode()
    await stream.send(courier.frame(courier.FILE, struct.pack(">H", len(name)), name, data))
    answer = courier.parse_answer(*await courier.read_frame(stream))
    if not answer.stored:
        raise courier.refused(answer.reason or answer.text)
