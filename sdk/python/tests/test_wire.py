"""The bytes of the local socket, against recordings of the reference."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pilot_agents import Address, Endpoint, ProtocolError
from pilot_agents import _wire as wire
from pilot_agents._event_wire import EventDecoder, event_frame, matches
from pilot_agents._requests import Done, Part, Parts, Progress, Restarted
from pilot_agents.errors import from_text

VECTORS = Path(__file__).parents[3] / "crates/wire/tests/vectors"


def vectors(name: str) -> Any:
    path = VECTORS / name
    if not path.exists():
        pytest.skip("the vectors are in the repository only")
    return json.loads(path.read_text())


def cut(data: bytes, step: int = 1 << 20) -> list[bytes]:
    decoder = wire.Decoder()
    frames = []
    for at in range(0, len(data), step):
        frames += [frame[start:end] for frame, start, end in decoder.feed(data[at : at + step])]
    return frames


def examples() -> list[tuple[str, bytes, bytes | None]]:
    found = []
    for command in vectors("ipc.json")["commands"]:
        for of_release in command.get("examples", {}).values():
            for example in of_release:
                request, reply = example.get("request_hex"), example.get("reply_hex")
                # Long ones are recorded in part.
                if request and "." not in request + (reply or ""):
                    found.append((command["name"], bytes.fromhex(request), bytes.fromhex(reply) if reply else None))
    return found


def test_recorded_requests_are_written_the_same() -> None:
    written = set()
    for name, recorded, _ in examples():
        (body,) = cut(recorded)
        payload = body[1:]
        if name == "Bind":
            request = wire.bind(struct.unpack(">H", payload)[0])
        elif name in ("Dial", "SendTo", "SendToConfirm"):
            network, node, port = struct.unpack_from(">HIH", payload)
            to = Endpoint(Address(network, node), port)
            if name == "Dial":
                request = wire.dial(to)
            elif name == "SendToConfirm":
                request = wire.send_to_confirm(to, payload[8:])
            else:
                assert wire.frame(wire.send_to(to, payload[8:])) == recorded
                written.add(name)
                continue
        elif name == "Send":
            (stream,) = struct.unpack_from(">I", payload)
            assert wire.data_head(stream, len(payload) - 4) + payload[4:] == recorded
            written.add(name)
            continue
        elif name in (
            "Info",
            "Health",
            "ResolveHostname",
            "SetHostname",
            "Handshake",
            "Network",
            "SetTags",
        ):  # the payload is the text itself
            request = wire.plain(body[0], payload)
        else:
            continue
        assert wire.frame(request.body) == recorded
        written.add(name)
    assert {"Bind", "Dial", "Send", "Info", "Handshake"} <= written


def test_recorded_replies_answer_their_requests() -> None:
    seen = 0
    for name, request, reply in examples():
        if reply is None or name in ("Send", "SendTo", "Cancel"):
            continue
        (asked,), (said, *_) = cut(request), cut(reply)
        if said[0] == wire.ERROR:
            error = from_text(said[3:].decode())
            assert error.code in {"other", *(code for _, code in _texts())}
        else:
            assert said[0] == asked[0] + 1, name
        seen += 1
    assert seen > 50


def _texts() -> tuple[tuple[str, str], ...]:
    from pilot_agents.errors import _TEXTS

    return _TEXTS


def test_recorded_texts_have_their_class() -> None:
    for text, code in (
        ("connection refused", "refused"),
        ("resolve node 99: registry: node 99: node not found", "not_found"),
        ("cannot look up peer 0:0000.0000.0063 (registry: …); refusing tunnel to untrusted node", "not_trusted"),
        ("port 7 already bound", "already_exists"),
        ("unbind: port is not owned by this client", "permission_denied"),
        ("sendto: marshal: payload too large: 66000 bytes (max 65535)", "invalid_argument"),
        ("rotate_key: registry: registry: request failed", "other"),
    ):
        assert from_text(text).code == code, text


def test_frames_come_out_whole_however_the_bytes_arrive() -> None:
    data = b"\0\0\0\x01\x0d" + b"\0\0\0\0" + b"\0\0\0\x03\x01\x03\xe8" + struct.pack(">I", 70_000) + b"\x07" * 70_000
    expected = [b"\x0d", b"\x01\x03\xe8", b"\x07" * 70_000]
    for step in (1, 2, 3, 5, 8, 100, 65_536):
        assert cut(data, step) == expected, step


def test_the_largest_frame_passes_and_one_byte_more_does_not() -> None:
    largest = struct.pack(">I", wire.MAX_FRAME) + b"\x06" * wire.MAX_FRAME
    assert [len(frame) for frame in cut(largest, 4096)] == [wire.MAX_FRAME]
    with pytest.raises(ProtocolError):
        cut(struct.pack(">I", wire.MAX_FRAME + 1))


def test_the_events_of_the_specification_are_read_and_written() -> None:
    frame = b"\x00\x04news\x00\x00\x00\x05hello"
    assert event_frame("news", b"hello") == frame
    for cut_at in range(len(frame)):
        decoder = EventDecoder()
        decoder.feed(frame[:cut_at])
        assert decoder.next() is None
        decoder.feed(frame[cut_at:])
        assert decoder.next() == ("news", b"hello")
        assert decoder.next() is None
    for wrong in (b"\x04\x01", b"\x00\x01t\x01\x00\x00\x01", b"\x00\x01\xff\x00\x00\x00\x00"):
        decoder = EventDecoder()
        decoder.feed(wrong)
        with pytest.raises(ProtocolError):
            decoder.next()


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", ["a", "a.b", "a/b", ""], []),
        ("#", ["a", "a.b", ""], []),
        ("news", ["news"], ["new", "news.a", "newss", ""]),
        ("tasks.*", ["tasks.a", "tasks.*", "tasks."], ["tasks", "tasks.a.b", "tasks/a", "xtasks.a"]),
        ("sensors/*", ["sensors/1"], ["sensors.1", "sensors/1/2"]),
        ("*.done", ["a.done", ".done"], ["a.b.done", "done", "a.doner"]),
        ("agent-*.results", ["agent-b.results", "agent-.results"], ["agent.results", "agent-b.c.results"]),
        ("a.*.c", ["a.b.c"], ["a.c", "a.b.b.c"]),
        ("a.b.>", ["a.b.c", "a.b.c.d", "a.b.c/d"], ["a.b", "a.bc", "a.b/c"]),
        ("a/b/#", ["a/b", "a/b/c", "a/b/c/d"], ["a/bc", "a", "a/b.c"]),
        ("*/x/>", ["q/x/y"], ["q/x", "x/y"]),
        ("", [""], ["a"]),
        ("a*b*c", ["abc", "aXbYbZc"], ["ab", "ac", "abcd"]),
        ("päth.*", ["päth.ö"], ["path.o"]),
    ],
)
def test_patterns_match_what_the_table_says(pattern: str, yes: list[str], no: list[str]) -> None:
    for topic in yes:
        assert matches(pattern, topic), topic
    for topic in no:
        assert not matches(pattern, topic), topic


def test_the_parts_and_the_rest_are_the_answer() -> None:
    parts = Parts()
    assert parts.on_piece(5, 1, "part", b"one ") == [Part(b"one ")]
    assert parts.on_piece(5, 1, "part", b"one ") == [], "a repetition"
    assert parts.on_piece(5, 3, "part", b"three ") == [], "after a gap"
    assert parts.on_piece(5, 4, "progress", b"90 %") == [Progress(b"90 %")]
    assert parts.on_answer(b"one two three") == [Part(b"two three")]
    again = Parts()
    again.on_piece(5, 1, "part", b"maybe")
    assert again.on_piece(6, 1, "part", b"yes") == [Restarted(), Part(b"yes")]
    assert again.on_answer(b"yes, it is") == [Part(b", it is")]
    other = Parts()
    other.on_piece(5, 1, "part", b"ab")
    assert other.on_answer(b"ax") == [Restarted(), Part(b"ax")]
    assert Done.__name__ == "Done"
