"""The client for programs without asyncio."""

from __future__ import annotations

import inspect
import threading

import pytest
from conftest import Machine

from pilot_agents import ClosedError, NotRunningError, PilotTimeoutError, sync
from pilot_agents import Pilot as AsyncPilot


def test_every_call_is_there_without_asyncio() -> None:
    missing = {
        name
        for name, _ in inspect.getmembers(AsyncPilot, callable)
        if not name.startswith("_") and not hasattr(sync.Pilot, name)
    }
    assert missing == {"endpoint_of", "node_of"}, "helpers of the asyncio client only"


def test_streams_messages_requests_and_events_without_asyncio(alice: Machine, bob: Machine) -> None:
    with sync.Pilot(alice.socket) as a, sync.Pilot(bob.socket) as b:
        assert a.address == alice.address
        assert a.info().hostname == a.hostname == "alice"
        with b.listen(4000) as listener, a.dial("bob", 4000) as dialled:
            with listener.accept(timeout=10) as accepted:
                dialled.write(b"one\ntwo\n")
                dialled.write_eof()
                assert list(accepted) == [b"one\n", b"two\n"]
                with pytest.raises(PilotTimeoutError):
                    dialled.read(1, timeout=0.01)
                accepted.write(b"three")
            assert dialled.read() == b"three"
        inbox = b.inbox()
        assert a.send_message("bob", {"n": 1}, until="stored").reached("stored")
        message = inbox.next(10)
        assert message is not None
        assert message.json() == {"n": 1}
        with b.serve(sender="alice") as server:
            answers: list[str] = []
            asking = threading.Thread(target=lambda: answers.append(a.request("bob", "sync?").text))
            asking.start()
            with server.next(timeout=10) as work:
                work.answer(work.text.upper())
            asking.join()
            assert answers == ["SYNC?"]
            serving = threading.Thread(target=lambda: _ended(lambda: server.run(lambda request: f"<{request.text}>")))
            serving.start()
            assert a.request("bob", "again").text == "<again>"
        serving.join()
        with b.subscribe("sync.*") as events:
            a.publish("sync.topic", "heard")
            assert events.next(10).text == "heard"
            with pytest.raises(PilotTimeoutError):
                events.next(0.01)
    with pytest.raises(ClosedError):
        a.info()


def _ended(work: object) -> None:
    assert callable(work)
    with pytest.raises(ClosedError):
        work()


def test_a_client_that_cannot_connect_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(NotRunningError) as missing, sync.Pilot("/tmp/no/such.sock"):
        pass
    assert missing.value.hint == "start it with `pilotctl daemon start`"
    assert threading.active_count() == before
